"""What a `NetworkPool` has of connections: when another is made, and how each one ends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from pepperpy.network._core.lending import Lending, PooledConnection
from pepperpy.network.backoff import Backoff
from pepperpy.network.config import NetworkConfig, observer_of
from pepperpy.network.detached import detached_task
from pepperpy.network.errors import ConnectError
from pepperpy.network.pool.connection import Maker
from pepperpy.network.pool.queue import Queue
from pepperpy.network.tcp.client import NetworkClient, client_slots
from pepperpy.network.timers import Timer

logger = logging.getLogger("pepperpy.network.pool")

T = TypeVar("T")
C = TypeVar("C")  # a connection, or None

# The least seconds between two attempts to refill, whatever `retry_delay` says, because nobody waits for them.
# Arbitrary.
MIN_REFILL_DELAY_S = 0.1


class Supply(Lending):
    """Makes connections as they are needed, and closes those that cannot be lent again.

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
            client_slots(),
        )
        self._maker = maker
        self._observer = observer_of(config)
        self._all_returned = asyncio.Event()
        self.closing: dict[asyncio.Task[None], PooledConnection] = {}
        self._refill_at = -math.inf  # no refill before this time, because a connection failed
        self._refill_backoff = Backoff(config.retry_delay, config.max_retry_delay)
        self.created: int = 0
        self.failures: int = 0
        self.dropped: Counter[str] = Counter()

    @property
    def size(self) -> int:
        return len(self.lent) + len(self.idle) + len(self.preparing) + len(self.closing)

    # ---- Making ----

    def fill(self) -> None:
        """Begin what is missing: a preparation for each waiting task, then connections up to `min_size`."""
        while not self.closed:
            try:
                self._begin_missing()
                return
            except Exception as error:
                # A task of the pool could not be made. Whoever waits is told so, and must not wait for ever.
                is_last = not self.waiting
                self._failed(error)
                if is_last:
                    return

    def _begin_missing(self) -> None:
        # Idle connections that have to be checked come first: a task should not wait for a slow network if one passes.
        checks = sum([idle is not None for idle in self.preparing.values()])
        while len(self.waiting) > checks and self.idle:
            idle = self.idle.pop()
            try:
                if (flaw := idle.wake()) is None:
                    self._begin(idle)
                    checks += 1
                else:
                    self._drop(idle, flaw)
            except BaseException:
                self._drop(idle, "failed")
                raise
        while len(self.waiting) > len(self.preparing) and self.size < self._max_size:
            self._begin(None)
        while self.surplus() < 0 and self.size < self._max_size and self._refill_at <= monotonic():
            self._begin(None)

    def _begin(self, idle: PooledConnection | None) -> None:
        self._start("prepare", self._prepare(idle), self.preparing, idle, self._prepared)

    def _start(
        self,
        what: str,
        coroutine: Coroutine[Any, Any, T],
        under_way: dict[asyncio.Task[T], C],
        connection: C,
        done: Callable[[asyncio.Task[T]], object],
    ) -> None:
        """Run it as a task that is `under_way`, for this connection, until it calls `done`. All of that, or nothing."""
        # In nobody's context: the connection may be lent to anybody, again and again.
        task = detached_task(asyncio.get_running_loop(), coroutine, f"pool of {self._where}: {what}")
        try:
            under_way[task] = connection
            task.add_done_callback(done)
        except BaseException:
            under_way.pop(task, None)
            task.cancel()
            raise

    async def _prepare(self, idle: PooledConnection | None) -> PooledConnection | None:
        if asyncio.current_task() not in self.preparing:
            # An eager task, which runs before its maker knows it. `check` may ask the pool, which has not counted it.
            await asyncio.sleep(0)
        if idle is not None:
            # It needs a check: a task takes one that needs none at once, and nothing is prepared for it.
            if await self._maker.passes(idle):
                return idle
            self._note_dropped(idle, "check")
            if not self.waiting:
                return None
            # A new one, not the next idle one: on a dead network one check after the other would run out of time.
        connection = await self._maker.make(self)
        self.created += 1
        return connection

    def _prepared(self, task: asyncio.Task[PooledConnection | None]) -> None:
        # A done-callback runs even for a task that was cancelled before it began.
        connection = self.preparing.pop(task)
        try:
            error = self._cancelled_error() if task.cancelled() else task.exception()
            if error is None:
                if (connection := task.result()) is not None:
                    self._place(connection)
            else:
                if connection is not None:
                    connection.link.abort()
                if not self.closed:
                    self._failed(error)
        except BaseException:
            if connection is not None:
                self.lose(connection)
            raise
        finally:
            # Also after an error: then a waiting task gets another preparation.
            self.fill()

    def _place(self, connection: PooledConnection) -> None:
        if self.closed:
            connection.link.abort()
        # A waiting task gets the connection as it is. An idle one is looked at first, because its watch would not
        # notice what has come already.
        elif not self.waiting and (flaw := connection.flaw()) is not None:
            self._drop(connection, flaw)
        else:
            self.offer(connection)

    def _failed(self, error: BaseException) -> None:
        if (turn := self.waiting.first()) is not None:
            self.waiting.give(turn, error)
        else:
            logger.warning("%s: the pool cannot make a connection: %s", self._where, error)
        self.failures += 1
        self._put_off_refill()

    def _put_off_refill(self) -> None:
        if self.surplus() < 0 and self._refill_at <= monotonic():
            self.refill_failures += 1
            delay = max(MIN_REFILL_DELAY_S, self._refill_backoff.delay(self.refill_failures))
            refill_at = monotonic() + delay
            self._arm(refill_at)
            self._refill_at = refill_at

    def _arm(self, when: float) -> None:
        """See to it that `_look` is called at that time or before."""
        assert self.timer is not None
        self.timer.look_by(when)

    def _cancelled_error(self) -> ConnectError:
        # At a shutdown somebody may cancel all tasks. A waiting task that was not cancelled must not wait for ever.
        return ConnectError(f"{self._where}: connecting was cancelled", self._details | {"phase": "connect"})

    # ---- Closing ----

    def end(self, connection: PooledConnection, flaw: str | None) -> None:
        """Close a connection that its user has given back, in order if it is good."""
        self._returned()
        if flaw in (None, "unsent", "age"):
            if flaw is not None:
                self._note_dropped(connection, flaw)
            self.disconnect(connection)
        else:
            assert flaw is not None
            self.discard(connection, flaw)

    def _returned(self) -> None:
        if self.closed and not self.lent:
            self._all_returned.set()

    def lose(self, connection: PooledConnection) -> None:
        """Close a connection because of an error, for want of memory say, wherever it is. Nobody else would."""
        # A set that cannot grow has its new member all the same.
        self.lent.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self._returned()
        self.discard(connection, "failed")

    def disturbed(self, connection: PooledConnection, flaw: str) -> None:
        """Something has happened on an idle connection."""
        self.idle.remove(connection)
        self.discard(connection, flaw)

    def discard(self, connection: PooledConnection, flaw: str) -> None:
        """Close a connection at once, because it cannot be lent again, and make another where one is missing."""
        try:
            self._drop(connection, flaw)
        finally:
            self.fill()

    def _drop(self, connection: PooledConnection, flaw: str) -> None:
        try:
            self._close_at_once(connection, flaw)
        except BaseException:
            # What the first attempt has freed may do for a second one. Nobody else would close the connection.
            self._close_at_once(connection, flaw)
            raise

    def _close_at_once(self, connection: PooledConnection, flaw: str) -> None:
        # May be called twice.
        connection.link.abort()
        self._note_dropped(connection, flaw)
        if not connection.used:
            # The server may accept each connection and end it: do not ask it again and again.
            self._put_off_refill()

    def retire(self, connection: PooledConnection, reason: str) -> None:
        """Close a good connection in order."""
        self.idle.remove(connection)
        try:
            self._note_dropped(connection, reason)
            self.disconnect(connection)
        except BaseException:
            self._drop(connection, reason)
            raise

    def _note_dropped(self, connection: PooledConnection, reason: str) -> None:
        if connection.is_dropped:
            return
        self.dropped[reason] += 1
        connection.is_dropped = True
        if self._observer is not None:
            from pepperpy.network.events import ConnectionDropped

            self._observer.tell(ConnectionDropped, reason=reason)

    def disconnect(self, connection: PooledConnection) -> None:
        connection.unwatch()
        self._start("close", connection.link.disconnect(), self.closing, connection, self._disconnected)

    def _disconnected(self, task: asyncio.Task[None]) -> None:
        connection = self.closing.pop(task)
        try:
            # If the task was cancelled before it began, nothing has closed the client yet.
            connection.link.abort()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.warning("%s", error)
        except BaseException:
            connection.link.abort()
            raise
        finally:
            self.fill()
