"""The wire log: what goes over connections, one line for each piece, to find out what a peer says. For debugging."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from pepperpy.network.checks import shown
from pepperpy.network.printable import printable_bytes

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol

    Logger: TypeAlias = logging.Logger | logging.LoggerAdapter[Any]
else:
    Logger = logging.Logger | logging.LoggerAdapter

# Characters of one line; the rest is left out. Arbitrary: a screen's few lines, and most messages of text protocols.
MAX_LINE = 500

_numbers = itertools.count(1)


def check_wire_log(value: object) -> None:
    """Accept a value for the setting `wire_log`."""
    if value is not None and not isinstance(value, (logging.Logger, logging.LoggerAdapter)):
        raise TypeError(f"wire_log must be a logging.Logger, a LoggerAdapter or None, not {shown(value)}")


def next_number() -> int:
    """What tells the lines of one connection, or of one exchange, from those of others."""
    return next(_numbers)


def write(log: Logger, *words: object) -> None:
    """Write one line at DEBUG. What a handler or filter of the log raises is not the connection's failure."""
    try:
        log.debug("#%d %s", *words)
    except Exception:
        _note_failure()


def _note_failure() -> None:
    logging.getLogger("pepperpy.network.wire").warning("the wire log has raised", exc_info=True)


def tap(protocol: StreamProtocol, log: Logger) -> None:
    """Write the bytes of a connection to `log`, as they are received or accepted for sending."""
    number = next_number()
    where = protocol.config.address

    def show(direction: str, data: bytes, size: int) -> None:
        try:
            if log.isEnabledFor(logging.DEBUG):
                text = printable_bytes(data, MAX_LINE)
                log.debug("#%d %s", number, f"{where} {direction} {size} bytes: {text}")
        except Exception:
            _note_failure()

    protocol.endpoint.tap = show
