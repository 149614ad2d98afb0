"""What this package uses of aiohttp's `ClientResponse` and `StreamReader`, made from a `Reply`."""

from __future__ import annotations

from collections import deque
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

import aiohttp
from multidict import CIMultiDictProxy

from pepperpy.network.http.call import Call
from pepperpy.network.testing.http_reply import BODY_FAULTS, Reply
from pepperpy.network.testing.http_request import MockRequest

if TYPE_CHECKING:
    from pepperpy.network.testing.http_wire import MockWire

# RFC 9110, sections 15.3.5 and 15.4.5.
_WITHOUT_BODY = frozenset({204, 304})


class MockResponse:
    """Stands in for a `ClientResponse`."""

    def __init__(self, wire: MockWire, call: Call, request: MockRequest, reply: Reply) -> None:
        self.status = reply.status
        self.reason = reply.reason
        self.method = request.method
        self.url = request.target
        self.headers = CIMultiDictProxy(reply.headers)
        self.cookies = SimpleCookie()
        for line in reply.headers.getall("Set-Cookie", []):
            self.cookies.load(line)
        self.content = MockContent(wire, call, request, reply)

    async def read(self) -> bytes:
        pieces = []
        while piece := await self.content.readany():
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.content.close()

    def release(self) -> None:
        self.content.close()

    async def wait_for_close(self) -> None:
        self.content.close()


class MockContent:
    """Stands in for a `StreamReader`."""

    def __init__(self, wire: MockWire, call: Call, request: MockRequest, reply: Reply) -> None:
        self._wire = wire
        self._call = call
        self._request = request
        self._fault = None if reply.then_fail is None else BODY_FAULTS[reply.then_fail]
        self._whole = reply.body is not None
        parts = reply.chunks
        if request.method == "HEAD" or reply.status in _WITHOUT_BODY:
            parts, self._fault, self._whole = [], None, True
        # No empty piece: that would be the end.
        self._parts = deque(part for part in parts if part != b"")
        self._closed = False
        self.total_bytes = len(reply.body) if reply.body is not None and self._parts else 0

    @property
    def total_raw_bytes(self) -> int:
        """As they came: nothing is compressed."""
        return self.total_bytes

    def is_eof(self) -> bool:
        """Whether all has arrived; what has no length arrives as it is read."""
        return self._whole or self.at_eof()

    def at_eof(self) -> bool:
        """Whether all has been read."""
        return not self._parts and self._fault is None

    def close(self) -> None:
        self._closed = True

    async def readany(self) -> bytes:
        if self._closed or (self._wire.closed and not self._whole):
            raise aiohttp.ClientConnectionError("Connection closed")
        while self._parts:
            part = self._parts.popleft()
            if isinstance(part, bytes):
                if not self._whole:
                    self.total_bytes += len(part)
                return part
            await self._wire.silence(self._call, part)
        if self._fault is not None:
            raise self._fault(self._request)
        return b""
