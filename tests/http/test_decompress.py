"""`decompress=False`: bodies as they came, in responses, streams and downloads, for one request or all of a client."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.http_faults import response
from support.http_lab import TRANSPORTS
from support.http_peer import Connection, http_peer

from pepperpy.network import DecodeError, HTTPClient, HTTPConfig, HTTPStatusError, ResponseTooLargeError

TEXT = b"a text that is long enough to be shorter when it is compressed, " * 50
PACKED = gzip.compress(TEXT)
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@contextlib.asynccontextmanager
async def client_of_packed_bodies(transport: str, **settings: Any) -> AsyncIterator[HTTPClient]:
    async def handle(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            status = "200 OK"
            if request.target == "/moved":
                status = "302 Found"
            elif request.target == "/missing":
                status = "404 Not Found"
            await connection.send(response(PACKED, "Content-Encoding: gzip", "Location: /", status=status))

    async with http_peer(handle) as peer:
        config = HTTPConfig(peer.url, **TRANSPORTS[transport] | {"retries": 0} | settings)
        async with HTTPClient(config) as client:
            yield client


@each_transport
async def test_a_response_is_given_as_it_came_if_its_request_says_so(transport: str) -> None:
    async with client_of_packed_bodies(transport) as client:
        answer = await client.request("GET", "/", decompress=False)
        assert (answer.content, answer.headers["Content-Encoding"]) == (PACKED, "gzip")
        assert (await client.request("GET", "/")).content == TEXT
        assert (await client.request("GET", "/moved", decompress=False)).content == PACKED


@each_transport
async def test_a_stream_is_given_as_it_came_if_its_request_says_so(transport: str) -> None:
    async with client_of_packed_bodies(transport) as client:
        for decompress, expected in ((False, PACKED), (True, TEXT)):
            async with client.stream("GET", "/", decompress=decompress) as stream:
                assert await stream.read() == expected


@each_transport
async def test_a_client_may_leave_all_bodies_as_they_came_and_a_request_may_not(transport: str) -> None:
    async with client_of_packed_bodies(transport, decompress=False, text_errors="strict") as client:
        assert (await client.request("GET", "/")).content == PACKED
        async with client.stream("GET", "/") as stream:
            assert await stream.read() == PACKED
        assert await client.get("/", decompress=True) == TEXT.decode()
        with pytest.raises(DecodeError, match="the body is not text"):
            await client.get("/")


@each_transport
async def test_the_body_of_an_error_is_given_likewise(transport: str) -> None:
    async with client_of_packed_bodies(transport) as client:
        for decompress, expected in ((False, PACKED), (True, TEXT)):
            with pytest.raises(HTTPStatusError) as raised:
                await client.get("/missing", decompress=decompress)
            assert raised.value.body == expected


@each_transport
async def test_a_download_keeps_the_bytes_that_came_unless_it_is_told_otherwise(transport: str, tmp_path: Path) -> None:
    async with client_of_packed_bodies(transport) as client:
        for options, expected in (({}, PACKED), ({"decompress": False}, PACKED), ({"decompress": True}, TEXT)):
            await client.download("/", tmp_path / "file", **options)  # type: ignore[arg-type]
            assert (tmp_path / "file").read_bytes() == expected


@each_transport
async def test_the_limit_of_a_body_as_it_came_counts_what_came(transport: str) -> None:
    async with client_of_packed_bodies(transport, max_response_size=len(PACKED)) as client:
        assert (await client.request("GET", "/", decompress=False)).content == PACKED
        limit = len(PACKED) - 1
        with pytest.raises(ResponseTooLargeError, match=f"max_response_size={limit}") as raised:
            await client.request("GET", "/", decompress=False, max_response_size=limit)
        assert "decompressed" not in str(raised.value)
