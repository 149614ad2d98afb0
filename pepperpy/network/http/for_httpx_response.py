"""What httpx and httpx2 read an answer's body from, and the response that they give to their user."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from pepperpy.network.http.transport import Answer, Trip

if TYPE_CHECKING:
    from pepperpy.network.http.for_httpx import Exchanges


class Body:
    """The body of an answer that is still to come; a base of the stream that httpx reads."""

    def __init__(self, exchanges: Exchanges, answer: Answer, request: Any, trip: Trip, payload: object) -> None:
        self._exchanges = exchanges
        self._answer = answer
        self._request = request
        self._trip = trip
        self._payload = payload

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._exchanges.pieces_of(self._answer, self._request, self._trip, self._payload)

    async def aclose(self) -> None:
        self._answer.release()


class Content:
    """The body of an answer that is there; a base of the stream that httpx reads. No generator: those cost more."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, b""
        if not content:
            raise StopAsyncIteration
        return content


class Whole:
    """A response whose body is there and is not encoded; a base of its class, in front of that of httpx.

    httpx leads a body through four generators, a decoder and two objects that cut it to pieces, a tenth of the time of
    a small request (measured). This body comes as `aiter_bytes()` gives it.
    """

    stream: Any
    is_stream_consumed: bool
    is_closed: bool
    aclose: Any
    _taken = 0

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
        if chunk_size is not None or self.is_stream_consumed or self.is_closed:
            response: Any = super()
            async for piece in response.aiter_bytes(chunk_size):
                yield piece
            return
        self.is_stream_consumed = True
        # From the stream, and not from memory: hooks of httpx may have put another one around it.
        async for piece in self.stream:
            self._taken += len(piece)
            yield piece
        await self.aclose()

    @property
    def num_bytes_downloaded(self) -> int:
        response: Any = super()
        count: int = self._taken or response.num_bytes_downloaded
        return count
