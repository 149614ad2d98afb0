"""The responses of the transport for httpx and httpx2: a body that came with its head is read as httpx reads any."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.http_peer import Connection, http_peer
from support.httpx_libraries import Library

BODY = b"hello, body"
WHOLE = b"Content-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello, body"
CHUNKED = b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello, body\r\n0\r\n\r\n"

both = pytest.mark.parametrize("rest", [WHOLE, CHUNKED], ids=["whole", "chunked"])


def answering(rest: bytes) -> Callable[[Connection], Any]:
    async def answer(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(b"HTTP/1.1 200 OK\r\n" + rest)

    return answer


@both
async def test_a_response_that_was_read_is_closed_counted_and_timed(library: Library, rest: bytes) -> None:
    async with http_peer(answering(rest)) as peer, library.client() as client:
        response = await client.get(peer.url)
        assert isinstance(response, library.Response)
        assert (response.content, response.text, response.num_bytes_downloaded) == (BODY, BODY.decode(), 11)
        assert response.is_closed and response.is_stream_consumed and response.elapsed.total_seconds() > 0
        # What was read stays, and can be read again.
        assert await response.aread() == BODY
        assert [piece async for piece in response.aiter_bytes(6)] == [b"hello,", b" body"]
        assert [line async for line in response.aiter_lines()] == [BODY.decode()]
        with pytest.raises(library.StreamConsumed):
            await anext(response.aiter_raw())


@both
@pytest.mark.parametrize("name", ["aiter_raw", "aiter_bytes", "aiter_text", "aiter_lines"])
async def test_a_stream_is_read_once(library: Library, rest: bytes, name: str) -> None:
    async with http_peer(answering(rest)) as peer, library.client() as client:
        async with client.stream("GET", peer.url) as response:
            assert not response.is_closed and not response.is_stream_consumed and not response.num_bytes_downloaded
            pieces = [piece async for piece in getattr(response, name)()]
            assert pieces in ([BODY], [BODY.decode()])
            assert response.is_closed and response.is_stream_consumed and response.num_bytes_downloaded == 11
            with pytest.raises(library.StreamConsumed):
                await anext(response.aiter_bytes())
            with pytest.raises(library.ResponseNotRead):
                _ = response.content
        assert response.elapsed.total_seconds() > 0


@both
async def test_a_stream_comes_in_pieces_of_the_size_that_was_asked_for(library: Library, rest: bytes) -> None:
    async with http_peer(answering(rest)) as peer, library.client() as client:
        for name in ("aiter_raw", "aiter_bytes"):
            async with client.stream("GET", peer.url) as response:
                assert [piece async for piece in getattr(response, name)(6)] == [b"hello,", b" body"]
                assert response.num_bytes_downloaded == 11


@both
async def test_a_stream_that_was_left_gives_nothing_more(library: Library, rest: bytes) -> None:
    async with http_peer(answering(rest)) as peer, library.client() as client:
        async with client.stream("GET", peer.url) as response:
            pass
        assert response.is_closed
        with pytest.raises(library.StreamClosed):
            await response.aread()


async def test_an_empty_body_is_empty(library: Library) -> None:
    async with http_peer(answering(b"Content-Length: 0\r\n\r\n")) as peer, library.client() as client:
        response = await client.get(peer.url)
        assert (response.content, response.num_bytes_downloaded, response.is_closed) == (b"", 0, True)
        async with client.stream("GET", peer.url) as response:
            assert b"".join([piece async for piece in response.aiter_raw()]) == b""


@both
async def test_what_a_hook_puts_around_the_stream_is_read(library: Library, rest: bytes) -> None:
    async def shout(response: Any) -> None:
        stream = response.stream

        class Loud(library.AsyncByteStream):  # type: ignore[name-defined, misc]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                async for piece in stream:
                    yield piece.upper()

            async def aclose(self) -> None:
                await stream.aclose()

        response.stream = Loud()

    async with http_peer(answering(rest)) as peer, library.client(event_hooks={"response": [shout]}) as client:
        assert (await client.get(peer.url)).content == BODY.upper()


@both
async def test_a_response_can_be_pickled(library: Library, rest: bytes) -> None:
    async with http_peer(answering(rest)) as peer, library.client() as client:
        response = pickle.loads(pickle.dumps(await client.get(peer.url)))
        assert (response.status_code, response.content, response.num_bytes_downloaded) == (200, BODY, 11)


@both
async def test_a_response_is_freed_without_a_collection_of_garbage(library: Library, rest: bytes) -> None:
    async with http_peer(answering(rest)) as peer, library.client() as client:
        await client.get(peer.url)
        gc.disable()
        try:
            response = weakref.ref(await client.get(peer.url))
            assert response() is None
        finally:
            gc.enable()
