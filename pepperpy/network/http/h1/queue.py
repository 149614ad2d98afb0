"""`Queue`: the exchanges that wait for a connection, first come, first served as far as the limit of each host lets it.

Who comes next is found without a look at all who wait: thousands may wait for a host that is at its limit.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from pepperpy.network._core.handover import Handover

if TYPE_CHECKING:
    from pepperpy.network.http.h1.connection import Connection
    from pepperpy.network.http.h1.origins import Origin
    from pepperpy.network.http.transport import WireError


class Place(Handover):
    """A place in the queue, behind all of a lower number. It brings a connection, or None: a slot to make one."""

    __slots__ = ("number", "origin")

    outcome: Connection | WireError | None

    def __init__(self, number: int, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.number: int = number
        self.origin: Origin = origin


class Queue(OrderedDict[Place, None]):
    """All places in the order of their arrival. A plain dict is slow at its front."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._last_number = 0
        # A heap of the first places of the origins. An entry counts while its place is the first of its origin.
        self._next: list[tuple[int, Origin]] = []
        # Origins at their own limit: they have no entry in the heap.
        self._at_limit: set[Origin] = set()

    def new_place(self, origin: Origin) -> Place:
        """A place behind all others, not yet in the queue."""
        self._last_number += 1
        return Place(self._last_number, origin, self._loop)

    def join(self, place: Place) -> None:
        """Wait at the end. If this raises, `leave()` takes back what it has done."""
        origin = place.origin
        self[place] = origin.places[place] = None
        if len(origin.places) == 1:
            self._put_in_line(place)

    def leave(self, place: Place) -> None:
        """Wait no more: it was served, or has given up. Does nothing if it has left already."""
        origin = place.origin
        # First what may fail.
        if origin.first_number == place.number and (second := next(islice(origin.places, 1, None), None)) is not None:
            self._put_in_line(second)
        self.pop(place, None)
        origin.places.pop(place, None)
        if not origin.places:
            self._at_limit.discard(origin)
        if len(self._next) > 2 * len(self) + 100:  # 100: arbitrary
            # Many have given up while nobody was served.
            self._next = [entry for entry in self._next if entry[1].first_number == entry[0]]
            heapq.heapify(self._next)

    def _put_in_line(self, place: Place) -> None:
        heapq.heappush(self._next, (place.number, place.origin))
        self._at_limit.discard(place.origin)

    def first(self) -> Place | None:
        """The place that comes next; places of origins that are put off do not count."""
        while self._next:
            number, origin = self._next[0]
            if origin.first_number == number:
                return next(iter(origin.places))
            heapq.heappop(self._next)
        return None

    def put_off(self, place: Place) -> None:
        """Pass over `place`, the first one, and all of its origin, which is at its limit, until `look_again()`."""
        self._at_limit.add(place.origin)
        heapq.heappop(self._next)

    def look_again(self, limit: int) -> None:
        """Put those back in line whose origin is no longer at its `limit`, or has an idle connection."""
        # Each of these origins has connections, so they are no more than `max_connections`.
        for origin in [origin for origin in self._at_limit if origin.idle or origin.count < limit]:
            self._put_in_line(next(iter(origin.places)))

    def clear(self) -> None:
        for place in self:
            place.origin.places.clear()
        self._next.clear()
        self._at_limit.clear()
        super().clear()
