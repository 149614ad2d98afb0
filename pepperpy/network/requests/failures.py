"""How requests fail: when their time is up, and what a failed one does to the connection and to the others."""

from __future__ import annotations

import functools
import logging
import math
import time
from typing import TYPE_CHECKING

from pepperpy.network._core.limit import Limit
from pepperpy.network.checks import Timeout
from pepperpy.network.errors import (
    ClosedError,
    ConnectionLostError,
    DecodeError,
    EndOfStreamError,
    IncompleteReadError,
    MessageTooLargeError,
    NetworkError,
    NetworkTimeoutError,
    ProtocolError,
)
from pepperpy.network.link import Link
from pepperpy.network.requests.turns import Refusal
from pepperpy.network.watchdog import Watchdog

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol

logger = logging.getLogger("pepperpy.network.tcp")


def is_peers_doing(reason: BaseException) -> bool:
    """Whether the peer or the network caused it; otherwise this side closed the connection."""
    return isinstance(
        reason,
        (
            *(ConnectionLostError, DecodeError, EndOfStreamError, IncompleteReadError, MessageTooLargeError),
            ProtocolError,
        ),
    )


def refusal(link: Link, what: str, reason: BaseException) -> Refusal:
    """Makes the errors of the requests that cannot be served because of `reason`."""
    kind = ConnectionLostError if is_peers_doing(reason) else ClosedError
    return link.error_maker(kind, f"{what}: {_described(reason)}", "request", reason)


def drop_connection(link: Link, protocol: StreamProtocol, reason: BaseException) -> None:
    """Abort the connection. One that has ended stays as it is, and one that is closing goes on closing in order."""
    if protocol.state == "open":
        what = "connection dropped after a failed request"
        try:
            logger.info("%s: %s: %s", link.config.address, what, _described(reason))
            protocol.drop(refusal(link, what, reason)())
        except Exception as error:
            # No memory for a better reason, or whatever a handler of the log raises. On an open connection, the next
            # request would get the late reply.
            protocol.drop(error)


def _described(reason: BaseException) -> str:
    # Of foreign errors only the type: their text may hold what no log may show.
    return str(reason) if isinstance(reason, NetworkError) else type(reason).__name__


def request_limit(watchdog: Watchdog, link: Link, timeout: Timeout) -> Limit:
    """A block that may last as long as one request, and then raises NetworkTimeoutError."""
    seconds = link.seconds(timeout)
    error = functools.partial(_timeout_error, link, time.monotonic())
    return watchdog.limit(math.inf if seconds is None else seconds, error)


def _timeout_error(link: Link, started: float) -> NetworkTimeoutError:
    elapsed = round(time.monotonic() - started, 3)
    return link.error(NetworkTimeoutError, f"request timed out after {elapsed} s", "request", elapsed=elapsed)
