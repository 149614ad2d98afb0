"""Runs what blocks in a thread. A task that is cancelled meanwhile goes on only when the thread has ended."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  A loop loads it at its first thread, when no descriptor may be left.
from collections.abc import Callable
from typing import Any, TypeVar

from pepperpy.network.daemon_threads import DaemonThreads

# How many reads that may last for ever run at the same time, in the whole process; further ones wait. Arbitrary.
MAX_ENDLESS = 64

_endless = DaemonThreads("pepperpy.network read", MAX_ENDLESS)

Result = TypeVar("Result")


def in_thread(function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
    """Begin `function(*arguments)` in a thread of the loop's default executor. The end of the loop waits for it.

    For files on a disk. Nothing else in this package uses that executor, which has few threads.
    """
    return asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def in_endless_thread(function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
    """The same for a function that may never return, such as a read from a pipe. Neither files nor the program's end
    wait for it.

    Raises:
        BlockingIOError: The system cannot start a thread.
    """
    return asyncio.get_running_loop().run_in_executor(_endless, function, *arguments)


async def done(future: asyncio.Future[Result]) -> Result:
    """The result of a thread. Even a cancelled call returns only when the thread has ended."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # otherwise asyncio reports an exception that nobody retrieved
        raise cancelled
    return future.result()
