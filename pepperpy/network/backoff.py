"""The one retry schedule of this package."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    The wait before retry `n` (counted from 1) is drawn evenly from 0 to `min(cap, base * 2**(n-1))`.
    Drawing from the whole range spreads clients that failed together best, at the least total work.
    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base: float  # seconds; 0 retries without waiting
    cap: float  # seconds

    def ceiling(self, retry: int) -> float:
        """The longest wait in seconds before retry number `retry` (from 1)."""
        # 2.0**1024 overflows a double; any base above a picosecond has met a cap of centuries by 2**64.
        return min(self.cap, self.base * 2.0 ** min(retry - 1, 64))

    def delay(self, retry: int) -> float:
        """A wait in seconds before retry number `retry` (from 1)."""
        return random.uniform(0.0, self.ceiling(retry))
