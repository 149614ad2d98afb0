"""anyio: its byte streams and their buffered wrapper, on asyncio, whose loop may be uvloop.

anyio.readthedocs.io: "Using sockets and streams" (connect_tcp), "Streams", section "Buffered byte streams"
(receive_exactly, receive_until), "Streams", section "TLS streams", and "Creating and managing tasks" (task groups).
"""

from time import perf_counter

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteStream
from client import Job
from workloads import HEADER_BYTES, LINE

BLOCK = 1000  # operations between two looks at the clock


async def _open(job: Job) -> BufferedByteStream:
    return BufferedByteStream(await _connector(job)())


def _connector(job: Job):
    """Opens connections, all with one TLS context."""
    context = job.ssl_context()

    async def connect() -> ByteStream:
        if context is None:
            return await anyio.connect_tcp(job.host, job.port)
        return await anyio.connect_tcp(job.host, job.port, tls=True, ssl_context=context)

    return connect


async def receive_line(job: Job) -> None:
    stream = await _open(job)
    with job.measure() as clock:
        while clock.running():
            for _ in range(BLOCK):
                line = await stream.receive_until(b"\n", 65536)
            clock.operations += BLOCK
    assert line == LINE[:-1]
    await anyio.aclose_forcefully(stream)


async def receive_record(job: Job) -> None:
    stream = await _open(job)
    with job.measure() as clock:
        while clock.running():
            for _ in range(BLOCK):
                size = int.from_bytes(await stream.receive_exactly(HEADER_BYTES), "big")
                record = await stream.receive_exactly(size)
            clock.operations += BLOCK
    assert record == LINE
    await anyio.aclose_forcefully(stream)


async def receive_bulk(job: Job) -> None:
    stream = await _open(job)
    with job.measure() as clock:
        while clock.running():
            piece = await stream.receive_exactly(job.size)
            clock.operations += len(piece)
    assert piece == LINE * (job.size // len(LINE))
    await anyio.aclose_forcefully(stream)


async def receive_stream(job: Job) -> None:
    stream = await _connector(job)()
    received = 0
    with job.measure() as clock:
        while clock.running():
            for _ in range(20):
                received += len(await stream.receive(65536))
        clock.operations = received
    await anyio.aclose_forcefully(stream)


async def send(job: Job) -> None:
    stream = await _connector(job)()
    message = LINE * (job.size // len(LINE))
    block = max(1, 65536 // job.size)
    with job.measure() as clock:
        while clock.running():
            for _ in range(block):
                await stream.send(message)
            clock.operations += block
    # Past the end of the measurement: the server has received as much.
    await stream.send(job.last_message)
    assert int.from_bytes(await BufferedByteStream(stream).receive_exactly(8), "big") == clock.operations * job.size
    await anyio.aclose_forcefully(stream)


async def echo(job: Job) -> None:
    connect = _connector(job)
    streams = [BufferedByteStream(await connect()) for _ in range(job.connections)]
    message = LINE * (job.size // len(LINE))

    async def round_trips(stream: BufferedByteStream) -> None:
        now = perf_counter()
        while True:
            begun = now
            await stream.send(message)
            answer = await stream.receive_exactly(len(message))
            now = perf_counter()
            clock.latencies.append(now - begun)
            if now > clock.end:
                break
        assert answer == message

    with job.measure() as clock:
        async with anyio.create_task_group() as tasks:
            for stream in streams:
                tasks.start_soon(round_trips, stream)
    for stream in streams:
        await anyio.aclose_forcefully(stream)


async def connect_close(job: Job) -> None:
    connect = _connector(job)

    async def once() -> None:
        async with BufferedByteStream(await connect()) as stream:
            await stream.send(LINE)
            assert await stream.receive_exactly(len(LINE)) == LINE

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

    connect = _connector(job)
    streams = []

    async def open_one() -> None:
        streams.append(await connect())

    await growth(job, open_one)
    for stream in streams:
        await anyio.aclose_forcefully(stream)
