"""The event loop that aiofastnet gets: one that keeps a reader until it is removed."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from typing import Any


def steady(loop: asyncio.AbstractEventLoop) -> Any:
    """`loop`, or what stands in for it where it may drop a reader by itself. One for each connection."""
    return loop if isinstance(loop, asyncio.BaseEventLoop) else _SteadyLoop(loop)


class _SteadyLoop:
    """uvloop, but its reader of one descriptor stays registered until `remove_reader()`, as asyncio's does.

    A reset makes epoll report EPOLLERR, even while bytes that came before it are unread. libuv then stops polling the
    descriptor (`uv__poll_io()`, libuv#3796); uvloop calls the reader once more and drops it without a word
    (`UVPoll._fatal_error`, its side of uvloop#552). aiofastnet's reader takes the unread bytes in that call, waits for
    the next one, which would bring the error, and would wait for ever. Neither project has an issue of exactly that;
    zuvloop, another loop over libuv, had the same one and registers again, too (zuvloop#45).

    A writer needs no such care: once a reset has come, each write fails, so none waits for room.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader: weakref.ref[Callable[[], object]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        # Before uvloop drops the reader that this one replaces.
        self._reader = None
        # Only uvloop holds this object, so its end is the sign that the reader was dropped. It costs no event anything.
        reader = functools.partial(callback)
        self._loop.add_reader(fd, reader)
        self._reader = weakref.ref(reader, functools.partial(self._dropped, fd, callback))

    def remove_reader(self, fd: int) -> bool:
        self._reader = None
        return self._loop.remove_reader(fd)

    def _dropped(self, fd: int, callback: Callable[[], object], reader: object) -> None:
        # Not at once: uvloop is about to close its handle. A loop that is closed has dropped them all.
        if reader is self._reader and not self._loop.is_closed():
            self._loop.call_soon(self._add_again, fd, callback, reader)

    def _add_again(self, fd: int, callback: Callable[[], object], reader: object) -> None:
        if reader is self._reader:
            # uvloop still has the closed handle, and refuses readers until it is removed.
            self.remove_reader(fd)
            self.add_reader(fd, callback)
