"""How a server ends: running handlers have a limit, nothing is left; and what it does when it is full."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket

import pytest
from support.cancelling import until
from support.certificates import server_cert
from support.tls_peer import TRANSPORTS, use_transport

from pepperpy.network import ClosedError, ConnectionLostError, NetworkClient, NetworkConfig, serve
from pepperpy.network.tcp import serve as serve_module


def config_of(port: int) -> NetworkConfig:
    return NetworkConfig("127.0.0.1", port, retries=0, timeout=10)


async def test_a_handler_that_is_done_within_the_limit_is_not_disturbed() -> None:
    ended = asyncio.Event()

    async def finish(client: NetworkClient) -> None:
        await client.send(b"begun\n")
        await client.receive_line()
        await client.send(b"whole\n")
        ended.set()

    async with contextlib.AsyncExitStack() as stack:
        server = serve(finish, stop_timeout=None)
        await server.__aenter__()
        client = await stack.enter_async_context(NetworkClient(config_of(server.port)))
        assert await client.receive_line() == b"begun\n"
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        port = server.port
        await until(lambda: not server._accepting or all(task.done() for task in server._accepting), "it stops")
        await client.send(b"go\n")
        assert await client.receive_line() == b"whole\n"
        await leaving
        assert ended.is_set() and server.connections == 0
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port))


async def test_busy_handlers_are_cancelled_after_the_limit_and_may_clean_up() -> None:
    cleaned: list[bool] = []

    async def busy(client: NetworkClient) -> None:
        await client.send(b"begun\n")
        try:
            await asyncio.Event().wait()
        finally:
            # As a task that was cancelled once, it may still use its connection.
            await client.send(b"bye\n")
            await client.disconnect()
            cleaned.append(True)

    server = serve(busy, stop_timeout=0)
    await server.__aenter__()
    clients = [NetworkClient(config_of(server.port)) for _ in range(5)]
    for client in clients:
        await client.connect()
        assert await client.receive_line() == b"begun\n"
    await server.__aexit__(None, None, None)
    assert cleaned == [True] * 5 and server.connections == 0
    for client in clients:
        assert await client.receive_line() == b"bye\n"
        assert await client.receive() == b""
        await client.disconnect()


async def test_a_block_that_is_cancelled_while_it_ends_cancels_the_handlers_at_once() -> None:
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def busy(client: NetworkClient) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    server = serve(busy, stop_timeout=None)
    await server.__aenter__()
    async with NetworkClient(config_of(server.port)):
        await begun.wait()
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        await until(lambda: all(task.done() for task in server._accepting), "it stops")
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled() and cancelled.is_set() and server.connections == 0


async def test_a_cancelled_handler_leaves_no_half_message_that_looks_whole() -> None:
    async def half(client: NetworkClient) -> None:
        with contextlib.suppress(ConnectionLostError, ClosedError):
            while True:
                await client.send(bytes(1 << 20), timeout=None)

    async with contextlib.AsyncExitStack() as stack:
        async with serve(half, stop_timeout=0) as server:
            client = await stack.enter_async_context(NetworkClient(config_of(server.port)))
            await client.receive(1)
        with pytest.raises(ConnectionLostError):
            while await client.receive():
                pass


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_handshakes_under_way_end_with_the_block(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_transport(monkeypatch, transport)

    async def never(client: NetworkClient) -> None:
        raise AssertionError("no handshake was done")

    patient = NetworkConfig("localhost", 1, timeout=None)
    with socket.socket() as sock:
        sock.setblocking(False)
        async with serve(never, "127.0.0.1", 0, tls=server_cert(), config=patient, stop_timeout=None) as server:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
            await until(lambda: server.connections == 1, "it is accepted")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def test_a_connection_that_was_accepted_in_the_last_moment_is_closed() -> None:
    async def echo(client: NetworkClient) -> None:
        await client.send(await client.receive_line())

    for turns in range(6):
        with socket.socket() as sock:
            async with serve(echo, stop_timeout=0) as server:
                sock.connect(("127.0.0.1", server.port))
                for _ in range(turns):
                    await asyncio.sleep(0)


async def test_further_connections_wait_until_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    going = asyncio.Event()
    most = 0

    async def stay(client: NetworkClient) -> None:
        nonlocal most
        most = max(most, server.connections)
        await client.send(b"in\n")
        await client.receive_line()

    async with serve(stay, max_connections=2) as server:
        clients = [NetworkClient(config_of(server.port)) for _ in range(6)]
        await asyncio.gather(*(client.connect() for client in clients))

        async def use(client: NetworkClient) -> None:
            assert await client.receive_line() == b"in\n"
            await client.send(b"out\n")
            assert await client.receive() == b""
            await client.disconnect()

        await asyncio.gather(*map(use, clients))
        going.set()
    assert most == 2
    assert caplog.text.count("no further ones are accepted until one ends") == 1


async def test_without_descriptors_it_pauses_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pepperpy.network.tcp")
    monkeypatch.setattr(serve_module, "ACCEPT_PAUSE_S", 0.01)
    failures = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "aborted")]
    real = socket.socket.accept

    def accept(listener: socket.socket) -> object:
        if failures:
            raise failures.pop(0)
        return real(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)

    async def hello(client: NetworkClient) -> None:
        await client.send(b"hello")

    async with serve(hello) as server, NetworkClient(config_of(server.port)) as client:
        assert await client.receive_exactly(5) == b"hello"
    assert caplog.text.count("accepting again in 0.01 s") == 1 and not failures


async def test_an_unknown_name_is_in_the_error() -> None:
    async def nothing(client: NetworkClient) -> None: ...

    with pytest.raises(socket.gaierror, match=r"cannot listen on nobody\.invalid: "):
        await serve(nothing, "nobody.invalid", 0).__aenter__()


async def test_a_server_is_used_once() -> None:
    async def nothing(client: NetworkClient) -> None: ...

    async with serve(nothing) as server:
        assert repr(server) == f"<Server 127.0.0.1:{server.port}, 0 connections>"
    with pytest.raises(RuntimeError, match="serve\\(\\) makes a new one"):
        await server.__aenter__()
