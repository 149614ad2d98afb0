"""One timer for the time limits of many calls: of one HTTP client, or of all TCP clients of a loop.

A timer for each call costs a tenth of a small HTTP request (aiohttp's `total`, asyncio.timeout; docs/decisions/0007).
Calls rarely reach their limit. So each one only stores when it must be over, and one timer watches the earliest
(timers.py). The block with a limit itself is `_core/limit.pyx`.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from time import monotonic

from pepperpy.network._core.limit import Limit
from pepperpy.network.last_turns import LAST_TURNS
from pepperpy.network.timers import Timer

# A WeakKeyDictionary would run Python code of its own for each connection.
_of_loops: dict[weakref.ref[asyncio.AbstractEventLoop], Watchdog] = {}


def watchdog_of(loop: asyncio.AbstractEventLoop) -> Watchdog:
    """The watchdog that all TCP clients of a loop share. So a call that has ended leaves no timer behind."""
    watchdog = _of_loops.get(weakref.ref(loop))
    if watchdog is None:
        # If a loop was closed while tasks were in such blocks, its watchdog keeps these tasks alive, and they the loop.
        for reference in list(_of_loops):
            if (other := reference()) is not None and other.is_closed():
                _of_loops.pop(reference, None)
        watchdog = _of_loops[weakref.ref(loop, _forget)] = Watchdog(loop)
    return watchdog


def _forget(loop: weakref.ref[asyncio.AbstractEventLoop]) -> None:
    _of_loops.pop(loop, None)


class Watchdog:
    """Makes limits of calls in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak: the watchdog of a loop must not keep it alive.
        self._loop_of = weakref.ref(loop)
        self._watched: set[Limit] = set()
        self._timer = Timer(loop, self._look)

    def limit(
        self,
        seconds: float,
        error: Callable[[], TimeoutError] = TimeoutError,
        on_expire: Callable[[asyncio.Task[object]], object] | None = None,
    ) -> Limit:
        """A block that may last `seconds`, and raises `error()` after that: `with watchdog.limit(1.5):`.

        Args: on_expire: Called with the task when the time is over, while the task still waits.
        """
        return Limit(self._watched, self._timer, monotonic() + seconds, error, on_expire)

    def close(self) -> None:
        """End all running blocks as if their time were over."""
        watched = list(self._watched)
        self._watched.clear()
        for limit in watched:
            limit.expire()
        self._timer.end()

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop_of()
        assert loop is not None, "it runs"
        return loop

    def _look(self, now: float) -> float:
        earliest = self._earliest()
        if earliest <= now:
            self._judge(now, LAST_TURNS)
            return math.inf
        return earliest

    def _judge(self, now: float, turns: int) -> None:
        # End what was due at `now`, after so many turns of the loop: see last_turns.py.
        due = [limit for limit in self._watched if limit.ends_at <= now]
        if due and turns:
            self._loop().call_soon(self._judge, now, turns - 1)
            return
        # The loop may have been blocked for longer than they are apart.
        for limit in sorted(due, key=lambda limit: limit.ends_at):
            self._watched.discard(limit)
            limit.expire()
        self._timer.look_by(self._earliest())

    def _earliest(self) -> float:
        return min([limit.ends_at for limit in self._watched], default=math.inf)


def time_limit(seconds: float | None) -> Limit:
    """A block that may last `seconds` (None: for ever), and raises `TimeoutError` after that: `with time_limit(1.5):`.

    As `asyncio.timeout()`, but what has arrived in time counts, however long the loop was blocked (see last_turns.py).
    """
    return watchdog_of(asyncio.get_running_loop()).limit(math.inf if seconds is None else seconds)
