"""What a library that keeps connections of its own needs: is_reusable, send_nowait(), close(), wait_closed()."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert
from support.servers import TOO_MUCH, peer_and_client

from pepperpy.network import (
    BufferLimits,
    ClosedError,
    ConnectionLostError,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    NotConnectedError,
    TLSConfig,
    serve,
)

LARGE = bytes(8 << 20)


# ---- is_reusable ----


async def test_a_connection_is_reusable_while_nothing_is_unread_unsent_or_waited_for() -> None:
    assert not NetworkClient(NetworkConfig("127.0.0.1", 1)).is_reusable
    async with peer_and_client() as (peer, client):
        assert client.is_reusable
        await peer.send(b"late")
        await until(lambda: client.stats.bytes_buffered == 4, "it has come")
        assert not client.is_reusable
        assert await client.receive() == b"late"
        assert client.is_reusable
        receiving = asyncio.create_task(client.receive())
        await until(lambda: not client.is_reusable, "it waits")
        await peer.send(b"x")
        assert await receiving == b"x"
        assert client.is_reusable
        assert client.send_nowait(TOO_MUCH)
        assert not client.is_reusable
        assert len(await peer.receive(len(TOO_MUCH))) == len(TOO_MUCH)
        await client.flush()
        assert client.is_reusable


async def test_a_connection_is_not_reusable_after_the_end_a_loss_or_a_close() -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        await until(lambda: not client.is_reusable, "the end was noticed")
        assert client.at_eof
    async with peer_and_client() as (peer, client):
        peer.reset()
        await until(lambda: not client.is_reusable, "the loss was noticed")
        assert not client.at_eof
    async with peer_and_client() as (_, client):
        client.close()
        assert not client.is_reusable


# ---- send_nowait ----


async def test_what_needs_no_waiting_is_accepted_whole_and_the_rest_not_at_all() -> None:
    async with peer_and_client(buffers=BufferLimits(send_high=64 << 10, send_low=1)) as (peer, client):
        accepted = 0
        while client.send_nowait(bytes(60_000)):
            accepted += 60_000
        assert client.stats.bytes_sent == accepted
        assert len(await peer.receive(accepted)) == accepted
        await client.flush()
        assert client.send_nowait(b"again")
        assert await peer.receive(5) == b"again"


async def test_send_nowait_raises_as_send() -> None:
    client = NetworkClient(NetworkConfig("127.0.0.1", 1))
    with pytest.raises(NotConnectedError):
        client.send_nowait(b"x")
    async with peer_and_client() as (_, client):
        client.close()
        with pytest.raises(ClosedError):
            client.send_nowait(b"x")


# ---- close and wait_closed ----


async def test_close_drops_nothing_that_was_accepted() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(LARGE)
        client.close()
        assert not client.is_connected
        for call in (client.send(b"x"), client.receive()):
            with pytest.raises(ClosedError):
                await call
        assert len(await peer.receive_all()) == len(LARGE)
        await client.wait_closed()
        await client.disconnect()


async def test_close_may_come_before_a_connection_and_twice() -> None:
    client = NetworkClient(NetworkConfig("127.0.0.1", 1))
    client.close()
    await client.wait_closed()
    async with peer_and_client() as (_, client):
        client.close()
        client.close()
        await client.wait_closed()
        client.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_was_closed_and_dropped_sends_its_rest_without_a_warning(tls: bool) -> None:
    received = asyncio.get_running_loop().create_future()

    async def read(client: NetworkClient) -> None:
        size = 0
        async for chunk in client:
            size += len(chunk)
        received.set_result(size)

    settings = {"tls": TLSConfig(ca_file=ca_file())} if tls else {}
    async with serve(read, tls=server_cert() if tls else None) as server:
        client = NetworkClient(NetworkConfig("127.0.0.1", server.port, **settings))
        await client.connect()
        await client.send(LARGE)
        client.close()
        del client
        assert await received == len(LARGE)


@pytest.mark.slow
async def test_a_peer_that_takes_nothing_ends_the_wait_after_the_close_timeout() -> None:
    async with peer_and_client(close_timeout=0.1) as (_, client):
        await client.send(TOO_MUCH)
        client.close()
        with pytest.raises(NetworkTimeoutError, match="did not take") as caught:
            await client.wait_closed()
        assert caught.value.details["undelivered"] > 0
        await client.wait_closed()


async def test_a_loss_while_closing_is_told_by_the_wait_once() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        client.close()
        peer.reset()
        with pytest.raises(ConnectionLostError, match="accepted bytes unsent"):
            await client.wait_closed()
        await client.disconnect()


async def test_wait_closed_ends_when_the_connection_does() -> None:
    async with peer_and_client() as (peer, client):
        waiting = asyncio.create_task(client.wait_closed())
        await client.send(b"x")
        assert not waiting.done()
        peer.reset()
        await waiting
        assert not client.is_connected


async def test_close_ends_a_connect_of_another_task() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        client = NetworkClient(NetworkConfig("127.0.0.1", listener.getsockname()[1], timeout=30, retries=0))
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)  # it has begun
        client.close()
        with pytest.raises(ClosedError):
            await connecting
        for filler in fillers:
            filler.close()


async def test_close_ends_reconnecting() -> None:
    async def stay(client: NetworkClient) -> None:
        await client.receive()

    async with serve(stay) as server:
        client = NetworkClient(NetworkConfig("127.0.0.1", server.port, reconnect=True))
        await client.connect()
        client.close()
        await client.wait_closed()
        with pytest.raises(ClosedError):
            await client.receive()


async def test_extra_info_is_that_of_the_transport() -> None:
    assert NetworkClient(NetworkConfig("127.0.0.1", 1)).extra_info("socket") is None
    async with peer_and_client() as (peer, client):
        assert client.extra_info("socket").getsockname() == peer.sock.getpeername()
        assert client.extra_info("no such thing") is None
