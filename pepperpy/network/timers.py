"""One timer for everything that an owner has to do later. It is set to the earliest time, and moves itself.

A timer costs 3 us with its end (asyncio's heap), and nearly none ever fires: a call ends within its limit, a byte ends
the silence. So an owner only says when it wants to look. The timer moves for an earlier time and stays for a later one.
When it fires too early, it asks the owner for the next time.

All times of this package are on one clock, that of `time.monotonic()`. A loop is only told how long to wait: its clock
may be another. uvloop's goes on while a Mac sleeps, `time.monotonic()` does not, and then a timer fires too early.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import weakref
from collections.abc import Callable
from time import monotonic

# A timer may fire early by the resolution of the loop's clock (uvloop's is 1 ms). It counts as due.
EARLY_S = 0.001
# Seconds after which an owner whose look has failed, for want of memory say, looks again. Arbitrary.
AGAIN_S = 1.0


class Timer:
    """Calls its owner's `look(now)`, which does what is due and returns when to look again (`inf`: not at all).

    It runs in nobody's context, because it serves all users of its owner: the context of the one that set it would stay
    alive. It keeps neither the owner nor the loop alive. Times are those of `time.monotonic()`.

    Attributes:
        at: When it fires; `inf` while it is not set.
    """

    __slots__ = ("_handle", "_look", "_loop", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[float], float]) -> None:
        """Args: look: A method of the owner. Its `now` is `EARLY_S` later than the clock."""
        self._loop = weakref.ref(loop)
        self._look = weakref.WeakMethod(look)
        self._handle: asyncio.TimerHandle | None = None
        self.at: float = math.inf

    def look_by(self, when: float) -> None:
        """See to it that the owner looks at that time or before."""
        if when < self.at:
            loop = self._loop()
            assert loop is not None, "it runs"
            # First what may fail: then the timer stays as it was.
            handle = loop.call_later(max(0.0, when - monotonic()), self._fire, context=contextvars.Context())
            self._cancel()
            self._handle, self.at = handle, when

    def end(self) -> None:
        """Cancel the timer. `look_by()` may set it again."""
        self._cancel()
        self.at = math.inf

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        loop, look = self._loop(), self._look()
        self._handle, self.at = None, math.inf
        if loop is None or look is None:
            return
        # What this timer serves would wait for ever if it were not set again.
        when = now = monotonic() + EARLY_S
        try:
            when = look(now)
        except BaseException:
            when = now + AGAIN_S
            raise
        finally:
            try:
                self.look_by(when)
            except MemoryError:
                self.look_by(when)
