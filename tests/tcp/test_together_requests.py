"""The parts together: requests and pipelines on a client that reconnects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.cancelling import until
from support.mortal import Mortal, ask, echo, lost, mortal_and_client, mortal_server, silence, told

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    Heartbeat,
    JSONLines,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
)

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


def line(client: NetworkClient) -> Any:
    return client.receive_line()


# ---- Requests on a client that reconnects ----


async def counting(server: Mortal, seen: list[bytes]) -> None:
    """Let the server note each line that it answers."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            seen.append(question)
            writer.write(question)

    server.handler = handler


async def test_a_request_is_told_of_a_loss_before_anything_is_sent_and_the_next_ones_are_served() -> None:
    seen: list[bytes] = []
    async with mortal_server() as server:
        await counting(server, seen)
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True)
        async with NetworkClient(config) as client:
            assert await client.request(b"1\n", line) == b"1\n"
            server.drop()
            await lost(client)
            await client.wait_connected()
            with pytest.raises(ConnectionLostError):
                await client.request(b"2\n", line)
            assert await client.request(b"3\n", line) == b"3\n"
            await server.kill()
            await lost(client)
            with pytest.raises(ConnectionLostError):
                await client.request(b"4\n", line)
            # Now they wait for the next connection, and keep their order.
            waiting = [asyncio.create_task(client.request(b"%d\n" % n, line)) for n in (5, 6, 7)]
            await asyncio.sleep(0)
            await server.start()
            assert await asyncio.gather(*waiting) == [b"5\n", b"6\n", b"7\n"]
            assert seen == [b"1\n", b"3\n", b"5\n", b"6\n", b"7\n"]


async def test_a_request_that_waits_for_a_connection_has_its_time_and_can_be_cancelled() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        with pytest.raises(NetworkTimeoutError, match="request timed out"):
            await client.request(b"1\n", line, timeout=0.01)
        waiting = asyncio.create_task(client.request(b"2\n", line))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await server.start()
        assert await client.request(b"3\n", line) == b"3\n"


@pytest.mark.parametrize(
    ("how", "error"),
    [("timeout", NetworkTimeoutError), ("failed", ZeroDivisionError), ("cancelled", asyncio.CancelledError)],
)
async def test_a_request_that_ends_without_its_reply_costs_the_connection_and_not_the_client(
    how: str, error: type[BaseException]
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            writer.write(b"half of the late rep" if question == b"late\n" else question)

    async def receive(client: NetworkClient) -> bytes:
        if how == "failed":
            return await client.receive_exactly(4) * (1 // 0)
        return await client.receive_line()

    async with mortal_and_client(half) as (server, client):
        for number in range(3):
            limit = 0.01 if how == "timeout" else None
            asking = asyncio.create_task(client.request(b"late\n", receive, timeout=limit))
            waiting = asyncio.create_task(client.request(b"x\n", line))
            if how == "cancelled":
                await until(lambda: client.stats.bytes_buffered == 20, "half of the reply is here")
                asking.cancel()
            with pytest.raises(error):
                await asking
            with pytest.raises(ClosedError, match="connection dropped after a failed request"):
                await waiting
            with pytest.raises(ConnectionLostError, match="connection dropped after a failed request"):
                await client.request(b"told\n", line)
            assert await client.request(b"next\n", line) == b"next\n"
            assert server.accepted == number + 2
        await told_sending(client)
        await client.send(b"plain\n")
        assert await client.receive_line() == b"plain\n"


async def told_sending(client: NetworkClient) -> None:
    """Requests hear of a loss as receives do; plain sends have still to be told."""
    with pytest.raises(ConnectionLostError):
        await client.send(b"lost")


async def test_a_heartbeat_whose_request_fails_ends_the_connection_and_not_the_client() -> None:
    async def beat(connection: NetworkClient) -> None:
        if server.accepted == 1:
            await connection.request(b"ping\n", line, timeout=0.01)

    async with mortal_server(silence) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, retry_delay=0.001, reconnect=True)
        config = config.replace(heartbeat=Heartbeat(beat, interval=0.01))
        async with NetworkClient(config) as client:
            await until(lambda: server.accepted == 2 and client.is_connected, "it has reconnected")
            with pytest.raises(ConnectionLostError, match="request timed out"):
                await client.receive()


# ---- Pipelines on a client that reconnects ----


async def test_a_pipeline_ends_with_its_connection_and_another_one_begins() -> None:
    async with mortal_and_client() as (server, client):
        for turn in range(3):
            async with client.pipeline(JSONLines()) as pipeline:
                assert await asyncio.gather(*map(pipeline.request, range(10))) == list(range(10))
                server.handler = silence
                await server.kill()
                with pytest.raises(ConnectionLostError):
                    await pipeline.wait_ended()
                await server.start()
                server.handler = echo
                await client.wait_connected()
                with pytest.raises(ConnectionLostError):
                    await pipeline.request("not on another connection")
            assert client.is_connected
            assert server.accepted == turn + 2


async def test_a_pipeline_is_told_of_an_earlier_loss_as_it_begins_and_waits_for_the_next_connection() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await lost(client)
        with pytest.raises(ConnectionLostError):
            async with client.pipeline(JSONLines()):
                raise AssertionError
        asyncio.get_running_loop().call_later(0.01, lambda: starting.append(asyncio.ensure_future(server.start())))
        starting: list[asyncio.Future[None]] = []
        async with client.pipeline(JSONLines()) as pipeline:
            assert await pipeline.request("hello") == "hello"
        server.drop()
        await lost(client)
        await client.wait_connected()
        with pytest.raises(ConnectionLostError):
            async with client.pipeline(JSONLines()):
                raise AssertionError
        async with client.pipeline(JSONLines()) as pipeline:
            assert await pipeline.request("again") == "again"
        assert server.accepted == client.stats.connects == 3


async def test_a_pipeline_left_with_requests_in_flight_costs_the_connection_and_not_the_client() -> None:
    async with mortal_and_client(silence) as (server, client):
        async with client.pipeline(JSONLines()) as pipeline:
            asking = asyncio.create_task(pipeline.request("never answered"))
            await until(lambda: pipeline.in_flight == 1, "it is sent")
        with pytest.raises(ClosedError):
            await asking
        server.handler = echo
        await told(client)
        await ask(client)
