"""The contract of a transport: when a connection is used again, what closes it, what the end of a transport ends."""

from __future__ import annotations

import asyncio

import pytest
from support.cancelling import until
from support.http_contract import NEVER, Fail, Raw, Say, all_closed, contract, world
from support.http_peer import Connection
from yarl import URL

from pepperpy.network.http.transport import Trip, WireError

# ---- Reuse ----


@contract
@pytest.mark.parametrize("body", [b"", b"ok", bytes(100_000)], ids=["empty", "small", "large"])
@pytest.mark.parametrize("read", ["read", "read_some"])
async def test_a_body_that_was_read_leaves_its_connection_to_others(transport: str, read: str, body: bytes) -> None:
    async with world(transport) as w:
        w.does = [Say(200, body)]
        for number in range(3):
            answer = await w.exchange()
            assert w.trip.reused == (number > 0)
            assert (w.trip.connect_at > 0) == (number == 0)
            assert w.trip.connected_at > 0
            while await getattr(answer, read)():
                pass
            assert w.transport.open_connections == 1
        assert [one.connection for one in w.requests] == [1, 1, 1]


@contract
async def test_a_connection_is_free_when_the_end_of_the_body_was_read_and_not_before(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held, b"two"]), Say(200, b"ok")]
        first = await w.exchange()
        assert await first.read_some() == b"one"
        assert await w.body() == b"ok"
        held.set()
        assert await first.read() == b"two"
        await w.body()
        assert sorted(one.connection for one in w.requests) in ([1, 1, 2], [1, 2, 2])


@contract
async def test_released_with_its_body_there_a_connection_is_used_again(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok")]
        answer = await w.exchange()
        await until(lambda: answer.whole_size is not None, "the body is there")
        answer.release()
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 1]


@contract
@pytest.mark.parametrize("give_back", ["release", "abort"])
async def test_given_back_with_more_to_come_a_connection_is_closed(transport: str, give_back: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held])]
        answer = await w.exchange()
        getattr(answer, give_back)()
        await all_closed(w)
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 2]
        held.set()


@contract
@pytest.mark.parametrize("give_back", ["release", "abort"])
async def test_given_back_behind_its_end_a_connection_stays(transport: str, give_back: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok")]
        answer = await w.exchange()
        await answer.read()
        getattr(answer, give_back)()
        getattr(answer, give_back)()
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 1]


@contract
async def test_giving_back_twice_does_no_harm(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held])]
        for first in ("release", "abort"):
            for second in ("release", "abort"):
                answer = await w.exchange()
                getattr(answer, first)()
                getattr(answer, second)()
        held.set()
        await w.still_works()


@contract
async def test_connection_close_is_obeyed(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok", [("Connection", "close")])]
        assert await w.body() == b"ok"
        await all_closed(w)
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 2]


@contract
async def test_a_request_that_closes_its_connection(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok")]
        assert await w.body(headers={"Connection": "close"}) == b"ok"
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 2]


@contract
@pytest.mark.parametrize("rest", [b"x", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"])
async def test_bytes_behind_an_answer_are_nobodys(transport: str, rest: bytes) -> None:
    async with world(transport) as w:
        sent = asyncio.Event()
        answered = asyncio.Event()

        async def serve(connection: Connection) -> None:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await answered.wait()
            await connection.send(rest)
            sent.set()
            await connection.wait_closed()

        w.does = [serve, Say()]
        assert await w.body() == b"ok"
        answered.set()
        await sent.wait()
        before = w.transport.discarded
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 2]
        assert w.transport.discarded - before <= 1


@contract
async def test_a_connection_that_the_server_has_closed_is_not_used(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "close"), Say()]
        assert await w.body() == b"ok"
        await asyncio.wait(w.peer.handlers)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        await w.still_works()
        assert [one.connection for one in w.requests] == [1, 2]


@contract
async def test_the_last_one_to_come_back_is_the_first_one_to_go(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, b"ok", delay=held)]
        tasks = [asyncio.ensure_future(w.transport.exchange(w.request(), Trip())) for _ in range(3)]
        await until(lambda: len(w.requests) == 3, "three requests")
        held.set()
        answers = [await task for task in tasks]
        for answer in answers:
            await answer.read()
        order = [one.connection for one in w.requests]
        for _ in range(3):
            await w.body()
        assert [one.connection for one in w.requests[3:]] == [order[-1]] * 3
        assert w.transport.open_connections == 3


