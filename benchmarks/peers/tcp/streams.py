"""asyncio streams, as the Python documentation uses them (library/asyncio-stream.html); on uvloop: its streams."""

import asyncio
from time import perf_counter

from client import Job
from workloads import HEADER_BYTES, LINE

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BLOCK = 1000  # operations between two looks at the clock


async def _open(job: Job) -> Pair:
    return await asyncio.open_connection(job.host, job.port, ssl=job.ssl_context())


async def receive_line(job: Job) -> None:
    reader, writer = await _open(job)
    with job.measure() as clock:
        while clock.running():
            for _ in range(BLOCK):
                line = await reader.readline()
            clock.operations += BLOCK
    assert line == LINE
    writer.transport.abort()


async def receive_record(job: Job) -> None:
    reader, writer = await _open(job)
    with job.measure() as clock:
        while clock.running():
            for _ in range(BLOCK):
                size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
                record = await reader.readexactly(size)
            clock.operations += BLOCK
    assert record == LINE
    writer.transport.abort()


async def receive_bulk(job: Job) -> None:
    reader, writer = await _open(job)
    with job.measure() as clock:
        while clock.running():
            piece = await reader.readexactly(job.size)
            clock.operations += len(piece)
    assert piece == LINE * (job.size // len(LINE))
    writer.transport.abort()


async def receive_stream(job: Job) -> None:
    reader, writer = await _open(job)
    received = 0
    with job.measure() as clock:
        while clock.running():
            for _ in range(20):
                received += len(await reader.read(65536))
        clock.operations = received
    writer.transport.abort()


async def send(job: Job) -> None:
    reader, writer = await _open(job)
    message = LINE * (job.size // len(LINE))
    block = max(1, 65536 // job.size)
    with job.measure() as clock:
        while clock.running():
            for _ in range(block):
                writer.write(message)
                await writer.drain()
            clock.operations += block
    # Past the end of the measurement: the server has received as much.
    writer.write(job.last_message)
    assert int.from_bytes(await reader.readexactly(8), "big") == clock.operations * job.size
    writer.transport.abort()


async def echo(job: Job) -> None:
    context = job.ssl_context()
    pairs = [await asyncio.open_connection(job.host, job.port, ssl=context) for _ in range(job.connections)]
    message = LINE * (job.size // len(LINE))

    async def round_trips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = perf_counter()
        while True:
            begun = now
            writer.write(message)
            await writer.drain()
            answer = await reader.readexactly(len(message))
            now = perf_counter()
            clock.latencies.append(now - begun)
            if now > clock.end:
                break
        assert answer == message

    with job.measure() as clock:
        await asyncio.gather(*(round_trips(*pair) for pair in pairs))
    for _, writer in pairs:
        writer.transport.abort()


async def connect_close(job: Job) -> None:
    context = job.ssl_context()

    async def once() -> None:
        reader, writer = await asyncio.open_connection(job.host, job.port, ssl=context)
        writer.write(LINE)
        assert await reader.readexactly(len(LINE)) == LINE
        writer.close()
        await writer.wait_closed()

    await once()
    begun = perf_counter()
    with job.measure() as clock:
        while begun < clock.end:
            await once()
            now = perf_counter()
            clock.latencies.append(now - begun)
            begun = now


async def idle(job: Job) -> None:
    from memory import growth

    context = job.ssl_context()
    pairs = []

    async def open_one() -> None:
        pairs.append(await asyncio.open_connection(job.host, job.port, ssl=context))

    await growth(job, open_one)
    for _, writer in pairs:
        writer.transport.abort()
