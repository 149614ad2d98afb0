"""`serve()`: a client for each connection that is accepted; what its handler may do, and what no peer can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.certificates import ca_file, client_cert, client_context, server_cert, server_context, unknown_ca_cert
from support.processes import reserved_ports
from support.tls_peer import TRANSPORTS, use_transport

from pepperpy.network import (
    BufferLimits,
    ConnectionLostError,
    Heartbeat,
    IncompleteReadError,
    LengthPrefixed,
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


def config_of(port: int, **settings: Any) -> NetworkConfig:
    return NetworkConfig("127.0.0.1", port, **{"retries": 0, "timeout": 10} | settings)


@contextlib.asynccontextmanager
async def reported(messages: list[str]) -> AsyncIterator[None]:
    """What the loop's exception handler gets goes into `messages`."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: messages.append(repr(context["exception"])))
    try:
        yield
    finally:
        loop.set_exception_handler(before)


async def test_each_connection_has_a_client_whose_addresses_are_those_of_the_connection() -> None:
    async def tell(client: NetworkClient) -> None:
        await client.send(repr((client.local_address, client.remote_address, repr(client))).encode())

    async with serve(tell) as server, NetworkClient(config_of(server.port)) as client:
        here, there = client.local_address, client.remote_address
        assert server.addresses == [there] == [("127.0.0.1", server.port)]
        seen = repr((there, here, f"NetworkClient(host='127.0.0.1', port={here[1]})"))
        assert (await client.receive_exactly(len(seen))).decode() == seen
        assert await client.receive() == b""


