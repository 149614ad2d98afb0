"""What blocks is done in a thread, and the one rule about it: who is cancelled leaves when the thread has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_thread(function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
    """Begin `function(*arguments)` in a thread of the loop's default executor."""
    return asyncio.get_running_loop().run_in_executor(None, function, *arguments)


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
