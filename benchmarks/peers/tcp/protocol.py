"""A bare asyncio protocol: what a client written by hand for one purpose does, with callbacks instead of awaits.

The Python documentation recommends BufferedProtocol for avoiding copies (library/asyncio-protocol.html, "Buffered
Streaming Protocols"): the loop reads into memory that stays, and the callback parses what lies there. Its flow control
for sending is pause_writing() and resume_writing() (same page, "Flow Control Callbacks").
"""

import asyncio
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any

from client import Clock, Job
from workloads import HEADER_BYTES, LINE

READ_BYTES = 256 * 1024  # what the loops' own transports read at most
_length = struct.Struct(">I").unpack_from


class _Connection(asyncio.BufferedProtocol):
    """Reads into `view` from `filled` on; `done` is set when the connection has ended, or before."""

    transport: Any  # Transport; uvloop's is no asyncio.Transport

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)
        self.filled = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view[self.filled :]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _connect(job: Job, factory: Callable[[], asyncio.BaseProtocol]) -> Any:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(factory, job.host, job.port, ssl=job.ssl_context())
    return protocol


class _Flooded(_Connection):
    """Reads from when it is told to until the time is over."""

    def __init__(self, size: int, clock: Clock) -> None:
        super().__init__(size)
        self.clock = clock

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.pause_reading()

    async def until_the_end(self) -> None:
        self.transport.resume_reading()
        await self.done

    def go_on_or_end(self) -> None:
        if not self.clock.running():
            self.transport.abort()


# ---- Lines and records ----


def _lines(data: bytes) -> tuple[list[bytes], bytes]:
    lines = data.split(b"\n")
    return lines, lines.pop()


def _records(data: bytes) -> tuple[list[bytes], bytes]:
    records = []
    begin, size = 0, len(data)
    while (body := begin + HEADER_BYTES) <= size:
        end = body + _length(data, begin)[0]
        if end > size:
            break
        records.append(data[body:end])
        begin = end
    return records, data[begin:]


class _Batches(_Flooded):
    """All messages of a read to one callback."""

    def __init__(self, clock: Clock, split: Callable[[bytes], tuple[list[bytes], bytes]]) -> None:
        super().__init__(READ_BYTES, clock)
        self.split = split

    def buffer_updated(self, count: int) -> None:
        messages, rest = self.split(bytes(self.view[: self.filled + count]))
        self.filled = len(rest)
        self.view[: self.filled] = rest
        self.messages_received(messages)
        self.go_on_or_end()

    def messages_received(self, messages: list[bytes]) -> None:
        self.clock.operations += len(messages)
        if messages:
            self.last = messages[-1]


class _Each(_Batches):
    """A callback for each message."""

    def messages_received(self, messages: list[bytes]) -> None:
        self.clock.operations += len(messages)
        for message in messages:
            self.message_received(message)

    def message_received(self, message: bytes) -> None:
        self.last = message


async def _receive(job: Job, kind: type[_Batches], split: Callable[[bytes], tuple[list[bytes], bytes]]) -> bytes:
    protocol = await _connect(job, lambda: kind(job.measure(), split))
    with job.measure():
        await protocol.until_the_end()
    return protocol.last


async def receive_line(job: Job) -> None:
    assert await _receive(job, _Each, _lines) == LINE[:-1]


async def receive_lines(job: Job) -> None:
    assert await _receive(job, _Batches, _lines) == LINE[:-1]


async def receive_record(job: Job) -> None:
    assert await _receive(job, _Each, _records) == LINE


async def receive_records(job: Job) -> None:
    assert await _receive(job, _Batches, _records) == LINE


# ---- Many bytes ----


class _Pieces(_Flooded):
    """Fills its memory again and again."""

    def buffer_updated(self, count: int) -> None:
        self.filled += count
        if self.filled == len(self.memory):
            self.clock.operations += self.filled
            self.filled = 0
            self.go_on_or_end()


class _Stream(_Flooded):
    def buffer_updated(self, count: int) -> None:
        self.clock.operations += count
        self.go_on_or_end()


