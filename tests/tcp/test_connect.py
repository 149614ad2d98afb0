"""Connecting, closing, and what a client answers in each state."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import socket
import threading
import time
import warnings
import weakref

import pytest
from support.servers import TOO_MUCH, client_of, echo_server, peer_and_client

from pepperpy.network import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkTimeoutError,
    NotConnectedError,
    UsageError,
)
from pepperpy.network.backoff import may_pass

CALLS = {
    "send": lambda c: c.send(b"x"),
    "send_many": lambda c: c.send_many([b"x"]),
    "send_eof": lambda c: c.send_eof(),
    "flush": lambda c: c.flush(),
    "receive": lambda c: c.receive(),
    "receive_into": lambda c: c.receive_into(bytearray(1)),
    "receive_exactly": lambda c: c.receive_exactly(1),
    "receive_until": lambda c: c.receive_until(b"x"),
    "receive_line": lambda c: c.receive_line(),
    "receive_lines": lambda c: c.receive_lines(),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


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


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_before_connect_says_so(name: str) -> None:
    client = client_of(1)
    with pytest.raises(NotConnectedError, match="connect"):
        await CALLS[name](client)
    await client.disconnect()
    client.abort()


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_after_disconnect_says_so(name: str) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"unread\n")
        await asyncio.sleep(0.01)
        await client.disconnect()
        with pytest.raises(ClosedError):
            await CALLS[name](client)
        assert client.stats.bytes_buffered == 0


async def test_a_client_can_be_made_outside_a_loop_and_connected_again() -> None:
    client = await asyncio.to_thread(lambda: client_of(1))
    async with echo_server() as port:
        client = NetworkClient(client.config.replace(port=port))
        for number in range(3):
            async with client:
                await client.send(b"%d" % number)
                assert await client.receive() == b"%d" % number
        assert client.stats.connects == 3
        assert client.stats.bytes_received == 3


async def test_connecting_twice_keeps_the_connection() -> None:
    async with echo_server() as port, client_of(port) as client:
        address = client.local_address
        await client.connect()
        assert client.local_address == address


async def test_two_tasks_cannot_connect_one_client() -> None:
    async with echo_server() as port:
        client = client_of(port)
        results = await asyncio.gather(client.connect(), client.connect(), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), BusyError]
        await client.disconnect()


async def test_disconnect_is_idempotent_also_from_two_tasks() -> None:
    async with peer_and_client() as (_, client):
        await asyncio.gather(client.disconnect(), client.disconnect())
        await client.disconnect()


async def test_a_reader_that_waits_is_told_of_disconnect_and_abort() -> None:
    for close in (NetworkClient.disconnect, NetworkClient.abort):
        async with peer_and_client() as (_, client):
            reading = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            result = close(client)
            if result is not None:
                await result
            with pytest.raises(ClosedError):
                await reading


async def test_connect_after_a_loss_makes_a_new_connection_with_none_of_the_old_bytes() -> None:
    async with echo_server() as port:
        async with peer_and_client() as (peer, client):
            await peer.send(b"old")
            await asyncio.sleep(0.01)
            peer.reset()
            assert await client.receive(1) == b"o"
            with pytest.raises(ConnectionLostError):
                await client.receive_exactly(100)
            old_reader = client.receive()
            client.config = client.config.replace(port=port)
            await client.connect()
            await client.send(b"new")
            assert await old_reader == b"new"


async def test_a_waiting_reader_does_not_get_the_bytes_of_the_next_connection() -> None:
    async with echo_server() as port, client_of(port) as client:
        reading = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        client.abort()
        await client.connect()
        await client.send(b"for the new reader")
        with pytest.raises(ClosedError):
            await reading
        assert await client.receive() == b"for the new reader"


async def test_a_refused_connection_is_tried_again_and_the_error_counts(caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(free_port(), retries=2, retry_delay=0.01)
    with (
        caplog.at_level(logging.INFO, "pepperpy.network.tcp"),
        pytest.raises(ConnectError, match="3 attempts") as caught,
    ):
        await client.connect()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.details["attempt"] == 3
    assert caught.value.details["elapsed"] >= 0
    assert client.stats.retries == 2
    assert len(caplog.records) == 2


async def test_a_server_that_comes_up_late_is_reached() -> None:
    port = free_port()
    client = client_of(port, retries=50, retry_delay=0.01, max_retry_delay=0.05)
    connecting = asyncio.create_task(client.connect())
    await asyncio.sleep(0.05)
    assert not connecting.done()
    with socket.create_server(("127.0.0.1", port)):
        await connecting
        assert client.is_connected
        await client.disconnect()


async def test_an_unknown_name_is_not_tried_again() -> None:
    client = NetworkClient(NetworkConfig("name.invalid", 80, retries=5, retry_delay=10))
    with pytest.raises(ConnectError) as caught:
        await client.connect()
    assert caught.value.details["attempt"] == 1 or caught.value.__cause__.errno == socket.EAI_AGAIN


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


@contextlib.contextmanager
def full_backlog() -> object:
    """A listener that answers no further connection attempt: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.05)  # until the kernel has queued them
        yield listener.getsockname()[1]


