"""`TLSConfig.ignore_unexpected_eof`, and OpenSSL's option of that name: a TLS stream whose end is not announced."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.certificates import client_context, server_cert, server_context
from support.processes import programs, reserved_ports, wait_until
from support.tls_peer import TRANSPORTS, UPGRADED, TLSPeer, tls_client_of, tls_peer_and_client, use_transport

from pepperpy.network import BufferLimits, ConnectionLostError, NetworkClient, TLSError


@pytest.fixture(params=[*TRANSPORTS, UPGRADED], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    return str(request.param)


def _ignoring_context() -> ssl.SSLContext:
    context = client_context()
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


# By a setting, and by a context of one's own.
IGNORING: dict[str, dict[str, Any]] = {
    "setting": {"ignore_unexpected_eof": True},
    "context": {"tls": _ignoring_context()},
}


def _cut_off(peer: TLSPeer, data: bytes) -> None:
    peer.sock.setblocking(True)
    peer.sock.sendall(data)
    peer.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("how", IGNORING)
@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 10_000], ids=len)
async def test_everything_is_received_and_then_the_end(how: str, data: bytes) -> None:
    async with tls_peer_and_client(**IGNORING[how]) as (peer, client):
        _cut_off(peer, peer.encrypted(data))
        assert await client.receive_exactly(len(data)) == data
        assert await client.receive() == b""
        assert await client.receive_line() == b""
        assert client.at_eof
        assert not client.is_connected
        with pytest.raises(ConnectionLostError, match="has ended the TLS connection"):
            await client.send(b"x")
        await client.disconnect()


async def test_a_task_that_waits_is_told_of_the_end() -> None:
    async with tls_peer_and_client(ignore_unexpected_eof=True) as (peer, client):
        waiting = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        _cut_off(peer, b"")
        assert await waiting == b""


async def test_what_came_of_a_record_that_is_not_whole_is_dropped() -> None:
    async with tls_peer_and_client(ignore_unexpected_eof=True) as (peer, client):
        _cut_off(peer, peer.encrypted(b"whole") + peer.encrypted(b"never whole")[:-1])
        assert await client.receive() == b"whole"
        assert await client.receive() == b""


@pytest.mark.parametrize("rest", [1, 60_000])
async def test_no_byte_is_lost_when_the_buffer_is_full(rest: int) -> None:
    size = 200_000
    room = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20),)
    settings = {"socket_options": room, "buffers": BufferLimits(receive_high=1000, receive_low=0)}
    async with tls_peer_and_client(ignore_unexpected_eof=True, **settings) as (peer, client):
        waiting = asyncio.create_task(client.receive_exactly(size - rest))
        await asyncio.sleep(0)
        _cut_off(peer, peer.encrypted(b"x" * size))
        assert await waiting == b"x" * (size - rest)
        assert await client.receive_exactly(rest) == b"x" * rest
        assert await client.receive() == b""


async def test_a_reset_is_a_loss_all_the_same() -> None:
    async with tls_peer_and_client(ignore_unexpected_eof=True) as (peer, client):
        await peer.send(b"before")
        assert await client.receive() == b"before"
        peer.reset()
        with pytest.raises(ConnectionLostError) as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_an_end_within_the_handshake_is_no_end_of_a_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = tls_client_of(listener.getsockname()[1], ignore_unexpected_eof=True)
        connecting = asyncio.create_task(client.connect())
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        with sock:
            await asyncio.get_running_loop().sock_recv(sock, 65536)
        with pytest.raises(TLSError, match="closed the connection during the handshake"):
            await connecting


async def test_the_end_is_a_loss_for_a_client_that_reconnects() -> None:
    context = server_context(server_cert())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def accept() -> TLSPeer:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            sock.setblocking(False)
            peer = TLSPeer(sock, context)
            await peer.handshake()
            return peer

        settings = {"reconnect": True, "retry_delay": 0, "ignore_unexpected_eof": True}
        client = tls_client_of(listener.getsockname()[1], **settings)
        first, _ = await asyncio.gather(accept(), client.connect())
        try:
            _cut_off(first, first.encrypted(b"last"))
            assert await client.receive() == b"last"
            with pytest.raises(ConnectionLostError, match="has ended the TLS connection"):
                await client.receive()
            second = await accept()
            await second.send(b"new")
            assert await client.receive() == b"new"
            second.close()
        finally:
            first.close()
            client.abort()
            await asyncio.sleep(0)


# ---- Servers that do so ----


@contextlib.contextmanager
def _openssl_server(folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """One that answers each line with its letters in reverse order."""
    openssl, certificate, output = programs.path("openssl"), str(server_cert()), folder / "output"
    with reserved_ports(1) as [port], open(output, "wb") as printed:
        command = [openssl, "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", certificate]
        process = subprocess.Popen([*command, "-rev"], stdin=subprocess.DEVNULL, stdout=printed, stderr=printed)
        try:
            wait_until(lambda: "ACCEPT" in output.read_text(), output)
            yield port, process
        finally:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def _connected_to_openssl(folder: Path, **settings: Any) -> AsyncIterator[NetworkClient]:
    """A client that has an answer of an `openssl s_server`, which was killed then."""
    with _openssl_server(folder) as (port, process):
        async with tls_client_of(port, **settings) as client:
            await client.send(b"olleh\n")
            assert await client.receive_line() == b"hello\n"
            process.kill()
            yield client


@pytest.mark.needs_server
async def test_a_server_that_is_killed_is_a_loss_unless_it_is_ignored(tmp_path: Path) -> None:
    async with _connected_to_openssl(tmp_path) as client:
        with pytest.raises(ConnectionLostError, match="without close_notify"):
            await client.receive()
    async with _connected_to_openssl(tmp_path, ignore_unexpected_eof=True) as client:
        assert await client.receive() == b""


def _say_and_close(listener: socket.socket, context: ssl.SSLContext) -> None:
    """As many servers do: `SSLSocket.close()` sends no close_notify."""
    for _ in range(2):
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(5)
            tls.sendall(b"answer")


async def test_a_server_that_just_closes_is_a_loss_unless_it_is_ignored() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=_say_and_close, args=(listener, server_context(server_cert())))
        serving.start()
        port = listener.getsockname()[1]
        async with tls_client_of(port) as client:
            await client.send(b"hello")
            assert await client.receive_exactly(6) == b"answer"
            with pytest.raises(ConnectionLostError, match="without close_notify"):
                await client.receive()
        async with tls_client_of(port, ignore_unexpected_eof=True) as client:
            await client.send(b"hello")
            assert b"".join([chunk async for chunk in client]) == b"answer"
        await until(lambda: not serving.is_alive(), "the server is done")
