"""`MockAnswer`: an `Answer` made from a `Reply`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from multidict import CIMultiDict, CIMultiDictProxy

from pepperpy.network.http.content import raw_headers
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip, WireError
from pepperpy.network.testing.http_reply import BODY_FAULTS, Reply

if TYPE_CHECKING:
    from pepperpy.network.testing.http_wire import MockTransport

# RFC 9110, sections 15.3.5 and 15.4.5.
_WITHOUT_BODY = frozenset({204, 304})


class MockAnswer:
    """See `Answer`. Nothing is compressed, so the bytes of the body are those that came."""

    carrier = "mock"
    version = "1.1"
    trailers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

    def __init__(self, transport: MockTransport, request: Request, trip: Trip, reply: Reply) -> None:
        self.status: int = reply.status
        self.reason: str = reply.reason
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(reply.headers)
        self._transport = transport
        self._request = request
        self._trip = trip
        self._fault = None if reply.then_fail is None else BODY_FAULTS[reply.then_fail]
        self._whole = reply.body is not None
        parts = reply.chunks
        if request.method == "HEAD" or reply.status in _WITHOUT_BODY:
            parts, self._fault, self._whole = [], None, True
        # No empty piece: that would be the end.
        self._parts = deque(part for part in parts if part != b"")
        self._given_back = False
        self.wire_bytes: int = len(reply.body) if reply.body is not None and self._parts else 0

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        return raw_headers(self.headers)

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    @property
    def ended(self) -> bool:
        return not self._parts and self._fault is None and not self._given_back

    @property
    def whole_size(self) -> int | None:
        # What has no length arrives as it is read.
        return self.wire_bytes if self._whole or self.ended else None

    def take_whole(self, limit: int | None) -> bytes | None:
        return None

    async def read_some(self) -> bytes:
        if self._given_back or (self._transport.closed and not self._whole):
            raise WireError("closed")
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, bytes):
                if not self._whole:
                    self.wire_bytes += len(part)
                return part
            await self._transport.silence(self._request, self._trip, part)
        if self._fault is not None:
            raise self._fault(self._request.url.host or "")
        return b""

    async def read(self) -> bytes:
        pieces = []
        while piece := await self.read_some():
            pieces.append(piece)
        return b"".join(pieces)

    def release(self) -> None:
        self._given_back = True

    def abort(self) -> None:
        self._given_back = True
