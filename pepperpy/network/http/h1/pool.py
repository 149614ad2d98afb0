"""The connections of one client: who gets one, who waits for one, and which are too many.

A connection is in one place: idle at its origin, or with the one exchange that it carries (`capacity` 1; HTTP/2 would
carry more). Each one, and each that is being made, has one of `max_connections` slots, from before it is made until it
is dropped. Whoever waits for a slot or a connection does so in one queue: first come, first served.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Collection
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
        """The connections that are open."""
        return self._open

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def slots_taken(self) -> int:
        """How many slots are taken: by connections that are open, or being made."""
        return self._slots_taken

    @property
    def waiting(self) -> int:
        """How many exchanges wait for a connection."""
        return len(self.queue)

    async def make(self, request: Request, trip: Trip) -> Connection:
        """A connection for an exchange that found none idle: a new one, or one that became free meanwhile.

        With `trip.fresh` it is always a new one.

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
        if self.queue or not self._take_slot(origin):
            connection = await self._wait(origin, request.limits.pool, trip.observer)
            if connection is not None:
                # Since it was given, the loop may have read its end, or bytes that nobody asked for.
                if trip.fresh:
                    self._drop(connection)
                    connection.close()
                elif connection.is_fit():
                    trip.reused = True
                    return connection
                else:
                    self.discard(connection)
                if self.closed:
                    raise WireError("closed", "the client was closed")
                self._take_slot(origin)  # the slot of the closed one, which nobody else has got meanwhile
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
        # The end of its stream may have come with it: that is for the exchange to find, as an end that comes later.
        connection.busy = True
        self._open.add(connection)
        protocol.watch(connection.ended, False)
        protocol.watch_unasked(connection.ended)
        return connection

    # ---- Slots, and the queue for them ----

    def _take_slot(self, origin: Origin) -> bool:
        """Take a slot for a connection to this origin, or the one of an idle connection. False if there is none."""
        if origin.count >= self._limit_per_host:
            return False
        if self._slots_taken >= self._limit:
            oldest = min(self._idle(), key=lambda connection: connection.idle_since, default=None)
            if oldest is None:
                return False
            self._drop(oldest)
            oldest.close()
        # Again, because an origin is forgotten when its last connection is gone: by the close above, for example.
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

    async def _wait(self, origin: Origin, limit: float | None, observer: Observer | None) -> Connection | None:
        place = self.queue.new_place(origin)
        try:
            self.queue.join(place)
            # A connection may be free for it although others wait in front: each origin has a limit of its own.
            self.serve()
            with time_limit(limit):
                await self._served(place, observer)
        except BaseException as error:
            try:
                self.queue.leave(place)
            finally:
                self._take_back(place)
            if isinstance(error, TimeoutError):
                raise WireError("queue_timeout", cause=error, limit="pool_timeout") from None
            raise
        finally:
            self._forget_unused(origin)
        assert not isinstance(place.outcome, WireError), "it was raised"
        return place.outcome

    def _served(self, place: Place, observer: Observer | None) -> Awaitable[None]:
        if observer is None:
            return _outcome(place)
        from pepperpy.network.events import PoolWaitDone

        return observer.timed(_outcome(place), PoolWaitDone)

    def _take_back(self, place: Place) -> None:
        """Take back what a place was given whose task was cancelled in the same turn of the loop."""
        connection = place.outcome
        if not place.is_given or isinstance(connection, WireError):
            return
        if connection is None:
            self._give_slot(place.origin)
        elif connection.is_fit():
            connection.busy = False
            self.release(connection)
        else:
            self.discard(connection)
            self.serve()

    def serve(self) -> None:
        """Give what is free to those who wait, in the order in which they came."""
        try:
            self._serve()
        except MemoryError:
            # What could not be given is closed, and its slot is free for whoever waits for it.
            self._serve()

    def _serve(self) -> None:
        self.queue.look_again(self._limit_per_host)
        while (place := self.queue.first()) is not None:
            if place.is_over:
                # Its task was cancelled, and has not run since.
                self.queue.leave(place)
                continue
            origin = place.origin
            connection = self.take_idle(origin) if origin.idle else None
            if connection is None and not self._take_slot(origin):
                if origin.count < self._limit_per_host:
                    return  # `max_connections` is reached, and no connection is idle
                self.queue.put_off(place)
                continue
            try:
                if connection is not None:
                    # If it ends before it is used, the task that gets it finds out, and uses its slot.
                    connection.busy = True
                place.give(connection)
            except BaseException:
                if connection is None:
                    self._free_slot(origin)
                else:
                    self._drop(connection)
                    connection.abort()
                raise
            self.queue.leave(place)

    # ---- What connections and the base call ----

    def discard(self, connection: Connection) -> None:
        """Close an idle connection that is not fit for use. The caller serves those that wait."""
        if self._drop(connection):
            self.discarded += 1
        connection.abort()

    def drop(self, connection: Connection) -> None:
        """Forget a connection, which the caller closes or has closed, and give its slot to the next."""
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

    def _idle(self) -> list[Connection]:
        # The one that has been idle for longest is the first of its origin.
        return [origin.idle[0] for origin in self.origins.values() if origin.idle]

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
        """End all connections, in order for so long, then at once. Exchanges that wait for one get `WireError`."""
        try:
            ending = self._end(in_order=True)
        except BaseException:
            # For want of memory, say. What the first attempt has left is ended by a second one.
            for connection in self._end(in_order=True):
                connection.protocol.abort()
            raise
        try:
            await _wait_closed(ending, seconds)
        finally:
            for connection in ending:
                connection.protocol.abort()
        # What was aborted ends within the next turns of the loop.
        await _wait_closed(ending, 1.0)

    def abandon(self) -> None:
        """End all connections without a turn of the loop."""
        for connection in self._end(in_order=False):
            connection.protocol.abandon()

    def _end(self, *, in_order: bool) -> list[Connection]:
        self.closed = True
        self.timer.end()
        for place in self.queue:
            if not place.is_over and in_order:
                place.give(WireError("closed", "the client was closed"))
        self.queue.clear()
        connections = list(self._open)
        for connection in connections:
            if in_order:
                connection.end()
            self._drop(connection)
        return connections


async def _wait_closed(connections: list[Connection], seconds: float) -> None:
    """Wait until these connections are gone, for so long at most."""
    with contextlib.suppress(TimeoutError), time_limit(seconds):
        for connection in connections:
            if (closed := connection.protocol.wait_closed()) is not None:
                await closed


async def _outcome(place: Place) -> None:
    await place
    if isinstance(place.outcome, WireError):
        raise place.outcome