async def receive_bulk(job: Job) -> None:
    protocol = await _connect(job, lambda: _Pieces(job.size, job.measure()))
    with job.measure():
        await protocol.until_the_end()
    assert protocol.memory == LINE * (job.size // len(LINE))


async def receive_stream(job: Job) -> None:
    protocol = await _connect(job, lambda: _Stream(READ_BYTES, job.measure()))
    with job.measure():
        await protocol.until_the_end()


class _Sender(_Connection):
    """Writes until it is told to pause, with a turn of the loop for every 64 KiB; `done` is when time is over."""

    def __init__(self, job: Job) -> None:
        super().__init__(READ_BYTES)
        self.clock = job.measure()
        self.message = LINE * (job.size // len(LINE))
        self.block = max(1, 65536 // job.size)
        self.paused = False
        self.answered = asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if not self.done.done():
            self.write_more()

    def write_more(self) -> None:
        for _ in range(self.block):
            self.transport.write(self.message)
        self.clock.operations += self.block
        if not self.clock.running():
            self.done.set_result(None)
        elif not self.paused:
            asyncio.get_running_loop().call_soon(self.write_unless_paused)

    def write_unless_paused(self) -> None:
        if not self.paused:
            self.write_more()

    def buffer_updated(self, count: int) -> None:
        self.filled += count
        if self.filled == 8:
            self.answered.set_result(int.from_bytes(self.view[:8], "big"))


async def send(job: Job) -> None:
    protocol = await _connect(job, lambda: _Sender(job))
    with job.measure() as clock:
        protocol.write_more()
        await protocol.done
    # Past the end of the measurement: the server has received as much.
    protocol.transport.write(job.last_message)
    assert await protocol.answered == clock.operations * job.size
    protocol.transport.abort()


# ---- Round trips ----


class _Echo(_Connection):
    """One round trip after the other; `done` after the last of them."""

    def __init__(self, message: bytes, clock: Clock) -> None:
        super().__init__(len(message))
        self.message = message
        self.clock = clock

    def ask(self) -> None:
        self.begun = perf_counter()
        self.transport.write(self.message)

    def buffer_updated(self, count: int) -> None:
        self.filled += count
        if self.filled < len(self.memory):
            return
        self.filled = 0
        now = perf_counter()
        self.clock.latencies.append(now - self.begun)
        self.begun = now
        if now < self.clock.end:
            self.transport.write(self.message)
        else:
            self.done.set_result(None)


async def echo(job: Job) -> None:
    message = LINE * (job.size // len(LINE))
    context = job.ssl_context()
    loop = asyncio.get_running_loop()
    protocols = []
    for _ in range(job.connections):
        _, protocol = await loop.create_connection(
            lambda: _Echo(message, job.measure()), job.host, job.port, ssl=context
        )
        protocols.append(protocol)
    with job.measure():
        for protocol in protocols:
            protocol.ask()
        await asyncio.gather(*(protocol.done for protocol in protocols))
    for protocol in protocols:
        assert protocol.memory == message
        protocol.transport.abort()


class _OneQuestion(_Connection):
    """Asks once, closes; `done` when the connection is lost."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.write(LINE)

    def buffer_updated(self, count: int) -> None:
        self.filled += count
        if self.filled == len(LINE):
            self.transport.close()


async def connect_close(job: Job) -> None:
    context = job.ssl_context()
    loop = asyncio.get_running_loop()

    async def once() -> None:
        _, protocol = await loop.create_connection(lambda: _OneQuestion(len(LINE) + 1), job.host, job.port, ssl=context)
        await protocol.done
        assert protocol.memory[: protocol.filled] == LINE

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

    class Nothing(asyncio.Protocol):
        __slots__ = ()

    context = job.ssl_context()
    loop = asyncio.get_running_loop()
    transports = []

    async def open_one() -> None:
        transport, _ = await loop.create_connection(Nothing, job.host, job.port, ssl=context)
        transports.append(transport)

    await growth(job, open_one)
    for transport in transports:
        transport.abort()
