"""Where the connections of a `NetworkPool` are, and who gets the next one.

Each connection is in exactly one place: lent, idle, in a task that prepares it (connects, checks) or in one that closes
it. It moves in one synchronous step, so no await can lose a slot. A task that wants a connection waits in one queue and
makes none itself: if its wait is cancelled, the connection that is being prepared serves the next task.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import threading
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING

from pepperpy.network._core.lending import Lending, PooledConnection
from pepperpy.network.backoff import Backoff
from pepperpy.network.config import NetworkConfig, observer_of
from pepperpy.network.detached import detached_task
from pepperpy.network.errors import ClosedError, ConnectError, PoolTimeoutError, UsageError
from pepperpy.network.pool.connection import Maker
from pepperpy.network.pool.queue import Queue, Turn
from pepperpy.network.tcp.client import NetworkClient, passed_on
from pepperpy.network.timers import Timer

if TYPE_CHECKING:
    from pepperpy.network.events import Observer

logger = logging.getLogger("pepperpy.network.pool")

# The least seconds between two attempts to refill, whatever `retry_delay` says, because nobody waits for them.
# Arbitrary.
MIN_REFILL_DELAY_S = 0.1


class Slots(Lending):
    """Lends each connection to one user at a time, in the order of the calls; makes and closes them as needed.

    Its base lends idle connections and takes them back.
    """

    waiting: Queue
    idle: list[PooledConnection]
    lent: set[PooledConnection]
    preparing: dict[asyncio.Task[PooledConnection | None], PooledConnection | None]
    timer: Timer | None
    loop: asyncio.AbstractEventLoop | None
    refill_failures: int

    def __init__(
        self,
        config: NetworkConfig,
        min_size: int,
        max_size: int,
        max_idle: float | None,
        check_after: float | None,
        maker: Maker,
    ) -> None:
        """Args: check_after: Seconds for which a connection may be idle without a check; None: none is checked."""
        self._where = config.address
        self._details = config.place
        self._max_size = max_size
        self._max_idle = math.inf if max_idle is None else max_idle
        super().__init__(
            Queue(),
            min_size,
            self._max_idle,
            math.inf if check_after is None else check_after,
            NetworkClient(maker.config),
            passed_on,
        )
        self._maker = maker
        self._observer = observer_of(config)
        self._thread = 0
        self._all_returned = asyncio.Event()
        self.closing: dict[asyncio.Task[None], PooledConnection] = {}
        self._refill_at = -math.inf  # no refill before this time, because a connection failed
        self._refill_backoff = Backoff(config.retry_delay, config.max_retry_delay)
        self.created: int = 0
        self.timeouts: int = 0
        self.failures: int = 0
        self.max_wait: float = 0.0
        self.dropped: Counter[str] = Counter()

    @property
    def size(self) -> int:
        return len(self.lent) + len(self.idle) + len(self.preparing) + len(self.closing)

    # ---- Lending ----

    def enter(self) -> asyncio.AbstractEventLoop:
        """Check that this loop is the pool's, and the pool open. The first call decides which loop that is."""
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            if self.loop is not None:
                raise UsageError(f"{self._where}: the pool belongs to another event loop", self._details)
            self.loop, self.timer = loop, Timer(loop, self._look)
            self._thread = threading.get_ident()
        if self.closed:
            raise self._closed_error()
        return loop

    async def get(self, timeout: float | None) -> PooledConnection:
        """Wait for a connection, where none can be lent at once."""
        loop = self.enter()
        turn: Turn = loop.create_future()
        now = monotonic()
        until = math.inf if timeout is None else now + timeout
        self.waiting.join(turn, now, until)
        self._arm(until)
        self.fill()
        try:
            outcome = await (turn if self._observer is None else self._observed(turn, self._observer))
        except BaseException:
            self.waiting.leave(turn)
            if turn.done() and not turn.cancelled() and (connection := turn.result()) in self.lent:
                # The connection came in the turn of the cancellation.
                self.put(connection.hand_over(), connection.link)
            raise
        if isinstance(outcome, PooledConnection):
            if outcome in self.lent:
                return outcome
            outcome = self._closed_error()  # abort() came in between
        try:
            raise outcome
        finally:
            del outcome, turn  # otherwise the error's traceback would refer to the error

    async def _observed(self, turn: Turn, observer: Observer) -> PooledConnection | BaseException:
        from pepperpy.network.events import PoolWaitDone

        began = monotonic()
        try:
            outcome = await turn
        except BaseException as error:
            observer.tell(PoolWaitDone, seconds=monotonic() - began, error=error)
            raise
        failure = outcome if isinstance(outcome, BaseException) else None
        observer.tell(PoolWaitDone, seconds=monotonic() - began, error=failure)
        return outcome

    def serve(self, connection: PooledConnection) -> bool:
        """Lend the connection to the task that has waited longest; False if nobody waits any more."""
        if (first := self.waiting.pop_first()) is None:
            return False
        turn, since = first
        self.max_wait = max(self.max_wait, monotonic() - since)
        self.lend(connection)
        turn.set_result(connection)
        return True

    def end(self, connection: PooledConnection, flaw: str | None) -> None:
        """Close a connection that its user has given back, in order if it is good."""
        self._returned()
        if flaw in (None, "unsent", "age"):
            if flaw is not None:
                self._note_dropped(flaw)
            self.disconnect(connection)
        else:
            assert flaw is not None
            self.discard(connection, flaw)

    def _returned(self) -> None:
        if self.closed and not self.lent:
            self._all_returned.set()

    def refuse(self, loan: object) -> None:
        """Raise `UsageError` for a client that is not lent, unless `abort()` has taken it from its user."""
        if isinstance(loan, PooledConnection) and loan.lending is self:
            return
        what = "the client is not lent: it was released before, or is of no pool"
        if loan is not None:
            what = "the client is lent by another pool; release it there"
        raise UsageError(f"{self._where}: {what}", self._details | {"phase": "release"})

    def forsake(self, connection: PooledConnection) -> bool:
        """See `client_link.Loan`."""
        if connection not in self.lent:
            return False
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._forsaken, connection, context=contextvars.Context())
        return True

    def _forsaken(self, connection: PooledConnection) -> None:
        if connection in self.lent:
            self.lent.remove(connection)
            self._returned()
            self.discard(connection, "unreleased")

    # ---- Making and closing ----

    def fill(self) -> None:
        """Begin what is missing: a preparation for each waiting task, then connections up to `min_size`."""
        if self.closed:
            return
        # Idle connections that have to be checked come first: a task should not wait for a slow network if one passes.
        checks = sum(idle is not None for idle in self.preparing.values())
        while len(self.waiting) > checks and self.idle:
            if (idle := self._wake_last()) is not None:
                self._begin(idle)
                checks += 1
        while len(self.waiting) > len(self.preparing) and self.size < self._max_size:
            self._begin(None)
        while self.surplus() < 0 and self.size < self._max_size and self._refill_at <= monotonic():
            self._begin(None)

    def _wake_last(self) -> PooledConnection | None:
        """The idle connection that was used last; None, and it is dropped, if it cannot be lent."""
        connection = self.idle.pop()
        if (flaw := connection.wake()) is None:
            return connection
        self._drop(connection, flaw)
        return None

    def _begin(self, idle: PooledConnection | None) -> None:
        # In nobody's context: the connection may be lent to anybody, again and again.
        task = detached_task(asyncio.get_running_loop(), self._prepare(idle), f"pool of {self._where}: prepare")
        self.preparing[task] = idle
        task.add_done_callback(self._prepared)

    async def _prepare(self, idle: PooledConnection | None) -> PooledConnection | None:
        if asyncio.current_task() not in self.preparing:
            # An eager task, which runs before its maker knows it. `check` may ask the pool, which has not counted it.
            await asyncio.sleep(0)
        if idle is not None:
            if not self.needs_check(idle) or await self._maker.passes(idle):
                return idle
            self._note_dropped("check")
            if not self.waiting:
                return None
            # A new one, not the next idle one: on a dead network one check after the other would run out of time.
        connection = await self._maker.make(self)
        self.created += 1
        return connection

    def _prepared(self, task: asyncio.Task[PooledConnection | None]) -> None:
        # A done-callback runs even for a task that was cancelled before it began.
        idle = self.preparing.pop(task)
        error = self._cancelled_error() if task.cancelled() else task.exception()
        if error is not None:
            if idle is not None:
                idle.link.abort()
            if not self.closed:
                self._failed(error)
        elif (connection := task.result()) is not None:
            if self.closed:
                connection.link.abort()
            # A waiting task gets the connection as it is. An idle one is looked at first, because its watch would not
            # notice what has come already.
            elif not self.waiting and (flaw := connection.flaw()) is not None:
                self._drop(connection, flaw)
            else:
                self.offer(connection)
        self.fill()

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        self._put_off_refill()
        if (first := self.waiting.pop_first()) is not None:
            first[0].set_result(error)
        else:
            logger.warning("%s: the pool cannot make a connection: %s", self._where, error)

    def _put_off_refill(self) -> None:
        if self.surplus() < 0 and self._refill_at <= monotonic():
            self.refill_failures += 1
            delay = max(MIN_REFILL_DELAY_S, self._refill_backoff.delay(self.refill_failures))
            self._refill_at = monotonic() + delay
            self._arm(self._refill_at)

    def disturbed(self, connection: PooledConnection, flaw: str) -> None:
        """Something has happened on an idle connection."""
        self.idle.remove(connection)
        self.discard(connection, flaw)

    def discard(self, connection: PooledConnection, flaw: str) -> None:
        """Close a connection at once, because it cannot be lent again, and make another where one is missing."""
        self._drop(connection, flaw)
        self.fill()

    def _drop(self, connection: PooledConnection, flaw: str) -> None:
        self._note_dropped(flaw)
        connection.link.abort()
        if not connection.used:
            # The server may accept each connection and end it: do not ask it again and again.
            self._put_off_refill()

    def _retire(self, connection: PooledConnection, reason: str) -> None:
        """Close a good connection in order."""
        self._note_dropped(reason)
        self.disconnect(connection)

    def _note_dropped(self, reason: str) -> None:
        self.dropped[reason] += 1
        if self._observer is not None:
            from pepperpy.network.events import ConnectionDropped

            self._observer.tell(ConnectionDropped, reason=reason)

    def disconnect(self, connection: PooledConnection) -> None:
        connection.unwatch()
        task = detached_task(asyncio.get_running_loop(), connection.link.disconnect(), f"pool of {self._where}: close")
        self.closing[task] = connection
        task.add_done_callback(self._disconnected)

    def _disconnected(self, task: asyncio.Task[None]) -> None:
        # If the task was cancelled before it began, nothing has closed the client yet.
        self.closing.pop(task).link.abort()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s", error)
        self.fill()

    # ---- Time ----

    def _arm(self, when: float) -> None:
        """See to it that `_look` is called at that time or before."""
        if not self.closed:
            assert self.timer is not None
            self.timer.look_by(when)

    def _look(self, now: float) -> float:
        for turn, since in self.waiting.overdue(now):
            turn.set_result(self._timeout_error(monotonic() - since))
            self.timeouts += 1
            self.waiting.leave(turn)
        due = self.waiting.next_due(now)
        for connection in list(self.idle):  # those that have been idle longest come first
            if connection.expires_at <= now:
                reason = "age"
            elif self.surplus() > 0 and connection.idle_since + self._max_idle <= now:
                reason = "idle"
            else:
                continue
            self.idle.remove(connection)
            self._retire(connection, reason)
        self.fill()
        for connection in self.idle:
            due = min(due, connection.expires_at)
        if self.idle and self.surplus() > 0:
            due = min(due, self.idle[0].idle_since + self._max_idle)
        if self.surplus() < 0:
            due = min(due, self._refill_at)
        return math.inf if self.closed else due

    # ---- Opening and closing all ----

    async def open(self) -> None:
        """Make `min_size` connections, or raise the first failure."""
        self.enter()
        self.fill()
        try:
            if tasks := list(self.preparing):
                await asyncio.wait(tasks)
            for task in tasks:
                task.result()
        except BaseException:
            self.abort()
            raise

    async def close(self, timeout: float | None) -> None:
        if self.loop is None or self.loop.is_closed():
            self.abort()
            return
        if self.loop is not asyncio.get_running_loop():
            raise UsageError(f"{self._where}: the pool belongs to another event loop; close it there", self._details)
        self._refuse()
        for connection in self.idle:
            self.disconnect(connection)
        self.idle.clear()
        try:
            if self.lent:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._all_returned.wait()
            for connection in self.lent:
                connection.link.abort()
                self.disconnect(connection)
            self.lent.clear()
            while tasks := [*self.preparing, *self.closing]:
                await asyncio.wait(tasks)
        except BaseException:
            self.abort()
            raise
        # Both loops close a socket right after connection_lost, in the same turn or in the next one.
        await asyncio.sleep(0)

    def abort(self) -> None:
        if self.loop is not None and self._thread != threading.get_ident():
            raise UsageError(f"{self._where}: the pool belongs to another thread; close it there", self._details)
        self._refuse()
        checked = [connection for connection in self.preparing.values() if connection is not None]
        for connection in (*self.lent, *self.idle, *checked, *self.closing.values()):
            connection.unwatch()
            connection.link.abort()
        self.lent.clear()
        self.idle.clear()
        self._all_returned.set()
        if self.loop is not None and not self.loop.is_closed():
            for task in (*self.preparing, *self.closing):
                task.cancel()

    def _refuse(self) -> None:
        """Lend nothing more. Idle and lent connections stay as they are."""
        self.closed = True
        if self.timer is not None:
            self.timer.end()
        if self.loop is not None and self.loop.is_closed():
            return
        while (first := self.waiting.pop_first()) is not None:
            first[0].set_result(self._closed_error())
        for task in self.preparing:
            task.cancel()

    # ---- Errors ----

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"{self._where}: the pool is closed", self._details | {"phase": "acquire"})

    def _cancelled_error(self) -> ConnectError:
        # At a shutdown somebody may cancel all tasks. A waiting task that was not cancelled must not wait for ever.
        return ConnectError(f"{self._where}: connecting was cancelled", self._details | {"phase": "connect"})

    def _timeout_error(self, elapsed: float) -> PoolTimeoutError:
        counts = {"in_use": len(self.lent), "preparing": len(self.preparing), "waiting": len(self.waiting)}
        message = (
            f"{self._where}: no connection within {elapsed:.2f} s: of at most {self._max_size}, {counts['in_use']} are"
            f" in use and {counts['preparing']} being made; {counts['waiting']} tasks wait"
        )
        return PoolTimeoutError(message, self._details | counts | {"phase": "acquire", "elapsed": round(elapsed, 3)})
