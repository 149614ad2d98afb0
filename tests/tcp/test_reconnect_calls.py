"""Calls that wait while a client reconnects: their time, their cancellation, and the end of reconnecting."""

from __future__ import annotations

import asyncio
from time import monotonic
from types import SimpleNamespace

import pytest
from support.cancelling import Mode, arrived, cancelled_at
from support.mortal import CALLS, lost, mortal_and_client, reconnecting, silence, told

from pepperpy.network import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    Event,
    NetworkTimeoutError,
    Reconnect,
    StateChanged,
    UsageError,
)

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


async def test_a_call_made_while_reconnecting_has_its_timeout_and_queues_nothing() -> None:
    async with mortal_and_client(silence) as (server, client):
        await server.kill()
        await told(client)
        sent = client.stats.bytes_sent
        for call in CALLS.values():
            with pytest.raises(NetworkTimeoutError, match="without a connection") as caught:
                await call(client, timeout=0.005)
            assert 0 <= caught.value.details["elapsed"] < 60
        with pytest.raises(NetworkTimeoutError):
            await client.wait_connected(timeout=0.005)
        assert client.stats.bytes_sent == sent
        await server.start()
        await client.wait_connected()


async def test_the_timeout_spans_the_wait_for_the_connection_and_the_wait_for_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = monotonic()
    async with mortal_and_client(silence) as (server, client):
        await server.kill()
        await told(client)
        monkeypatch.setattr("pepperpy.network.link.time", SimpleNamespace(monotonic=lambda: now))
        receiving = asyncio.create_task(client.receive(timeout=1000))
        await asyncio.sleep(0)
        # All of the time that the call has, by the clock that it asks for what is left.
        now += 1000
        await server.start()
        # With a time of its own, the second wait would last 1000 s.
        async with asyncio.timeout(30):
            with pytest.raises(NetworkTimeoutError, match="receive timed out"):
                await receiving
        assert client.is_connected


async def test_a_waiting_call_that_is_cancelled_disturbs_nobody() -> None:
    to_cancel: list[asyncio.Task[object]] = []

    def on_event(event: Event) -> None:
        # In the tick of the connection, before the task has run.
        if isinstance(event, StateChanged) and event.state == "connected":
            while to_cancel:
                to_cancel.pop().cancel()

    async with mortal_and_client(on_event=on_event) as (server, client):
        for number, call in enumerate(CALLS.values(), 1):
            await server.kill()
            await told(client)
            for mode in (Mode.WAITING, Mode.TWICE):
                assert (await cancelled_at(call(client), 1, mode)).cancelled
            cancelled = asyncio.create_task(call(client))
            staying = asyncio.create_task(client.send(b"the one\n"))
            await asyncio.sleep(0)
            to_cancel.append(cancelled)
            await server.start()
            await staying
            await asyncio.wait([cancelled])
            assert cancelled.cancelled()
            assert await client.receive_line() == b"the one\n"
            assert client.stats.bytes_sent == 8 * number


async def test_two_receivers_are_two_also_while_reconnecting() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        first = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await client.receive()
        await server.start()
        await client.send(b"x")
        assert await first == b"x"


async def test_bad_arguments_are_refused_while_reconnecting() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        with pytest.raises(TypeError, match="data"):
            await client.send("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            await client.receive(timeout=-1)
        with pytest.raises(ConnectionLostError, match="nothing to end"):
            await client.send_eof()


async def test_connect_does_not_meddle_and_another_thread_may_not() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await lost(client)
        with pytest.raises(BusyError, match="wait_connected"):
            await client.connect()

        async def elsewhere() -> None:
            for call in (client.receive, lambda: client.send(b"x"), client.wait_connected, client.disconnect):
                with pytest.raises(UsageError):
                    await call()  # type: ignore[operator]
            with pytest.raises(UsageError):
                client.abort()

        await asyncio.to_thread(asyncio.run, elsewhere())
        await server.start()
        await client.wait_connected()


async def test_after_disconnect_the_news_and_the_unread_bytes_are_dropped() -> None:
    async with mortal_and_client() as (server, client):
        await client.send(b"unread\n")
        await arrived(client, 7)
        server.drop()
        await lost(client)
        await client.disconnect()
        for name in ("receive", "send", "flush"):
            with pytest.raises(ClosedError):
                await CALLS[name](client)


@pytest.mark.parametrize("end", ["disconnect", "abort"])
async def test_whoever_waits_is_told_of_the_end_and_connect_may_follow(end: str) -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        waiting = [asyncio.create_task(CALLS[name](client)) for name in ("receive", "send", "flush")]
        waiting.append(asyncio.create_task(client.wait_connected()))
        await asyncio.sleep(0)
        await client.disconnect() if end == "disconnect" else client.abort()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ClosedError] * 4
        for call in (client.receive, lambda: client.send(b"x"), client.wait_connected):
            with pytest.raises(ClosedError):
                await call()  # type: ignore[operator]
        await server.start()
        await client.connect()
        await client.send(b"again")
        assert await client.receive() == b"again"


async def test_the_end_of_the_attempts_is_told_to_all_again_and_again() -> None:
    async with mortal_and_client(reconnect=Reconnect(attempts=3)) as (server, client):
        await server.kill()
        await told(client)
        waiting = asyncio.create_task(client.wait_connected())
        with pytest.raises(ConnectError, match="3 attempts") as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        for call in (client.receive, lambda: client.send(b"x"), client.flush, client.wait_connected):
            with pytest.raises(ConnectError, match="3 attempts"):
                await call()  # type: ignore[operator]
        with pytest.raises(ConnectError):
            await waiting
        await client.disconnect()


async def test_a_plain_client_waits_for_the_connect_of_another_task_only() -> None:
    async with mortal_and_client() as (server, _):
        client = reconnecting(server.port, reconnect=False)
        with pytest.raises(Exception, match="not connected"):
            await client.wait_connected()
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        await client.wait_connected()
        assert client.is_connected
        await connecting
        server.drop(reset=True)
        await lost(client)
        with pytest.raises(ConnectionLostError):
            await client.wait_connected()
        await client.disconnect()
