"""`Queue`: the exchanges that wait for a connection, first come, first served as far as the limit of each host lets it.

Who comes next is found without a look at all who wait: thousands may wait for a host that is at its limit.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pepperpy.network.http.h1.connection import Connection
    from pepperpy.network.http.h1.origins import Origin


class Place:
    """A place in the queue, behind all of a lower number.

    `future` brings a connection, or None: a slot to make one.
    """

    __slots__ = ("future", "number", "origin")

    def __init__(self, number: int, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.origin = origin
        self.future: asyncio.Future[Connection | None] = loop.create_future()


class Queue(OrderedDict[Place, None]):
    """All places in the order of their arrival. A plain dict is slow at its front."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._last_number = 0
        # A heap of the first places of the origins. An entry counts while its place is the first of its origin.
        self._next: list[tuple[int, Origin]] = []
        # Those that are at their own limit have no entry.
        self._at_limit: set[Origin] = set()

    def join(self, origin: Origin) -> Place:
        """Wait at the end."""
        self._last_number += 1
        place = Place(self._last_number, origin, self._loop)
        self[place] = origin.places[place] = None
        if len(origin.places) == 1:
            self._put_in_line(origin)
        return place

    def leave(self, place: Place) -> None:
        """Wait no more: it was served, or has given up."""
        origin = place.origin
        was_first = next(iter(origin.places)) is place
        del self[place]
        del origin.places[place]
        if not origin.places:
            self._at_limit.discard(origin)
        elif was_first:
            self._put_in_line(origin)
        if len(self._next) > 2 * len(self) + 100:  # 100: arbitrary
            # Many have given up while nobody was served.
            self._next = [entry for entry in self._next if entry[1].first_number == entry[0]]
            heapq.heapify(self._next)

    def _put_in_line(self, origin: Origin) -> None:
        self._at_limit.discard(origin)
        heapq.heappush(self._next, (origin.first_number, origin))

    def first(self) -> Place | None:
        """Who comes next, of those whose origin is not put off."""
        while self._next:
            number, origin = self._next[0]
            if origin.first_number == number:
                return next(iter(origin.places))
            heapq.heappop(self._next)
        return None

    def put_off(self, place: Place) -> None:
        """Pass over all who wait for the same origin as the first, which is at its limit, until `look_again()`."""
        heapq.heappop(self._next)
        self._at_limit.add(place.origin)

    def look_again(self, limit: int) -> None:
        """Put back in line who waits for an origin that is not at its `limit` any more, or has an idle connection."""
        # Each of these origins has connections, so they are no more than `max_connections`.
        for origin in [origin for origin in self._at_limit if origin.idle or origin.count < limit]:
            self._put_in_line(origin)

    def clear(self) -> None:
        for place in self:
            place.origin.places.clear()
        self._next.clear()
        self._at_limit.clear()
        super().clear()
