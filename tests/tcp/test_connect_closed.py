"""`disconnect()` and `abort()` end a `connect()` of another task at once, wherever it is, and the client can go on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.cancelling import open_sockets, until
from support.mortal import mortal_server, reconnecting, silence
from support.names import HangingNames
from support.processes import reserved_ports
from support.servers import client_of, echo_server, full_listener

from pepperpy.network import ClosedError, ConnectError, NetworkClient, NetworkConfig, UsageError

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")

ENDS: dict[str, Callable[[NetworkClient], object]] = {
    "disconnect": NetworkClient.disconnect,
    "abort": NetworkClient.abort,
}


async def end(client: NetworkClient, how: str) -> None:
    result = ENDS[how](client)
    if asyncio.iscoroutine(result):
        await result


class _Connecting:
    """Where connecting stays in a phase for a minute."""

    def __init__(self, phase: str, stack: contextlib.ExitStack) -> None:
        self.phase = phase
        self.sockets = stack  # those of the server's side that `begun()` has accepted, too
        slow: dict[str, Any] = {"connect_timeout": 60, "retry_delay": 0, "timeout": 10, "retries": 0}
        if phase == "waiting to try again":
            [port] = stack.enter_context(reserved_ports(1))
            self.config = NetworkConfig("127.0.0.1", port, **slow | {"retry_delay": 60, "retries": 9})
            self.logged = _Logged()
            logger = logging.getLogger("pepperpy.network")
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.INFO)
            logger.addHandler(self.logged)
            stack.callback(logger.removeHandler, self.logged)
            return
        if phase == "looking up":
            self.names = HangingNames()
            stack.callback(self.names.go_on.set)
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(socket, "getaddrinfo", self.names)
            self.config = NetworkConfig("hanging-close.test", 1, **slow)
            return
        if phase == "racing":
            port = stack.enter_context(full_listener())
        else:
            self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.listener.setblocking(False)
            port = self.listener.getsockname()[1]
        if phase == "in the handshake":
            slow |= {"tls": True, "verify_ssl": False}
        elif phase == "asking a proxy":
            slow |= {"proxy": f"http://127.0.0.1:{port}"}
        elif phase == "in on_connect":
            slow |= {"on_connect": self.on_connect}
        self.before = open_sockets()
        self.asked = False
        self.config = NetworkConfig("127.0.0.1", port, **slow)

    async def on_connect(self, connection: NetworkClient) -> None:
        self.asked = True
        await connection.receive(timeout=None)

    async def begun(self) -> None:
        """Until the client is in that phase."""
        if self.phase == "waiting to try again":
            await until(lambda: any("next in" in line for line in self.logged.lines), "the first attempt has failed")
        elif self.phase == "looking up":
            await until(lambda: self.names.asked != [], "the name is asked for")
        elif self.phase == "racing":
            await until(lambda: open_sockets() - self.before != set(), "a socket")
        elif self.phase == "in on_connect":
            await until(lambda: self.asked, "on_connect has begun")
        else:
            loop = asyncio.get_running_loop()
            accepted, _ = await loop.sock_accept(self.listener)
            self.sockets.enter_context(accepted)
            # The first bytes of the handshake, or what the proxy is asked.
            assert await loop.sock_recv(accepted, 1)


class _Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _connecting_to(phase: str) -> Iterator[_Connecting]:
    with contextlib.ExitStack() as stack:
        yield _Connecting(phase, stack)


PHASES = (
    "waiting to try again",
    "looking up",
    "racing",
    "asking a proxy",
    "in the handshake",
    "in on_connect",
)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("phase", PHASES)
async def test_connecting_ends_at_once_leaves_no_socket_and_may_begin_again(
    phase: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The longest wait that the configuration allows.
    monkeypatch.setattr("pepperpy.network.backoff.random.uniform", lambda low, high: high)
    async with echo_server() as port:
        with _connecting_to(phase) as there:
            client = NetworkClient(there.config)
            connecting = asyncio.create_task(client.connect())
            await there.begun()
            assert not connecting.done()
            await end(client, how)
            client.config = NetworkConfig("127.0.0.1", port, timeout=10)
            async with asyncio.timeout(5):
                # Not only after the other task has had its turn.
                await client.connect()
                with pytest.raises(ClosedError, match="closed while connecting") as caught:
                    await connecting
            assert caught.value.details["phase"] == "connect"
            assert connecting.cancelling() == 0
            await client.send(b"x")
            assert await client.receive() == b"x"
            await client.disconnect()


async def test_disconnect_returns_when_the_sockets_are_closed() -> None:
    with _connecting_to("in the handshake") as there:
        client = NetworkClient(there.config)
        connecting = asyncio.create_task(client.connect())
        await there.begun()
        both = open_sockets() - there.before
        await client.disconnect()
        # That of the server's side is left.
        assert len(both) == 2 and len(open_sockets() - there.before) == 1
        await asyncio.wait([connecting])
        assert isinstance(connecting.exception(), ClosedError)


@pytest.mark.parametrize("first", ["cancelled", "closed"])
async def test_whoever_cancels_the_task_as_well_gets_its_cancellation(first: str) -> None:
    with _connecting_to("in on_connect") as there:
        client = NetworkClient(there.config)
        connecting = asyncio.create_task(client.connect())
        await there.begun()
        if first == "cancelled":
            connecting.cancel()
            client.abort()
        else:
            client.abort()
            connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()


async def test_a_time_limit_around_it_stays_a_time_limit() -> None:
    with _connecting_to("in the handshake") as there:
        client = NetworkClient(there.config)

        async def limited() -> None:
            async with asyncio.timeout(60):
                await client.connect()

        connecting = asyncio.create_task(limited())
        await there.begun()
        client.abort()
        with pytest.raises(ClosedError):
            await connecting


class DoesNotMind:
    """An `on_connect` that does not end when it is cancelled, but when the test says so."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, connection: NetworkClient) -> None:
        self.begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await self.go_on.wait()


