"""The connections of one client: who gets one, who waits for one, and which are too many.

A connection is in one place: idle at its origin, or with the one exchange that it carries (`capacity` 1; HTTP/2 would
carry more). Each one, and each that is being made, has one of `max_connections` slots, from before it is made until it
is dropped. Whoever waits for a slot or a connection does so in one queue: first come, first served.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Collection, Iterator
from typing import TYPE_CHECKING

from pepperpy.network._core.http_exchange import HTTPPool, key_of
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.h1.connection import Connection
from pepperpy.network.http.h1.origins import Failed, Key, Origin
from pepperpy.network.http.h1.queue import Place, Queue
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip, WireError
from pepperpy.network.last_turns import after_last_turns
from pepperpy.network.timers import Timer
from pepperpy.network.watchdog import time_limit

if TYPE_CHECKING:
    from pepperpy.network.events import Observer


class Pool(HTTPPool):
    """Made and used inside one running loop. Its base takes idle connections and puts them back."""

    discarded: int
    queue: Queue
    origins: dict[Key, Origin]
    # One for the silence of all servers, and for connections that have been idle for too long.
    timer: Timer

    def __init__(self, config: HTTPConfig) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(Queue(self._loop), Timer(self._loop, self._look), config.keepalive_timeout)
        self._config = config
        self._limit = config.max_connections
        self._limit_per_host = config.max_connections_per_host or config.max_connections
        self._slots_taken = 0
        self._failed: Failed = {}
        self._open: set[Connection] = set()

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return self._open

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def slots_taken(self) -> int:
        """Of connections that are open, or being made."""
        return self._slots_taken

    @property
    def waiting(self) -> int:
        """Exchanges that wait for a connection."""
        return len(self.queue)

    async def make(self, request: Request, trip: Trip) -> Connection:
        """A connection for an exchange that found none idle: a new one, or one that became free meanwhile.

        Raises:
            WireError: There is none: refused, too late, the pool was closed, ...

        Cancelled: no slot is taken, and a connection that was given goes to the next.
        """
        limits = request.limits
        if limits.queue is None:
            return await self._make(request, trip)
        try:
            with time_limit(limits.queue):
                return await self._make(request, trip)
        except TimeoutError as error:
            cause = error
        if trip.connect_at:
            raise WireError("connect_timeout", "timed out (connect_timeout)", cause)
        raise WireError("queue_timeout", "no connection became free in time", cause)

    async def _make(self, request: Request, trip: Trip) -> Connection:
        if self.closed:
            raise WireError("closed", "the client was closed")
        key = key_of(request)
        origin = self.origins.get(key)
        if origin is None:
            origin = Origin(key, request, self._config, self._failed)
            self.origins[key] = origin
        has_slot = not self.queue and self._take_slot(origin)
        while not has_slot:
            try:
                with time_limit(request.limits.pool):
                    connection = await self._wait(origin, trip.observer)
            except TimeoutError as error:
                raise WireError("queue_timeout", cause=error, limit="pool_timeout") from None
            if connection is None:
                break
            # The loop may have read since it was given: an end, or bytes that nobody asked for.
            if connection.is_fit():
                trip.reused = True
                return connection
            self.discard(connection)
            has_slot = self._take_slot(origin)
        protocol = None
        try:
            protocol = await origin.connect(request.limits.connect, trip)
            if self.closed:
                raise WireError("closed", "the client was closed")
            connection = Connection(self, origin, protocol)
        except BaseException:
            if protocol is not None:
                protocol.abort()
            self._give_slot(origin)
            raise
        self._open.add(connection)
        protocol.watch(connection.ended, False)
        protocol.watch_unasked(connection.ended)
        return connection

    # ---- Slots, and the queue for them ----

    def _take_slot(self, origin: Origin) -> bool:
        """A slot for a connection to this origin, if need be that of one that is idle elsewhere."""
        if origin.count >= self._limit_per_host:
            return False
        if self._slots_taken >= self._limit:
            oldest = min(self._idle(), key=lambda connection: connection.idle_since, default=None)
            if oldest is None:
                return False
            self._drop(oldest)
            oldest.close()
        # Those whose last connection has gone meanwhile are not among them.
        self.origins[origin.key] = origin
        origin.count += 1
        self._slots_taken += 1
        return True

    def _free_slot(self, origin: Origin) -> None:
        origin.count -= 1
        self._slots_taken -= 1
        self._forget_unused(origin)

    def _forget_unused(self, origin: Origin) -> None:
        # A client that visits many hosts keeps nothing of them.
        if not origin.count and not origin.places:
            self.origins.pop(origin.key, None)

    def _give_slot(self, origin: Origin) -> None:
        self._free_slot(origin)
        self.serve()

    def _wait(self, origin: Origin, observer: Observer | None) -> Awaitable[Connection | None]:
        if observer is None:
            return self._wait_in_queue(origin)
        from pepperpy.network.events import PoolWaitDone

        return observer.timed(self._wait_in_queue(origin), PoolWaitDone)

    async def _wait_in_queue(self, origin: Origin) -> Connection | None:
        place = self.queue.join(origin)
        # It may be served before all that are in front: each origin has a limit of its own.
        self.serve()
        try:
            return await place.future
        except BaseException:
            if place in self.queue:
                self.queue.leave(place)
            else:
                self._take_back(place)
            raise
        finally:
            self._forget_unused(origin)

    def _take_back(self, place: Place) -> None:
        """Whoever had it is cancelled in the same turn of the loop in which it was served; or the pool was closed."""
        if place.future.cancelled() or place.future.exception() is not None:
            return
        connection = place.future.result()
        if connection is None:
            self._give_slot(place.origin)
        else:
            self.release(connection)

    def serve(self) -> None:
        """Give what is free to those who wait, in the order in which they came."""
        self.queue.look_again(self._limit_per_host)
        while (place := self.queue.first()) is not None:
            origin = place.origin
            connection = self.take_idle(origin) if origin.idle else None
            if connection is None and not self._take_slot(origin):
                if origin.count < self._limit_per_host:
                    return  # it is the limit of all, and nothing is idle
                self.queue.put_off(place)
                continue
            self.queue.leave(place)
            if not place.future.done():
                place.future.set_result(connection)
            # Else it was cancelled, and is about to find out.
            elif connection is None:
                self._free_slot(origin)
            else:
                self.put(connection)

    # ---- What connections and the base call ----

    def discard(self, connection: Connection) -> None:
        """It carries no exchange, and is not fit for another. Those that wait are served by whoever calls this."""
        if self._drop(connection):
            self.discarded += 1
        connection.abort()

    def drop(self, connection: Connection) -> None:
        """It carries no more exchanges. Whoever calls this closes it, or has done so."""
        if self._drop(connection):
            self.serve()

    def _drop(self, connection: Connection) -> bool:
        if connection not in self._open:
            return False
        self._open.discard(connection)
        origin = connection.origin
        if connection in origin.idle:
            origin.idle.remove(connection)
        self._free_slot(origin)
        return True

    def _idle(self) -> Iterator[Connection]:
        # The one that has been idle for longest is the first of its origin.
        return (origin.idle[0] for origin in self.origins.values() if origin.idle)

    # ---- Time ----

    def _look(self, now: float) -> float:
        earliest = math.inf
        for connection in list(self._open):
            silent = connection.silent_until
            if silent <= now:
                after_last_turns(self._loop, connection.watch_silence(), connection.time_out)
            else:
                earliest = min(earliest, silent)
        for origin in list(self.origins.values()):
            for connection in list(origin.idle):
                if connection.idle_until <= now:
                    self.drop(connection)
                    connection.close()
                else:
                    earliest = min(earliest, connection.idle_until)
        return earliest

    # ---- The end ----

    async def close(self, seconds: float) -> None:
        """End all connections, in order for so long, then at once; who waits for one gets `WireError`."""
        ending = self._end(in_order=True)
        closed = [future for connection in ending if (future := connection.protocol.wait_closed()) is not None]
        try:
            if closed:
                await asyncio.wait(closed, timeout=seconds)
        finally:
            for connection in ending:
                connection.protocol.abort()
        if closed:
            # What was aborted ends within the next turns of the loop.
            await asyncio.wait(closed, timeout=1.0)

    def abandon(self) -> None:
        """End all connections without a turn of the loop."""
        for connection in self._end(in_order=False):
            connection.protocol.abandon()

    def _end(self, *, in_order: bool) -> list[Connection]:
        self.closed = True
        self.timer.end()
        for place in self.queue:
            if not place.future.done() and in_order:
                place.future.set_exception(WireError("closed", "the client was closed"))
        self.queue.clear()
        connections = list(self._open)
        for connection in connections:
            self._drop(connection)
            if in_order:
                connection.end()
        return connections
