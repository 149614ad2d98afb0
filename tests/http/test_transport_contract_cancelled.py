"""The contract of a transport: an exchange and the reading of its body cancelled at each suspension, in three ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.http_contract import CANNOT, REAL, Say, World, contract, world
from support.loops import begun_later

from pepperpy.network.http.transport import Trip

Operation = Callable[[World], Coroutine[Any, Any, Any]]


async def pieces(size: int) -> Any:
    for _ in range(size):
        yield b"x" * 1000


async def whole(w: World) -> bytes:
    return await w.body("GET", "/cancelled")


async def large(w: World) -> bytes:
    return await w.body("GET", "/cancelled", headers={"X-Size": "300000"})


async def in_pieces(w: World) -> bytes:
    answer = await w.exchange("GET", "/cancelled")
    body = b""
    try:
        while piece := await answer.read_some():
            body += piece
    except asyncio.CancelledError:
        answer.abort()
        raise
    return body


async def upload(w: World) -> bytes:
    return await w.body("PUT", "/cancelled", data=b"x" * 100_000)


async def upload_in_chunks(w: World) -> bytes:
    return await w.body("PUT", "/cancelled", data=pieces(5))


OPERATIONS: dict[str, Operation] = {
    "whole": whole,
    "in pieces": in_pieces,
    "upload": upload,
    "upload in chunks": upload_in_chunks,
}


@pytest.mark.slow
@contract
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("fresh", [True, False], ids=["new connection", "pooled connection"])
async def test_cancelled_anywhere_an_exchange_costs_no_slot(transport: str, fresh: bool, name: str, mode: Mode) -> None:
    number = 0
    while True:
        number += 1
        async with world(transport, max_connections=1) as w:
            if not fresh:
                await w.body()
            w.does = [Say(200, [b"one", b"two"])]
            outcome = await cancelled_at(OPERATIONS[name](w), number, mode)
            await w.still_works()
            assert w.transport.open_connections == 1 or transport == "mock"
        if not outcome.cancelled:
            assert outcome.value == b"onetwo"
            break
    assert number > 1


@pytest.mark.slow
@contract
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.name)
async def test_cancelled_in_a_read_nothing_of_the_body_is_lost(transport: str, mode: Mode) -> None:
    """The next read goes on."""
    for number in (1, 2, 3):
        async with world(transport) as w:
            event = asyncio.Event()
            w.does = [Say(200, [b"one", event, b"two", b"three"])]
            answer = await w.exchange()
            body = await answer.read_some()
            task = asyncio.ensure_future(cancelled_at(answer.read_some(), number, mode))
            await asyncio.sleep(0)
            event.set()
            outcome = await task
            body += outcome.value or b""
            while piece := await answer.read_some():
                body += piece
            assert body == b"onetwothree"
            await w.still_works()


@contract
async def test_cancelled_in_the_queue_one_leaves_it_to_the_others(transport: str) -> None:
    async with world(transport, max_connections=1) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held]), Say(200, b"ok")]
        answer = await w.exchange("GET", "/first")
        tasks = [asyncio.ensure_future(w.transport.exchange(w.request("GET", f"/{n}"), Trip())) for n in range(6)]
        for _ in range(3):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        held.set()
        await answer.read()
        for task in tasks[1::2]:
            assert await (await task).read() == b"ok"
        assert [one.target for one in w.requests] == ["/first", "/1", "/3", "/5"]
        assert {one.connection for one in w.requests} == {1}


@contract
async def test_cancelled_when_a_connection_has_just_become_free_it_goes_to_the_next(transport: str) -> None:
    async with world(transport, max_connections=1) as w:
        w.does = [Say(200, b"ok")]
        answer = await w.exchange("GET", "/first")
        first, second = (
            asyncio.ensure_future(w.transport.exchange(w.request("GET", f"/{n}"), Trip())) for n in range(2)
        )
        for _ in range(3):
            await asyncio.sleep(0)
        await until(lambda: answer.whole_size is not None, "the body is there")
        answer.release()
        first.cancel()
        assert await (await second).read() == b"ok"
        await w.still_works()


@contract
async def test_cancelled_in_the_turn_in_which_a_place_became_free_it_goes_to_the_next(transport: str) -> None:
    async with world(transport, max_connections=1) as w:
        w.does = [Say(200, [b"one", asyncio.Event()]), Say(200, b"ok")]
        answer = await w.exchange("GET", "/first")
        first, second = (
            asyncio.ensure_future(w.transport.exchange(w.request("GET", f"/{n}"), Trip())) for n in range(2)
        )
        for _ in range(3):
            await asyncio.sleep(0)
        answer.abort()  # the place is free now, and the first one knows
        first.cancel()
        async with asyncio.timeout(30):
            assert await (await second).read() == b"ok"
        assert first.cancelled() or transport == "mock"  # which has no queue
        await w.still_works()


@contract
async def test_cancelled_before_it_began_an_exchange_sends_nothing(transport: str) -> None:
    async with world(transport) as w:
        task = begun_later(w.body())
        task.cancel()
        await asyncio.wait([task])
        await w.still_works()
        assert len(w.requests) == 1


def test_each_transport_says_of_each_case_that_it_cannot_play_why() -> None:
    assert set(CANNOT) >= set(REAL) | {"mock"}
    assert all(why for cases in CANNOT.values() for why in cases.values())