@pytest.mark.parametrize("how", ENDS)
async def test_on_connect_that_does_not_mind_makes_no_connection(how: str) -> None:
    does_not_mind = DoesNotMind()
    async with mortal_server(silence) as server:
        heard: list[str] = []
        config = {"on_connect": does_not_mind, "close_timeout": 0.05, "on_state": lambda _, state: heard.append(state)}
        client = reconnecting(server.port, **config)
        connecting = asyncio.create_task(client.connect())
        await does_not_mind.begun.wait()
        await end(client, how)
        assert not connecting.done()
        client.config = client.config.replace(on_connect=None)
        await client.connect()
        # What the first one has made comes too late.
        protocol = client._link.protocol
        does_not_mind.go_on.set()
        with pytest.raises(ClosedError):
            await connecting
        assert client._link.protocol is protocol and client.is_connected
        await client.wait_connected()
        await until(lambda: len(server.writers) == 1, "the other connection is closed")
        await client.disconnect()
        await until(lambda: heard[-1] == "closed", "it hears of the end")
        assert heard == ["connecting", "closed", "connecting", "connected", "closed"]


@pytest.mark.parametrize("before", ["connecting", "reconnecting"])
async def test_a_disconnect_that_still_waits_leaves_alone_what_is_connected_meanwhile(before: str) -> None:
    does_not_mind = DoesNotMind()
    async with mortal_server(silence) as server:
        client = reconnecting(server.port)
        connecting = None
        if before == "reconnecting":
            await client.connect()
            client.config = client.config.replace(on_connect=does_not_mind)
            server.drop()
        else:
            client.config = client.config.replace(on_connect=does_not_mind)
            connecting = asyncio.create_task(client.connect())
        await does_not_mind.begun.wait()
        disconnecting = asyncio.create_task(client.disconnect())
        await asyncio.sleep(0)
        client.config = client.config.replace(on_connect=None)
        await client.connect()
        assert not disconnecting.done()
        does_not_mind.go_on.set()
        await disconnecting
        assert client.is_connected
        if connecting is not None:
            with pytest.raises(ClosedError):
                await connecting
        await client.disconnect()
        assert not client.is_connected


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("then", ["returns", "fails"])
async def test_on_connect_may_close_its_client(how: str, then: str) -> None:
    async def gives_up(connection: NetworkClient) -> None:
        await end(client, how)
        if then == "fails":
            raise ConnectionError("no more")

    async with mortal_server(silence) as server:
        client = reconnecting(server.port, on_connect=gives_up, retries=3, retry_delay=60, max_retry_delay=60)
        with pytest.raises(ClosedError, match="closed while connecting"):
            await client.connect()
        assert not client.is_connected
        await until(lambda: not server.writers, "the connection is closed")


async def test_whoever_waits_for_the_connection_is_told() -> None:
    with _connecting_to("in the handshake") as there:
        client = NetworkClient(there.config)
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(client.wait_connected())
        await there.begun()
        client.abort()
        for task in (waiting, connecting):
            with pytest.raises(ClosedError):
                await task


async def test_another_thread_cannot_close_it() -> None:
    with _connecting_to("in the handshake") as there:
        client = NetworkClient(there.config)
        connecting = asyncio.create_task(client.connect())
        await there.begun()
        errors: list[BaseException] = []

        def elsewhere() -> None:
            for call in (client.abort, lambda: asyncio.run(client.disconnect())):
                try:
                    call()
                except BaseException as error:
                    errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert [type(error) for error in errors] == [UsageError] * 2
        assert not connecting.done()
        client.abort()
        with pytest.raises(ClosedError):
            await connecting


def test_a_client_whose_loop_ended_while_it_connected_can_connect_in_another() -> None:
    with _connecting_to("in the handshake") as there:
        client = NetworkClient(there.config)
        loop = asyncio.new_event_loop()
        connecting = loop.create_task(client.connect())
        loop.run_until_complete(there.begun())
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(connecting)
        loop.close()
        client.abort()

    async def again() -> None:
        async with echo_server() as port:
            client.config = client_of(port).config
            await client.connect()
            await client.disconnect()

    asyncio.run(again())


def test_disconnect_waits_for_no_connect_whose_loop_was_closed_in_its_middle() -> None:
    with _connecting_to("waiting to try again") as there:
        client = NetworkClient(there.config.replace(close_timeout=60))
        loop = asyncio.new_event_loop()
        connecting = loop.create_task(client.connect())
        loop.run_until_complete(there.begun())
        assert not connecting.done()
        connecting._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        asyncio.run(asyncio.wait_for(client.disconnect(), 10))


def test_a_client_whose_loop_was_closed_in_the_middle_of_a_connect_connects_in_another_one() -> None:
    async def again() -> None:
        async with echo_server() as port:
            client.config = client_of(port).config
            await client.connect()
            gc.collect()
            assert client.is_connected
            await client.disconnect()

    with _connecting_to("waiting to try again") as there:
        client = NetworkClient(there.config)
        loop = asyncio.new_event_loop()
        connecting = loop.create_task(client.connect())
        loop.run_until_complete(there.begun())
        connecting._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        del connecting
        asyncio.run(again())


async def test_the_errors_of_a_connect_that_nobody_closes_stay_as_they_are() -> None:
    with reserved_ports(1) as [port]:
        client = client_of(port)
        with pytest.raises(ConnectError, match="1 attempt"):
            await client.connect()
        await client.disconnect()
        client.abort()
