"""trio: its streams, and the buffer that its users put over them.

trio.readthedocs.io, "I/O in Trio": open_tcp_stream and open_ssl_over_tcp_stream make the streams; receive_some() with
no number takes what the stream thinks is a good amount. Trio has no buffered reader: lines and records are cut from a
bytearray by the application.
"""

from time import perf_counter

import trio
from client import Job
from workloads import HEADER_BYTES, LINE

LOOPS = ("trio",)
BLOCK = 1000  # operations between two looks at the clock


class _Buffered:
    """A stream with the bytes of it that nobody has taken yet."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def receive_until(self, separator: bytes) -> bytearray:
        buffer = self._buffer
        searched = 0
        while (found := buffer.find(separator, searched)) < 0:
            searched = max(0, len(buffer) - len(separator) + 1)
            await self._receive_more()
        return self._take(found + len(separator))

    async def receive_exactly(self, size: int) -> bytearray:
        while len(self._buffer) < size:
            await self._receive_more()
        return self._take(size)

    async def _receive_more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError("the server has ended the stream")
        self._buffer += data

    def _take(self, size: int) -> bytearray:
        taken = self._buffer[:size]
        del self._buffer[:size]
        return taken


def _connector(job: Job):
    """Opens connections, all with one TLS context."""
    context = job.ssl_context()

    async def connect() -> _Buffered:
        if context is None:
            return _Buffered(await trio.open_tcp_stream(job.host, job.port))
        stream = await trio.open_ssl_over_tcp_stream(job.host, job.port, ssl_context=context)
        # Else the first use would do it.
        await stream.do_handshake()
        return _Buffered(stream)

    return connect


async def receive_line(job: Job) -> None:
    buffered = await _connector(job)()
    with job.measure() as clock:
        while clock.running():
            for _ in range(BLOCK):
                line = await buffered.receive_until(b"\n")
            clock.operations += BLOCK
    assert line == LINE
    await trio.aclose_forcefully(buffered.stream)


async def receive_record(job: Job) -> None:
    buffered = await _connector(job)()
    with job.measure() as clock:
        while clock.running():
            for _ in range(BLOCK):
                size = int.from_bytes(await buffered.receive_exactly(HEADER_BYTES), "big")
                record = await buffered.receive_exactly(size)
            clock.operations += BLOCK
    assert record == LINE
    await trio.aclose_forcefully(buffered.stream)


async def receive_bulk(job: Job) -> None:
    buffered = await _connector(job)()
    with job.measure() as clock:
        while clock.running():
            piece = await buffered.receive_exactly(job.size)
            clock.operations += len(piece)
    assert piece == LINE * (job.size // len(LINE))
    await trio.aclose_forcefully(buffered.stream)


async def receive_stream(job: Job) -> None:
    stream = (await _connector(job)()).stream
    received = 0
    with job.measure() as clock:
        while clock.running():
            for _ in range(20):
                received += len(await stream.receive_some(65536))
        clock.operations = received
    await trio.aclose_forcefully(stream)


async def send(job: Job) -> None:
    buffered = await _connector(job)()
    message = LINE * (job.size // len(LINE))
    block = max(1, 65536 // job.size)
    with job.measure() as clock:
        while clock.running():
            for _ in range(block):
                await buffered.stream.send_all(message)
            clock.operations += block
    # Past the end of the measurement: the server has received as much.
    await buffered.stream.send_all(job.last_message)
    assert int.from_bytes(await buffered.receive_exactly(8), "big") == clock.operations * job.size
    await trio.aclose_forcefully(buffered.stream)


async def echo(job: Job) -> None:
    connect = _connector(job)
    connections = [await connect() for _ in range(job.connections)]
    message = LINE * (job.size // len(LINE))

    async def round_trips(buffered: _Buffered) -> None:
        now = perf_counter()
        while True:
            begun = now
            await buffered.stream.send_all(message)
            answer = await buffered.receive_exactly(len(message))
            now = perf_counter()
            clock.latencies.append(now - begun)
            if now > clock.end:
                break
        assert answer == message

    with job.measure() as clock:
        async with trio.open_nursery() as nursery:
            for buffered in connections:
                nursery.start_soon(round_trips, buffered)
    for buffered in connections:
        await trio.aclose_forcefully(buffered.stream)


async def connect_close(job: Job) -> None:
    connect = _connector(job)

    async def once() -> None:
        buffered = await connect()
        async with buffered.stream:
            await buffered.stream.send_all(LINE)
            assert await buffered.receive_exactly(len(LINE)) == LINE

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
    connections = []

    async def open_one() -> None:
        connections.append(await connect())

    await growth(job, open_one)
    for buffered in connections:
        await trio.aclose_forcefully(buffered.stream)
