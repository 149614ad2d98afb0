"""Reconnecting under stress: flapping servers, outages, a kill at every byte, clients that are forgotten; and redis."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.cancelling import until
from support.loops import begin_tasks_at_once, needs_eager_tasks
from support.mortal import Handler, echo, hang_up, mortal_and_client, mortal_server, reconnecting
from support.processes import programs, reserved_ports, server_process, wait_until

from pepperpy.network import ClosedError, ConnectError, ConnectionLostError, NetworkClient, Reconnect
from pepperpy.network.backoff import Backoff, Outages
from pepperpy.network.testing import no_retry_waits

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


async def _one_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x")


@pytest.mark.parametrize(
    ("handler", "words"),
    [(hang_up, "ended at once without a byte (6 attempts in"), (_one_byte, "lost again at once, after 6 attempts")],
)
async def test_a_server_that_hangs_up_at_once_is_not_tried_faster_than_one_that_is_down(
    handler: Handler, words: str
) -> None:
    # Nothing is proved by connections that end: the waits go on growing, and the attempts are counted.
    with pytest.MonkeyPatch.context() as patch:
        retries: list[int] = []
        patch.setattr(Backoff, "delay", lambda self, retry: retries.append(retry) or 0.0)
        # That this machine holds the loop up proves nothing.
        patch.setattr("pepperpy.network.tcp.attempt.PROBATION_S", 60)
        settings = {"retry_delay": 10, "max_retry_delay": 100, "reconnect": Reconnect(attempts=6)}
        async with mortal_and_client(handler, **settings) as (server, client):
            with pytest.raises(ConnectError, match=re.escape(words)):
                while True:
                    with contextlib.suppress(ConnectionLostError):
                        await client.receive()
            assert retries == [1, 2, 3, 4, 5, 6]
            assert server.accepted == 7


@needs_eager_tasks
async def test_where_tasks_begin_at_once_the_end_of_the_attempts_is_an_end() -> None:
    states: list[str] = []
    settings = {"reconnect": Reconnect(attempts=1), "on_state": lambda client, state: states.append(state)}
    begin_tasks_at_once()
    with no_retry_waits():
        async with mortal_and_client(_one_byte, **settings) as (_, client):
            with pytest.raises(ConnectError, match="lost again at once, after 1 attempt"):
                while True:
                    await client.wait_connected()
                    with contextlib.suppress(ConnectionLostError):
                        await client.receive()
            await until(lambda: states[-1] == "closed", "the last state is told")
            assert states[-3:] == ["connected", "lost", "closed"]


@pytest.mark.slow
async def test_a_connection_that_has_lived_begins_the_waits_anew() -> None:
    with pytest.MonkeyPatch.context() as patch:
        retries: list[int] = []
        patch.setattr(Backoff, "delay", lambda self, retry: retries.append(retry) or 0.0)
        async with mortal_and_client(retry_delay=0.01, max_retry_delay=1) as (server, client):
            server.handler = hang_up
            server.drop()
            await until(lambda: len(retries) == 4, "four attempts")
            server.handler = echo
            await until(lambda: client.is_connected and server.writers, "one that lives")
            count = len(retries)
            # As long as the longest wait before it: 0.01 s * 2**3, or * 2**4 if a fifth died too.
            await asyncio.sleep(0.2)
            server.drop()
            await until(lambda: len(retries) > count, "one attempt more")
            assert retries[count] == 1


def test_clients_of_one_host_share_their_attempts_and_successes_cost_nothing() -> None:
    outages = Outages()
    outages.enter("alone", 0.0)
    assert all(outages.may_try("alone", 0.0) for _ in range(1000))
    for _ in range(1000):
        outages.enter("host", 0.0)
    assert sum(outages.may_try("host", 0.0) for _ in range(1000)) == 10
    # A minute of 1000 clients that try as fast as they can.
    assert sum(outages.may_try("host", second / 100) for second in range(6001)) == 60
    for _ in range(1000):
        outages.succeeded("host")
        assert outages.may_try("host", 60.0)
    assert not outages.may_try("host", 60.0)
    assert 1 <= outages.pause() <= 2
    for _ in range(999):
        outages.leave("host")
    assert outages.may_try("host", 60.0)
    outages.leave("host")
    outages.leave("alone")


async def test_many_clients_of_a_server_that_comes_back_are_all_connected_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Outages, "pause", lambda self: 0.01)
    async with mortal_server() as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(reconnecting(server.port)) for _ in range(30)]
        server.drop()
        await until(lambda: server.accepted == 60, "all are back")
        for client in clients:
            await client.wait_connected()


@pytest.mark.slow
async def test_no_message_arrives_twice_whichever_byte_the_server_dies_at() -> None:
    seen: Counter[bytes] = Counter()
    message = b"id %06d, and some more\n"
    size = len(message % 0)
    lifetime = [0]  # bytes

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while len(data) < lifetime[0] and (piece := await reader.read(lifetime[0] - len(data))):
            data += piece
        for line in data.split(b"\n")[:-1]:
            seen[line] += 1
            writer.write(line[:9] + b"\n")

    async with mortal_server(dies) as server, reconnecting(server.port, retry_delay=0) as client:
        number = 0
        errors = 0
        with no_retry_waits():
            for bytes_to_live in range(1, 2 * size + 2):
                lifetime[0] = bytes_to_live
                with contextlib.suppress(ConnectionLostError):
                    while True:
                        await client.send(message % number)
                        number += 1
                        await asyncio.sleep(0)
                errors += 1
                with contextlib.suppress(ConnectionLostError):
                    while True:
                        await client.receive_line()
                await client.wait_connected()
    assert errors == 2 * size + 1
    assert set(seen.values()) <= {1}
    assert len(seen) >= size


@pytest.mark.parametrize("moment", ["waiting", "attempting"])
async def test_a_forgotten_client_leaves_nothing_running(moment: str) -> None:
    class Service:
        """Its client knows it, and it knows its client."""

        def __init__(self, port: int) -> None:
            delay = 60 if moment == "waiting" else 0
            self.client = reconnecting(
                port, retry_delay=delay, max_retry_delay=60, on_connect=self.log_in, on_state=self.observe
            )

        async def log_in(self, connection: NetworkClient) -> None: ...

        def observe(self, client: NetworkClient, state: str) -> None: ...

    async with mortal_server() as server:

        async def use() -> None:
            service = Service(server.port)
            await service.client.connect()
            await server.kill()
            await until(lambda: not service.client.is_connected, "the loss")

        await use()
        with pytest.warns(ResourceWarning, match="unclosed NetworkClient"):
            # Within an attempt the callable is held; soon after, it is not.
            await _until_collected()


async def _until_collected() -> None:
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1:
            gc.collect()
            await asyncio.sleep(0)


async def test_whoever_cancels_all_tasks_ends_reconnecting_and_no_call_hangs() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        receiving = asyncio.create_task(client.receive(timeout=None))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task(), receiving}:
            task.cancel()
        with pytest.raises(ClosedError, match="reconnecting was cancelled"):
            await receiving


def test_a_loop_that_ends_while_a_client_reconnects_says_nothing_else() -> None:
    async def main() -> NetworkClient:
        async with mortal_server() as server:
            client = reconnecting(server.port)
            await client.connect()
            await server.kill()
            await until(lambda: not client.is_connected, "the loss")
            return client

    client = asyncio.run(main())
    client.abort()
    del client
    gc.collect()


# ---- redis ----


@contextlib.asynccontextmanager
async def redis(port: int, folder: Path) -> AsyncIterator[None]:
    program = programs.path("redis-server")
    options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(folder)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    output = folder / "output"
    output.write_text("")
    with server_process([program, *words], output):
        await asyncio.to_thread(wait_until, lambda: "Ready to accept" in output.read_text(), output)
        yield


@pytest.mark.needs_server
async def test_redis_is_killed_and_restarted_and_the_subscription_and_the_database_are_there_again(
    tmp_path: Path,
) -> None:
    async def select(connection: NetworkClient) -> None:
        await connection.send(b"SELECT 3\r\n")
        assert await connection.receive_until(b"\r\n") == b"+OK\r\n"

    async def subscribe(connection: NetworkClient) -> None:
        await connection.send(b"SUBSCRIBE news\r\n")
        assert await connection.receive_until(b":1\r\n") == b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"

    with reserved_ports(1) as [port]:
        async with redis(port, tmp_path):
            teller = reconnecting(port, retry_delay=0.1, max_retry_delay=0.1, on_connect=select)
            listener = reconnecting(port, retry_delay=0.1, max_retry_delay=0.1, on_connect=subscribe)
            await teller.connect()
            await listener.connect()
            await teller.send(b"CLIENT INFO\r\n")
            assert b" db=3 " in await teller.receive_until(b"\n\r\n")
        for client in (teller, listener):
            with pytest.raises(ConnectionLostError):
                await client.receive()
        async with redis(port, tmp_path):
            await listener.wait_connected()
            with pytest.raises(ConnectionLostError):
                await teller.send(b"CLIENT INFO\r\n")
            await teller.send(b"CLIENT INFO\r\n")
            assert b" db=3 " in await teller.receive_until(b"\n\r\n")
            await teller.send(b"PUBLISH news hello\r\n")
            assert await teller.receive_until(b"\r\n") == b":1\r\n"
            assert await listener.receive_until(b"hello\r\n") == b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
            await teller.disconnect()
            await listener.disconnect()
