"""`AiohttpAnswer`: aiohttp's response as an `Answer`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict, CIMultiDictProxy

from pepperpy.network.http.aiohttp_transport.translate import FAILURES, wire_error
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip, WireError

if TYPE_CHECKING:
    from pepperpy.network.http.aiohttp_transport.connector import GuardedConnector

# aiohttp drops them.
_NO_TRAILERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())


class AiohttpAnswer:
    """See `Answer`."""

    carrier = "aiohttp"
    __slots__ = (
        "_connector",
        "_content",
        "_given_back",
        "_over",
        "_request",
        "_response",
        "_trip",
        "headers",
        "status",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, request: Request, trip: Trip, connector: GuardedConnector
    ) -> None:
        self.status: int = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        self._response = response
        self._content = response.content
        self._request = request
        self._trip = trip
        self._connector = connector
        self._given_back = False
        self._over = False  # read to its end, and the connection is free

    @property
    def reason(self) -> str:
        return self._response.reason or ""

    @property
    def version(self) -> str:
        version = self._response.version
        return "1.1" if version is None else f"{version.major}.{version.minor}"

    @property
    def fields(self) -> Iterable[tuple[bytes, bytes]]:
        return self._response.raw_headers

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    @property
    def trailers(self) -> CIMultiDictProxy[str]:
        return _NO_TRAILERS

    @property
    def ended(self) -> bool:
        return self._over or (not self._given_back and self._content.at_eof())

    @property
    def whole_size(self) -> int | None:
        return self._content.total_bytes if self._content.is_eof() else None

    @property
    def wire_bytes(self) -> int:
        # aiohttp's empty body, of HEAD, 204 and 304, lacks the field that this property of it looks at.
        return 0 if self._content is EMPTY_PAYLOAD else self._content.total_raw_bytes

    def take_whole(self, limit: int | None) -> bytes | None:
        return None

    async def read_some(self) -> bytes:
        if self._over:
            return b""
        try:
            # What has arrived is taken without a coroutine.
            if piece := self._content.read_nowait() or await self._content.readany():
                return piece
            await self._response.wait_for_close()
            self._over = True
            return b""
        except FAILURES as error:
            failure = self._failure(error)
        # Not inside of the except block: there its __context__ would hold what its cause was cleaned of.
        raise failure

    async def read(self) -> bytes:
        if self._over:
            return b""
        try:
            if self._content.is_eof():
                body = self._content.read_nowait()
                if self._response.connection is not None:
                    await self._response.wait_for_close()
            else:
                body = await self._response.read()
            self._over = True
            return body
        except FAILURES as error:
            failure = self._failure(error)
        raise failure

    def release(self) -> None:
        self._given_back = True
        self._response.release()

    def abort(self) -> None:
        self._given_back = True
        self._response.close()

    def _failure(self, error: Exception) -> WireError:
        self._response.close()  # aiohttp keeps the connection of a body that was silent for too long
        return wire_error(error, self._request, self._trip, self._given_back or self._connector.closed)