@pytest.mark.parametrize("transport", ["plain", *TRANSPORTS])
async def test_a_hundred_connections_at_once_each_get_their_own_bytes(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls: bool | TLSConfig = False
    if transport != "plain":
        use_transport(monkeypatch, transport)
        tls = TLSConfig(ca_file=ca_file())

    async with serve(echo, tls=server_cert() if tls else None) as server:

        async def talk(number: int) -> None:
            async with NetworkClient(config_of(server.port, tls=tls, timeout=40)) as client:
                for turn in range(3):
                    line = b"%d.%d\n" % (number, turn)
                    await client.send(line)
                    assert await client.receive_line() == line

        await asyncio.gather(*(talk(number) for number in range(100)))
        await until(lambda: server.connections == 0, "all connections have ended")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_over_tls_a_large_message_goes_both_ways_with_backpressure(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_transport(monkeypatch, transport)

    async def swallow_and_return(client: NetworkClient) -> None:
        assert client.tls is not None
        frames = client.framed(LengthPrefixed(4, max_size=1 << 24))
        message = await frames.receive()
        assert message is not None
        await frames.send(message)

    settings = NetworkConfig("localhost", 1, buffers=BufferLimits(receive_high=1024, receive_low=0), timeout=30)
    tls = TLSConfig(ca_file=ca_file())
    async with serve(swallow_and_return, "127.0.0.1", 0, tls=server_cert(), config=settings) as server:
        async with NetworkClient(config_of(server.port, tls=tls, timeout=30)) as client:
            frames = client.framed(LengthPrefixed(4, max_size=1 << 24))
            message = os.urandom(4 << 20)
            sending = asyncio.create_task(frames.send(message))
            assert await frames.receive() == message
            await sending


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_that_fails_in_the_handshake_disturbs_nobody(
    transport: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_transport(monkeypatch, transport)
    caplog.set_level(logging.INFO, "pepperpy.network.tcp")
    async with serve(echo, tls=(server_cert(), server_cert())) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: "speaks plain HTTP" in caplog.text, "the server has noticed")
        sock.close()
        with pytest.raises(TLSError):
            await NetworkClient(config_of(server.port, tls=True)).connect()
        async with NetworkClient(config_of(server.port, tls=client_context())) as client:
            await client.send(b"hello\n")
            assert await client.receive_line() == b"hello\n"
    assert "not served: 127.0.0.1:" in caplog.text


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_handshake_that_never_comes_ends_by_the_time_limit(
    transport: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_transport(monkeypatch, transport)
    caplog.set_level(logging.INFO, "pepperpy.network.tcp")
    settings = NetworkConfig("localhost", 1, connect_timeout=0.05)
    async with serve(echo, "127.0.0.1", tls=server_cert(), port=0, config=settings) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
    assert "TLS did not start within 0.05 s" in caplog.text


async def test_a_server_may_ask_its_clients_for_certificates() -> None:
    context = server_context(server_cert())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file())
    seen: list[bytes] = []

    async def look(client: NetworkClient) -> None:
        assert client.tls is not None
        seen.append(client.tls.peer_certificate)

    async with serve(look, tls=context) as server:
        async with NetworkClient(config_of(server.port, tls=client_context(client_cert()))) as client:
            assert await client.receive() == b""
    assert len(seen) == 1 and seen[0]


async def test_starttls_as_a_server_although_the_hello_is_there_already() -> None:
    async def upgrade(client: NetworkClient) -> None:
        assert await client.receive_line() == b"STARTTLS\n"
        await client.send(b"go\n")
        await until(lambda: client.stats.bytes_buffered > 0, "the client's hello has come")
        await client.start_tls(server_context(server_cert()))
        await client.send(await client.receive_line())

    async with serve(upgrade) as server, NetworkClient(config_of(server.port)) as client:
        await client.send(b"STARTTLS\n")
        assert await client.receive_line() == b"go\n"
        await client.start_tls(TLSConfig(ca_file=ca_file()))
        await client.send(b"secret\n")
        assert await client.receive_line() == b"secret\n"


async def test_what_a_client_sends_in_plain_behind_starttls_is_no_part_of_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pepperpy.network.tcp")

    async def upgrade(client: NetworkClient) -> None:
        await client.receive_line()
        await client.send(b"go\n")
        await client.start_tls(server_context(server_cert()))
        raise AssertionError("TLS began")

    async with serve(upgrade) as server, NetworkClient(config_of(server.port)) as client:
        await client.send(b"STARTTLS\nRCPT TO: injected\n")
        assert await client.receive_line() == b"go\n"
        with contextlib.suppress(ConnectionLostError):
            await client.receive()
        await until(lambda: server.connections == 0, "the server has ended it")
    assert "the client does not speak TLS" in caplog.text


# ---- Handlers ----


async def test_an_exception_in_a_handler_ends_its_connection_and_not_the_server() -> None:
    async def fail(client: NetworkClient) -> None:
        if await client.receive_line() == b"fail\n":
            raise ZeroDivisionError("mine")
        await client.send(b"fine\n")

    messages: list[str] = []
    async with reported(messages), serve(fail) as server:
        async with NetworkClient(config_of(server.port)) as client:
            await client.send(b"fail\n")
            assert await client.receive() == b""
        async with NetworkClient(config_of(server.port)) as client:
            await client.send(b"go on\n")
            assert await client.receive_line() == b"fine\n"
    assert messages == ["ZeroDivisionError('mine')"]


async def test_what_the_peer_does_wrong_is_a_line_of_the_log_and_no_report(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pepperpy.network.tcp")

    async def read(client: NetworkClient) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.receive_exactly(100))

    async with serve(read) as server:
        async with NetworkClient(config_of(server.port)) as client:
            await client.send(b"too short")
            await client.send_eof()
            assert await client.receive() == b""

        async def read_one(client: NetworkClient) -> None:
            await client.receive_exactly(100, timeout=0)

    async with serve(read_one) as server, NetworkClient(config_of(server.port)) as client:
        assert await client.receive() == b""
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


async def test_a_failure_of_another_connection_is_a_bug_of_the_handler() -> None:
    async def use_backend(client: NetworkClient) -> None:
        with reserved_ports(1) as [port]:
            await NetworkClient(config_of(port)).connect()

    async def misuse(client: NetworkClient) -> None:
        await client.disconnect()
        await client.send(b"x")

    messages: list[str] = []
    async with reported(messages):
        for handler in (use_backend, misuse, lambda client: None):
            async with serve(handler) as server, NetworkClient(config_of(server.port)) as client:  # type: ignore[arg-type]
                assert await client.receive() == b""
    kinds = [message.partition("(")[0] for message in messages]
    assert kinds == ["ConnectError", "ClosedError", "TypeError"]
    assert "handler must be a coroutine function, and returned NoneType" in messages[2]


async def test_an_accepted_client_never_connects_again() -> None:
    errors: list[Exception] = []

    async def try_again(client: NetworkClient) -> None:
        async with client:  # does nothing, as it is connected
            await client.send(b"hello\n")
            assert client.stats.connects == 1 and client.stats.connect_latency is None
        for calling in (client.connect(), client.wait_connected(timeout=1), client.receive()):
            with pytest.raises((UsageError, ConnectionError)) as caught:
                await calling
            errors.append(caught.value)

    async with serve(try_again) as server, NetworkClient(config_of(server.port)) as client:
        assert await client.receive_line() == b"hello\n"
        assert await client.receive() == b""
        await until(lambda: len(errors) == 3, "the handler has tried")
    assert "was given its connection, and cannot connect again" in str(errors[0])
    assert [type(error).__name__ for error in errors] == ["UsageError", "ClosedError", "ClosedError"]


async def test_handlers_run_in_the_context_of_the_block_each_in_a_copy() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def tell(client: NetworkClient) -> None:
        await client.send(variable.get().encode())
        variable.set("changed")

    variable.set("of the block")
    async with serve(tell) as server:
        for _ in range(2):
            async with NetworkClient(config_of(server.port)) as client:
                assert b"".join([chunk async for chunk in client]) == b"of the block"


async def test_the_settings_of_a_connection_are_those_of_the_config() -> None:
    beats = asyncio.Event()

    async def probe(connection: NetworkClient) -> None:
        if not beats.is_set():  # once, however long the answer takes
            await connection.send(b"are you there?\n")
            beats.set()

    outcome: list[type] = []

    async def wait(client: NetworkClient) -> None:
        sock = client._link.protocol.extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        try:
            await client.receive()
        except NetworkTimeoutError as error:
            outcome.append(type(error))
        # The interval is over, by hand: a heartbeat before the timeout would have been answered.
        supervisor = client._link.supervisor
        assert supervisor is not None and supervisor._heartbeats is not None
        supervisor._heartbeats._started -= 1000
        supervisor._heartbeats._timer.look_by(time.monotonic())
        await beats.wait()
        assert await client.receive_line(timeout=10) == b"yes\n"

    settings = NetworkConfig("localhost", 1, timeout=0.05, nodelay=False, heartbeat=Heartbeat(probe, interval=60))
    async with serve(wait, "127.0.0.1", 0, config=settings) as server:
        async with NetworkClient(config_of(server.port)) as client:
            assert await client.receive_line() == b"are you there?\n"
            await client.send(b"yes\n")
            assert await client.receive() == b""
    assert outcome == [NetworkTimeoutError]


# ---- Places ----


async def test_all_addresses_of_a_name_are_listened_on_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [
        (family, socket.SOCK_STREAM, 6, "", (address, 0))
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET, "192.0.2.1"),
            (socket.AF_INET, "127.0.0.2"),
        )
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    async with serve(echo, "some.example") as server:
        # 192.0.2.1 is not of this machine (RFC 5737).
        assert server.addresses == [("127.0.0.1", server.port), ("127.0.0.2", server.port)]
        async with NetworkClient(NetworkConfig("127.0.0.2", server.port)) as client:
            await client.send(b"x\n")
            assert await client.receive_line() == b"x\n"


async def test_a_unix_socket_is_made_replaced_if_dead_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serve(echo, unix_path=path) as server, NetworkClient(NetworkConfig(unix_path=str(path))) as client:
        assert server.addresses == [str(path)]
        await client.send(b"hello\n")
        assert await client.receive_line() == b"hello\n"
        with pytest.raises(OSError, match="cannot listen on") as caught:
            await serve(echo, config=NetworkConfig(unix_path=str(path))).__aenter__()
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(UsageError, match="no port"):
            _ = server.port
    assert not path.exists()


async def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="cannot listen on"):
        await serve(echo, unix_path=path).__aenter__()
    assert path.read_text() == "precious"


