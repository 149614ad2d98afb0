"""The parts together: messages and TLS on connections that are lost, encrypted or tunnelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.mortal import Mortal, ask, echo, mortal_and_client, mortal_server, reconnecting, silence, told
from support.tls_peer import TLSPeer

from pepperpy.network import (
    ConnectionLostError,
    Heartbeat,
    LengthPrefixed,
    NetworkClient,
    NetworkConfig,
    TLSConfig,
    TLSError,
)

if TYPE_CHECKING:
    from support.proxies import Tinyproxy

TLS: dict[str, Any] = {"tls": TLSConfig(ca_file=ca_file())}
CODEC = LengthPrefixed()
LARGE = b"x" * 1_000_000


def frame(message: bytes) -> bytes:
    return b"".join(CODEC.encode(message))


def line(client: NetworkClient) -> Any:
    return client.receive_line()


def end_in_order(server: Mortal) -> None:
    for writer in server.writers:
        writer.close()


# ---- Messages on a client that reconnects ----


@pytest.mark.parametrize("batch", [False, True])
async def test_messages_go_on_after_a_restart_once_its_loss_was_told(batch: bool) -> None:
    async with mortal_and_client() as (server, client):
        framed = client.framed(CODEC)

        async def receive() -> bytes | None:
            if not batch:
                return await framed.receive()
            [message] = await framed.receive_batch()
            return message

        for turn in range(3):
            await framed.send(b"before %d" % turn)
            assert await receive() == b"before %d" % turn
            under_way = asyncio.create_task(receive())
            await asyncio.sleep(0)
            await server.kill()
            with pytest.raises(ConnectionLostError):
                await under_way
            with pytest.raises(ConnectionLostError):
                await framed.send(b"the sender hears of it, too")
            receiving = asyncio.create_task(receive())
            sending = asyncio.create_task(framed.send_many([b"after %d" % turn]))
            await asyncio.sleep(0)
            await server.start()
            assert await receiving == b"after %d" % turn
            await sending
        assert client.stats.connects == 4


@pytest.mark.parametrize("second", [b"second", LARGE])
@pytest.mark.parametrize("batch", [False, True])
async def test_a_message_half_received_at_the_loss_is_dropped(batch: bool, second: bytes) -> None:
    async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.accepted == 1:
            writer.write(frame(b"first") + frame(second)[: len(second) // 2])
            await reader.read()
        else:
            writer.write(frame(b"other"))
            await silence(reader, writer)

    async with mortal_server(cut_off) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True)
        async with NetworkClient(config) as client:
            framed = client.framed(CODEC)
            receive: Callable[[], Any] = framed.receive_batch if batch else framed.receive
            assert await receive() == ([b"first"] if batch else b"first")
            under_way = asyncio.create_task(receive())
            await until(lambda: client.stats.bytes_received >= len(second) // 2, "half of it is here")
            server.drop()
            with pytest.raises(ConnectionLostError):
                await under_way
            assert await receive() == ([b"other"] if batch else b"other")
            assert client.stats.connects == 2


# ---- TLS ----


@pytest.mark.parametrize("in_order", [True, False])
async def test_over_tls_an_end_in_order_is_a_loss_too_and_on_connect_runs_again(in_order: bool) -> None:
    async with mortal_and_client(echo, server_context(server_cert()), on_connect=ask, **TLS) as (server, client):
        for number in range(3):
            await ask(client, b"%d" % number)
            if in_order:
                end_in_order(server)
            else:
                server.drop()
            await told(client)
            await client.wait_connected()
            assert client.tls is not None
        # What on_connect said passed through the same servers, and nothing of it came to the client.
        await ask(client, b"last")
        assert server.accepted == client.stats.connects == 4


async def test_on_connect_can_start_tls_on_every_connection() -> None:
    context = server_context(server_cert())

    async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go on\n")
        await writer.start_tls(context)
        await echo(reader, writer)

    async def start_tls(connection: NetworkClient) -> None:
        await connection.send(b"STARTTLS\n")
        assert await connection.receive_line() == b"go on\n"
        await connection.start_tls(TLSConfig(ca_file=ca_file()))
        await ask(connection)

    async with mortal_and_client(upgraded, on_connect=start_tls) as (server, client):
        for number in range(3):
            assert client.tls is not None
            await ask(client, b"%d" % number)
            server.drop()
            await told(client)
            await client.wait_connected()
        assert server.accepted == 4


async def test_a_certificate_that_is_refused_in_on_connect_ends_reconnecting() -> None:
    connections = 0

    async def start_tls_the_second_time(connection: NetworkClient) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            # No authority that it knows has signed the server's.
            await connection.start_tls(TLSConfig(server_hostname="localhost"))

    async def serve() -> None:
        for number in range(2):
            sock, _ = await asyncio.get_running_loop().sock_accept(server)
            with sock, contextlib.suppress(OSError):
                sock.setblocking(False)
                if number:
                    await TLSPeer(sock, server_context(server_cert())).handshake()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        serving = asyncio.create_task(serve())
        client = reconnecting(server.getsockname()[1], on_connect=start_tls_the_second_time)
        await client.connect()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        with pytest.raises(TLSError, match=r"on_connect failed: .* certificate"):
            await client.receive()
        assert connections == 2
        await serving


async def test_a_handshake_that_is_cut_off_in_on_connect_is_tried_again() -> None:
    async def serve() -> None:
        for cut_off in (True, False):
            sock, _ = await asyncio.get_running_loop().sock_accept(server)
            with sock:
                if cut_off:
                    await asyncio.get_running_loop().sock_recv(sock, 1)
                else:
                    await TLSPeer(sock, server_context(server_cert())).handshake()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        trusting = TLSConfig(ca_file=ca_file())
        client = reconnecting(port, retries=1, on_connect=lambda connection: connection.start_tls(trusting))
        await asyncio.gather(serve(), client.connect())
        assert client.stats.retries == 1
        client.abort()


@pytest.mark.slow
async def test_a_heartbeat_over_tls_keeps_a_living_peer_and_ends_a_silent_one() -> None:
    beats = 0

    async def beat(connection: NetworkClient) -> None:
        nonlocal beats
        beats += 1
        await connection.send(b"are you there?\n")

    async def falls_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(1 if server.accepted == 1 else 1000):
            if line := await reader.readline():
                writer.write(line)
        await silence(reader, writer)

    settings = TLS | {"heartbeat": Heartbeat(beat, interval=0.01, timeout=0.5)}
    async with mortal_server(falls_silent, server_context(server_cert())) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True, **settings)
        async with NetworkClient(config) as client:
            assert await client.receive_line() == b"are you there?\n"
            with pytest.raises(ConnectionLostError, match=r"within Heartbeat\.timeout"):
                await client.receive()
            assert beats == 2
            assert await client.receive_line() == b"are you there?\n"
            assert server.accepted == 2


# ---- A proxy ----


async def test_a_client_reconnects_through_its_proxy(proxy: Tinyproxy) -> None:
    async with mortal_and_client(proxy=proxy.url) as (server, client):
        before = len(proxy.requests())
        for number in range(3):
            await ask(client, b"%d" % number)
            server.drop()
            await told(client)
            await client.wait_connected()
        await ask(client, b"last")
        assert len(proxy.requests()) - before == 3
