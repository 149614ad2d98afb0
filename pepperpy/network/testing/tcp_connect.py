"""The place where tests replace connecting: every `NetworkClient`, whoever made it, asks here first."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import check_int
from pepperpy.network.config import NetworkConfig
from pepperpy.network.lookup import AddressInfo
from pepperpy.network.tcp import attempt
from pepperpy.network.tcp.connect import Tried

if TYPE_CHECKING:
    from pepperpy.network.events import Observer

Opener: TypeAlias = Callable[[NetworkConfig], Awaitable[StreamProtocol] | None]
"""Opens one connection in place of the network, or returns None for a configuration that is not its own."""

# Openers whose blocks have begun and not ended; the last one is asked first. Blocks of different tasks may end in any
# order.
_active: list[Opener] = []
_open_for_real = attempt.open_connection


async def _open(
    config: NetworkConfig,
    tried: Tried,
    addresses: list[AddressInfo] | None = None,
    observer: Observer | None = None,
    *,
    forwards: bool = False,
) -> StreamProtocol:
    for opener in reversed(_active):
        if (opening := opener(config)) is not None:
            return await opening
    return await _open_for_real(config, tried, addresses, observer, forwards=forwards)


@contextlib.contextmanager
def opening_by(opener: Opener) -> Iterator[None]:
    """A block in which every attempt to connect in the whole process asks `opener` first."""
    _active.append(opener)
    attempt.open_connection = _open
    try:
        yield
    finally:
        _active.remove(opener)
        if not _active:
            attempt.open_connection = _open_for_real


@contextlib.contextmanager
def connect_failures(
    count: int, error: OSError | None = None, *, host: str | None = None, port: int | None = None
) -> Iterator[None]:
    """A block whose next `count` attempts to connect fail, to test retries: `with connect_failures(2):`.

    It replaces the attempt only, which fails at once. Retries, their waits and errors are those of production;
    `no_retry_waits()` removes the waits. It holds for all `NetworkClient`s of the process.

    Args:
        count: How many attempts fail; 1 or more. Later ones are real.
        error: The error of each attempt, as the system would raise it; default: the connection is refused. It decides
            whether the client tries again: after `socket.gaierror(socket.EAI_NONAME, "unknown name")` a client that
            reconnects does, and the first `connect()` does not.
        host: Only attempts to this `NetworkConfig.host` count; default: to any.
        port: Only attempts to this port count; default: to any.

    Raises:
        AssertionError: At the end of the block, if fewer attempts came.
    """
    check_int("count", count, 1)
    if error is not None and not isinstance(error, OSError):
        raise TypeError(f"error must be an OSError, not {error!r}")
    failure = error or ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    left = count

    async def fail() -> StreamProtocol:
        # A new one each time: an exception collects the tracebacks of all its raises.
        raise copy.copy(failure)

    def opener(config: NetworkConfig) -> Awaitable[StreamProtocol] | None:
        nonlocal left
        if not left or host not in (None, config.host) or port not in (None, config.port):
            return None
        left -= 1
        return fail()

    with opening_by(opener):
        yield
    if left:
        raise AssertionError(f"connect_failures: {count} attempts to connect were to fail, only {count - left} came")
