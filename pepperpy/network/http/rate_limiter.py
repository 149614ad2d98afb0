"""`RateLimiter` makes requests wait so that they keep a `RateLimit`; the only code about rates that knows a loop.

A request that has to wait is in one of two queues, each in order of arrival: first, while its host is paused or has
a slower pace of its server's, in the gate of the host; then in the line for the pace. There is one line for all hosts,
or one for each.

Requests wait in queues, and get no time slots in advance. If a request is cancelled, those behind it move up. A slot
would pass unused, and a client whose requests have all timed out would wait until the last of their slots is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic

from pepperpy.network._core.handover import Handover
from pepperpy.network.errors import NetworkTimeoutError
from pepperpy.network.http.quota import Quota
from pepperpy.network.http.rate_limit import UNLIMITED, Pace, RateLimit

# Seconds: the resolution of timers. Both loops use whole milliseconds; uvloop's timers may be half a one early.
_TICK = 0.001


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
        self.adapts: bool = any(limit.adaptive for limit in (limit, *self._of_host.values()))
        self._lines: dict[str, _Queue] = {}
        self._gates: dict[str, _Gate] = {}
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
        passed = None if gate is None else gate.pass_at_once(now)
        queue = self._line(host, now) if gate is None or passed is not None else gate
        if not queue.waiting and queue.turn(now) <= now and (deadline is None or now <= deadline):
            queue.pace.take(now, now)
            return
        waiter = _Waiter(asyncio.get_running_loop(), host, deadline, queue, now, passed)
        try:
            self._enter(queue, waiter, now)
            await waiter
        except BaseException:
            self._withdraw(waiter)
            raise
        if waiter.outcome is not None:
            raise waiter.outcome

    def pause(self, host: str, seconds: float) -> None:
        """Let no request leave to `host` for `seconds`, as its Retry-After asks. Other hosts go on.

        A later call can prolong the pause, not shorten it. Requests that wait for the host keep their order. When the
        pause ends, they go behind those that wait for other hosts. 0 or less does nothing.
        """
        now = monotonic()
        if not seconds > 0:
            return
        gate = self._closed_gate(host, now) or self._new_gate(host, now)
        # If it is paused already, its requests are looked at when its timer ends, not now: many responses may ask for
        # the same pause.
        paused = gate.opens > now
        gate.opens = max(gate.opens, now + seconds)
        if not paused:
            self._hold_back(gate, host, now)

    def pause_left(self, host: str, deadline: float) -> float:
        """Seconds for which `host` is still paused; 0: it is not. For a request that has to wait for nothing else.

        Raises: `NetworkTimeoutError`: The pause ends after `deadline`; see `acquire()`.
        """
        gate = self._gates.get(host)
        now = monotonic()
        if gate is None or gate.opens <= now:
            return 0.0
        if gate.opens > deadline:
            raise _too_late(host, gate.opens - now, deadline - now)
        return gate.opens - now

    def heed(self, host: str, quota: Quota) -> None:
        """Slow down to `host`, or no longer, as its server says, if its `RateLimit` is `adaptive`.

        A request that waits may have to wait for longer than was known when it came. So it is for the caller to see to
        its deadline.
        """
        limit = self._of_host.get(host, self.limit)
        if not limit.adaptive:
            return
        now = monotonic()
        gate = self._closed_gate(host, now)
        if not quota.left:
            self.pause(host, quota.seconds)
        elif quota.whole is None or quota.left <= quota.whole / 2:
            slow = gate is not None and gate.slow_until > now
            gate = gate or self._new_gate(host, now)
            gate.slow_down(quota.seconds / quota.left, min(limit.burst, quota.left), now + quota.seconds, now)
            if slow:
                self._arm(gate, now)
            else:
                self._hold_back(gate, host, now)
        elif gate is not None:
            gate.slow_until = now
            self._arm(gate, now)

    def _hold_back(self, gate: _Gate, host: str, now: float) -> None:
        """Let the requests that wait in the line pass the gate once more, in front of those that wait there."""
        line = self._line(host, now)
        moved = [waiter for waiter in line.waiting if waiter.host == host]
        gate.waiting = OrderedDict.fromkeys([*moved, *gate.waiting])
        try:
            for waiter in moved:
                del line.waiting[waiter]
                waiter.queue = gate
                self._give_back(waiter, now)
            self._end_late(gate, now)
        finally:
            self._arm(gate, now)
            self._arm(line, now)

    def _closed_gate(self, host: str, now: float) -> _Gate | None:
        gate = self._gates.get(host)
        # If requests still wait in a gate, it is about to open. A request that comes now has to stay behind them.
        return gate if gate is not None and (gate.waiting or gate.in_force_until > now) else None

    def _new_gate(self, host: str, now: float) -> _Gate:
        self._forget(now)
        gate = self._gates[host] = _Gate(self._line(host, now).pace)
        return gate

    def _line(self, host: str, now: float) -> _Queue:
        own = self._of_host.get(host) if self._of_host else None
        name = host if own is not None or self.limit.per == "host" else ""
        line = self._lines.get(name)
        if line is None:
            self._forget(now)
            line = self._lines[name] = _Queue(Pace(own or self.limit))
        return line

    def _enter(self, queue: _Queue, waiter: _Waiter, now: float) -> None:
        if self._is_late(queue, waiter, len(queue.waiting), now):
            return
        queue.waiting[waiter] = None
        if queue.timer is None:
            self._arm(queue, now)

    def _is_late(self, queue: _Queue, waiter: _Waiter, ahead: int, now: float) -> bool:
        """Whether a request that comes into the queue now need not wait there: it would be too late, and is told so."""
        waiter.queue = queue
        waiter.since = now
        turn = queue.turn(now, ahead)
        if waiter.deadline is None or turn <= waiter.deadline:
            return False
        self._give_back(waiter, now)
        waiter.give(_too_late(waiter.host, turn - now, waiter.deadline - now))
        return True

    def _end_late(self, gate: _Gate, now: float) -> None:
        """Tell the requests in the gate whose turn is after their deadline now."""
        ahead = 0
        for waiter in list(gate.waiting):
            if waiter.is_over or self._is_late(gate, waiter, ahead, now):
                del gate.waiting[waiter]
            else:
                ahead += 1

    def _withdraw(self, waiter: _Waiter) -> None:
        queue = waiter.queue
        queue.waiting.pop(waiter, None)
        now = monotonic()
        self._give_back(waiter, now)
        if waiter.taken is not None:
            queue.pace.give_back(waiter.taken, now)
            self._arm(queue, now)
        elif not queue.waiting:
            self._arm(queue, now)

    def _give_back(self, waiter: _Waiter, now: float) -> None:
        """A request that has passed its gate does not leave after all, or has to pass it again."""
        if waiter.passed is not None:
            gate, taken = waiter.passed
            waiter.passed = None
            gate.slow_pace.give_back(taken, now)
            self._arm(gate, now)

    def _arm(self, queue: _Queue, now: float) -> None:
        """Set the timer that serves the queue, if a request waits in it."""
        timer = None
        if queue.waiting:
            try:
                timer = self._timer(queue, now)
            except MemoryError:
                # Tried once more: without it, all in the queue would wait for ever.
                timer = self._timer(queue, now)
        if queue.timer is not None:
            queue.timer.cancel()
        queue.timer = timer

    def _timer(self, queue: _Queue, now: float) -> asyncio.TimerHandle:
        when = max(queue.turn(now), now + _TICK)
        # In nobody's context: a pause may be long, and would keep the context of its first request alive.
        loop = asyncio.get_running_loop()
        return loop.call_later(when - now, self._serve, queue, context=contextvars.Context())

    def _serve(self, queue: _Queue) -> None:
        """Move requests whose turn it is: from a gate into the line, or out of the line."""
        queue.timer = None
        try:
            if isinstance(queue, _Gate):
                self._serve_gate(queue, monotonic())
            else:
                self._serve_line(queue, monotonic())
        finally:
            # After an error too: who could not be served, for want of memory say, is served then.
            self._arm(queue, monotonic())

    def _serve_line(self, line: _Queue, now: float) -> None:
        while line.waiting and line.turn(now) <= now:
            waiter = next(iter(line.waiting))
            # A task that was cancelled and has not run since leaves its turn to the next.
            if not waiter.is_over:
                taken = line.pace.take(now, waiter.since)
                try:
                    waiter.give(None)
                except BaseException:
                    line.pace.give_back(taken, now)
                    raise
                waiter.taken = taken
            del line.waiting[waiter]

    def _serve_gate(self, gate: _Gate, now: float) -> None:
        if gate.opens > now:
            # The pause was prolonged, for some of them beyond their deadline.
            self._end_late(gate, now)
        while gate.waiting and gate.lets_pass(now):
            waiter = next(iter(gate.waiting))
            if not waiter.is_over:
                line = self._line(waiter.host, now)
                waiter.passed = gate.take(now, waiter.since)
                try:
                    self._enter(line, waiter, now)
                except BaseException:
                    line.waiting.pop(waiter, None)
                    waiter.queue = gate
                    self._give_back(waiter, now)
                    raise
            del gate.waiting[waiter]

    def _forget(self, now: float) -> None:
        # When there is twice as much as was worth keeping the last time. So the cost for each host is constant.
        if len(self._lines) + len(self._gates) < self._forget_at:
            return
        self._lines = {name: line for name, line in self._lines.items() if line.waiting or line.pace.full_at > now}
        self._gates = {name: gate for name, gate in self._gates.items() if gate.waiting or gate.in_force_until > now}
        self._forget_at = 2 * (len(self._lines) + len(self._gates)) + 1024


class _Queue:
    """A line of requests that wait for the pace."""

    __slots__ = ("pace", "timer", "waiting")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        # Ordered, and any request can leave it at no cost.
        self.waiting: OrderedDict[_Waiter, None] = OrderedDict()
        self.timer: asyncio.TimerHandle | None = None  # set while a request waits

    def turn(self, now: float, ahead: int = 0) -> float:
        return self.pace.turn(now, ahead)


class _Gate(_Queue):
    """Where requests to one host wait for a pause's end, and for the pace that its server asks for.

    Attributes:
        pace: That of the line behind it.
        opens: When the pause ends.
        slow_pace: What the server asks for until `slow_until`.
    """

    __slots__ = ("opens", "slow_pace", "slow_until")

    def __init__(self, pace: Pace) -> None:
        super().__init__(pace)
        self.opens = -math.inf
        self.slow_pace = Pace(UNLIMITED)
        self.slow_until = -math.inf

    @property
    def in_force_until(self) -> float:
        return max(self.opens, self.slow_until)

    def slow_down(self, interval: float, burst: int, until: float, now: float) -> None:
        # What was counted at a slower pace does not hold up more than a burst of this one.
        self.slow_pace.full_at = min(self.slow_pace.full_at, now + burst * interval)
        self.slow_pace.change(interval, burst)
        self.slow_until = until

    def turn(self, now: float, ahead: int = 0) -> float:
        """When a request may pass both the gate and the line behind it, as far as that is known."""
        earliest = max(now, self.opens)
        turn = self.pace.turn(earliest, ahead)
        if self.slow_until > earliest:
            turn = max(turn, min(self.slow_pace.turn(earliest, ahead), self.slow_until))
        return turn

    def lets_pass(self, now: float) -> bool:
        return self.opens <= now and (self.slow_until <= now or self.slow_pace.turn(now) <= now)

    def take(self, now: float, since: float) -> tuple[_Gate, float] | None:
        """Count a request that passes now. Returns what is needed to uncount it."""
        return (self, self.slow_pace.take(now, since)) if self.slow_until > now else None

    def pass_at_once(self, now: float) -> tuple[_Gate, float] | None:
        """The same for one that has just come; None: it has to wait."""
        return self.take(now, now) if not self.waiting and self.lets_pass(now) else None


class _Waiter(Handover):
    """A request that waits. It gets None when it may leave, or the error that it raises.

    Attributes:
        queue: The queue that it is in, or was in last.
        since: When it came into that queue.
        passed: Set when it has passed a gate where it was counted.
        taken: Set when it may leave.
    """

    __slots__ = ("deadline", "host", "passed", "queue", "since", "taken")

    outcome: NetworkTimeoutError | None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        deadline: float | None,
        queue: _Queue,
        since: float,
        passed: tuple[_Gate, float] | None,
    ) -> None:
        super().__init__(loop)
        self.host = host
        self.deadline = deadline
        self.queue = queue
        self.since = since
        self.passed = passed
        self.taken: float | None = None


def _too_late(host: str, wait: float, left: float) -> NetworkTimeoutError:
    message = f"the rate limit holds the request to {host} back for {wait:.3f} s; {max(0.0, left):.3f} s are left"
    return NetworkTimeoutError(message, {"phase": "rate limit", "wait": wait, "host": host})
