"""What blocks is done in a thread, and the one rule about it: who is cancelled leaves when the thread has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pepperpy.network.daemon_threads import DaemonThreads

# Reads at the same time that may last for ever, in the whole process; further ones wait. Arbitrary.
MAX_ENDLESS = 64

_endless = DaemonThreads("pepperpy.network read", MAX_ENDLESS)

Result = TypeVar("Result")


def in_thread(function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
    """Begin `function(*arguments)` in a thread of the loop's default executor, whose end the end of the loop awaits.

    For files on a disk. Nothing else of this package uses that executor, which has few threads.
    """
    return asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def in_endless_thread(function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
    """The same for what may never return, such as a read from a pipe: neither files nor the program's end wait for it.

    Raises:
        BlockingIOError: The system has no thread to give.
    """
    return asyncio.get_running_loop().run_in_executor(_endless, function, *arguments)


async def done(future: asyncio.Future[Result]) -> Result:
    """Its result; not even a cancellation returns before the thread does."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # or asyncio reports that nobody asked for it
        raise cancelled
    return future.result()
