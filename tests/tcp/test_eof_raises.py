"""NetworkConfig(eof="raise"): the end of the stream is an error, once every byte is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.cancelling import until
from support.servers import peer_and_client

from pepperpy.network import (
    ConnectionLostError,
    Delimited,
    EndOfStreamError,
    IncompleteReadError,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
)

RECEIVES: dict[str, Callable[[NetworkClient], Any]] = {
    "receive": lambda client: client.receive(),
    "receive_into": lambda client: client.receive_into(bytearray(9)),
    "receive_line": lambda client: client.receive_line(),
    "receive_lines": lambda client: client.receive_lines(),
    "peek": lambda client: client.peek(9),
    "message": lambda client: client.framed(Delimited()).receive(),
    "messages": lambda client: client.framed(Delimited()).receive_batch(),
}


@pytest.mark.parametrize("name", RECEIVES)
async def test_each_receive_raises_at_the_end_and_lets_the_loop_run(name: str) -> None:
    async with peer_and_client(eof="raise") as (peer, client):
        await peer.send(b"last\n")
        peer.send_eof()
        assert await RECEIVES[name](client) in (b"last\n", 5, [b"last\n"], b"last", [b"last"])
        await client.receive_exactly(client.stats.bytes_buffered)
        for _ in range(3):
            with pytest.raises(EndOfStreamError, match="the peer has ended its stream") as caught:
                await RECEIVES[name](client)
            assert isinstance(caught.value, EOFError)
            assert caught.value.details["phase"] == "receive"
        turned = asyncio.create_task(asyncio.sleep(0))
        for _ in range(9):
            with pytest.raises(EndOfStreamError):
                await RECEIVES[name](client)
        assert turned.done()
        assert client.at_eof


async def test_what_came_before_is_received_first_also_an_unfinished_line() -> None:
    async with peer_and_client(eof="raise") as (peer, client):
        await peer.send(b"one\ntwo")
        peer.send_eof()
        assert await client.receive_line() == b"one\n"
        assert await client.peek(9) == b"two"
        assert await client.receive_line() == b"two"
        with pytest.raises(EndOfStreamError):
            await client.receive_line()
        with pytest.raises(IncompleteReadError):
            await client.receive_exactly(1)
        assert await client.receive_exactly(0) == b""


async def test_iterations_end_as_always() -> None:
    async with peer_and_client(eof="raise") as (peer, client):
        await peer.send(b"one\ntwo\nthree\n")
        assert await client.receive_line() == b"one\n"
        peer.send_eof()
        async for line in client.lines():
            assert line == b"two\n"
            break
        assert [message async for message in client.framed(Delimited())] == [b"three"]
        assert [line async for line in client.lines()] == []
        assert [chunk async for chunk in client] == []


async def test_a_new_configuration_is_one_of_the_next_connection() -> None:
    async with peer_and_client() as (peer, client):
        client.config = client.config.replace(eof="raise")
        peer.send_eof()
        assert await client.receive() == b""
        assert await client.framed(Delimited()).receive() is None


async def test_a_receive_that_waits_raises_when_the_end_comes() -> None:
    async with peer_and_client(eof="raise") as (peer, client):
        receiving = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        peer.send_eof()
        with pytest.raises(EndOfStreamError):
            await receiving


async def test_a_pipeline_whose_peer_ends_is_left_without_that_error() -> None:
    async with peer_and_client(eof="raise") as (peer, client):
        async with client.pipeline(Delimited()) as pipeline:
            peer.send_eof()
            with pytest.raises(ConnectionLostError):
                await pipeline.wait_ended()


async def test_a_request_without_a_reply_raises_it_and_those_that_wait_get_the_loss() -> None:
    async with peer_and_client(eof="raise") as (peer, client):
        asking = [asyncio.create_task(client.request(b"?", NetworkClient.receive_line)) for _ in range(2)]
        await peer.receive(1)
        peer.send_eof()
        with pytest.raises(EndOfStreamError):
            await asking[0]
        with pytest.raises(ConnectionLostError):
            await asking[1]


async def test_a_pool_drops_a_connection_whose_peer_has_ended_it() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        ended.clear()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    config = NetworkConfig("127.0.0.1", server.sockets[0].getsockname()[1], eof="raise")
    async with NetworkPool(config, max_size=1) as pool:
        async with pool.acquire() as client:
            first = client.local_address
        ended.set()
        await until(lambda: not pool.stats.idle, "the pool knows of the end")
        async with pool.acquire() as client:
            assert client.local_address != first
        ended.set()
    server.close()


def test_another_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r'eof must be "return" or "raise", not None'):
        NetworkConfig("localhost", 1, eof=None)  # type: ignore[arg-type]
    assert NetworkConfig.from_url("tcp://localhost:1?eof=raise&idle_timeout=3").eof == "raise"
