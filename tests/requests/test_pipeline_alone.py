"""A pipeline receives alone: what else would receive in its block gets `BusyError`, and disturbs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.cancelling import arrived, until
from support.line_server import ask, server_and_pool
from support.loops import begin_tasks_at_once, needs_eager_tasks
from support.pipelining import LINES, asked, word
from support.requesting import line, outcome
from support.servers import TOO_MUCH, Peer, peer_and_client

from pepperpy.network import BusyError, ClosedError, ConnectionLostError, NetworkClient
from pepperpy.network.requests.pipeline import Pipeline

Use = Callable[[NetworkClient, Pipeline[bytes]], Awaitable[Any]]


async def _unread(client: NetworkClient) -> None:
    client.unread(b"put back\n")


async def _first(iterator: Any) -> Any:
    return await anext(aiter(iterator))


async def _second_pipeline(client: NetworkClient) -> None:
    async with client.pipeline(LINES):
        pass


USES: dict[str, Use] = {
    "receive": lambda client, _: client.receive(),
    "receive_into": lambda client, _: client.receive_into(bytearray(9)),
    "receive_exactly": lambda client, _: client.receive_exactly(3),
    "receive_exactly, much": lambda client, _: client.receive_exactly(1 << 20),
    "receive_until": lambda client, _: client.receive_until(b"\n"),
    "receive_until, several": lambda client, _: client.receive_until((b"\n", b";")),
    "receive_line": lambda client, _: client.receive_line(),
    "receive_lines": lambda client, _: client.receive_lines(),
    "skip_until": lambda client, _: client.skip_until(b"\n"),
    "peek": lambda client, _: client.peek(),
    "unread": lambda client, _: _unread(client),
    "async for": lambda client, _: _first(client),
    "lines": lambda client, _: _first(client.lines()),
    "framed.receive": lambda client, _: client.framed(LINES).receive(),
    "framed.receive_batch": lambda client, _: client.framed(LINES).receive_batch(),
    "pipeline.framed.receive": lambda _, pipeline: pipeline.framed.receive(),
    "pipeline.framed, async for": lambda _, pipeline: _first(pipeline.framed),
    "request": lambda client, _: client.request(b"never sent\n", line),
    "second pipeline": lambda client, _: _second_pipeline(client),
}


async def _works(peer: Peer, pipeline: Pipeline[bytes]) -> None:
    """The next request is the next thing that the peer sees, and gets its reply."""
    task = asked(pipeline, b"q")[0]
    assert await peer.receive(2) == b"q\n"
    await peer.send(b"reply\n")
    assert await task == b"reply"


@pytest.mark.parametrize("name", USES)
async def test_from_the_first_turn_of_the_block_any_other_receive_gets_busy_error_and_disturbs_nothing(
    name: str,
) -> None:
    use = USES[name]
    async with peer_and_client() as (peer, client):
        async with client.pipeline(LINES) as pipeline:
            with pytest.raises(BusyError, match="another task is already receiving"):
                await use(client, pipeline)
            await _works(peer, pipeline)
            with pytest.raises(BusyError):
                await use(client, pipeline)
            await _works(peer, pipeline)
        assert client.is_connected
        await peer.send(b"for all\n")
        assert await client.receive_line() == b"for all\n"


async def test_a_reply_that_came_before_the_first_turn_is_the_requests() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"push\n")
        await arrived(client, 5)
        pushes: list[bytes] = []
        async with client.pipeline(LINES, key=word, on_push=pushes.append) as pipeline:
            with pytest.raises(BusyError):
                await client.receive()
            assert not client.is_reusable
            await until(lambda: pushes == [b"push"], "the push is handed out")
            assert client.is_connected
            assert pipeline.in_flight == 0


@needs_eager_tasks
async def test_a_receive_that_begins_at_once_inside_of_on_push_takes_nothing() -> None:
    tasks: list[asyncio.Task[Any]] = []
    begin_tasks_at_once()
    async with peer_and_client() as (peer, client):

        def steal(_: bytes) -> None:
            tasks.append(asyncio.create_task(client.receive_line()))
            tasks.append(asyncio.create_task(pipeline.framed.receive()))  # type: ignore[arg-type]

        async with client.pipeline(LINES, key=word, on_push=steal) as pipeline:
            task = asked(pipeline, b"1 q")[0]
            assert await peer.receive(4) == b"1 q\n"
            # The rest of the line has come, too, while the push is handed out.
            await peer.send(b"push\n1 re")
            await until(lambda: len(tasks) == 2, "the push is handed out")
            await peer.send(b"ply\n")
            assert await task == b"1 reply"
        for stealing in tasks:
            assert isinstance(await outcome(stealing), BusyError)


async def test_on_push_can_put_nothing_in_front_of_the_replies() -> None:
    async with peer_and_client() as (peer, client):

        def put_back(_: bytes) -> None:
            with pytest.raises(BusyError):
                client.unread(b"2 forged\n")

        async with client.pipeline(LINES, key=word, on_push=put_back) as pipeline:
            tasks = asked(pipeline, b"1 q", b"2 q")
            assert await peer.receive(8) == b"1 q\n2 q\n"
            await peer.send(b"push\n1 reply\n2 reply\n")
            assert await asyncio.gather(*tasks) == [b"1 reply", b"2 reply"]


# ---- Before and after ----


async def test_a_pipeline_does_not_begin_between_the_receives_of_a_request() -> None:
    go_on = asyncio.Event()

    async def slow(client: NetworkClient) -> bytes:
        await go_on.wait()
        return await client.receive_line()

    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.request(b"q\n", slow))
        assert await peer.receive(2) == b"q\n"
        with pytest.raises(BusyError, match=r"a request\(\) is under way"):
            await _second_pipeline(client)
        go_on.set()
        await peer.send(b"reply\n")
        assert await task == b"reply\n"
        async with client.pipeline(LINES) as pipeline:
            await _works(peer, pipeline)


async def test_a_pipeline_does_not_begin_while_a_request_waits_for_room_to_send() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        task = asyncio.create_task(client.request(b"q\n", line))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match=r"a request\(\) is under way"):
            await _second_pipeline(client)
        await peer.receive(len(TOO_MUCH))
        assert await peer.receive(2) == b"q\n"
        await peer.send(b"reply\n")
        assert await task == b"reply\n"


async def test_after_a_block_without_a_turn_all_may_receive_again() -> None:
    async with peer_and_client() as (peer, client):
        await _second_pipeline(client)
        assert client.is_reusable
        await peer.send(b"one\ntwo\n")
        assert await client.receive_line() == b"one\n"
        assert await client.framed(LINES).receive() == b"two"


async def test_a_receive_that_begins_as_the_block_is_left_gets_busy_error_or_all_that_comes() -> None:
    async with peer_and_client() as (peer, client):
        pipeline = client.pipeline(LINES)
        await pipeline.__aenter__()
        await _works(peer, pipeline)
        leaving = asyncio.create_task(pipeline.__aexit__(None, None, None))
        uses: list[asyncio.Task[bytes]] = []
        while not leaving.done():
            uses.append(asyncio.create_task(client.receive_line()))
            uses.append(asyncio.create_task(client.request(b"q\n", line)))
            await asyncio.sleep(0)
        waiting = [task for task in uses if not task.done()]
        for task in uses:
            assert task in waiting or isinstance(task.exception(), BusyError)
        await peer.send(b"reply\n" * len(waiting))
        assert await asyncio.gather(*waiting) == [b"reply\n"] * len(waiting)
        assert client.is_connected


async def test_who_hears_of_the_end_of_a_pipeline_can_ask_at_once_what_became_of_the_connection() -> None:
    async with peer_and_client() as (peer, client), client.pipeline(LINES, key=word) as pipeline:

        async def ask_and_look() -> None:
            with pytest.raises(ConnectionLostError):
                await pipeline.request(b"1 q")
            with pytest.raises(ClosedError):
                await client.receive()

        task = asyncio.create_task(ask_and_look())
        assert await peer.receive(4) == b"1 q\n"
        await peer.send(b"2 not asked for\n")
        await task


async def test_the_late_end_of_a_pipeline_lets_go_of_nothing_that_the_next_one_holds() -> None:
    pushes: list[bytes] = []

    async with peer_and_client() as (peer, client):

        def on_push(message: bytes) -> None:
            with pytest.raises(BusyError):
                client.unread(b"put back")
            pushes.append(message)

        async def leave_and_begin() -> Pipeline[bytes]:
            first = await client.pipeline(LINES).__aenter__()
            # Cancelled before its reader has ended.
            with pytest.raises(asyncio.CancelledError):
                await first.__aexit__(None, None, None)
            assert not client._link.protocol.receiver.silence_allowed
            return await client.pipeline(LINES, key=word, on_push=on_push).__aenter__()

        leaving = asyncio.create_task(leave_and_begin())
        await asyncio.sleep(0)
        leaving.cancel()
        second = await leaving
        await peer.send(b"push\n")
        await until(lambda: pushes == [b"push"], "the push is handed out")
        await second.__aexit__(None, None, None)


async def test_a_connection_that_is_released_in_the_block_of_a_pipeline_is_not_lent_again() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        client = await pool.acquire()
        async with client.pipeline(LINES) as pipeline:
            pool.release(client)
            with pytest.raises(ClosedError):
                await pipeline.request(b"never sent")
            other = await pool.acquire()
            await ask(other)
        await ask(other)
        pool.release(other)
        assert pool.stats.dropped == {"unfinished": 1}
        assert server.accepted == 2


async def test_a_pipeline_that_outlives_on_connect_takes_nothing_of_the_clients() -> None:
    kept: list[Pipeline[bytes]] = []

    async def forget_to_leave(client: NetworkClient) -> None:
        kept.append(await client.pipeline(LINES).__aenter__())

    async with peer_and_client(on_connect=forget_to_leave) as (peer, client):
        with pytest.raises(ClosedError, match="the connection was given back"):
            await kept[0].request(b"never sent")
        await peer.send(b"for the client\n")
        with pytest.raises(ClosedError, match="the connection was given back"):
            await kept[0].wait_ended()
        assert await client.receive_line() == b"for the client\n"
        await kept[0].__aexit__(None, None, None)
        assert client.is_connected
