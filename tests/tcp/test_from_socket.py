"""`NetworkClient.from_socket()`: a client for a socket that others have connected."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from support.certificates import ca_file, server_cert, wrong_host_cert
from support.tls_peer import TRANSPORTS, use_transport

from pepperpy.network import (
    Keepalive,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    TLSConfig,
    TLSError,
    UsageError,
    serve,
)


async def echo(client: NetworkClient) -> None:
    async for line in client.lines():
        await client.send(line)


async def test_a_pair_of_sockets_becomes_two_clients() -> None:
    here, there = socket.socketpair()
    async with await NetworkClient.from_socket(here) as a, await NetworkClient.from_socket(there) as b:
        await a.send(b"hello\n")
        assert await b.receive_line() == b"hello\n"
        await b.send_eof()
        assert await a.receive() == b""
        with pytest.raises(UsageError, match="cannot connect again"):
            await a.connect()
        assert repr(a) == "NetworkClient(path='unnamed socket')"


async def test_the_path_that_a_peer_has_chosen_is_printable_in_messages(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as peer:
        listener.bind(str(tmp_path / "here"))
        listener.listen()
        peer.bind(str(tmp_path / "\x1b[2J\nroot: all is well"))
        peer.connect(str(tmp_path / "here"))
        async with await NetworkClient.from_socket(listener.accept()[0]) as client:
            assert "\\x1b[2J\\nroot" in str(client.config.unix_path)


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_tcp_socket_blocking_or_not_gets_the_settings_and_is_closed_with_the_client(blocking: bool) -> None:
    async with serve(echo) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setblocking(blocking)
        config = NetworkConfig("some.example", 1, keepalive=Keepalive(idle=77), nodelay=False, timeout=10)
        async with await NetworkClient.from_socket(sock, config) as client:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            await client.send(b"hello\n")
            assert await client.receive_line() == b"hello\n"
            with pytest.raises(NetworkTimeoutError, match=r"some\.example:1: "):
                await client.receive(timeout=0)
        assert sock.fileno() == -1


async def test_without_settings_errors_name_the_peer() -> None:
    async with serve(echo) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        async with await NetworkClient.from_socket(sock) as client:
            assert client.config.address == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tls_over_a_given_socket_checks_the_name_of_the_config(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_transport(monkeypatch, transport)
    config = NetworkConfig("localhost", 1, tls=TLSConfig(ca_file=ca_file()), timeout=10)
    async with serve(echo, tls=server_cert()) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        async with await NetworkClient.from_socket(sock, config) as client:
            assert client.tls is not None
            await client.send(b"hello\n")
            assert await client.receive_line() == b"hello\n"
    async with serve(echo, tls=wrong_host_cert()) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(TLSError, match="localhost:1: the certificate is not for 'localhost'"):
            await NetworkClient.from_socket(sock, config)
        assert sock.fileno() == -1


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_handshake_that_is_cut_short_closes_the_socket(cancel: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        limit = 10 if cancel else 0.05
        config = NetworkConfig("localhost", 1, tls=TLSConfig(verify=False), connect_timeout=limit)
        making = asyncio.create_task(NetworkClient.from_socket(sock, config))
        if cancel:
            await asyncio.sleep(0)
            making.cancel()
        await asyncio.wait([making])
        assert making.cancelled() == cancel
        if not cancel:
            assert isinstance(making.exception(), NetworkTimeoutError)
        assert sock.fileno() == -1


async def test_what_is_no_connected_stream_socket_is_refused_and_stays_with_its_owner() -> None:
    with socket.socket() as unconnected, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        closed = socket.socket()
        closed.close()
        for wrong, words in (
            (unconnected, "sock must be connected"),
            (datagram, "sock must be a stream socket"),
            (closed, "sock must be open"),
            ("127.0.0.1:80", "sock must be a socket.socket, not '127.0.0.1:80'"),
        ):
            with pytest.raises((TypeError, ValueError), match=words):
                await NetworkClient.from_socket(wrong)  # type: ignore[arg-type]
        assert unconnected.fileno() >= 0
    here, there = socket.socketpair()
    with here, there:
        with pytest.raises(ValueError, match="reconnect must be left out of the config of NetworkClient"):
            await NetworkClient.from_socket(here, NetworkConfig("localhost", 1, reconnect=True))
        assert here.fileno() >= 0
        wrapped = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
            here, server_hostname="x", do_handshake_on_connect=False
        )
        with wrapped, pytest.raises(TypeError, match="must be a plain socket"):
            await NetworkClient.from_socket(wrapped)


async def test_a_subclass_makes_its_own() -> None:
    class Mine(NetworkClient):
        pass

    here, there = socket.socketpair()
    with there:
        async with await Mine.from_socket(here) as client:
            assert type(client) is Mine
