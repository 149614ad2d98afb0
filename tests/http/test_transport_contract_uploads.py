"""The contract of a transport: bodies that are sent, whole or in chunks, that fail, or that are answered too early."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.http_contract import NEVER, Raw, Say, contract, world
from support.http_peer import Connection

from pepperpy.network.http.request import Limits


async def pieces(*parts: Any) -> Any:
    for part in parts:
        if isinstance(part, asyncio.Event):
            await part.wait()
        elif isinstance(part, Exception):
            raise part
        else:
            yield part


@contract
@pytest.mark.parametrize("body", [b"", b"hello", bytes(1_000_000)], ids=["empty", "small", "large"])
async def test_bytes_are_sent_with_their_length(transport: str, body: bytes) -> None:
    async with world(transport) as w:
        await w.body("POST", data=body)
        assert w.requests[0].body == body
        assert w.requests[0].headers["Content-Length"] == str(len(body))
        await w.still_works()


@contract
async def test_what_has_no_length_is_sent_in_chunks(transport: str) -> None:
    async with world(transport) as w:
        await w.body("PUT", data=pieces(b"one", b"two", b"three"))
        assert w.requests[0].body == b"onetwothree"
        assert w.requests[0].headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in w.requests[0].headers
        await w.still_works()


@contract
async def test_a_source_that_is_slow_holds_up_its_own_exchange_only(transport: str) -> None:
    async with world(transport) as w:
        more = asyncio.Event()
        task = asyncio.ensure_future(w.body("PUT", data=pieces(b"one", more, b"two")))
        await asyncio.sleep(0)
        w.does = [Say(200, b"ok")]
        assert await w.body() == b"ok"
        more.set()
        assert await task == b"ok"
        assert {one.body for one in w.requests} == {b"", b"onetwo"}


@contract
async def test_a_source_that_fails_ends_its_exchange(transport: str) -> None:
    async with world(transport) as w:
        broken = ValueError("the source is broken")
        error = await w.fails("PUT", data=pieces(b"one", broken))
        assert (error.kind, error.cause) == ("body_failed", broken)
        assert w.trip.request_left
        await w.still_works()
        assert w.requests[-1].connection in (0, 2)


@contract
async def test_a_source_of_another_size_than_announced_ends_its_exchange(transport: str) -> None:
    async with world(transport) as w:
        for size in (2, 9):
            error = await w.fails("PUT", data=pieces(b"hello"), headers={"Content-Length": str(size)})
            assert error.kind == "body_failed"
        await w.still_works()


@contract
async def test_a_connection_that_breaks_while_a_body_is_sent(transport: str) -> None:
    async def reset(connection: Connection) -> None:
        await connection.reset_and_wait()

    async with world(transport) as w:
        w.does = [reset]
        error = await w.fails("PUT", data=pieces(*(bytes(100_000) for _ in range(100))))
        assert error.kind in ("reset", "no_answer")
        assert w.trip.request_left
        await w.still_works()


@pytest.mark.slow
@contract
async def test_an_early_answer_is_given_while_the_body_is_sent(transport: str) -> None:
    async with world(transport) as w:
        more = asyncio.Event()
        w.does = [Raw(b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", "close", early=True)]
        answer = await w.exchange("PUT", data=pieces(b"one", more, b"two"), limits=Limits(None, NEVER, NEVER))
        assert answer.status == 413
        more.set()
        assert await answer.read() == b"no"
        await w.still_works()


@contract
async def test_an_early_answer_is_whole_whether_the_rest_of_the_body_is_sent_or_given_up(transport: str) -> None:
    async def early(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nok")
        await connection.wait_closed()

    async with world(transport) as w:
        more = asyncio.Event()
        w.does = [early, Say()]
        answer = await w.exchange("PUT", data=pieces(b"one", more, b"two"))
        task = asyncio.ensure_future(answer.read())
        for _ in range(10):
            await asyncio.sleep(0)
        more.set()
        assert await task == b"ok"
        await w.transport.close(0.1)
        assert w.transport.open_connections == 0
