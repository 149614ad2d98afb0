"""Ends a test that does not end: four lines of defence, each for what gets past the one before.

1. A coroutine test is cancelled by its own loop when its time limit is over (conftest.py). A signal would not do: what
   its handler raises inside a callback of the loop goes to the loop's exception handler, and the test goes on.
2. pytest-timeout raises in the main thread, at the same limit: for tests that are no coroutines, or block their loop.
3. After a failure, what the test has left in its loop is ended (`abandon`), because a loop that is closed waits: for
   tasks that do not heed their cancellation, and on uvloop for handles that are still active.
4. `Watchdog` ends the process, with the stacks of all threads, `grace` seconds after the limit of a test (as code in C
   may need it), or after the end of a test whose loop is not closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import socket
import threading
import traceback
from collections.abc import Iterator

import pytest


def limit_of(item: pytest.Item) -> float:
    """The time limit of a test in seconds, from its marker, the command line or pyproject.toml; 0 for none."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    return float(item.config.getoption("timeout") or item.config.getini("timeout") or 0)


class Watchdog:
    """The timer of faulthandler, a thread in C: it needs neither the loop nor the GIL."""

    def __init__(self, grace: float) -> None:
        # A copy, made while pytest does not capture.
        self._stderr = os.dup(2)
        self._grace = grace
        self._limit = 0.0

    def begin(self, limit: float) -> None:
        """A test begins that ends within `limit` seconds, or has none (0)."""
        self._limit = limit
        if limit:
            self._arm(limit + self._grace)

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def closing(self, error: BaseException | None) -> Iterator[None]:
        """A block that closes the loop of a test that raised `error`: nobody else tells of it if the process ends."""
        tell = threading.Timer(self._grace / 2, self._tell, [error])
        tell.daemon = True
        tell.start()
        self._arm(self._grace)
        try:
            yield
        finally:
            tell.cancel()
            tell.join()
            self.end()
            self.begin(self._limit)

    def _arm(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)

    def _tell(self, error: BaseException | None) -> None:
        text = "\nThe loop of a test is not closed, so this process ends.\n"
        if error is not None:
            text += "".join(traceback.format_exception(error))
        os.write(self._stderr, text.encode())


def open_sockets() -> set[socket.socket]:
    """The sockets that were made since the last `gc.freeze()` and are open."""
    return {thing for thing in gc.get_objects() if issubclass(type(thing), socket.socket) and thing.fileno() >= 0}


async def abandon(sockets: set[socket.socket]) -> None:
    """End what a failed test has left: servers, transports, tasks and all sockets but these.

    Sockets, because the traceback of the failure keeps them alive: a later test would be told of those not closed.
    """
    loop = asyncio.get_running_loop()
    for thing in gc.get_objects():
        # Those of other loops are those of other threads.
        if str(type(thing).__module__).startswith(("asyncio.", "uvloop.")) and getattr(thing, "_loop", loop) is loop:
            with contextlib.suppress(Exception):
                if hasattr(thing, "start_serving"):  # a server, of which only asyncio's is an AbstractServer
                    thing.close()
                elif hasattr(thing, "get_write_buffer_size"):  # a transport
                    thing.abort()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1)
    for _ in range(3):
        await asyncio.sleep(0)
    for left in open_sockets() - sockets:
        left.close()
