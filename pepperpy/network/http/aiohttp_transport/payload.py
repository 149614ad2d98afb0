"""A request's body as aiohttp wants it: its argument `data`."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from pepperpy.network.http.request import Payload
from pepperpy.network.http.sources import OCTETS, BytesSource
from pepperpy.network.http.upload import UploadPayload
from pepperpy.network.units import MIB

# aiohttp sends larger bytes in one piece too, but warns (payload.py, TOO_LARGE_BYTES_BODY).
MAX_BYTES = MIB


class StreamedPayload(aiohttp.Payload):
    """A body that is read while it is sent."""

    def __init__(self, payload: Payload) -> None:
        # The headers of the request say what it is.
        super().__init__(None, content_type=OCTETS)
        self._streamed = payload

    @property
    def size(self) -> int | None:
        return self._streamed.size

    @property
    def autoclose(self) -> bool:
        # Writing it closes what that has opened.
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("the body is a stream, which has no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await self._streamed.write_with_length(writer, content_length)


def data_of(payload: bytes | Payload | None, body: Any) -> Any:
    """The argument `data` of aiohttp for this payload of a `Body`."""
    if isinstance(payload, bytes) and len(payload) > MAX_BYTES:
        payload = UploadPayload(body, BytesSource(payload, OCTETS), None)
    return payload if payload is None or isinstance(payload, bytes) else StreamedPayload(payload)
