"""`Queue`: the tasks that wait for a connection of a pool, first come, first served."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from pepperpy.network.pool.connection import PooledConnection

# What a waiting task awaits: its connection, or the error that it raises.
Turn = asyncio.Future[PooledConnection | BaseException]


class Queue:
    """Tasks join at the end, and leave when they have their connection, are cancelled or run out of time.

    Times are on the loop's clock.
    """

    def __init__(self) -> None:
        # Since when, and until when, each one waits. A plain dict is slow at its front.
        self._waiting: OrderedDict[Turn, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, turn: Turn, since: float, until: float) -> None:
        """Wait at the end of the queue."""
        self._waiting[turn] = (since, until)

    def leave(self, turn: Turn) -> None:
        """Wait no more. Does nothing if it has left already."""
        self._waiting.pop(turn, None)

    def pop_first(self) -> tuple[Turn, float] | None:
        """The one that has waited longest, and since when; it leaves the queue."""
        while self._waiting:
            turn, (since, _) = self._waiting.popitem(last=False)
            # A task that was cancelled in this tick is still in the queue.
            if not turn.done():
                return turn, since
        return None

    def overdue(self, now: float) -> list[tuple[Turn, float]]:
        """Those whose time is up, and since when they wait. They stay in the queue."""
        return [(turn, since) for turn, (since, until) in self._waiting.items() if until <= now and not turn.done()]

    def next_due(self, now: float) -> float:
        """When the next one after `now` runs out of time; `inf` for never."""
        return min((until for _, until in self._waiting.values() if until > now), default=math.inf)
