"""Whose turn it is: at most so many requests at once, the others wait in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pepperpy.network._core.handover import Handover
from pepperpy.network.errors import NetworkError

# Makes the error that a request gets because of what became of another one, or of the connection.
Refusal = Callable[[], NetworkError]


class Turns:
    """At most `limit` turns are taken at once; further callers wait, first come, first served."""

    __slots__ = ("_refusal", "_waiting", "free")

    def __init__(self, limit: int) -> None:
        self.free: int = limit
        # Each gets True with its turn, or False: there are no more turns.
        self._waiting: deque[Handover] = deque()
        self._refusal: Refusal | None = None

    def take_at_once(self) -> bool:
        """Take a turn, if one is free. If not, `wait()` for one."""
        if self.free and self._refusal is None:
            self.free -= 1
            return True
        return False

    async def wait(self) -> None:
        """Wait for a turn, where none is free. A call that raises has none: it was cancelled or refused."""
        if self._refusal is not None:
            raise self._refusal()
        turn = Handover(asyncio.get_running_loop())
        self._waiting.append(turn)
        try:
            await turn
            if self._refusal is not None:
                raise self._refusal()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.outcome:
                # The cancellation came in the tick in which the turn came.
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn, and give it to the next caller."""
        self.free += 1
        if self._waiting:
            self._serve()

    def refuse(self, refusal: Refusal) -> None:
        """Give no more turns; callers that wait get the error at once."""
        self._refusal = refusal
        self._serve()

    def _serve(self) -> None:
        try:
            self._serve_all()
        except MemoryError:
            # Tried once more, because nobody else may call this again. Whoever was served has left.
            self._serve_all()

    def _serve_all(self) -> None:
        while self._waiting and (self.free or self._refusal is not None):
            turn = self._waiting[0]
            if not turn.is_over:
                turn.give(self._refusal is None)
                if self._refusal is None:
                    self.free -= 1
            self._waiting.popleft()
