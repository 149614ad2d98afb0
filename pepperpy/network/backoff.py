"""When to try again, for TCP and HTTP alike: whether it can help, how long to wait, how much extra load it may be."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass

# Failures that may pass by waiting: nobody listens yet, the way is down, this machine is short of ports for now.
# By name, because not every system has all of them.
_PASSING_NAMES = """
    ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ETIMEDOUT EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ENETRESET
    EADDRNOTAVAIL EAGAIN EINTR ENOBUFS
"""
_PASSING = frozenset(getattr(errno, name, None) for name in _PASSING_NAMES.split()) - {None}


def may_pass(error: BaseException) -> bool:
    """Whether trying again later can help: refused, unreachable, timed out, a name server that is not there."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, TimeoutError):
        return True
    # No errno: aiohappyeyeballs, by which aiohttp connects, has joined the failures of several addresses that were not
    # the same, so one of them may pass.
    return isinstance(error, OSError) and (error.errno is None or error.errno in _PASSING)


def may_pass_again(error: BaseException) -> bool:
    """The same of a client that was connected by these very settings: all that the system, a resolver or the peer says.

    A name is gone for a moment while its server restarts, descriptors and memory come back, a firewall or a proxy is
    set up anew. A certificate of the peer that is refused is another matter: that may be somebody else, and no time
    makes him the right one.
    """
    if isinstance(error, ssl.SSLCertVerificationError) or isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, (OSError, MemoryError))


_blocks_without_waits = 0


@contextlib.contextmanager
def no_retry_waits() -> Iterator[None]:
    """A block in which retries come at once: `with no_retry_waits():`; for tests, of HTTP and TCP clients alike.

    How often is tried again stays as it is, and so does whether: a `Retry-After` beyond `max_retry_delay` still ends
    the retries. What else waits does so too: the rate limit (a `Retry-After` pauses it), delays of a `MockHTTP`, a
    server. It holds for the whole process, other threads included. Blocks may overlap in any order.
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
        return 0.0 if _blocks_without_waits else random.uniform(0.0, self.ceiling(retry))

    def delay_after(self, retry: int, asked: float) -> float:
        """The same, but not before the `asked` seconds that a server wants; no client comes exactly then."""
        return 0.0 if _blocks_without_waits else asked + self.delay(retry)


class RetryBudget:
    """Keeps retries from multiplying an outage: per key (a host), a share of the calls made there lately.

    A retry is allowed while there were fewer than `ratio` times the calls, plus `reserve`, in the present and the
    previous window: 10 to 20 seconds. The reserve keeps retries useful to clients that make few calls. Sources: the
    ratio of Finagle's RetryBudget and of reqwest, 0.2; Google SRE book, "Addressing Cascading Failures".
    """

    WINDOW_S = 10.0
    RESERVE = 10
    # Keys that are remembered; the least recently started window goes first. Arbitrary: some 200 KB.
    MAX_KEYS = 1024

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        # Key -> [start of the present window, its calls, its retries, the previous window's calls, its retries]
        self._windows: dict[str, list[float]] = {}

    def note_call(self, key: str, now: float) -> None:
        """A call was made; `now` is in seconds of any steady clock."""
        window = self._windows.get(key)
        if window is None or now - window[0] >= self.WINDOW_S:
            window = self._turn(key, now)
        window[1] += 1

    def take(self, key: str, now: float) -> bool:
        """Whether a retry is allowed now; if so, it is counted."""
        window = self._windows.get(key)
        if window is None or now - window[0] >= self.WINDOW_S:
            window = self._turn(key, now)
        _, calls, retries, earlier_calls, earlier_retries = window
        if retries + earlier_retries >= self.RESERVE + self.ratio * (calls + earlier_calls):
            return False
        window[2] += 1
        return True

    def _turn(self, key: str, now: float) -> list[float]:
        old = self._windows.pop(key, None)
        window: list[float] = [now, 0, 0, 0, 0]
        if old is not None and now - old[0] < 2 * self.WINDOW_S:
            # Where the old one ended, not now: after a pause, its calls would count for up to 30 seconds.
            window = [old[0] + self.WINDOW_S, 0, 0, old[1], old[2]]
        self._windows[key] = window
        if len(self._windows) > self.MAX_KEYS:
            del self._windows[next(iter(self._windows))]
        return window


class Outages(threading.local):
    """Keeps the clients of one thread, hence of one loop, from storming together a server that is down.

    Where two or more of them reconnect to the same host, their attempts share a bucket of `BURST` tokens, filled at
    `RATE` a second; who finds it empty waits on. An attempt that succeeds gives its token back, so a server that is
    there again need not wait for its clients. A client on its own has only its backoff.
    """

    # Those of RetryBudget: 10 at once, and 10 in 10 seconds.
    BURST = float(RetryBudget.RESERVE)
    RATE = RetryBudget.RESERVE / RetryBudget.WINDOW_S

    def __init__(self) -> None:
        # Host -> [clients that reconnect, tokens, when they were counted]
        self._hosts: dict[str, list[float]] = {}

    def enter(self, host: str, now: float) -> None:
        """A client has lost its connection to this host; `now` is in seconds of any steady clock."""
        self._hosts.setdefault(host, [0, self.BURST, now])[0] += 1

    def leave(self, host: str) -> None:
        """It has a new one, or has given up."""
        self._hosts[host][0] -= 1
        if not self._hosts[host][0]:
            del self._hosts[host]

    def may_try(self, host: str, now: float) -> bool:
        """Whether a client may try now; if so, that costs a token."""
        bucket = self._hosts[host]
        clients, tokens, counted = bucket
        tokens = min(self.BURST, tokens + (now - counted) * self.RATE)
        allowed = tokens >= 1 or clients == 1
        bucket[1:] = max(0.0, tokens - 1) if allowed else tokens, now
        return allowed

    def pause(self) -> float:
        """Seconds that a client which may not try waits at least: about when a token comes, but not all at once."""
        return random.uniform(1, 2) / self.RATE

    def succeeded(self, host: str) -> None:
        """The last attempt that was allowed has made a connection."""
        self._hosts[host][1] += 1