@pytest.mark.slow
@contract
async def test_no_more_connections_than_allowed(transport: str) -> None:
    async with world(transport, max_connections=2) as w:
        w.does = [Say(200, b"ok")]
        assert await asyncio.gather(*(w.body() for _ in range(20))) == [b"ok"] * 20
        assert w.connections == 2  # type: ignore[attr-defined]


@contract
async def test_the_connections_of_a_host_are_counted_by_port_and_apart_for_what_is_not_verified(transport: str) -> None:
    async with world(transport, max_connections_per_host=1) as w:
        held = asyncio.Event()
        w.does = [Say(200, b"ok", delay=held)]
        asking = [asyncio.ensure_future(w.body()) for _ in range(3)]
        other = URL(w.url)
        asking += [asyncio.ensure_future(w.body(url=str(other.with_host("localhost"))))]
        asking += [asyncio.ensure_future(w.body(verify=False)) for _ in range(2)]
        await until(lambda: len(w.requests) == 3, "each of the three kinds has its one connection")
        await asyncio.sleep(0)
        assert w.connections == 3  # type: ignore[attr-defined]
        held.set()
        assert await asyncio.gather(*asking) == [b"ok"] * 6
        assert w.connections == 3  # type: ignore[attr-defined]


# ---- Answers side by side ----


@pytest.mark.slow
@contract
async def test_each_exchange_gets_its_own_answer(transport: str) -> None:
    async with world(transport, max_connections=3) as w:
        w.does = [Say(200, b"ok")]

        async def ask(number: int) -> None:
            answer = await w.transport.exchange(w.request("GET", f"/{number}"), Trip())
            assert await answer.read() == b"ok"

        await asyncio.gather(*map(ask, range(30)))
        assert sorted(int(one.target[1:]) for one in w.requests) == list(range(30))


# ---- The end of a transport ----


@contract
async def test_close_ends_an_exchange_that_waits(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, b"ok", delay=held)]
        task = asyncio.ensure_future(w.fails())
        await until(lambda: len(w.requests) == 1, "the request has come")
        await w.transport.close(0.1)
        assert (await task).kind == "closed"
        assert w.transport.open_connections == 0
        held.set()


@contract
async def test_close_ends_a_body_that_is_read(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held])]
        answer = await w.exchange()
        assert await answer.read_some() == b"one"
        task = asyncio.ensure_future(answer.read_some())
        await asyncio.sleep(0)
        await w.transport.close(0.1)
        with pytest.raises(WireError) as caught:
            await task
        assert caught.value.kind == "closed"
        held.set()


@contract
async def test_close_ends_who_waits_for_a_connection(transport: str) -> None:
    async with world(transport, max_connections=1) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held])]
        answer = await w.exchange()
        task = asyncio.ensure_future(w.fails())
        for _ in range(5):
            await asyncio.sleep(0)
        await w.transport.close(0.1)
        assert (await task).kind == "closed"
        assert len(w.requests) == 1
        answer.abort()
        held.set()


@contract
async def test_close_may_be_called_twice_and_without_any_exchange(transport: str) -> None:
    async with world(transport) as w:
        await w.transport.close(0.1)
        await w.transport.close(0.1)
        assert w.transport.open_connections == 0


@contract
async def test_behind_its_end_a_transport_carries_nothing(transport: str) -> None:
    async with world(transport) as w:
        await w.body()
        await w.transport.close(0.1)
        assert (await w.fails()).kind == "closed"
        assert len(w.requests) == 1


@contract
async def test_close_closes_idle_connections(transport: str) -> None:
    async with world(transport) as w:
        await w.body()
        assert w.transport.open_connections == 1
        await w.transport.close(NEVER)
        assert w.transport.open_connections == 0
        await asyncio.wait(w.peer.handlers)  # type: ignore[attr-defined]


@contract
async def test_abandoning_ends_everything_at_once(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        await w.body()
        w.does = [Say(200, [b"one", held])]
        answer = await w.exchange()
        w.transport.abandon()
        assert w.transport.open_connections == 0
        held.set()
        answer.abort()


@contract
async def test_the_failure_of_one_exchange_is_nothing_to_the_others(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held, b"two"]), Fail("reset"), Fail("protocol"), Say(200, b"ok")]
        answer = await w.exchange()
        assert (await w.fails()).kind == "reset"
        assert (await w.fails()).kind == "malformed"
        assert await w.body() == b"ok"
        held.set()
        assert await answer.read() == b"onetwo"
