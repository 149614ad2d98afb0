"""The event loop for aiofastnet: one that keeps a reader until `remove_reader()`, and reports no peer's fault."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from typing import Any


def steady(loop: asyncio.AbstractEventLoop) -> QuietLoop:
    """A stand-in for `loop`. Each connection needs its own."""
    return QuietLoop(loop) if isinstance(loop, asyncio.BaseEventLoop) else _SteadyLoop(loop)


class QuietLoop:
    """A loop whose exception handler does not get what peers do: `connection_lost()` says that as well.

    aiofastnet reports each handshake of a server that fails, and each of a client whose peer hangs up, up to 1.2.0 at
    least: an entry in the log for each port scan, and for each attempt to connect to a server that is going down.
    """

    __slots__ = ("_loop", "call_later", "call_soon", "create_future", "get_debug")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        # Each connection uses these several times. `__getattr__` would come after a search that fails.
        self.call_later, self.call_soon = loop.call_later, loop.call_soon
        self.create_future, self.get_debug = loop.create_future, loop.get_debug

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # aiofastnet gives an error or its class; ssl.SSLError is an OSError, too.
        error = context.get("exception")
        if not issubclass(error if isinstance(error, type) else type(error), OSError):
            self._loop.call_exception_handler(context)


class _SteadyLoop(QuietLoop):
    """uvloop, with a reader of one descriptor that stays registered until `remove_reader()`, as asyncio's does.

    A reset makes epoll report EPOLLERR, even while bytes that came before it are unread. libuv then stops polling the
    descriptor (`uv__poll_io()`, libuv#3796). uvloop calls the reader once more and silently drops it
    (`UVPoll._fatal_error`, its side of uvloop#552). aiofastnet's reader takes the unread bytes in that call, and waits
    for the next call to get the error: for ever. Neither project has an issue about exactly this. zuvloop, another loop
    over libuv, had the same fault, and registers the reader again too (zuvloop#45).

    A writer needs no such care: after a reset each write fails, so none waits for room.
    """

    __slots__ = ("__weakref__", "_reader")

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._reader: weakref.ref[Callable[[], object]] | None = None

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        # Set it first: uvloop drops the reader that this one replaces.
        self._reader = None
        # Only uvloop holds this object, so its end says that the reader was dropped. This costs nothing for each event.
        reader = functools.partial(callback)
        self._loop.add_reader(fd, reader)
        self._reader = weakref.ref(reader, functools.partial(self._dropped, fd, callback))

    def remove_reader(self, fd: int) -> bool:
        self._reader = None
        removed: bool = self._loop.remove_reader(fd)
        return removed

    def _dropped(self, fd: int, callback: Callable[[], object], reader: object) -> None:
        # Later, because uvloop is about to close its handle. A closed loop has dropped all readers.
        if reader is self._reader and not self._loop.is_closed():
            self._loop.call_soon(self._add_again, fd, callback, reader)

    def _add_again(self, fd: int, callback: Callable[[], object], reader: object) -> None:
        if reader is self._reader:
            # uvloop still has the closed handle, and refuses readers until it is removed.
            self.remove_reader(fd)
            self.add_reader(fd, callback)
