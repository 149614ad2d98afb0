"""`Queue`: the tasks that wait for a connection of a pool, first come, first served."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from pepperpy.network._core.lending import PooledConnection

# What a waiting task awaits: its connection, or the error that it raises.
Turn = asyncio.Future[PooledConnection | BaseException]


class Queue(OrderedDict[Turn, tuple[float, float]]):
    """Tasks join at the end, and leave when they have their connection, are cancelled or run out of time.

    It has since when, and until when, each one waits, on the loop's clock. A plain dict is slow at its front.
    """

    def join(self, turn: Turn, since: float, until: float) -> None:
        """Wait at the end of the queue."""
        self[turn] = (since, until)

    def leave(self, turn: Turn) -> None:
        """Wait no more. Does nothing if it has left already."""
        self.pop(turn, None)

    def pop_first(self) -> tuple[Turn, float] | None:
        """The one that has waited longest, and since when; it leaves the queue."""
        while self:
            turn, (since, _) = self.popitem(last=False)
            # A task that was cancelled in this tick is still in the queue.
            if not turn.done():
                return turn, since
        return None

    def overdue(self, now: float) -> list[tuple[Turn, float]]:
        """Those whose time is up, and since when they wait. They stay in the queue."""
        return [(turn, since) for turn, (since, until) in self.items() if until <= now and not turn.done()]

    def next_due(self, now: float) -> float:
        """When the next one after `now` runs out of time; `inf` for never."""
        return min((until for _, until in self.values() if until > now), default=math.inf)
