"""Replies that lie in the kernel while a task holds the loop up for longer than a limit: they came in time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.cancelling import until
from support.held_up import LIMIT_S, hold_up
from support.servers import peer_and_client
from support.tls_peer import TRANSPORTS, tls_peer_and_client, use_transport

from pepperpy.network import Delimited, Heartbeat, NetworkClient, NetworkConfig, NetworkPool
from pepperpy.network.watchdog import time_limit

RECEIVES: dict[str, tuple[Callable[[NetworkClient], Any], bytes]] = {
    "receive": (lambda client: client.receive(timeout=LIMIT_S), b"reply"),
    "receive_line": (lambda client: client.receive_line(timeout=LIMIT_S), b"a line\n"),
    "more than one read": (lambda client: client.receive_exactly(1_000_000, timeout=LIMIT_S), bytes(1_000_000)),
    "framed": (lambda client: client.framed(Delimited(b"end", keep=True)).receive(timeout=LIMIT_S), b"messageend"),
}


@pytest.mark.parametrize("name", RECEIVES)
async def test_a_receive_gets_what_came_while_the_loop_was_held_up(name: str) -> None:
    receive, reply = RECEIVES[name]
    async with peer_and_client() as (peer, client):
        receiving = asyncio.create_task(receive(client))
        await asyncio.sleep(0)
        await hold_up(lambda: peer.sock.send(reply))
        assert await receiving == reply


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_receive_over_tls_does_so(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_transport(monkeypatch, transport)
    async with tls_peer_and_client() as (peer, client):
        receiving = asyncio.create_task(client.receive_line(timeout=LIMIT_S))
        await asyncio.sleep(0)
        await hold_up(lambda: peer.sock.send(peer.encrypted(b"a line\n")))
        assert await receiving == b"a line\n"


async def test_a_request_gets_its_reply_and_leaves_the_connection_in_step() -> None:
    async with peer_and_client() as (peer, client):

        async def two_parts(client: NetworkClient) -> bytes:
            return await client.receive_line() + await client.receive_exactly(1_000_000)

        reply = b"head\n" + bytes(1_000_000)
        asking = asyncio.create_task(client.request(b"?", two_parts, timeout=LIMIT_S))
        assert await peer.receive(1) == b"?"
        await hold_up(lambda: peer.sock.send(reply))
        assert await asking == reply
        assert client.is_connected


async def test_a_pipeline_hands_out_all_replies() -> None:
    async with peer_and_client() as (peer, client), client.pipeline(Delimited(b"\n")) as pipeline:
        asking = [asyncio.create_task(pipeline.request(b"?", timeout=LIMIT_S)) for _ in range(20)]
        assert await peer.receive(40) == b"?\n" * 20
        await hold_up(lambda: peer.sock.send(b"".join(b"%d\n" % n for n in range(20))))
        assert await asyncio.gather(*asking) == [b"%d" % n for n in range(20)]
        assert pipeline.abandoned == 0


@pytest.mark.slow
async def test_a_heartbeat_that_was_answered_is_no_loss() -> None:
    async def beat(connection: NetworkClient) -> None:
        await connection.send(b"ping\n")

    settings = {"heartbeat": Heartbeat(beat, interval=LIMIT_S, timeout=LIMIT_S)}
    async with peer_and_client(**settings) as (peer, client):
        for _ in range(3):
            assert await peer.receive(5) == b"ping\n"
            await hold_up(lambda: peer.sock.send(b"pong\n"))
        await until(lambda: client.stats.bytes_received == 15, "the answers are here")
        assert client.is_connected


async def test_a_check_of_a_pool_that_was_answered_is_passed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()

        async def ping(client: NetworkClient) -> bool:
            await client.send(b"ping\n")
            return await client.receive_line(timeout=None) == b"pong\n"

        config = NetworkConfig("127.0.0.1", listener.getsockname()[1], timeout=10)
        async with NetworkPool(config, check=ping, check_after=0, check_timeout=LIMIT_S) as pool:
            async with pool.acquire():
                sock, _ = await loop.sock_accept(listener)

            async def use() -> None:
                async with pool.acquire():
                    pass

            with sock:
                sock.setblocking(False)
                using = asyncio.create_task(use())
                assert await loop.sock_recv(sock, 5) == b"ping\n"
                await hold_up(lambda: sock.send(b"pong\n"))
                await using
                assert (pool.stats.created, pool.stats.dropped) == (1, {})


async def test_a_connection_that_was_made_meanwhile_counts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = NetworkConfig("127.0.0.1", listener.getsockname()[1], connect_timeout=LIMIT_S, retries=0)

        async def greeted(client: NetworkClient) -> None:
            assert await client.receive_line(timeout=None) == b"hello\n"

        client = NetworkClient(config.replace(on_connect=greeted))
        connecting = asyncio.create_task(client.connect())
        listener.setblocking(False)
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        with sock:
            await hold_up(lambda: sock.send(b"hello\n"))
            await connecting
            await client.disconnect()


async def test_a_limit_that_passed_ends_its_block_all_the_same() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        with time_limit(0.01):
            await asyncio.Event().wait()
    with time_limit(None):
        await asyncio.sleep(0)
    assert time.monotonic() - started < 5
