"""Streams: bytes, lines, JSON lines and server-sent events as they come, and what is left when one leaves early."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from support.http_faults import TRUNCATED, answering, by_connection, chunked_response, closing_after, dripping, response
from support.http_peer import Connection, http_peer

from pepperpy.network import (
    ClosedError,
    DecodeError,
    HTTPClient,
    HTTPConfig,
    IncompleteReadError,
    InvalidRequestError,
    MessageTooLargeError,
    NetworkTimeoutError,
    ResponseLimits,
    ResponseTooLargeError,
    ServerSentEvent,
    UsageError,
)


async def test_chunks_come_as_they_arrive_and_not_at_the_end() -> None:
    steps = asyncio.Semaphore(0)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    async with http_peer(dripping(head + b"abc", steps)) as peer, HTTPClient() as client:
        for _ in head:
            steps.release()
        async with client.stream("GET", peer.url) as stream:
            assert (stream.status, stream.headers["Content-Length"]) == (200, "3")
            assert repr(stream) == "<HTTPStream 200 'OK'>"
            chunks = stream.chunks()
            for byte in (b"a", b"b", b"c"):
                steps.release()
                assert await anext(chunks) == byte
            with pytest.raises(StopAsyncIteration):
                await anext(chunks)


async def test_a_stream_is_iterated_read_or_both() -> None:
    async with http_peer(answering(chunked_response([b"one", b"two"]))) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            assert b"".join([chunk async for chunk in stream]) == b"onetwo"
            assert await stream.read() == b""
        async with client.stream("GET", peer.url) as stream:
            assert await stream.read() == b"onetwo"
        # Read to the end, the connection serves on.
        assert [r.connection for r in peer.requests] == [1, 1]


async def test_leaving_early_closes_the_connection_at_once() -> None:
    async def endless(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(bytes(65536))

    async with http_peer(endless) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            async for _ in stream:
                break
        assert client.stats.open_connections == 0
        with pytest.raises(LookupError):
            async with client.stream("GET", peer.url) as stream:
                raise LookupError
        assert client.stats.open_connections == 0
        await asyncio.wait_for(asyncio.gather(*peer.handlers), 30)


async def test_a_stream_whose_body_is_not_touched_leaves_nothing_behind() -> None:
    async with http_peer(answering(response(bytes(1 << 20)))) as peer, HTTPClient() as client:
        for _ in range(3):
            async with client.stream("GET", peer.url) as stream:
                assert stream.status == 200
        assert client.stats.open_connections == 0


async def test_a_stream_is_entered_once() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        stream = client.stream("GET", peer.url)
        assert repr(stream) == "<HTTPStream new>"
        async with stream:
            pass
        with pytest.raises(UsageError, match="entered once"):
            async with stream:
                pass


async def test_attempts_are_repeated_until_a_head_has_come_and_not_afterwards() -> None:
    handler = by_connection(closing_after(b""), closing_after(TRUNCATED["in a Content-Length body"]))
    async with http_peer(handler) as peer, HTTPClient(HTTPConfig(retry_delay=0)) as client:
        async with client.stream("GET", peer.url) as stream:
            assert stream.attempts == 2
            chunks = stream.chunks()
            assert await anext(chunks) == b"hello"
            with pytest.raises(IncompleteReadError, match="phase body, attempt 2"):
                await anext(chunks)
        assert len(peer.requests) == 2
        assert client.stats.open_connections == 0


async def test_a_stream_has_a_limit_where_one_is_asked_for() -> None:
    async with http_peer(answering(chunked_response([bytes(1000)] * 10))) as peer:
        async with HTTPClient(HTTPConfig(max_response_size=100)) as client:
            async with client.stream("GET", peer.url) as stream:
                assert len(await stream.read()) == 10_000
            async with client.stream("GET", peer.url, max_response_size=10_000) as stream:
                assert len(await stream.read()) == 10_000
            async with client.stream("GET", peer.url, max_response_size=9_999) as stream:
                with pytest.raises(ResponseTooLargeError, match="max_response_size=9999"):
                    await stream.read()


# ---- Lines ----


async def test_lines_of_any_length_come_whole_however_they_are_cut() -> None:
    long = b"x" * (1 << 20)
    for pieces in ([b"one\r\ntwo\n" + long + b"\n\nlast"], [b"one\r", b"\nt", b"wo\n", long, b"\n\nla", b"st"]):
        async with http_peer(answering(chunked_response(pieces))) as peer, HTTPClient() as client:
            async with client.stream("GET", peer.url) as stream:
                assert [line async for line in stream.lines()] == [b"one", b"two", long, b"", b"last"]


async def test_a_line_beyond_the_limit_is_an_error_after_the_lines_before_it() -> None:
    async def waiting(connection: Connection) -> None:
        await connection.read_request()
        # And nothing more: the error must not wait for it.
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nshort\n" + b"x" * 101)
        await connection.wait_closed()

    config = HTTPConfig(limits=ResponseLimits(max_line_size=100))
    async with http_peer(waiting) as peer, HTTPClient(config) as client:
        async with client.stream("GET", peer.url) as stream:
            lines = stream.lines()
            assert await anext(lines) == b"short"
            async with asyncio.timeout(30):
                with pytest.raises(MessageTooLargeError, match="max_line_size=100") as caught:
                    await anext(lines)
        assert caught.value.details["limit"] == 100
        assert caught.value.details["url"] == peer.url


@dataclasses.dataclass
class Point:
    x: int


async def test_json_lines_are_decoded_one_by_one_into_a_type_if_one_is_given() -> None:
    body = chunked_response([b'{"x":1}\n\n  \r\n{"x":', b'2}\n[3]\nnope\n{"x":4}'])
    async with http_peer(answering(body)) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            values = stream.json_lines()
            assert [await anext(values) for _ in range(3)] == [{"x": 1}, {"x": 2}, [3]]
            with pytest.raises(DecodeError, match="line 6 is not the expected JSON") as caught:
                await anext(values)
            assert caught.value.content == b"nope"
        async with client.stream("GET", peer.url) as stream:
            points = stream.json_lines(Point)
            assert [await anext(points) for _ in range(2)] == [Point(1), Point(2)]
            with pytest.raises(DecodeError, match="line 5"):
                await anext(points)


# ---- Server-sent events ----


async def test_server_sent_events_are_parsed() -> None:
    body = chunked_response([b": hi\nevent: a\nid: 7\ndata: one\nda", b"ta: two\n\ndata\n\ndata: cut off"])
    async with http_peer(answering(body)) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            events = [event async for event in stream.events()]
    assert [(e.event, e.data, e.id) for e in events] == [("a", "one\ntwo", "7"), ("message", "", "7")]
    assert isinstance(events[0], ServerSentEvent)


async def test_an_event_beyond_the_limit_is_an_error() -> None:
    body = chunked_response([b"data: ok\n\n", b"data: " + b"x" * 200 + b"\n\n"])
    async with (
        http_peer(answering(body)) as peer,
        HTTPClient(HTTPConfig(limits=ResponseLimits(max_line_size=100))) as client,
    ):
        async with client.stream("GET", peer.url) as stream:
            events = stream.events()
            assert (await anext(events)).data == "ok"
            with pytest.raises(MessageTooLargeError):
                await anext(events)


# ---- Uploads and cancellation ----


async def test_a_stream_can_carry_a_body_and_closes_it() -> None:
    closed = []

    async def source() -> Any:
        try:
            yield b"abc"
        finally:
            closed.append(True)

    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        async with client.stream("POST", peer.url, data=source()) as stream:
            assert await stream.read() == b"ok"
        assert (peer.requests[0].body, closed) == (b"abc", [True])


async def test_a_cancelled_reader_closes_the_connection() -> None:
    async def half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await connection.wait_closed()

    async with http_peer(half) as peer, HTTPClient() as client:
        reading = asyncio.Event()

        async def read() -> None:
            async with client.stream("GET", peer.url) as stream:
                async for _ in stream:
                    reading.set()

        task = asyncio.create_task(read())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats.open_connections == 0
        await asyncio.wait_for(asyncio.gather(*peer.handlers), 30)


async def test_closing_the_client_ends_a_stream() -> None:
    async def half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await connection.wait_closed()

    async with http_peer(half) as peer:
        client = HTTPClient()
        with pytest.raises(ClosedError, match="the client was closed"):
            async with client.stream("GET", peer.url) as stream:
                async for chunk in stream:
                    assert chunk == b"hello"
                    await client.close()


async def test_a_stream_that_was_left_gives_nothing_any_more() -> None:
    async with http_peer(answering(response(bytes(1 << 20)))) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            pass
        with pytest.raises(ClosedError, match="the stream was left"):
            await stream.read()


async def test_the_limit_on_silence_can_be_that_of_one_request() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    async with http_peer(dripping(head + b"ab", asyncio.Semaphore(len(head) + 2))) as peer:
        async with HTTPClient(HTTPConfig(retries=0, read_timeout=60)) as client:
            async with client.stream("GET", peer.url, timeout=60, read_timeout=0.05) as stream:
                with pytest.raises(NetworkTimeoutError, match="read_timeout"):
                    await stream.read()
            with pytest.raises(InvalidRequestError, match="read_timeout must be"):
                await client.get(peer.url, read_timeout=0)


async def test_one_request_may_be_silent_for_longer_than_the_client_allows() -> None:
    steps = asyncio.Semaphore(0)
    async with http_peer(dripping(response(b"late"), steps)) as peer:
        async with HTTPClient(HTTPConfig(retries=0, read_timeout=0.05)) as client:
            asking = asyncio.ensure_future(client.get(peer.url, read_timeout=None))
            with pytest.raises(NetworkTimeoutError, match="read_timeout"):
                await client.get(peer.url)
            for _ in range(200):
                steps.release()
            assert await asking == "late"
