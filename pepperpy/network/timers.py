"""One timer for all that an owner has to do later: the earliest of it counts, and the timer moves itself.

A timer for each costs 3 us with its end (asyncio's heap), and nearly none ever fires: a time limit is kept, a byte
ends the silence. So whoever has something to do only says until when, and the timer stays where it is if that is not
earlier. It fires too early then, looks, and is set for what is left.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import weakref
from collections.abc import Callable

# A timer may fire a little early, by the resolution of the loop's clock. asyncio takes such a one for due.
EARLY_S = 0.001


class Timer:
    """Calls its owner's `look(now)` in time, which does what is due and says when to look again (`inf`: not at all).

    It runs in nobody's context: it serves all of its owner's users, and would keep alive what the one that has set it
    has in its own. It keeps neither the owner nor the loop alive. Times are on the loop's clock.

    Attributes:
        at: When it fires; `inf` while it is not set.
    """

    __slots__ = ("_handle", "_look", "_loop", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[float], float]) -> None:
        """Args: look: A method of the owner's. `now` is a little late, see `EARLY_S`."""
        self._loop = weakref.ref(loop)
        self._look = weakref.WeakMethod(look)
        self._handle: asyncio.TimerHandle | None = None
        self.at = math.inf

    def look_by(self, when: float) -> None:
        """Look at that time, or before."""
        if when < self.at:
            loop = self._loop()
            assert loop is not None, "it runs"
            # It may fail: then the timer stays as it was.
            handle = loop.call_at(when, self._fire, context=contextvars.Context())
            self._cancel()
            self._handle, self.at = handle, when

    def end(self) -> None:
        """Do not look any more. It may be set again."""
        self._cancel()
        self.at = math.inf

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        loop, look = self._loop(), self._look()
        self._handle, self.at = None, math.inf
        if loop is not None and look is not None:
            self.look_by(look(loop.time() + EARLY_S))
