"""The parts together: messages, requests, pipelines and pools on connections that are lost, encrypted or tunnelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.mortal import Mortal, echo, mortal_and_client, mortal_server, reconnecting, silence
from support.tls_peer import TLSPeer

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    JSONLines,
    LengthPrefixed,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    TLSError,
)

if TYPE_CHECKING:
    from support.proxies import Tinyproxy

TLS: dict[str, Any] = {"tls": True, "ca_file": ca_file()}
CODEC = LengthPrefixed()
LARGE = b"x" * 1_000_000


def frame(message: bytes) -> bytes:
    return b"".join(CODEC.encode(message))


def line(client: NetworkClient) -> Any:
    return client.receive_line()


async def lost(client: NetworkClient) -> None:
    await until(lambda: not client.is_connected, "the client has noticed the loss")


async def ask(client: NetworkClient, question: bytes = b"ping\n") -> None:
    await client.send(question)
    assert await client.receive_exactly(len(question)) == question


async def told(client: NetworkClient) -> None:
    """Take the news of a loss, which comes once in each direction."""
    await lost(client)
    with pytest.raises(ConnectionLostError):
        await client.receive()
    with pytest.raises(ConnectionLostError):
        await client.send(b"lost")


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
        await connection.start_tls()
        await ask(connection)

    async with mortal_and_client(upgraded, on_connect=start_tls, ca_file=ca_file()) as (server, client):
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
            await connection.start_tls(ssl.create_default_context(), "localhost")

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
        client = reconnecting(port, retries=1, on_connect=NetworkClient.start_tls, ca_file=ca_file())
        await asyncio.gather(serve(), client.connect())
        assert client.stats.retries == 1
        client.abort()


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

    settings = TLS | {"heartbeat": beat, "heartbeat_interval": 0.01, "heartbeat_timeout": 0.5}
    async with mortal_server(falls_silent, server_context(server_cert())) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True, **settings)
        async with NetworkClient(config) as client:
            assert await client.receive_line() == b"are you there?\n"
            with pytest.raises(ConnectionLostError, match="heartbeat_timeout"):
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


# ---- Requests on a client that reconnects ----


async def counting(server: Mortal, seen: list[bytes]) -> None:
    """Let the server note each line that it answers."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            seen.append(question)
            writer.write(question)

    server.handler = handler


async def test_a_request_is_told_of_a_loss_before_anything_is_sent_and_the_next_ones_are_served() -> None:
    seen: list[bytes] = []
    async with mortal_server() as server:
        await counting(server, seen)
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True)
        async with NetworkClient(config) as client:
            assert await client.request(b"1\n", line) == b"1\n"
            server.drop()
            await lost(client)
            await client.wait_connected()
            with pytest.raises(ConnectionLostError):
                await client.request(b"2\n", line)
            assert await client.request(b"3\n", line) == b"3\n"
            await server.kill()
            await lost(client)
            with pytest.raises(ConnectionLostError):
                await client.request(b"4\n", line)
            # Now they wait for the next connection, and keep their order.
            waiting = [asyncio.create_task(client.request(b"%d\n" % n, line)) for n in (5, 6, 7)]
            await asyncio.sleep(0)
            await server.start()
            assert await asyncio.gather(*waiting) == [b"5\n", b"6\n", b"7\n"]
            assert seen == [b"1\n", b"3\n", b"5\n", b"6\n", b"7\n"]


async def test_a_request_that_waits_for_a_connection_has_its_time_and_can_be_cancelled() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        with pytest.raises(NetworkTimeoutError, match="request timed out"):
            await client.request(b"1\n", line, timeout=0.01)
        waiting = asyncio.create_task(client.request(b"2\n", line))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await server.start()
        assert await client.request(b"3\n", line) == b"3\n"


