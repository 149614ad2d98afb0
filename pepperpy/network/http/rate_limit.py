"""`RateLimit`: how many requests per second may leave; `RateLimiter` makes the others wait.

    RateLimiter    which requests wait, where and in which order; the only class that knows a loop
    Pace           when the next request may leave, computed from plain numbers

A request that has to wait is in one of two queues, each in order of arrival: first, while its host is paused, in the
gate of the host; then in the line for the pace. There is one line for all hosts, or one for each.

Requests wait in queues, and get no time slots in advance. If a request is cancelled, those behind it move up. A slot
would pass unused, and a client whose requests have all timed out would wait until the last of their slots is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

from yarl import URL

from pepperpy.network.checks import check_int
from pepperpy.network.errors import NetworkTimeoutError

# Seconds: the resolution of timers. Both loops use whole milliseconds; uvloop's timers may be half a one early.
_TICK = 0.001
# Seconds of lateness that the next request makes up for; else each late timer would lower the rate. Time beyond that is
# lost, so that a loop that was blocked does not send a burst. Arbitrary.
_LATENESS = 0.05


@dataclass(frozen=True)
class RateLimit:
    """How fast requests may leave. A wrong type raises `TypeError`, a value out of range `ValueError`.

    Attributes:
        rate: Requests per second; more than 0 and finite.
        burst: Requests that may leave at once after a quiet time; 1 or more. With 1, they leave `1 / rate` seconds
            apart. In any `t` seconds at most `burst + rate * t` leave, or `burst + rate * (t + 0.05)` if the loop runs
            late.
        per: `"client"` counts all requests of a client together, `"host"` counts those to each host.
    """

    rate: float
    burst: int = 1
    per: Literal["client", "host"] = "client"

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)):
            raise TypeError(f"rate must be a number of requests per second, not {self.rate!r}")
        # Check the interval, which is what is used: it is infinite for the smallest numbers, 0 for the largest ints.
        if not (self.rate > 0 and 0 < 1 / self.rate < math.inf):
            raise ValueError(f"rate must be more than 0 requests per second and finite, not {self.rate!r}")
        check_int("burst", self.burst, 1, sys.maxsize)
        if not isinstance(self.per, str):
            raise TypeError(f"per must be 'client' or 'host', not {self.per!r}")
        if self.per not in ("client", "host"):
            raise ValueError(f"per must be 'client' or 'host', not {self.per!r}")


# For hosts that a table does not name: so many a second that none ever waits, except for a Retry-After.
UNLIMITED = RateLimit(1e9, burst=sys.maxsize, per="host")


def rate_limits(value: Any) -> RateLimit | Mapping[str, RateLimit]:
    """A checked copy of the setting `rate_limit`: a number, a `RateLimit`, or a table of these by host.

    Raises:
        TypeError, ValueError: It is anything else; the message names the setting.
    """
    if not isinstance(value, Mapping):
        return _as_limit("rate_limit", value)
    table = {}
    for host, limit in value.items():
        if not isinstance(host, str):
            raise TypeError(f"rate_limit must have hosts (str) as keys, not {host!r}")
        table[host if host == "*" else _as_in_urls(host)] = _as_limit(f"rate_limit[{host!r}]", limit)
    return table


def _as_limit(name: str, value: Any) -> RateLimit:
    if isinstance(value, RateLimit):
        return value
    try:
        return RateLimit(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _as_in_urls(host: str) -> str:
    """The host as a request has it: in lower case, in ASCII (IDNA), an IPv6 address in its short form."""
    try:
        if not host or (any(mark in host for mark in "/:@* ") and not _is_address(host)):
            raise ValueError
        return URL.build(scheme="http", host=host).raw_host or ""
    except ValueError:
        text = f"rate_limit must have hosts without scheme and port as keys, or '*', not {host!r}"
        raise ValueError(text) from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Pace:
    """When the next request may leave: the generic cell rate algorithm (GCRA, ITU-T I.371 annex A).

    It is a bucket of `burst` tokens that fills at `rate`, stored as the time when it will be full. All times are
    seconds on the caller's clock.
    """

    __slots__ = ("_interval", "_tolerance", "full_at")

    def __init__(self, limit: RateLimit) -> None:
        self._interval = 1 / limit.rate
        # A microsecond more, less than any timer resolves: else rounding could delay the last request of a burst.
        self._tolerance = (limit.burst - 1) * self._interval + 1e-6
        self.full_at: float = -math.inf

    def turn(self, earliest: float, ahead: int = 0) -> float:
        """When a request may leave behind `ahead` others, if none of them leaves before `earliest`."""
        return max(earliest, max(self.full_at, earliest) + ahead * self._interval - self._tolerance)

    def take(self, now: float, since: float) -> float:
        """Count a request that leaves now and has waited since `since`. Returns what `give_back` needs."""
        taken = max(self.full_at, since, now - _LATENESS)
        self.full_at = taken + self._interval
        return taken

    def give_back(self, taken: float, now: float) -> None:
        """Uncount a request that has not left after all.

        The time since it was taken is not given back: without the request the bucket might have been full meanwhile,
        and a full bucket gains nothing. So later requests never exceed the limit.
        """
        self.full_at -= max(0.0, self._interval - max(0.0, now - taken))


class RateLimiter:
    """Makes requests wait so that they keep a `RateLimit`, in the order in which they came.

    It may be made anywhere, and is used on one event loop at a time. It remembers hosts that a request waits for, that
    are paused, or whose burst is not whole again (for up to `burst / rate` seconds), and about as many others.
    """

    def __init__(self, limit: RateLimit | Mapping[str, RateLimit]) -> None:
        """Args: limit: The limit to keep; or one for each host, `*` for all others."""
        if isinstance(limit, Mapping):
            self._of_host = dict(limit)
            limit = self._of_host.pop("*", UNLIMITED)
        else:
            self._of_host = {}
        if not isinstance(limit, RateLimit):
            raise TypeError(f"limit must be a RateLimit, not {limit!r}")
        self.limit = limit
        self._lines: dict[str, _Queue] = {}
        self._gates: dict[str, _Queue] = {}
        self._forget_at = 1024

    async def acquire(self, host: str, deadline: float | None) -> None:
        """Wait until a request to `host` may leave. If it may leave now, return without suspending.

        Args:
            host: The host as the limit counts it.
            deadline: When the request must leave at the latest, in seconds of `time.monotonic()`. None waits for ever.

        Raises:
            NetworkTimeoutError: Its turn would come after `deadline`. It is raised as soon as that is known: at once,
                or when `host` is paused (if a pause is prolonged, at the end of the first). Nothing was counted.
                `details["wait"]` has the seconds that it would have to wait, as far as they are known then.

        Cancellation: Nothing was counted, and those behind move up. If its turn had just come, the next request gets
            the turn, less the time since.
        """
        now = monotonic()
        gate = self._closed_gate(host, now)
        queue = gate or self._line(host, now)
        if not queue.waiting and queue.turn(now) <= now and (deadline is None or now <= deadline):
            queue.pace.take(now, now)
            return
        waiter = _Waiter(host, deadline, asyncio.get_running_loop().create_future(), queue, now)
        self._enter(queue, waiter, now)
        try:
            error = await waiter.future
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        if error is not None:
            raise error

    def pause(self, host: str, seconds: float) -> None:
        """Let no request leave to `host` for `seconds`, as its Retry-After asks. Other hosts go on.

        A later call can prolong the pause, not shorten it. Requests that wait for the host keep their order. When the
        pause ends, they go behind those that wait for other hosts. 0 or less does nothing.
        """
        now = monotonic()
        if not seconds > 0:
            return
        gate = self._closed_gate(host, now)
        if gate is not None:
            # Its requests are looked at when its timer ends, not now: many responses may ask for the same pause.
            gate.opens = max(gate.opens, now + seconds)
            return
        self._forget(now)
        line = self._line(host, now)
        gate = self._gates[host] = _Queue(line.pace, now + seconds)
        for waiter in [waiter for waiter in line.waiting if waiter.host == host]:
            del line.waiting[waiter]
            self._enter(gate, waiter, now)
        self._arm(line, now)

    def _closed_gate(self, host: str, now: float) -> _Queue | None:
        gate = self._gates.get(host)
        # If requests still wait in a gate, it is about to open. A request that comes now has to stay behind them.
        return gate if gate is not None and (gate.waiting or gate.opens > now) else None

    def _line(self, host: str, now: float) -> _Queue:
        own = self._of_host.get(host) if self._of_host else None
        name = host if own is not None or self.limit.per == "host" else ""
        line = self._lines.get(name)
        if line is None:
            self._forget(now)
            line = self._lines[name] = _Queue(Pace(own or self.limit), -math.inf)
        return line

    def _enter(self, queue: _Queue, waiter: _Waiter, now: float) -> None:
        if waiter.future.done():
            return
        waiter.queue = queue
        waiter.since = now
        turn = queue.turn(now, len(queue.waiting))
        if waiter.deadline is not None and turn > waiter.deadline:
            waiter.future.set_result(_too_late(waiter.host, turn - now, waiter.deadline - now))
            return
        queue.waiting[waiter] = None
        if queue.timer is None:
            self._arm(queue, now)

    def _withdraw(self, waiter: _Waiter) -> None:
        now = monotonic()
        queue = waiter.queue
        queue.waiting.pop(waiter, None)
        if waiter.taken is not None:
            queue.pace.give_back(waiter.taken, now)
            self._arm(queue, now)
        elif not queue.waiting:
            self._arm(queue, now)

    def _arm(self, queue: _Queue, now: float) -> None:
        """Set the timer that serves the queue, if a request waits in it."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if queue.waiting:
            when = max(queue.turn(now), now + _TICK)
            # In nobody's context: a pause may be long, and would keep the context of its first request alive.
            loop = asyncio.get_running_loop()
            queue.timer = loop.call_later(when - now, self._serve, queue, context=contextvars.Context())

    def _serve(self, queue: _Queue) -> None:
        """Move requests whose turn it is: from a gate into the line, or out of the line."""
        now = monotonic()
        if queue.opens > -math.inf:
            waiting, queue.waiting = queue.waiting, OrderedDict()
            for waiter in waiting:
                line = self._line(waiter.host, now)
                self._enter(queue if queue.opens > now else line, waiter, now)
        while queue.waiting and queue.turn(now) <= now:
            waiter, _ = queue.waiting.popitem(last=False)
            # A task that was cancelled and has not run since leaves its turn to the next.
            if not waiter.future.done():
                waiter.taken = queue.pace.take(now, waiter.since)
                waiter.future.set_result(None)
        self._arm(queue, now)

    def _forget(self, now: float) -> None:
        # When there is twice as much as was worth keeping the last time. So the cost for each host is constant.
        if len(self._lines) + len(self._gates) < self._forget_at:
            return
        self._lines = {name: line for name, line in self._lines.items() if line.waiting or line.pace.full_at > now}
        self._gates = {name: gate for name, gate in self._gates.items() if gate.waiting or gate.opens > now}
        self._forget_at = 2 * (len(self._lines) + len(self._gates)) + 1024


class _Queue:
    """A line of requests that wait for the pace; or a gate, if `opens` is a time, where they wait for a pause's end."""

    __slots__ = ("opens", "pace", "timer", "waiting")

    def __init__(self, pace: Pace, opens: float) -> None:
        self.pace = pace
        self.opens = opens
        # Ordered, and any request can leave it at no cost.
        self.waiting: OrderedDict[_Waiter, None] = OrderedDict()
        self.timer: asyncio.TimerHandle | None = None  # set while a request waits

    def turn(self, now: float, ahead: int = 0) -> float:
        return self.pace.turn(max(now, self.opens), ahead)


@dataclass(eq=False, slots=True)
class _Waiter:
    host: str
    deadline: float | None
    future: asyncio.Future[NetworkTimeoutError | None]  # None: the request may leave
    queue: _Queue  # the queue that it is in, or was in last
    since: float  # when it came into that queue
    taken: float | None = None  # set when it may leave


def _too_late(host: str, wait: float, left: float) -> NetworkTimeoutError:
    message = f"the rate limit holds the request to {host} back for {wait:.3f} s; {max(0.0, left):.3f} s are left"
    return NetworkTimeoutError(message, {"phase": "rate limit", "wait": wait, "host": host})
