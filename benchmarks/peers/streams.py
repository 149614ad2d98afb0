"""asyncio streams, as the Python documentation uses them (library/asyncio-stream.html)."""

import asyncio

from client import Clock
from workloads import BULK_PIECE, ECHO_CONNECTIONS, LINE, LINE_BYTES, SEND_PIECE, WORKLOADS


async def receive_line(port: int) -> dict:
    count = WORKLOADS["receive_line"].operations
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with Clock() as clock:
        for _ in range(count):
            line = await reader.readline()
    assert line == LINE
    writer.transport.abort()
    return clock.report(count)


async def receive_lines(port: int) -> dict:
    # Streams know no batch of lines.
    return await receive_line(port)


async def receive_record(port: int) -> dict:
    count = WORKLOADS["receive_record"].operations
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with Clock() as clock:
        for _ in range(count):
            record = await reader.readexactly(LINE_BYTES)
    assert record == LINE
    writer.transport.abort()
    return clock.report(count)


async def receive_bulk(port: int) -> dict:
    count = WORKLOADS["receive_bulk"].operations // 4
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with Clock() as clock:
        for _ in range(count):
            piece = await reader.readexactly(BULK_PIECE)
    assert piece == LINE * (BULK_PIECE // LINE_BYTES)
    writer.transport.abort()
    return clock.report(count)


async def receive_stream(port: int) -> dict:
    count = WORKLOADS["receive_stream"].operations // 4
    received = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with Clock() as clock:
        while received < count:
            received += len(await reader.read(65536))
    writer.transport.abort()
    return clock.report(received)


async def _finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, expected: int) -> None:
    writer.write_eof()
    assert int.from_bytes(await reader.readexactly(8), "big") == expected
    writer.close()
    await writer.wait_closed()


async def send_small(port: int) -> dict:
    count = WORKLOADS["send_small"].operations // 5
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with Clock() as clock:
        for _ in range(count):
            writer.write(LINE)
            await writer.drain()
    await _finish(reader, writer, count * LINE_BYTES)
    return clock.report(count)


async def send_bulk(port: int) -> dict:
    count = WORKLOADS["send_bulk"].operations
    piece = LINE * (SEND_PIECE // LINE_BYTES)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with Clock() as clock:
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
    await _finish(reader, writer, count * SEND_PIECE)
    return clock.report(count)


async def _echo(port: int, connections: int, count: int) -> dict:
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]

    async def round_trips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(count // connections):
            writer.write(LINE)
            await writer.drain()
            assert await reader.read(65536) == LINE

    with Clock() as clock:
        await asyncio.gather(*(round_trips(*pair) for pair in pairs))
    for _, writer in pairs:
        writer.close()
        await writer.wait_closed()
    return clock.report(count // connections * connections)


async def echo_1(port: int) -> dict:
    return await _echo(port, 1, WORKLOADS["echo_1"].operations)


async def echo_64(port: int) -> dict:
    return await _echo(port, ECHO_CONNECTIONS, WORKLOADS["echo_64"].operations)


async def idle(port: int) -> dict:
    from memory import growth

    pairs = []

    async def open_one() -> None:
        pairs.append(await asyncio.open_connection("127.0.0.1", port))

    report = await growth(open_one, WORKLOADS["idle"].operations)
    for _, writer in pairs:
        writer.transport.abort()
    await asyncio.sleep(0)
    return report
