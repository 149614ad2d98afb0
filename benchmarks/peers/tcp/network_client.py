"""This package, as its README recommends."""

import asyncio
from time import perf_counter

from client import Job
from workloads import HEADER_BYTES, LINE

from pepperpy.network import LengthPrefixed, NetworkClient, NetworkConfig

BLOCK = 1000  # operations between two looks at the clock


def _config(job: Job) -> NetworkConfig:
    return NetworkConfig(job.host, job.port, timeout=60, tls=job.ssl_context() or False)


def _client(job: Job) -> NetworkClient:
    return NetworkClient(_config(job))


async def receive_line(job: Job) -> None:
    async with _client(job) as client:
        with job.measure() as clock:
            while clock.running():
                for _ in range(BLOCK):
                    line = await client.receive_line()
                clock.operations += BLOCK
        assert line == LINE
        client.abort()


async def receive_lines(job: Job) -> None:
    async with _client(job) as client:
        with job.measure() as clock:
            while clock.running():
                for _ in range(10):
                    lines = await client.receive_lines()
                    clock.operations += len(lines)
        assert set(lines) == {LINE}
        client.abort()


async def receive_record(job: Job) -> None:
    async with _client(job) as client:
        framed = client.framed(LengthPrefixed(HEADER_BYTES))
        with job.measure() as clock:
            while clock.running():
                for _ in range(BLOCK):
                    record = await framed.receive()
                clock.operations += BLOCK
        assert record == LINE
        client.abort()


async def receive_records(job: Job) -> None:
    async with _client(job) as client:
        framed = client.framed(LengthPrefixed(HEADER_BYTES))
        with job.measure() as clock:
            while clock.running():
                for _ in range(10):
                    records = await framed.receive_batch()
                    clock.operations += len(records)
        assert set(records) == {LINE}
        client.abort()


async def receive_bulk(job: Job) -> None:
    async with _client(job) as client:
        with job.measure() as clock:
            while clock.running():
                piece = await client.receive_exactly(job.size)
                clock.operations += len(piece)
        assert piece == LINE * (job.size // len(LINE))
        client.abort()


async def receive_large_record(job: Job) -> None:
    async with _client(job) as client:
        framed = client.framed(LengthPrefixed(HEADER_BYTES))
        with job.measure() as clock:
            while clock.running():
                record = await framed.receive()
                clock.operations += len(record)
        assert record == LINE * (job.size // len(LINE))
        client.abort()


async def receive_stream(job: Job) -> None:
    received = 0
    async with _client(job) as client:
        with job.measure() as clock:
            while clock.running():
                for _ in range(20):
                    received += len(await client.receive(65536))
            clock.operations = received
        client.abort()


async def send(job: Job) -> None:
    message = LINE * (job.size // len(LINE))
    block = max(1, 65536 // job.size)
    async with _client(job) as client:
        with job.measure() as clock:
            while clock.running():
                for _ in range(block):
                    await client.send(message)
                clock.operations += block
            await client.flush()
        # Past the end of the measurement: the server has received as much.
        await client.send(job.last_message)
        assert int.from_bytes(await client.receive_exactly(8), "big") == clock.operations * job.size
        client.abort()


async def echo(job: Job) -> None:
    config = _config(job)
    clients = [NetworkClient(config) for _ in range(job.connections)]
    for client in clients:
        await client.connect()
    message = LINE * (job.size // len(LINE))

    async def round_trips(client: NetworkClient) -> None:
        now = perf_counter()
        while True:
            begun = now
            await client.send(message)
            answer = await client.receive_exactly(len(message))
            now = perf_counter()
            clock.latencies.append(now - begun)
            if now > clock.end:
                break
        assert answer == message

    with job.measure() as clock:
        await asyncio.gather(*map(round_trips, clients))
    for client in clients:
        client.abort()


async def connect_close(job: Job) -> None:
    config = _config(job)

    async def once() -> None:
        async with NetworkClient(config) as client:
            await client.send(LINE)
            assert await client.receive_exactly(len(LINE)) == LINE

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

    config = _config(job)
    clients = []

    async def open_one() -> None:
        client = NetworkClient(config)
        await client.connect()
        clients.append(client)

    await growth(job, open_one)
    for client in clients:
        client.abort()
