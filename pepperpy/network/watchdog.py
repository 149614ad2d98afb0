"""One timer for the time limits of many calls: of one HTTP client, or of all TCP clients of a loop.

A timer for each call costs a tenth of a small HTTP request (aiohttp's `total`, asyncio.timeout; docs/decisions/0007).
Calls rarely reach their limit. So each one only stores when it must be over, and one timer watches the earliest
(timers.py).
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable
from types import TracebackType

from pepperpy.network.last_turns import LAST_TURNS
from pepperpy.network.timers import Timer

_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watchdog] = weakref.WeakKeyDictionary()


def watchdog_of(loop: asyncio.AbstractEventLoop) -> Watchdog:
    """The watchdog that all TCP clients of a loop share. So a call that has ended leaves no timer behind."""
    watchdog = _of_loops.get(loop)
    if watchdog is None:
        # A loop that was closed with tasks in such blocks is kept alive by them, and they are by its watchdog.
        for reference in _of_loops.keyrefs():
            if (other := reference()) is not None and other.is_closed():
                _of_loops.pop(other, None)
        watchdog = _of_loops[loop] = Watchdog(loop)
    return watchdog


class Watchdog:
    """Makes limits of calls in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak: the watchdog of a loop must not keep it alive.
        self._loop_of = weakref.ref(loop)
        self._watched: set[Limit] = set()
        self._timer = Timer(loop, self._look)

    def limit(self, seconds: float, error: Callable[[], TimeoutError] = TimeoutError) -> Limit:
        """A block that may last `seconds`, and raises `error()` after that: `with watchdog.limit(1.5):`."""
        return Limit(self, self._loop().time() + seconds, error)

    def close(self) -> None:
        """End all running blocks as if their time were over."""
        for limit in self._watched:
            limit.expire()
        self._watched = set()
        self._timer.end()

    def watch(self, limit: Limit) -> None:
        self._watched.add(limit)
        if limit.ends_at < self._timer.at:  # saves a call of 30 ns
            self._timer.look_by(limit.ends_at)

    def forget(self, limit: Limit) -> None:
        # The timer stays: not moving it is what makes a limit cheap.
        self._watched.discard(limit)

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop_of()
        assert loop is not None, "it runs"
        return loop

    def _look(self, now: float) -> float:
        if any(limit.ends_at <= now for limit in self._watched):
            self._judge(now, LAST_TURNS)
            return math.inf
        return self._earliest()

    def _judge(self, now: float, turns: int) -> None:
        # End what was due at `now`, after so many turns of the loop: see last_turns.py.
        due = [limit for limit in self._watched if limit.ends_at <= now]
        if due and turns:
            self._loop().call_soon(self._judge, now, turns - 1)
            return
        for limit in due:
            self._watched.discard(limit)
            limit.expire()
        self._timer.look_by(self._earliest())

    def _earliest(self) -> float:
        return min((limit.ends_at for limit in self._watched), default=math.inf)


class Limit:
    """A block with a time limit. Ends it by cancelling its task, and raises its error for that cancellation only."""

    __slots__ = ("_cancelling", "_error", "_expired", "_task", "_watchdog", "ends_at")

    def __init__(self, watchdog: Watchdog, ends_at: float, error: Callable[[], TimeoutError]) -> None:
        self._watchdog = watchdog
        self.ends_at: float = ends_at
        self._error = error
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine always runs in a task here"
        self._task = task
        self._cancelling = task.cancelling()
        self._watchdog.watch(self)

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.forget(self)
        # As asyncio.timeout: a task that was cancelled from outside too stays cancelled.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error() from error


def time_limit(seconds: float | None) -> Limit:
    """A block that may last `seconds` (None: for ever), and raises `TimeoutError` after that: `with time_limit(1.5):`.

    As `asyncio.timeout()`, but what has arrived in time counts, however long the loop was blocked (see last_turns.py).
    """
    return watchdog_of(asyncio.get_running_loop()).limit(math.inf if seconds is None else seconds)
