"""What comes too late: nothing goes on behind a `connect()` that failed, or behind a close. What ends too soon."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.mortal import echo, hang_up, mortal_and_client, mortal_server, reconnecting, silence

from pepperpy.network import ClosedError, ConnectError, ConnectionLostError, NetworkClient, NotConnectedError
from pepperpy.network.tcp import attempt

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


@pytest.mark.parametrize("end", ["refused", "cancelled"])
async def test_a_connect_that_fails_after_a_send_that_failed_is_the_end(end: str) -> None:
    heard: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = reconnecting(listener.getsockname()[1], on_state=lambda _, state: heard.append(state))
        await client.connect()
        peer = listener.accept()[0]
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
    # No turn of the loop in between: only the send meets the end of the connection.
    with pytest.raises(ConnectionLostError):
        await client.send(b"x")
    old = client._link.protocol
    assert old.has_transport
    if end == "cancelled":
        # Before the loop has found the end of the old connection.
        assert (await cancelled_at(client.connect(), 1, Mode.WAITING)).cancelled
    else:
        with pytest.raises(ConnectError):
            await client.connect()
    await until(lambda: not old.has_transport and len(heard) >= 4, "the loop has found the end, too")
    with pytest.raises(NotConnectedError if end == "cancelled" else ConnectError):
        await client.wait_connected(None)
    assert heard == ["connecting", "connected", "connecting", "closed"]


@pytest.mark.parametrize("end", ["disconnect", "abort"])
@pytest.mark.parametrize("error", [ConnectionResetError, ZeroDivisionError, None])
async def test_on_connect_that_outlives_a_close_leaves_the_next_connection_alone(
    end: str, error: type[Exception] | None
) -> None:
    begun = asyncio.Event()
    heard: list[str] = []

    async def does_not_mind(connection: NetworkClient) -> None:
        if server.accepted == 2:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if error is not None:
                    raise error from None

    def may_pass(error: Exception) -> bool:
        if isinstance(error, ZeroDivisionError):
            raise error
        return True

    async with mortal_server(silence) as server:
        client = reconnecting(
            server.port,
            retry_delay=0,
            on_connect=does_not_mind,
            may_pass=may_pass,
            on_state=lambda _, state: heard.append(state),
        )
        await client.connect()
        server.drop()
        await begun.wait()
        reconnects = client._link.supervisor._task  # type: ignore[union-attr]
        assert reconnects is not None
        await client.disconnect() if end == "disconnect" else client.abort()
        # Another connection, which the end of the task must leave alone.
        await client.connect()
        await asyncio.wait([reconnects])
        assert client.is_connected
        await client.wait_connected()
        await until(lambda: server.accepted >= 3, "the server has accepted it")
        assert (server.accepted, client.stats.connects) == (3, 2)
        await client.disconnect()
        with pytest.raises(ClosedError):
            await client.wait_connected(None)
        await until(lambda: heard[-1] == "closed", "it hears of the end")
        assert heard == ["connecting", "connected", "lost", "closed", "connecting", "connected", "closed"]


# ---- Connections that never lived ----


async def test_a_connection_that_a_dying_server_accepts_is_a_failed_attempt_and_no_send_meets_its_end() -> None:
    heard: list[str] = []
    async with mortal_and_client(on_state=lambda _, state: heard.append(state)) as (server, client):
        server.handler = hang_up
        server.drop()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        with pytest.raises(ConnectionLostError):
            await client.send(b"x")
        sending = asyncio.create_task(client.send(b"waits"))
        await until(lambda: client.stats.retries >= 2, "two have accepted and hung up")
        assert not sending.done()
        server.handler = echo
        await sending
        assert await client.receive() == b"waits"
        assert client.stats.connects == 2
        assert server.accepted == client.stats.retries + 2
        assert heard == ["connecting", "connected", "lost", "connected"]


async def test_a_connection_that_ended_while_the_loop_was_held_up_beyond_its_probation_is_a_failed_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Over before the loop has read anything of the connection.
    monkeypatch.setattr(attempt, "PROBATION_S", 0)
    async with mortal_and_client(echo) as (server, client):
        server.handler = hang_up
        server.drop()
        await until(lambda: client.stats.retries >= 2, "two have accepted and hung up")
        assert client.stats.connects == 1


async def test_a_server_that_never_says_anything_is_connected_to_again() -> None:
    async with mortal_and_client(silence) as (server, client):
        server.drop()
        await until(lambda: client.stats.connects == 2, "a new connection")
        assert client.stats.retries == 0


@pytest.mark.slow
async def test_the_time_in_which_a_connection_proves_itself_is_none_of_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt, "PROBATION_S", 0.6)
    async with mortal_and_client(silence, connect_timeout=0.5) as (server, client):
        server.drop()
        await until(lambda: client.stats.connects == 2, "a new connection")


@pytest.mark.slow
async def test_a_byte_of_the_server_proves_the_connection_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read(1)

    async with mortal_and_client(greet) as (server, client):
        assert await client.receive() == b"hello"
        # Longer than the receive waits.
        monkeypatch.setattr(attempt, "PROBATION_S", 60)
        server.drop()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        assert await client.receive() == b"hello"


@pytest.mark.parametrize("end", ["disconnect", "abort"])
async def test_a_client_that_is_closed_before_its_connection_is_proved_leaves_none(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "PROBATION_S", 60)
    async with mortal_and_client(silence) as (server, client):
        server.drop()
        await until(lambda: server.accepted == 2 and not client.is_connected, "the second connection")
        await client.disconnect() if end == "disconnect" else client.abort()
        await until(lambda: not server.writers, "it is closed")


async def test_whether_and_how_a_client_reconnects_follows_the_configuration_that_it_connects_with() -> None:
    heard: list[str] = []
    async with mortal_and_client(reconnect=False) as (server, client):
        without = client.config
        client.config = without.replace(reconnect=True, on_state=lambda _, state: heard.append(state))
        await client.disconnect()
        await client.connect()
        server.drop()
        await until(lambda: len(heard) == 4, "it has connected again")
        assert heard == ["connecting", "connected", "lost", "connected"]
        await client.disconnect()
        client.config = without
        await client.connect()
        server.drop()
        await until(lambda: not client.is_connected, "the end is known")
        with pytest.raises(ConnectionLostError):
            await client.wait_connected()
        assert await client.receive() == b""
        assert client.stats.connects == 4
