"""Retries of TCP and HTTP: how long to wait before the next one, and how many are allowed."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_blocks_without_waits = 0


@contextlib.contextmanager
def no_retry_waits() -> Iterator[None]:
    """A block in which clients of HTTP and TCP retry without waiting, for tests: `with no_retry_waits():`.

    The number of retries does not change, nor what is retried: a `Retry-After` beyond `max_retry_delay` still ends the
    retries. Other waits stay too: the rate limit (a `Retry-After` pauses it), the delays of a `MockHTTP`, the server.
    The block holds for the whole process, other threads included. Blocks may overlap in any order.
    """
    global _blocks_without_waits
    _blocks_without_waits += 1
    try:
        yield
    finally:
        _blocks_without_waits -= 1


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    The wait before retry `n` (counted from 1) is random, evenly distributed from 0 to `min(cap, base * 2**(n-1))`.
    Of the ways to add jitter, the whole range spreads clients that failed together best, with the least total work.
    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base: float  # seconds; 0 retries without waiting
    cap: float  # seconds

    def ceiling(self, retry: int) -> float:
        """The longest wait in seconds before retry number `retry` (from 1)."""
        # 2.0**1024 overflows a double. At 2**64 any base above a picosecond has reached a cap of months.
        return min(self.cap, self.base * 2.0 ** min(retry - 1, 64))

    def delay(self, retry: int) -> float:
        """A wait in seconds before retry number `retry` (from 1)."""
        return 0.0 if _blocks_without_waits else random.uniform(0.0, self.ceiling(retry))

    def delay_after(self, retry: int, asked: float) -> float:
        """The same on top of the `asked` seconds of a `Retry-After`, so that clients do not come back all at once."""
        return 0.0 if _blocks_without_waits else asked + self.delay(retry)


class RetryBudget:
    """Limits the retries to one key (a host) to a share of the recent calls, so that retries do not worsen an outage.

    A retry is allowed while the present and the previous window (10 to 20 seconds together) had fewer retries than
    `RESERVE` plus `ratio` times their calls. The reserve keeps retries useful to clients that make few calls. Sources:
    the ratio of Finagle's RetryBudget and of reqwest, 0.2; Google SRE book, "Addressing Cascading Failures".
    """

    WINDOW_S = 10.0
    RESERVE = 10
    # Keys to remember; the one whose window began first is dropped first. Arbitrary: some 200 KB.
    MAX_KEYS = 1024

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        # Key -> [end of the present window, its calls, its retries, the previous window's calls, its retries]
        self._windows: dict[str, list[float]] = {}

    def note_call(self, key: str, now: float) -> None:
        """Count a call; `now` is in seconds of any steady clock."""
        window = self._windows.get(key)
        if window is None or now >= window[0]:
            window = self._turn(key, now)
        window[1] += 1

    def take(self, key: str, now: float) -> bool:
        """Count a retry and return True, or return False if none is allowed now."""
        window = self._windows.get(key)
        if window is None or now >= window[0]:
            window = self._turn(key, now)
        _, calls, retries, earlier_calls, earlier_retries = window
        if retries + earlier_retries >= self.RESERVE + self.ratio * (calls + earlier_calls):
            return False
        window[2] += 1
        return True

    def _turn(self, key: str, now: float) -> list[float]:
        old = self._windows.pop(key, None)
        window: list[float] = [now + self.WINDOW_S, 0, 0, 0, 0]
        if old is not None and now < old[0] + self.WINDOW_S:
            # The window begins where the old one ended. If it began now, calls before a pause would count for 30 s.
            window = [old[0] + self.WINDOW_S, 0, 0, old[1], old[2]]
        self._windows[key] = window
        if len(self._windows) > self.MAX_KEYS:
            del self._windows[next(iter(self._windows))]
        return window


class Outages(threading.local):
    """Limits how fast the clients of one thread, hence of one loop, reconnect together to a host that is down.

    Two or more clients that reconnect to one host share a bucket of `BURST` tokens, refilled at `RATE` a second. Each
    attempt takes a token; a client that finds none waits. An attempt that succeeds returns its token, so clients come
    back at once to a server that works again. A client on its own has only its backoff.
    """

    # As RetryBudget: 10 at once, and 10 in 10 seconds.
    BURST = float(RetryBudget.RESERVE)
    RATE = RetryBudget.RESERVE / RetryBudget.WINDOW_S

    def __init__(self) -> None:
        # Host -> [clients that reconnect, tokens, when they were counted]
        self._hosts: dict[str, list[float]] = {}

    def enter(self, host: str, now: float) -> None:
        """A client has lost its connection to this host; `now` is in seconds of any steady clock."""
        self._hosts.setdefault(host, [0, self.BURST, now])[0] += 1

    def leave(self, host: str) -> None:
        """A client that entered has a new connection, or has given up."""
        self._hosts[host][0] -= 1
        if not self._hosts[host][0]:
            del self._hosts[host]

    def may_try(self, host: str, now: float) -> bool:
        """Take a token and return True, or return False if the client has to wait."""
        bucket = self._hosts[host]
        clients, tokens, counted = bucket
        tokens = min(self.BURST, tokens + (now - counted) * self.RATE)
        allowed = tokens >= 1 or clients == 1
        bucket[1:] = max(0.0, tokens - 1) if allowed else tokens, now
        return allowed

    def pause(self) -> float:
        """Seconds to wait before asking again: about the time of the next token, with jitter."""
        return random.uniform(1, 2) / self.RATE

    def succeeded(self, host: str) -> None:
        """The last attempt that was allowed has made a connection."""
        self._hosts[host][1] += 1
