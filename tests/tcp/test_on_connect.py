"""What belongs to an attempt: further hosts, on_connect, what may pass; and the states that an observer is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.mortal import Mortal, echo, hang_up, lost, mortal_and_client, mortal_server, reconnecting, silence
from support.processes import reserved_ports

from pepperpy.network import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    NotConnectedError,
    Reconnect,
)

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that wants a password first, and names what it was told before."""
    if await reader.readline() == b"password\n":
        writer.write(b"welcome\n")
        await echo(reader, writer)


async def log_in(connection: NetworkClient) -> None:
    await connection.send(b"password\n")
    if await connection.receive_line() != b"welcome\n":
        raise PermissionError("wrong password")


@contextlib.asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[Mortal, Mortal]]:
    async with mortal_server() as first, mortal_server() as second:
        yield first, second


# ---- on_connect ----


async def test_on_connect_comes_before_every_other_use_of_every_connection() -> None:
    async with mortal_and_client(greeting, on_connect=log_in) as (server, client):
        await client.send(b"1\n")
        assert await client.receive_line() == b"1\n"
        await server.kill()
        for call in (client.receive(), client.send(b"x")):
            with pytest.raises(ConnectionLostError):
                await call
        sending = [asyncio.create_task(client.send(b"%d\n" % n)) for n in range(5)]
        receiving = asyncio.create_task(client.receive_exactly(10))
        await asyncio.sleep(0)
        await server.start()
        assert await receiving == b"0\n1\n2\n3\n4\n"
        await asyncio.gather(*sending)


async def test_a_plain_client_runs_on_connect_too_and_it_may_be_a_plain_function() -> None:
    seen: list[NetworkClient] = []
    async with mortal_server() as server:
        client = reconnecting(server.port, reconnect=False, on_connect=seen.append)
        async with client:
            await client.send(b"x")
            assert await client.receive() == b"x"
        # The connection was lent; now there is nothing in it.
        with pytest.raises(NotConnectedError):
            await seen[0].send(b"late")


async def test_what_on_connect_leaves_unread_is_the_clients() -> None:
    async def ask(connection: NetworkClient) -> None:
        await connection.send(b"a\nb\n")
        assert await connection.receive_line() == b"a\n"

    async with mortal_and_client(on_connect=ask) as (_, client):
        assert await client.receive_line() == b"b\n"


async def test_an_end_of_stream_that_on_connect_has_seen_is_a_loss_afterwards() -> None:
    async def read_all(connection: NetworkClient) -> None:
        assert await connection.receive_line() == b"hello\n"
        assert await connection.receive() == b""

    async def greet_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")

    async with mortal_and_client(greet_and_go, on_connect=read_all) as (_, client):
        for _ in range(3):
            with pytest.raises(ConnectionLostError, match="ended its stream"):
                await client.receive()


@pytest.mark.parametrize("error", [ValueError("no such user"), PermissionError("no"), KeyError()])
async def test_what_on_connect_raises_fails_connect_with_it_as_the_cause(error: Exception) -> None:
    async def fail(_: NetworkClient) -> None:
        raise error

    async with mortal_server() as server:
        client = reconnecting(server.port, retries=5, on_connect=fail)
        with pytest.raises(ConnectError, match=r"on_connect failed: .*1 attempt") as caught:
            await client.connect()
        assert caught.value.__cause__ is error
        if not isinstance(error, OSError):
            assert f"on_connect failed: {type(error).__name__}" in str(caught.value)
        assert not client.is_connected
        await until(lambda: not server.writers, "the connection is closed")


async def test_a_peer_that_hangs_up_during_on_connect_may_be_tried_again() -> None:
    async with mortal_server(hang_up) as server:

        async def ask(connection: NetworkClient) -> None:
            if server.accepted == 3:
                server.handler = silence
                return
            await connection.receive_exactly(1)

        client = reconnecting(server.port, retries=5, retry_delay=0, on_connect=ask)
        await client.connect()
        assert (server.accepted, client.stats.retries) == (3, 2)
        client.abort()
        await asyncio.sleep(0)


async def test_on_connect_that_closes_the_connection_fails() -> None:
    async with mortal_server() as server:
        client = reconnecting(server.port, on_connect=lambda connection: connection.abort())
        with pytest.raises(ConnectError, match="on_connect closed"):
            await client.connect()


async def test_on_connect_has_the_time_of_its_attempt() -> None:
    async def hang(connection: NetworkClient) -> None:
        await connection.receive(timeout=None)

    async with mortal_server(silence) as server:
        client = reconnecting(server.port, on_connect=hang, connect_timeout=0.03)
        with pytest.raises(NetworkTimeoutError, match=r"on_connect not done within 0\.03 s"):
            await client.connect()
        await until(lambda: not server.writers, "the connection is closed")