@pytest.mark.parametrize(
    ("how", "error"),
    [("timeout", NetworkTimeoutError), ("failed", ZeroDivisionError), ("cancelled", asyncio.CancelledError)],
)
async def test_a_request_that_ends_without_its_reply_costs_the_connection_and_not_the_client(
    how: str, error: type[BaseException]
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            writer.write(b"half of the late rep" if question == b"late\n" else question)

    async def receive(client: NetworkClient) -> bytes:
        if how == "failed":
            return await client.receive_exactly(4) * (1 // 0)
        return await client.receive_line()

    async with mortal_and_client(half) as (server, client):
        for number in range(3):
            limit = 0.01 if how == "timeout" else None
            asking = asyncio.create_task(client.request(b"late\n", receive, timeout=limit))
            waiting = asyncio.create_task(client.request(b"x\n", line))
            if how == "cancelled":
                await until(lambda: client.stats.bytes_buffered == 20, "half of the reply is here")
                asking.cancel()
            with pytest.raises(error):
                await asking
            with pytest.raises(ClosedError, match="connection dropped after a failed request"):
                await waiting
            with pytest.raises(ConnectionLostError, match="connection dropped after a failed request"):
                await client.request(b"told\n", line)
            assert await client.request(b"next\n", line) == b"next\n"
            assert server.accepted == number + 2
        await told_sending(client)
        await client.send(b"plain\n")
        assert await client.receive_line() == b"plain\n"


async def told_sending(client: NetworkClient) -> None:
    """Requests hear of a loss as receives do; plain sends have still to be told."""
    with pytest.raises(ConnectionLostError):
        await client.send(b"lost")


async def test_a_heartbeat_whose_request_fails_ends_the_connection_and_not_the_client() -> None:
    async def beat(connection: NetworkClient) -> None:
        if server.accepted == 1:
            await connection.request(b"ping\n", line, timeout=0.01)

    async with mortal_server(silence) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True)
        config = config.replace(heartbeat=beat, heartbeat_interval=0.01)
        async with NetworkClient(config) as client:
            await until(lambda: server.accepted == 2 and client.is_connected, "it has reconnected")
            with pytest.raises(ConnectionLostError, match="request timed out"):
                await client.receive()


# ---- Pipelines on a client that reconnects ----


async def test_a_pipeline_ends_with_its_connection_and_another_one_begins() -> None:
    async with mortal_and_client() as (server, client):
        for turn in range(3):
            async with client.pipeline(JSONLines()) as pipeline:
                assert await asyncio.gather(*map(pipeline.request, range(10))) == list(range(10))
                server.handler = silence
                await server.kill()
                with pytest.raises(ConnectionLostError):
                    await pipeline.wait_ended()
                await server.start()
                server.handler = echo
                await client.wait_connected()
                with pytest.raises(ConnectionLostError):
                    await pipeline.request("not on another connection")
            assert client.is_connected
            assert server.accepted == turn + 2


async def test_a_pipeline_is_told_of_an_earlier_loss_as_it_begins_and_waits_for_the_next_connection() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await lost(client)
        with pytest.raises(ConnectionLostError):
            async with client.pipeline(JSONLines()):
                raise AssertionError
        asyncio.get_running_loop().call_later(0.01, lambda: starting.append(asyncio.ensure_future(server.start())))
        starting: list[asyncio.Future[None]] = []
        async with client.pipeline(JSONLines()) as pipeline:
            assert await pipeline.request("hello") == "hello"
        server.drop()
        await lost(client)
        await client.wait_connected()
        with pytest.raises(ConnectionLostError):
            async with client.pipeline(JSONLines()):
                raise AssertionError
        async with client.pipeline(JSONLines()) as pipeline:
            assert await pipeline.request("again") == "again"
        assert server.accepted == client.stats.connects == 3


async def test_a_pipeline_left_with_requests_in_flight_costs_the_connection_and_not_the_client() -> None:
    async with mortal_and_client(silence) as (server, client):
        async with client.pipeline(JSONLines()) as pipeline:
            asking = asyncio.create_task(pipeline.request("never answered"))
            await until(lambda: pipeline.in_flight == 1, "it is sent")
        with pytest.raises(ClosedError):
            await asking
        server.handler = echo
        await told(client)
        await ask(client)