async def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with full_backlog() as port:
        client = client_of(port, connect_timeout=0.2)
        started = time.monotonic()
        with pytest.raises(NetworkTimeoutError, match=r"no answer within 0\.2 s") as caught:
            await client.connect()
        assert 0.2 <= time.monotonic() - started < 5
        assert caught.value.details["phase"] == "connect"


async def test_an_address_that_does_not_answer_is_raced_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_backlog() as deaf_port:
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
    local_port = free_port()
    async with peer_and_client(
        keepalive_idle=7,
        keepalive_interval=8,
        keepalive_count=3,
        user_timeout=1.5,
        local_address=("127.0.0.1", local_port),
        socket_options=((socket.SOL_SOCKET, socket.SO_RCVBUF, 8192),),
    ) as (_, client):
        sock = client._protocol.extra_info("socket")
        assert client.local_address == ("127.0.0.1", local_port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 8
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 16384  # Linux doubles it


async def test_without_keepalive_and_nodelay_the_system_decides() -> None:
    async with peer_and_client(keepalive=False, user_timeout=None) as (_, client):
        sock = client._protocol.extra_info("socket")
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_running_out_of_descriptors_is_told_as_such_and_passes() -> None:
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


@pytest.mark.parametrize("name", CALLS)
async def test_another_thread_is_refused(name: str) -> None:
    async with peer_and_client() as (_, client):

        def elsewhere() -> BaseException | None:
            try:
                asyncio.run(CALLS[name](client))
            except BaseException as error:
                return error
            return None

        error = await asyncio.to_thread(elsewhere)
        assert isinstance(error, UsageError)
        assert "thread" in str(error)


def test_another_loop_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1])
        first = asyncio.new_event_loop()
        first.run_until_complete(client.connect())
        second = asyncio.new_event_loop()
        for call in (*CALLS.values(), NetworkClient.connect, NetworkClient.disconnect):
            with pytest.raises(UsageError, match="loop"):
                second.run_until_complete(call(client))
        second.close()
        first.run_until_complete(client.disconnect())
        first.close()


async def test_a_forked_process_is_refused_and_sends_nothing() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"first")
        await client.send(b"queued at the fork")
        child = os.fork()
        if not child:
            status = 1
            try:
                for call in (client.abort, lambda: client._sender.send(b"from the child")):
                    with pytest.raises(UsageError, match="parent process"):
                        call()
                warnings.simplefilter("ignore")
                del client
                gc.collect()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        await client.send_eof()
        assert await peer.receive_all() == b"firstqueued at the fork"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_a_dropped_client_warns_and_closes_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        dropped = client_of(listener.getsockname()[1])
        await dropped.connect()
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted, pytest.warns(ResourceWarning, match="unclosed NetworkClient"):
            del dropped
            gc.collect()
            accepted.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(accepted, 1) == b""


async def test_a_client_that_is_dropped_right_after_it_was_aborted_was_not_left_unclosed() -> None:
    async with echo_server() as port:
        client = client_of(port)
        await client.connect()
        client.abort()
        # A ResourceWarning would fail this test.
        del client
        gc.collect()


async def test_nothing_keeps_a_closed_client_alive() -> None:
    async with echo_server() as port:
        client = client_of(port)
        async with client:
            await client.send(b"x\n")
            assert await client.receive_line(timeout=1000) == b"x\n"
        protocol = weakref.ref(client)
        gc.collect()
        gc.disable()
        try:
            del client
            assert protocol() is None
        finally:
            gc.enable()


async def test_an_error_in_the_block_is_not_hidden_by_one_of_closing(caplog: pytest.LogCaptureFixture) -> None:
    async with peer_and_client(close_timeout=0.05) as (_, client):
        with pytest.raises(ZeroDivisionError):
            async with client:
                await client.send(TOO_MUCH)
                raise ZeroDivisionError
        assert "did not take" in caplog.text


def test_closing_the_loop_under_a_client_leaves_one_warning_and_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.connect())
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed"):
            del client
            gc.collect()


def test_a_client_dropped_in_another_thread_is_closed_in_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def main() -> None:
            client = client_of(listener.getsockname()[1])
            await client.connect()
            box = [client]
            del client
            with pytest.warns(ResourceWarning, match="unclosed"):
                await asyncio.to_thread(box.clear)
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(accepted.recv, 1) == b""

        asyncio.run(main())
        assert threading.active_count() >= 1


async def test_every_error_says_where() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(NetworkError) as caught:
            await client.receive(timeout=0)
        assert f"127.0.0.1:{client.config.port}" in str(caught.value)
        assert caught.value.details["port"] == client.config.port