@pytest.mark.parametrize("end", ["cancel", "disconnect", "abort"])
async def test_connecting_ends_cleanly_in_the_middle_of_on_connect(end: str) -> None:
    begun = asyncio.Event()

    async def hang(connection: NetworkClient) -> None:
        begun.set()
        await connection.receive(timeout=None)

    async with mortal_and_client(silence, on_connect=None) as (server, plain):
        await plain.disconnect()
        client = reconnecting(server.port, on_connect=hang)
        connecting = asyncio.create_task(client.connect())
        await begun.wait()
        with pytest.raises(NetworkTimeoutError):
            await client.wait_connected(timeout=0.01)
        with pytest.raises(NotConnectedError):
            await client.send(b"x")
        if end == "cancel":
            connecting.cancel()
        else:
            await client.disconnect() if end == "disconnect" else client.abort()
        [result] = await asyncio.gather(connecting, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError if end == "cancel" else ClosedError)
        assert not client.is_connected
        await until(lambda: not server.writers, "the connection is closed")


async def test_connect_cancelled_at_each_suspension_leaves_nothing_open() -> None:
    async with mortal_server(greeting) as server:
        for mode in Mode:
            for number in itertools.count(1):
                client = reconnecting(server.port, on_connect=log_in)
                outcome = await cancelled_at(client.connect(), number, mode)
                if not outcome.cancelled:
                    await client.disconnect()
                    break
                assert not client.is_connected
                with pytest.raises(NotConnectedError):
                    await client.send(b"x")
            assert number > 2
        await until(lambda: not server.writers, "all connections are closed")


@pytest.mark.parametrize("end", ["disconnect", "abort", "forget"])
async def test_reconnecting_ends_cleanly_in_the_middle_of_on_connect(end: str) -> None:
    begun = asyncio.Event()

    async def hang_the_second_time(connection: NetworkClient) -> None:
        if server.accepted > 1:
            begun.set()
            await connection.receive(timeout=None)

    async with mortal_server(silence) as server:
        client = reconnecting(server.port, on_connect=hang_the_second_time)
        await client.connect()
        server.drop()
        await begun.wait()
        if end == "forget":
            with pytest.warns(ResourceWarning, match="unclosed NetworkClient"):
                del client
                gc.collect()
        else:
            await client.disconnect() if end == "disconnect" else client.abort()
        await until(lambda: not server.writers and len(asyncio.all_tasks()) == 1, "all is gone")


async def test_disconnect_ends_reconnecting_though_on_connect_takes_its_cancellation_for_a_failure() -> None:
    begun = asyncio.Event()

    async def stubborn(connection: NetworkClient) -> None:
        if server.accepted > 1:
            begun.set()
            try:
                await connection.receive(timeout=None)
            except asyncio.CancelledError:
                raise ConnectionError("interrupted") from None

    async with mortal_server(silence) as server:
        client = reconnecting(server.port, on_connect=stubborn)
        await client.connect()
        server.drop()
        await begun.wait()
        await client.disconnect()
        await until(lambda: not server.writers and len(asyncio.all_tasks()) == 1, "all is gone")
        with pytest.raises(ClosedError):
            await client.wait_connected()
        assert server.accepted == 2


# ---- Further hosts, and what may pass ----


async def test_a_further_host_takes_over_without_a_wait_and_the_first_one_comes_first_again() -> None:
    async with two_servers() as (first, second):
        client = reconnecting(first.port, hosts=(("127.0.0.1", second.port),), retry_delay=0.001)
        async with client:
            assert client.remote_address[1] == first.port
            await first.kill()
            await lost(client)
            await client.wait_connected()
            assert client.remote_address[1] == second.port
            await first.start()
            second.drop()
            await lost(client)
            await client.wait_connected()
            assert client.remote_address[1] == first.port


async def test_connect_goes_through_the_hosts_and_names_them_all_when_none_is_there() -> None:
    with reserved_ports(2) as [port, other]:
        client = reconnecting(port, hosts=(("127.0.0.1", other), ("no.such.host.invalid", 1)))
        with pytest.raises(ConnectError) as caught:
            await client.connect()
        for host in (f"127.0.0.1:{port}: ", f"127.0.0.1:{other}: ", "no.such.host.invalid:1: "):
            assert host in str(caught.value)
        # One that may pass stands for all, so that it is tried again.
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_host_on_which_on_connect_fails_gives_way_to_the_next() -> None:
    async with two_servers() as (first, second):
        second.handler = greeting
        config = NetworkConfig("127.0.0.1", first.port, hosts=(("127.0.0.1", second.port),), on_connect=log_in)
        async with NetworkClient(config) as client:
            assert client.remote_address[1] == second.port


