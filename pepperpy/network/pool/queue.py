"""`Queue`: the tasks that wait for a connection of a pool, first come, first served."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from pepperpy.network._core.handover import Handover
from pepperpy.network._core.lending import PooledConnection


class Turn(Handover):
    """What a waiting task awaits: its connection, or the error that it raises.

    Attributes:
        since, until: When its wait began and when it runs out of time, on the clock of `time.monotonic()`.
        is_reused: Whether somebody has had the connection before.
    """

    __slots__ = ("is_reused", "since", "until")

    outcome: PooledConnection | BaseException | None

    def __init__(self, loop: asyncio.AbstractEventLoop, since: float, until: float) -> None:
        super().__init__(loop)
        self.since: float = since
        self.until: float = until
        self.is_reused: bool = False


class Queue(OrderedDict[Turn, None]):
    """Tasks join at the end, and leave when they have their connection, are cancelled or run out of time.

    A plain dict is slow at its front.
    """

    def join(self, turn: Turn, in_front: bool = False) -> None:
        """Wait at the end of the queue, or in front of all others."""
        self[turn] = None
        if in_front:
            self.move_to_end(turn, last=False)

    def leave(self, turn: Turn) -> None:
        """Wait no more. Does nothing if it has left already."""
        self.pop(turn, None)

    def first(self) -> Turn | None:
        """The one that has waited longest. It stays in the queue until it has what it waits for."""
        while self:
            turn = next(iter(self))
            if not turn.is_over:
                return turn
            # A task that was cancelled in this tick is still in the queue.
            self.leave(turn)
        return None

    def give(self, turn: Turn, outcome: PooledConnection | BaseException) -> None:
        """Give a task what it waits for; it leaves the queue. If this raises, it waits as before."""
        turn.give(outcome)
        self.leave(turn)

    def overdue(self, now: float) -> list[Turn]:
        """Those whose time is up. They stay in the queue."""
        return [turn for turn in self if turn.until <= now and not turn.is_over]

    def next_due(self) -> float:
        """When the next one runs out of time; `inf` for never."""
        return min([turn.until for turn in self], default=math.inf)
