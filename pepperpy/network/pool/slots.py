"""Where the connections of a `NetworkPool` are, and who gets the next one.

Each connection is in exactly one place: lent, idle, in a task that prepares it (connects, checks) or in one that closes
it. It moves in one synchronous step, so no await can lose a slot. A task that wants a connection waits in one queue and
makes none itself: if its wait is cancelled, the connection that is being prepared serves the next task.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import threading
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.lending import PooledConnection
from pepperpy.network.checks import running_loop
from pepperpy.network.errors import ClosedError, PoolTimeoutError, UsageError
from pepperpy.network.pool.queue import Turn
from pepperpy.network.pool.supply import Supply
from pepperpy.network.timers import Timer

if TYPE_CHECKING:
    from pepperpy.network.events import Observer


class Slots(Supply):
    """Lends each connection to one user at a time, in the order of the calls; ends when it is closed."""

    _thread: int = 0  # that of the loop, once there is one
    timeouts: int = 0
    max_wait: float = 0.0

    # ---- Lending ----

    def enter(self) -> asyncio.AbstractEventLoop:
        """Check that this loop is the pool's, and the pool open. The first call decides which loop that is."""
        if self.loop is None:
            loop = asyncio.get_running_loop()
            self.loop, self.timer = loop, Timer(loop, self._look)
            self._thread = threading.get_ident()
        elif (running := running_loop()) is not self.loop:
            what = "the pool belongs to another event loop"
            if running is None:
                # A forked process goes on in a coroutine of its parent.
                what = "the pool belongs to an event loop that does not run here; make a new pool after a fork"
            raise UsageError(f"{self._where}: {what}", self._details)
        if self.closed:
            raise self._closed_error()
        return self.loop

    async def acquire(self, timeout: float | None) -> PooledConnection:
        """Wait for a connection, where none can be lent at once."""
        loop = self.enter()
        now = monotonic()
        waiting = self._wait(loop, now, math.inf if timeout is None else now + timeout)
        return await (waiting if self._observer is None else self._observed(waiting, now, self._observer))

    async def _wait(self, loop: asyncio.AbstractEventLoop, now: float, until: float) -> PooledConnection:
        in_front = False
        while True:
            connection, is_reused = await self._served(Turn(loop, now, until), in_front)
            try:
                if not is_reused or self.closed or (flaw := connection.flaw()) is None:
                    return connection
                # It has ended since it was given: over TLS, the last answer and the end may come in one read.
                self.lent.remove(connection)
                self.discard(connection, flaw)
            except BaseException:
                self.lose(connection)
                raise
            in_front = True

    async def _observed(
        self, waiting: Coroutine[Any, Any, PooledConnection], since: float, observer: Observer
    ) -> PooledConnection:
        from pepperpy.network.events import PoolWaitDone

        try:
            connection = await waiting
        except BaseException as error:
            observer.tell_done(PoolWaitDone, since, error=error)
            raise
        try:
            observer.tell_done(PoolWaitDone, since, error=None)
        except BaseException:
            self.lose(connection)
            raise
        return connection

    async def _served(self, turn: Turn, in_front: bool) -> tuple[PooledConnection, bool]:
        """What the turn brings, and whether somebody has had it before."""
        try:
            self.waiting.join(turn, in_front)
            self._arm(turn.until)
            self.fill()
            await turn
        except BaseException:
            if isinstance(connection := turn.outcome, PooledConnection):
                # It came in the turn of the cancellation. abort() may have taken it back already.
                self.put(connection.hand_over(), connection.link)
            raise
        finally:
            self.waiting.leave(turn)
        outcome = turn.outcome
        if isinstance(outcome, PooledConnection):
            if outcome in self.lent:
                return outcome, turn.is_reused
            outcome = self._closed_error()  # abort() came in between
        try:
            assert outcome is not None
            raise outcome
        finally:
            del outcome, turn  # otherwise the error's traceback would refer to the error

    def serve(self, connection: PooledConnection) -> bool:
        """Lend the connection to the task that has waited longest; False if nobody waits any more.

        If this raises, the task still waits, and the caller still has the connection, which may count as lent.
        """
        if (turn := self.waiting.first()) is None:
            return False
        self.max_wait = max(self.max_wait, monotonic() - turn.since)
        turn.is_reused = connection.used
        self.lend(connection)
        self.waiting.give(turn, connection)
        return True

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
            try:
                self.loop.call_soon_threadsafe(self._forsaken, connection, context=contextvars.Context())
            except MemoryError:
                # What the first call has freed may do for a second one. Nobody else knows of the connection.
                self.loop.call_soon_threadsafe(self._forsaken, connection, context=contextvars.Context())
        return True

    def _forsaken(self, connection: PooledConnection) -> None:
        if connection in self.lent:
            self.lent.remove(connection)
            self._returned()
            self.discard(connection, "unreleased")

    # ---- Time ----

    def _look(self, now: float) -> float:
        for turn in self.waiting.overdue(now):
            self.waiting.give(turn, self._timeout_error(monotonic() - turn.since))
            self.timeouts += 1
        due = self.waiting.next_due()
        for connection in list(self.idle):  # those that have been idle longest come first
            if connection.expires_at <= now:
                reason = "age"
            elif self.surplus() > 0 and connection.idle_since + self._max_idle <= now:
                reason = "idle"
            else:
                continue
            self.retire(connection, reason)
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
        if self.loop is not running_loop():  # None in a forked process
            raise UsageError(f"{self._where}: the pool belongs to another event loop; close it there", self._details)
        try:
            self._refuse()
            for connection in self.idle:
                self.disconnect(connection)
            self.idle.clear()
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
        try:
            self._end_all()
        except BaseException:
            # For want of memory, say. What the first attempt has left is ended by a second one.
            self._end_all()
            raise

    def _end_all(self) -> None:
        # May be called twice.
        self._refuse()
        checked = [connection for connection in self.preparing.values() if connection is not None]
        for connection in (*self.lent, *self.idle, *checked, *self.closing.values()):
            connection.unwatch()
            connection.link.abort()
        self.lent.clear()
        self.idle.clear()
        self._all_returned.set()

    def _refuse(self) -> None:
        """Lend nothing more. Idle and lent connections stay as they are."""
        self.closed = True
        if self.timer is not None:
            self.timer.end()
        if self.loop is not None and self.loop.is_closed():
            return
        while (turn := self.waiting.first()) is not None:
            self.waiting.give(turn, self._closed_error())
        for task in self.preparing:
            task.cancel()

    # ---- Errors ----

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"{self._where}: the pool is closed", self._details | {"phase": "acquire"})

    def _timeout_error(self, elapsed: float) -> PoolTimeoutError:
        counts = {"in_use": len(self.lent), "preparing": len(self.preparing), "waiting": len(self.waiting)}
        message = (
            f"{self._where}: no connection within {elapsed:.2f} s: of at most {self._max_size}, {counts['in_use']} are"
            f" in use and {counts['preparing']} being made; {counts['waiting']} tasks wait"
        )
        return PoolTimeoutError(message, self._details | counts | {"phase": "acquire", "elapsed": round(elapsed, 3)})
