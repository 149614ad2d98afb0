"""Bodies of requests over our own transport: bytes, payloads, chunks, Expect, and answers that come before the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.exchanges import exchanges
from support.http_faults import answering_early, response
from support.http_peer import Connection, http_peer

from pepperpy.network.http.h1 import upload
from pepperpy.network.http.request import Limits
from pepperpy.network.http.transport import WireError
from pepperpy.network.http.upload import BodyFailed


class Pieces:
    """A payload of these pieces; it notes how far it has come."""

    def __init__(self, *pieces: bytes, size: int | None = None, fails: bool = False) -> None:
        self.size = size
        self.written = 0
        self.ended = asyncio.Event()
        self._pieces = pieces
        self._fails = fails

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        assert content_length == self.size
        try:
            for piece in self._pieces:
                await writer.write(piece)
                self.written += len(piece)
                await asyncio.sleep(0)
            if self._fails:
                writer.transport.abort()
                raise BodyFailed("the body's source failed: OSError: gone") from OSError("gone")
        finally:
            self.ended.set()


class Endless(Pieces):
    def __init__(self) -> None:
        super().__init__()

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        try:
            while True:
                await writer.write(bytes(65536))
                self.written += 65536
        finally:
            self.ended.set()


async def echo(connection: Connection) -> None:
    while True:
        request = await connection.read_request()
        await connection.send(response(request.body))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        bytes(range(256)) * 4000,
        Pieces(b"abc", b"", b"def", size=6),
        Pieces(b"abc", b"", b"def" * 100_000),
        Pieces(),
    ],
    ids=["empty", "a byte", "a megabyte", "of known size", "chunks", "no chunks"],
)
@pytest.mark.parametrize("expect", [False, True])
async def test_a_body_arrives_and_the_connection_is_used_again(payload: Any, expect: bool) -> None:
    if isinstance(payload, Pieces):
        payload = Pieces(*payload._pieces, size=payload.size)
    body = payload if isinstance(payload, bytes) else b"".join(payload._pieces)
    headers = {"Expect": "100-continue"} if expect else None

    async def handle(connection: Connection) -> None:
        while True:
            request = await connection.read_head()
            if expect and request.method == "POST":
                await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await connection.read_body()
            await connection.send(response(request.body))

    async with http_peer(handle) as peer, exchanges() as one:
        answer = await one.ask("POST", peer.url, payload=payload, headers=headers)
        assert await answer.read() == body
        framing = [name for name in ("Content-Length", "Transfer-Encoding") if name in peer.requests[0].headers]
        assert len(framing) == 1
        assert await one.get(peer.url) == (200, b"")
        assert one.trip.reused


async def test_an_early_answer_is_given_and_the_rest_of_the_body_is_not_sent() -> None:
    refused = response(b"too large", status="413 Content Too Large")
    async with http_peer(answering_early(refused)) as peer, exchanges() as one:
        payload = Endless()
        answer = await one.ask("POST", peer.url, payload=payload)
        assert (answer.status, await answer.read()) == (413, b"too large")
        assert payload.ended.is_set()
        assert one.pool.slots_taken == 0


async def test_an_early_answer_is_given_although_the_server_closes() -> None:
    refused = response(b"too large", status="413 Content Too Large")
    async with http_peer(answering_early(refused, "close")) as peer, exchanges() as one:
        answer = await one.ask("POST", peer.url, payload=Pieces(*[bytes(10_000)] * 10))
        assert (answer.status, await answer.read()) == (413, b"too large")


async def test_an_answer_is_read_while_the_body_is_sent() -> None:
    async def mirror(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            size = int(await connection._reader.readline(), 16)
            data = await connection._reader.readexactly(size + 2)
            await connection.send(b"%x\r\n" % size + data)
        await connection.read_body()
        await connection.send(b"0\r\n\r\n")
        await connection.wait_closed()

    heard = asyncio.Event()

    class Slow(Pieces):
        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            for piece in (b"one", b"two", b"three"):
                heard.clear()
                await writer.write(piece)
                await heard.wait()

    async with http_peer(mirror) as peer, exchanges() as one:
        answer = await one.ask("POST", peer.url, payload=Slow())
        got = []
        while piece := await answer.read_some():
            got.append(piece)
            heard.set()
        assert b"".join(got) == b"onetwothree"


async def test_a_source_that_fails_is_what_is_raised() -> None:
    async with http_peer(echo) as peer, exchanges() as one:
        with pytest.raises(WireError) as caught:
            await one.ask("POST", peer.url, payload=Pieces(b"abc", size=10, fails=True))
        assert caught.value.kind == "body_failed"
        assert isinstance(caught.value.cause, OSError)
        assert one.pool.slots_taken == 0


async def test_a_server_that_leaves_in_the_middle_of_a_body() -> None:
    async with http_peer(answering_early(b"", "reset")) as peer, exchanges() as one:
        payload = Endless()
        with pytest.raises(WireError) as caught:
            await one.ask("POST", peer.url, payload=payload)
        assert caught.value.kind in ("reset", "no_answer")
        await payload.ended.wait()


@pytest.mark.slow
async def test_an_unanswered_expect_sends_its_body_after_a_second() -> None:
    async with http_peer(echo) as peer, exchanges() as one:
        answer = await one.ask("PUT", peer.url, payload=b"hello", headers={"Expect": "100-continue"})
        assert await answer.read() == b"hello"
        assert await one.get(peer.url) == (200, b"")
        assert one.trip.reused


async def test_a_100_sends_the_body_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "CONTINUE_WAIT", 3600.0)

    async def handle(connection: Connection) -> None:
        while True:
            await connection.read_head()
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await connection.read_body()
            await connection.send(response(b"thanks"))

    async with http_peer(handle) as peer, exchanges() as one:
        for payload in (b"hello", Pieces(b"abc", b"def")):
            answer = await one.ask("PUT", peer.url, payload=payload, headers={"Expect": "100-continue"})
            assert await answer.read() == b"thanks"


async def test_a_body_that_is_refused_before_its_100_is_not_sent() -> None:
    async with http_peer(answering_early(response(b"no", status="417 Expectation Failed"))) as peer:
        async with exchanges() as one:
            payload = Pieces(b"secret", size=6)
            answer = await one.ask("PUT", peer.url, payload=payload, headers={"Expect": "100-continue"})
            assert (answer.status, await answer.read()) == (417, b"no")
            assert payload.written == 0
            assert one.pool.slots_taken == 0


async def test_a_cancelled_upload_leaves_no_task_and_no_slot() -> None:
    async def silent(connection: Connection) -> None:
        await connection.read_head()
        await connection.wait_closed()

    async with http_peer(silent) as peer, exchanges() as one:
        payload = Endless()
        task = asyncio.create_task(one.ask("POST", peer.url, payload=payload))
        while payload.written < 1_000_000:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await payload.ended.wait()
        assert one.pool.slots_taken == 0


async def test_a_body_that_is_still_to_be_sent_holds_up_no_other_request() -> None:
    async def unread(connection: Connection) -> None:
        if connection.number == 1:
            await connection.read_head()
            await connection.send(response(b"enough"))
            await asyncio.Event().wait()
        while True:
            await connection.read_request()
            await connection.send(response(b"next"))

    async with http_peer(unread) as peer, exchanges() as one:
        answer = await one.ask("POST", peer.url, payload=bytes(64_000_000))
        assert await answer.read() == b"enough"
        assert await one.get(peer.url) == (200, b"next")
        assert not one.trip.reused


async def test_what_follows_a_body_that_was_taken_late_is_sent() -> None:
    taken = asyncio.Event()

    async def late(connection: Connection) -> None:
        while True:
            if (await connection.read_head()).method == "POST":
                await connection.send(response(b"enough"))
                await taken.wait()
                await connection.read_body()
            else:
                await connection.send(response(b"next"))

    async with http_peer(late) as peer, exchanges() as one:
        size = 8_000_000
        while True:
            answer = await one.ask("POST", peer.url, payload=bytes(size))
            sender = answer.connection.sender  # type: ignore[union-attr]
            # So little more than the system takes that the loop's transport holds all of the rest.
            if 0 < sender.bytes_queued < 200_000:
                break
            size += 100_000 - sender.bytes_queued
            answer.abort()
        taken.set()
        while sender.bytes_queued:
            await asyncio.sleep(0)
        # It has left in this turn of the loop. What is sent is held back up to the next one.
        assert await answer.read() == b"enough"
        assert await one.get(peer.url, limits=Limits(connect=30.0, read=30.0)) == (200, b"next")
