"""Whose turn it is: at most so many requests at once, the others wait in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from pepperpy.network.errors import NetworkError

# Makes the error that a request gets because of what became of another one, or of the connection.
Refusal = Callable[[], NetworkError]


class Turns:
    """At most `limit` turns are taken at once; further callers wait, first come, first served."""

    __slots__ = ("_refusal", "_waiting", "free")

    def __init__(self, limit: int) -> None:
        self.free: int = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refusal: Refusal | None = None

    async def take(self) -> None:
        """Wait for a turn. A call that raises has none: it was cancelled or refused."""
        if self._refusal is not None:
            raise self._refusal()
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
            if self._refusal is not None:
                raise self._refusal()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                # The cancellation came in the tick in which the turn came.
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn, and give it to the next caller."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def refuse(self, refusal: Refusal) -> None:
        """Give no more turns; callers that wait get the error at once."""
        self._refusal = refusal
        for turn in self._waiting:
            fail(turn, refusal())
        self._waiting.clear()


def fail(future: asyncio.Future[Any], error: NetworkError) -> None:
    """End the wait for a future with `error`, which the loop does not report if the waiting task was cancelled."""
    if not future.done():
        future.set_exception(error)
        future.exception()
