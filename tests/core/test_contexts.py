"""What a connection leaves with its loop keeps nobody's context alive, runs in nobody's, and ends with it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.cancelling import open_sockets, until
from support.certificates import server_cert, server_context
from support.servers import client_of, echo_server
from support.tls_peer import tls_client_of

from pepperpy.network import BufferLimits, Delimited, Heartbeat, NetworkClient, NetworkConfig, NetworkPool


class Luggage:
    """What a request has in its context."""


luggage: contextvars.ContextVar[Luggage | None] = contextvars.ContextVar("luggage", default=None)


async def carrying(call: Callable[[], Awaitable[object]]) -> weakref.ref[Luggage]:
    """Await a call in a task whose context holds something; a reference to that, once the task has ended."""

    async def carry() -> weakref.ref[Luggage]:
        mine = Luggage()
        luggage.set(mine)
        await call()
        return weakref.ref(mine)

    return await asyncio.create_task(carry())


async def is_gone(reference: weakref.ref[Any]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    return reference() is None


async def echo(client: NetworkClient) -> None:
    assert await client.request(b"x\n", lambda c: c.receive_until(b"\n"), timeout=3600) == b"x\n"


async def test_an_open_connection_keeps_nothing_of_the_task_that_made_and_used_it() -> None:
    async with echo_server() as port:
        client = client_of(port, buffers=BufferLimits(receive_high=100, receive_low=10))

        async def connect_and_use() -> None:
            await client.connect()
            await echo(client)
            async with client.pipeline(Delimited(b"\n")) as pipeline:
                assert await pipeline.request(b"z", timeout=3600) == b"z"
            await client.send(b"y" * 5000)
            while not client._link.protocol.receiver.reading_paused:
                await asyncio.sleep(0)
            # Reading is resumed.
            await client.receive_exactly(5000, timeout=3600)

        reference = await carrying(connect_and_use)
        assert client.is_connected
        assert await is_gone(reference)
        await client.disconnect()


async def test_an_open_tls_connection_keeps_nothing_of_the_task_that_made_it() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(server_cert()))
    client = tls_client_of(server.sockets[0].getsockname()[1])
    reference = await carrying(client.connect)
    assert client.is_connected
    assert await is_gone(reference)
    await client.disconnect()
    server.close()
    await server.wait_closed()


async def test_a_closed_connection_leaves_nothing_though_its_request_might_have_taken_an_hour() -> None:
    async with echo_server() as port:
        clients = []

        async def connect_and_ask() -> None:
            for _ in range(3):
                client = client_of(port)
                clients.append(weakref.ref(client))
                await client.connect()
                await echo(client)
                await client.disconnect()

        assert await is_gone(await carrying(connect_and_ask))
        assert all(client() is None for client in clients)
        # Those of asyncio can be counted. One serves the requests of all connections.
        timers = [timer for timer in getattr(asyncio.get_running_loop(), "_scheduled", []) if not timer.cancelled()]
        assert sum(timer.when() > asyncio.get_running_loop().time() + 1800 for timer in timers) <= 1, timers


async def test_a_client_that_reconnects_runs_its_callables_in_nobodys_context() -> None:
    seen: list[tuple[str, Luggage | None]] = []
    beaten = asyncio.Event()

    def on_state(client: NetworkClient, state: str) -> None:
        seen.append((state, luggage.get()))

    async def on_connect(client: NetworkClient) -> None:
        seen.append(("on_connect", luggage.get()))

    async def heartbeat(client: NetworkClient) -> None:
        seen.append(("heartbeat", luggage.get()))
        beaten.set()

    async with echo_server() as port:
        client = client_of(
            port,
            reconnect=True,
            retry_delay=0.01,
            heartbeat=Heartbeat(heartbeat, interval=0.01, timeout=5),
            on_state=on_state,
            on_connect=on_connect,
        )

        async def connect() -> None:
            await client.connect()
            await beaten.wait()
            seen.clear()
            client._link.protocol.lose(OSError("gone"))
            while client.is_connected:
                await asyncio.sleep(0)
            await client.wait_connected()
            beaten.clear()
            await beaten.wait()

        reference = await carrying(connect)
        assert {name for name, _ in seen} >= {"lost", "connected", "on_connect", "heartbeat"}
        assert {value for _, value in seen} == {None}
        assert await is_gone(reference)
        await client.disconnect()


async def test_a_pool_keeps_nothing_of_the_tasks_that_it_served() -> None:
    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port, timeout=10)) as pool:

        async def use() -> None:
            async with pool.acquire() as client:
                await echo(client)

        reference = await carrying(use)
        assert pool.stats.idle == 1
        assert await is_gone(reference)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_connect_that_was_cancelled_keeps_its_client_for_no_garbage_collection(tls: bool) -> None:
    # The handshake waits for ever; without TLS it is on_connect that does.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fields = {"tls": True, "verify_ssl": False} if tls else {"on_connect": lambda c: c.receive(timeout=None)}

        async def cancelled() -> weakref.ref[NetworkClient]:
            client = client_of(listener.getsockname()[1], connect_timeout=60, **fields)
            before = open_sockets()
            connecting = asyncio.create_task(client.connect())
            await until(lambda: open_sockets() > before, "it has a socket")
            for _ in range(5):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait([connecting])
            assert connecting.cancelled()
            return weakref.ref(client)

        gc.collect()
        gc.disable()
        try:
            reference = await cancelled()
            await until(lambda: reference() is None, "nobody holds the client")
        finally:
            gc.enable()
