"""Connecting: refused, late, silent and unknown servers, and the socket that a client gets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time

import pytest
from support.cancelling import until
from support.names import names
from support.processes import reserved_ports
from support.servers import client_of, echo_server, full_listener, peer_and_client

from pepperpy.network import (
    ConnectError,
    HTTPClient,
    HTTPConfig,
    Keepalive,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkTimeoutError,
)
from pepperpy.network.tcp.connect import LOOKS_AGAIN, connect_socket
from pepperpy.network.timers import EARLY_S
from pepperpy.network.transient import may_pass


async def test_the_client_tells_its_addresses_and_nothing_secret() -> None:
    async with echo_server() as port:
        client = client_of(port)
        assert repr(client) == f"NetworkClient(host='127.0.0.1', port={port})"
        assert (client.is_connected, client.local_address, client.remote_address) == (False, None, None)
        async with client:
            assert client.is_connected
            assert client.remote_address == ("127.0.0.1", port)
            assert client.local_address[0] == "127.0.0.1"
        assert (client.is_connected, client.local_address, client.remote_address) == (False, None, None)


async def test_a_refused_connection_is_tried_again_and_the_error_counts(caplog: pytest.LogCaptureFixture) -> None:
    with (
        reserved_ports(1) as [port],
        caplog.at_level(logging.INFO, "pepperpy.network.tcp"),
        pytest.raises(ConnectError, match="3 attempts") as caught,
    ):
        client = client_of(port, retries=2, retry_delay=0.01)
        await client.connect()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.details["attempt"] == 3
    assert caught.value.details["elapsed"] >= 0
    assert client.stats.retries == 2
    assert len(caplog.records) == 2


@pytest.mark.skipif(not LOOKS_AGAIN, reason="Linux connects to a peer on the same machine within the call")
async def test_a_peer_on_this_machine_answers_within_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    async def wait(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        waits.append(sock)

    monkeypatch.setattr("pepperpy.network.tcp.connect._writable", wait)
    async with echo_server() as port, client_of(port) as client:
        await client.send(b"x")
        assert await client.receive() == b"x"
    with reserved_ports(1) as [port], pytest.raises(ConnectError) as caught:
        await client_of(port).connect()
    assert caught.value.errno == errno.ECONNREFUSED
    assert waits == []


async def test_a_peer_that_does_not_answer_within_the_call_is_waited_for() -> None:
    with full_listener() as port, socket.socket() as sock:
        sock.setblocking(False)
        connecting = asyncio.create_task(connect_socket(asyncio.get_running_loop(), sock, ("127.0.0.1", port)))
        await asyncio.wait([connecting], timeout=0.01)
        assert not connecting.done()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


async def test_a_limit_shorter_than_a_turn_of_the_loop_ends_what_is_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(NetworkTimeoutError):
            await client_of(port, tls=True, connect_timeout=1e-9, retries=0).connect()
        async with HTTPClient(HTTPConfig(connect_timeout=1e-9, retries=0)) as client:
            with pytest.raises(NetworkTimeoutError, match="connect_timeout"):
                await client.get(f"https://127.0.0.1:{port}/")


async def test_a_server_that_comes_up_late_is_reached() -> None:
    with reserved_ports(1) as [port]:
        client = client_of(port, retries=50, retry_delay=0.01, max_retry_delay=0.05)
        connecting = asyncio.create_task(client.connect())
        await until(lambda: client.stats.retries > 0, "an attempt has failed")
        assert not connecting.done()
        with socket.create_server(("127.0.0.1", port)):
            await connecting
            assert client.is_connected
            await client.disconnect()


async def test_an_unknown_name_is_not_tried_again() -> None:
    client = NetworkClient(NetworkConfig("name.invalid", 80, retries=5, retry_delay=10))
    with names({"name.invalid": socket.gaierror(socket.EAI_NONAME, "Name or service not known")}):
        with pytest.raises(ConnectError) as caught:
            await client.connect()
    assert caught.value.details["attempt"] == 1


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "ü" * 70])
async def test_a_host_that_is_no_name_is_a_connect_error(host: str) -> None:
    with pytest.raises(ConnectError):
        await NetworkClient(NetworkConfig(host, 80, retries=0)).connect()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), True),
        (OSError(errno.EHOSTUNREACH, ""), True),
        (TimeoutError(), True),
        (socket.gaierror(socket.EAI_AGAIN, ""), True),
        (socket.gaierror(socket.EAI_NONAME, ""), False),
        (PermissionError(errno.EACCES, ""), False),
        (OSError(errno.EMFILE, ""), False),
        (ValueError(), False),
    ],
)
def test_failures_are_told_apart_by_whether_waiting_helps(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.slow
async def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with full_listener() as port:
        client = client_of(port, connect_timeout=0.2)
        started = time.monotonic()
        with pytest.raises(NetworkTimeoutError, match=r"no answer within 0\.2 s") as caught:
            await client.connect()
        assert 0.2 - 2 * EARLY_S <= time.monotonic() - started < 5
        assert caught.value.details["phase"] == "connect"


async def test_an_address_that_does_not_answer_is_raced_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_listener() as deaf_port:
        async with echo_server() as port:

            def two_addresses(host: str, _port: object, **_: object) -> list[object]:
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", deaf_port)),
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
                ]

            monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
            async with NetworkClient(NetworkConfig("two.test", port, happy_eyeballs_delay=0.05)) as client:
                assert client.remote_address == ("127.0.0.1", port)
                assert client.stats.connect_latency is not None
                assert client.stats.connect_latency < 2


async def test_names_and_ipv6_addresses_connect() -> None:
    async with echo_server() as port:
        async with NetworkClient(NetworkConfig("localhost", port)) as client:
            await client.send(b"x")
            assert await client.receive() == b"x"
    server = await asyncio.start_server(lambda _, writer: writer.close(), "::1", 0)
    async with server, NetworkClient(NetworkConfig("::1", server.sockets[0].getsockname()[1])) as client:
        assert client.remote_address[0] == "::1"
        assert await client.receive() == b""


async def test_socket_options_are_those_configured() -> None:
    async with contextlib.AsyncExitStack() as stack:
        [local_port] = stack.enter_context(reserved_ports(1))
        settings = {
            "keepalive": Keepalive(idle=7, interval=8, count=3, user_timeout=1.5),
            "local_address": ("127.0.0.1", local_port),
            "socket_options": ((socket.SOL_SOCKET, socket.SO_RCVBUF, 8192),),
        }
        _, client = await stack.enter_async_context(peer_and_client(**settings))
        sock = client._link.protocol.extra_info("socket")
        assert client.local_address == ("127.0.0.1", local_port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 8
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 16384  # Linux doubles it


async def test_without_keepalive_and_nodelay_the_system_decides() -> None:
    async with peer_and_client(keepalive=False) as (_, client):
        sock = client._link.protocol.extra_info("socket")
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_running_out_of_descriptors_is_told_as_such_and_passes() -> None:
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with echo_server() as port:
        by_name = NetworkClient(NetworkConfig("localhost", port, retries=0))
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            for client in (client_of(port), by_name):
                with pytest.raises(ConnectError) as caught:
                    await client.connect()
                assert caught.value.errno == errno.EMFILE
        finally:
            for sock in held:
                sock.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with by_name:
            await by_name.send(b"x")
            assert await by_name.receive() == b"x"


async def test_every_error_says_where() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(NetworkError) as caught:
            await client.receive(timeout=0)
        assert f"127.0.0.1:{client.config.port}" in str(caught.value)
        assert caught.value.details["port"] == client.config.port
