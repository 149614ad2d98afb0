"""This package, as its README recommends."""

import asyncio

from client import Clock
from workloads import BULK_PIECE, ECHO_CONNECTIONS, LINE, LINE_BYTES, SEND_PIECE, WORKLOADS

from pepperpy.network import NetworkClient, NetworkConfig


def _client(port: int) -> NetworkClient:
    return NetworkClient(NetworkConfig("127.0.0.1", port, timeout=60))


async def receive_line(port: int) -> dict:
    count = WORKLOADS["receive_line"].operations
    async with _client(port) as client:
        with Clock() as clock:
            for _ in range(count):
                line = await client.receive_line()
        assert line == LINE
        client.abort()
    return clock.report(count)


async def receive_lines(port: int) -> dict:
    count = WORKLOADS["receive_lines"].operations
    received = 0
    async with _client(port) as client:
        with Clock() as clock:
            while received < count:
                lines = await client.receive_lines()
                received += len(lines)
        assert set(lines) == {LINE}
        client.abort()
    return clock.report(received)


async def receive_record(port: int) -> dict:
    count = WORKLOADS["receive_record"].operations
    async with _client(port) as client:
        with Clock() as clock:
            for _ in range(count):
                record = await client.receive_exactly(LINE_BYTES)
        assert record == LINE
        client.abort()
    return clock.report(count)


async def receive_bulk(port: int) -> dict:
    count = WORKLOADS["receive_bulk"].operations
    async with _client(port) as client:
        with Clock() as clock:
            for _ in range(count):
                piece = await client.receive_exactly(BULK_PIECE)
        assert piece == LINE * (BULK_PIECE // LINE_BYTES)
        client.abort()
    return clock.report(count)


async def receive_stream(port: int) -> dict:
    count = WORKLOADS["receive_stream"].operations
    received = 0
    async with _client(port) as client:
        with Clock() as clock:
            while received < count:
                received += len(await client.receive(65536))
        client.abort()
    return clock.report(received)


async def _finish(client: NetworkClient, expected: int) -> None:
    await client.send_eof()
    assert int.from_bytes(await client.receive_exactly(8), "big") == expected


async def send_small(port: int) -> dict:
    count = WORKLOADS["send_small"].operations
    async with _client(port) as client:
        with Clock() as clock:
            for _ in range(count):
                await client.send(LINE)
            await client.flush()
        await _finish(client, count * LINE_BYTES)
    return clock.report(count)


async def send_bulk(port: int) -> dict:
    count = WORKLOADS["send_bulk"].operations
    piece = LINE * (SEND_PIECE // LINE_BYTES)
    async with _client(port) as client:
        with Clock() as clock:
            for _ in range(count):
                await client.send(piece)
            await client.flush()
        await _finish(client, count * SEND_PIECE)
    return clock.report(count)


async def _echo(port: int, connections: int, count: int) -> dict:
    clients = [_client(port) for _ in range(connections)]
    for client in clients:
        await client.connect()

    async def round_trips(client: NetworkClient) -> None:
        for _ in range(count // connections):
            await client.send(LINE)
            assert await client.receive() == LINE

    with Clock() as clock:
        await asyncio.gather(*map(round_trips, clients))
    for client in clients:
        await client.disconnect()
    return clock.report(count // connections * connections)


async def echo_1(port: int) -> dict:
    return await _echo(port, 1, WORKLOADS["echo_1"].operations)


async def echo_64(port: int) -> dict:
    return await _echo(port, ECHO_CONNECTIONS, WORKLOADS["echo_64"].operations)


async def idle(port: int) -> dict:
    from memory import growth

    count = WORKLOADS["idle"].operations
    config = NetworkConfig("127.0.0.1", port)
    clients = []

    async def open_one() -> None:
        client = NetworkClient(config)
        await client.connect()
        clients.append(client)

    report = await growth(open_one, count)
    for client in clients:
        client.abort()
    await asyncio.sleep(0)
    return report