@pytest.mark.parametrize(("verdict", "attempts"), [(False, 1), (True, 3), (None, 3)])
async def test_may_pass_decides_whether_connect_tries_again(verdict: bool | None, attempts: int) -> None:
    asked: list[Exception] = []

    def may_pass(error: Exception) -> bool | None:
        asked.append(error)
        return verdict

    with reserved_ports(1) as [port]:
        client = reconnecting(port, retries=2, retry_delay=0, may_pass=may_pass)
        with pytest.raises(ConnectError) as caught:
            await client.connect()
    assert caught.value.details["attempt"] == len(asked) == attempts
    assert {type(error) for error in asked} == {ConnectionRefusedError}


async def test_what_will_not_pass_ends_reconnecting() -> None:
    async def refuse_later(_: NetworkClient) -> None:
        if server.accepted > 1:
            raise PermissionError("banned")

    async with mortal_server() as server, reconnecting(server.port, on_connect=refuse_later) as client:
        server.drop()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        for _ in range(2):
            with pytest.raises(ConnectError, match="banned") as caught:
                await client.receive()
            assert isinstance(caught.value.__cause__, PermissionError)
        # More than twice the longest wait between two attempts: a third one would have come.
        await asyncio.sleep(0.05)
        assert server.accepted == 2


# ---- States ----


async def test_an_observer_hears_of_each_state_in_order() -> None:
    heard: list[str] = []
    async with mortal_server() as server:
        client = reconnecting(server.port, on_state=lambda _, state: heard.append(state))
        await client.connect()
        for _ in range(2):
            server.drop()
            await lost(client)
            await client.wait_connected()
        await client.disconnect()
        await client.disconnect()
        await until(lambda: heard[-1] == "closed", "it hears of the end")
        assert heard == ["connecting", "connected", "lost", "connected", "lost", "connected", "closed"]
        await server.kill()
        with pytest.raises(ConnectError):
            await client.connect()
        await until(lambda: len(heard) == 9, "it hears of the attempt")
        assert heard[7:] == ["connecting", "closed"]


async def test_an_observer_of_a_plain_client_hears_of_the_loss() -> None:
    heard: list[str] = []
    observe = {"reconnect": False, "on_state": lambda _, state: heard.append(state)}
    async with mortal_and_client(**observe) as (server, client):
        server.drop(reset=True)
        await lost(client)
        await until(lambda: heard == ["connecting", "connected", "lost"], "it hears")
        client.abort()
        await until(lambda: heard[3:] == ["closed"], "it hears of the end")


async def test_an_observer_that_fails_or_closes_the_client_breaks_nothing() -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def observe(client: NetworkClient, state: str) -> None:
        if state == "lost":
            client.abort()
        raise RuntimeError(state)

    async with mortal_and_client(on_state=observe) as (server, client):
        server.drop()
        with pytest.raises((ConnectionLostError, ClosedError)):
            await client.receive()
        await until(lambda: len(failures) == 4, "all is told")
        assert [str(failure) for failure in failures] == ["connecting", "connected", "lost", "closed"]
        with pytest.raises(ClosedError):
            await client.receive()


async def test_a_client_that_was_lent_to_on_connect_says_that_this_has_ended() -> None:
    kept: list[NetworkClient] = []

    async def keep(client: NetworkClient) -> None:
        kept.append(client)

    async with mortal_and_client(on_connect=keep, reconnect=False):
        (lent,) = kept
        for call in (lent.receive, lent.flush, lent.wait_connected, lent.start_tls):
            with pytest.raises(NotConnectedError, match="lent to on_connect or to a heartbeat, which has ended"):
                await call()


async def test_bad_settings_are_named() -> None:
    async def observe(*_: object) -> None: ...

    for name, value, kind in (
        ("hosts", [("h", 1)], TypeError), ("hosts", (("h",),), TypeError), ("hosts", (("h", 0),), ValueError),
        ("hosts", (("", 1),), ValueError), ("on_connect", 1, TypeError), ("on_state", observe, TypeError),
        ("may_pass", observe, TypeError), ("heartbeat", "ping", TypeError), ("reconnect", 1, TypeError),
    ):  # fmt: skip
        with pytest.raises(kind, match=name):
            NetworkConfig("h", 1, **{name: value})  # type: ignore[arg-type]
    config = NetworkConfig.from_url("tcp://h:1?reconnect=true&reconnect_attempts=3")
    assert config.reconnect == Reconnect(attempts=3)
    with pytest.raises(ValueError, match="on_connect"):
        NetworkConfig.from_url("tcp://h:1?on_connect=f")