async def test_the_place_may_be_that_of_the_config_and_a_taken_port_is_named() -> None:
    async with serve(echo) as server:
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}: "):
            await serve(echo, config=NetworkConfig("127.0.0.1", server.port)).__aenter__()


async def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    config = NetworkConfig("localhost", 1)
    for wrong, words in (
        ({"config": config.replace(reconnect=True)}, "reconnect must be left out of the config of serve"),
        ({"config": config.replace(hosts=(("b", 1),))}, "hosts must be left out"),
        ({"config": config.replace(proxy="socks5://p:1")}, "proxy must be left out"),
        ({"config": config.replace(tls=True)}, "tls must be left out"),
        ({"config": config.replace(retries=1)}, "retries must be left out"),
        ({"config": "localhost:1"}, "config must be a NetworkConfig"),
        ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, "tls must be a context for servers"),
        ({"tls": tmp_path / "missing.pem"}, "tls .*missing.pem' cannot be used"),
        ({"tls": (server_cert(), unknown_ca_cert())}, "the key belongs to another certificate"),
        ({"tls": True}, "tls must be a path"),
        ({"max_connections": 0}, "max_connections must be 1 or more"),
        ({"stop_timeout": -1}, "stop_timeout must be 0 or more"),
        ({"host": "localhost:80"}, "the port is a field of its own"),
        ({"port": 70000}, "port must be from 0 to 65535"),
        ({"unix_path": "/x", "port": 1}, "host and port must be left out"),
        ({"unix_path": "x" * 200}, "unix_path must be at most"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            serve(echo, **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="handler must be callable"):
        serve(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not listen yet"):
        _ = serve(echo).port


def test_an_incomplete_read_is_one_of_the_peer() -> None:
    from pepperpy.network.tcp.serve import _is_of_peer

    config = NetworkConfig("127.0.0.1", 5)
    assert _is_of_peer(IncompleteReadError("", config.place), config)
    assert not _is_of_peer(IncompleteReadError("", {"host": "127.0.0.1", "port": 6}), config)
