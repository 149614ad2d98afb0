"""Each allocation of each operation fails once: no byte is lost or repeated, no task waits for ever.

Where an operation cannot take back what it has begun, the connection ends as lost. The long form, every allocation at
every call, runs at night.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, Starved, Wire
from support.tiers import by_tier

from pepperpy.network import (
    BufferLimits,
    DecodeError,
    Delimited,
    IncompleteReadError,
    LengthPrefixed,
    NetworkConfig,
    NetworkError,
)
from pepperpy.network._core.frame_reader import END, WAIT, FrameReader
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.messages.codecs import framer_of

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))

# More allocations than any operation makes.
MOST = 26
# At night each of them fails; every day some, which are others for each operation.
STEP = by_tier(5, nightly=1)
EVER = 10_000_000


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- Receiving ----

LINES = b"".join(b"%05d-%s\n" % (i, b"x" * (i * 37 % 300)) for i in range(60))
LARGE = b"".join(b"%08d\n" % i for i in range(45_000))
PREFIXED = LengthPrefixed(4)
CRLF = Delimited(b"\r\n")
SMALL_FRAMES = [b"%05d" % i + b"y" * (i * 53 % 600) for i in range(40)]
LARGE_FRAMES = [bytes([65 + i]) * (190_000 + i) for i in range(3)]


class Reading:
    """One way to receive: what takes, what waits, and what the stream was that a result came from."""

    def __init__(self, stream: bytes, cuts: list[int], codec: Any = None, frames: str = "") -> None:
        self.stream = stream
        self.pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self._codec = codec
        self._frames = frames
        self._waiter: Any = None

    def open(self, protocol: StreamProtocol) -> None:
        self.receiver = protocol.receiver
        if self._codec is not None:
            self._reader = FrameReader(framer_of(self._codec, EVER), None)

    def take(self) -> Any:
        return getattr(self._reader, self._frames)(self.receiver)

    def wait(self) -> Any:
        self._waiter = self._reader.wait(self.receiver, None, self._waiter)
        return self._waiter

    def raw(self, result: Any) -> bytes:
        messages = result if self._frames == "take_all" else [result]
        return b"".join(b"".join(self._codec.encode(message)) for message in messages)


class Some(Reading):
    def take(self) -> Any:
        return self.receiver.take(1000)

    def wait(self) -> Any:
        return self.receiver.wait(None)

    def raw(self, result: Any) -> bytes:
        return bytes(result)


class Exactly(Some):
    size = 700

    def take(self) -> Any:
        return self.receiver.take_exactly(self.size)

    def wait(self) -> Any:
        return self.receiver.wait_exactly(self.size, None)


class ExactlyLarge(Exactly):
    size = 200_000


class Until(Some):
    def take(self) -> Any:
        return self.receiver.take_until(b"\n")

    def wait(self) -> Any:
        return self.receiver.wait_until(b"\n", None, None)


class Line(Some):
    def take(self) -> Any:
        return self.receiver.take_line()

    def wait(self) -> Any:
        return self.receiver.wait_line(None)


class Lines(Line):
    def take(self) -> Any:
        return self.receiver.take_lines()

    def raw(self, result: Any) -> bytes:
        return b"".join(result)


def encoded(codec: Any, messages: list[bytes]) -> bytes:
    return b"".join(b"".join(codec.encode(message)) for message in messages)


READINGS: dict[str, Callable[[], Reading]] = {
    "some": lambda: Some(LINES, [5, 300, 2500, 5000]),
    "exactly": lambda: Exactly(LINES[:7000], [100, 900, 3500]),
    "large": lambda: ExactlyLarge(LARGE, [10, 100_000, 150_000, 260_000, 399_999]),
    "until": lambda: Until(LINES, [3, 400, 2500]),
    "line": lambda: Line(LINES, [3, 400, 2500, 2502]),
    "lines": lambda: Lines(LINES, [3, 400, 2500]),
    "message": lambda: Reading(encoded(PREFIXED, SMALL_FRAMES), [2, 5, 700, 3000], PREFIXED, "take"),
    "messages": lambda: Reading(encoded(PREFIXED, SMALL_FRAMES), [2, 5, 700, 3000], PREFIXED, "take_all"),
    "separated": lambda: Reading(encoded(CRLF, SMALL_FRAMES), [2, 5, 700, 3000], CRLF, "take"),
    "separated batch": lambda: Reading(encoded(CRLF, SMALL_FRAMES), [2, 5, 700, 3000], CRLF, "take_all"),
    "large message": lambda: Reading(
        encoded(PREFIXED, LARGE_FRAMES), [3, 50_000, 100_100, 150_000, 190_003, 300_000], PREFIXED, "take"
    ),
    "large messages": lambda: Reading(
        encoded(PREFIXED, LARGE_FRAMES), [3, 50_000, 100_100, 150_000, 190_003, 300_000], PREFIXED, "take_all"
    ),
}


async def receive_starved(reading: Reading, reader: Starved, loop: Starved) -> None:
    """Receive a stream to its end, with a reader and a loop of which one meets the failing allocation."""
    protocol = StreamProtocol(
        NetworkConfig("127.0.0.1", 1, buffers=BufferLimits(receive_high=2000, receive_low=100), timeout=None)
    )
    wire = Wire()
    wire.connect(protocol)
    reading.open(protocol)
    taken = bytearray()

    async def read() -> None:
        while True:
            try:
                result = reader(reading.take)
                if result is None or result is WAIT:
                    await reader(reading.wait)
                    continue
            except MemoryError:
                continue
            except IncompleteReadError as error:
                taken.extend(error.partial)
                if not error.partial:
                    return
                continue
            if not result or result is END:
                return
            taken.extend(reading.raw(result))

    task = asyncio.create_task(read())
    await turns(1)
    for piece in reading.pieces:
        while piece and not wire.aborted:
            if wire.paused:
                await turns(1)
                assert not wire.paused, "nobody resumes"
            buffer = memoryview(protocol.get_buffer(-1))
            n = min(len(buffer), len(piece))
            buffer[:n] = piece[:n]
            buffer.release()
            piece = piece[n:]
            loop(protocol.buffer_updated, n)
            await turns(2)
    if not wire.aborted:
        protocol.eof_received()
    await turns()
    assert task.done(), "a task waits for ever"
    lost = protocol.state == "lost"
    error = task.exception()
    assert isinstance(error, NetworkError) if lost else error is None, error
    assert bytes(taken) == reading.stream[: len(taken)]
    if not lost:
        assert len(taken) == len(reading.stream)
    protocol.abort()
    await turns(2)


@pytest.mark.slow
@pytest.mark.parametrize("name", READINGS)
async def test_received_bytes_are_neither_lost_nor_moved_and_no_reader_waits_for_ever(name: str) -> None:
    first = list(READINGS).index(name) % STEP
    for call in range(0, 8, by_tier(2, nightly=1)):
        for number in range(first, MOST, STEP):
            await receive_starved(READINGS[name](), Starved(call, number), Starved(-1, 0))
            await receive_starved(READINGS[name](), Starved(-1, 0), Starved(call, number))


async def stopped_while_loading(starved: Starved) -> None:
    """A take of a large message ends with SystemExit when it loads it: the message is put back, or cannot be."""
    protocol = StreamProtocol(NetworkConfig("127.0.0.1", 1, timeout=None))
    Wire().connect(protocol)
    reader = FrameReader(framer_of(PREFIXED, EVER), sys.exit)
    stream = encoded(PREFIXED, LARGE_FRAMES[:1]) + b"next"

    async def read() -> bytes:
        first = b""
        try:
            while starved(reader.take, protocol.receiver) is WAIT:
                await reader.wait(protocol.receiver, None, None)
        except DecodeError as error:
            # There was no memory to call sys.exit().
            first = encoded(PREFIXED, [error.content])
        except (SystemExit, MemoryError):
            pass
        return first + b"".join(iter(lambda: protocol.receiver.take(1 << 20), None))

    task = asyncio.create_task(read())
    await turns(1)
    at = 0
    while at < len(stream):
        buffer = memoryview(protocol.get_buffer(-1))
        n = min(len(buffer), len(stream) - at, 40_000)
        buffer[:n] = stream[at : at + n]
        buffer.release()
        at += n
        protocol.buffer_updated(n)
        await turns(1)
    received = await task
    assert received == stream[: len(received)]
    assert len(received) >= len(stream) - len(b"next")
    protocol.abort()
    await turns(2)


async def test_a_message_that_cannot_be_put_back_for_lack_of_memory_still_comes_first() -> None:
    whole = Starved(-1, 0)
    await stopped_while_loading(whole)
    for number in range(MOST):
        await stopped_while_loading(Starved(whole.calls - 1, number))


# ---- Sending ----

SIZES = ([10, 20, 30, 40], [20_000, 10, 20_000, 10], [10, 70_000, 5, 9000])


class Outlet:
    """Where a protocol sends to: a socket that takes little at a time, or a transport in memory."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.protocol = StreamProtocol(
            NetworkConfig("127.0.0.1", 1, buffers=BufferLimits(send_high=1 << 30), timeout=None)
        )
        self.got = bytearray()

    async def open(self) -> None:
        if self.kind == "socket":
            ours, self.peer = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for sock in (ours, self.peer):
                sock.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: self.protocol, sock=ours)
        else:
            self.wire = Wire(stuffed=self.kind == "stuffed")
            self.wire.connect(self.protocol)

    async def settle(self) -> None:
        for _ in range(3):
            while self.protocol.state == "open" and self.protocol.sender.bytes_queued:
                before = self.protocol.sender.bytes_queued, len(self.got)
                await self._read()
                if (self.protocol.sender.bytes_queued, len(self.got)) == before:
                    break
            await self._read()

    async def _read(self) -> None:
        await turns(3)
        if self.kind == "socket":
            with contextlib.suppress(BlockingIOError):
                while data := self.peer.recv(1 << 20):
                    self.got += data
        else:
            self.wire.drain()
            self.got[:] = b"".join(self.wire.written)

    async def close(self) -> None:
        self.protocol.abort()
        await turns(3)
        if self.kind == "socket":
            self.peer.close()


async def send_starved(kind: str, in_parts: bool, sizes: list[int], starved: Starved) -> None:
    """Send messages, of which one call meets the failing allocation, and another one when all is quiet again."""
    outlet = Outlet(kind)
    await outlet.open()
    sender = outlet.protocol.sender
    accepted: list[tuple[bytes, bool]] = []

    def send(message: bytes) -> bool:
        try:
            if in_parts:
                starved(sender.send_many, [message[:7], message[7:-1], message[-1:]])
            else:
                starved(sender.send, message)
        except (MemoryError, NetworkError):
            return False
        return True

    for i, size in enumerate(sizes):
        message = b"%06d:%s\n" % (i, b"x" * size)
        accepted.append((message, send(message)))
    await outlet.settle()
    if outlet.protocol.is_open:
        accepted.append((b"the last\n", send(b"the last\n")))
        assert accepted[-1][1]
        await outlet.settle()
    got = bytes(outlet.got)
    for message, whole in accepted:
        if got.startswith(message):
            got = got[len(message) :]
        elif whole and not outlet.protocol.is_open:
            assert message.startswith(got)
            got = b""
        else:
            # Refused, and so not a byte of it has left; of the last one before the end, some may have.
            assert not whole, "an accepted message has not left"
    assert not got or (not outlet.protocol.is_open and any(message.startswith(got) for message, _ in accepted))
    await outlet.close()


def ignore_lack_of_memory() -> None:
    """A transport reports what it fails of to the loop's exception handler as well.

    A selector of asyncio's that fails in modify() forgets the descriptor, which epoll remembers; so the next connection
    that gets the same number may meet FileNotFoundError.
    """
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    assert handler is not None

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), (MemoryError, FileNotFoundError)):
            handler(loop, context)

    loop.set_exception_handler(handle)


@pytest.mark.slow
@pytest.mark.parametrize("in_parts", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("kind", ["socket", "memory", "stuffed"])
async def test_what_is_sent_has_no_hole_and_no_torn_message(kind: str, in_parts: bool) -> None:
    ignore_lack_of_memory()
    for sizes in SIZES:
        for call in range(len(sizes)):
            for number in range(call % STEP, MOST, STEP):
                await send_starved(kind, in_parts, sizes, Starved(call, number))


# ---- Ending ----


class Crowd:
    """A connection on which tasks receive, wait for room, flush and wait for the end."""

    def __init__(self) -> None:
        self.protocol = StreamProtocol(
            NetworkConfig("127.0.0.1", 1, buffers=BufferLimits(send_high=100, send_low=10), timeout=None)
        )
        self.wire = Wire(stuffed=True)
        self.wire.connect(self.protocol)
        sender, receiver = self.protocol.sender, self.protocol.receiver
        sender.send(b"x" * 200)

        async def receive() -> None:
            while receiver.take(100) is None:
                await receiver.wait(None)

        async def send() -> None:
            waiter = None
            while not sender.send(b"y"):
                waiter = sender.wait(None, waiter)
                await waiter

        async def flush() -> None:
            while (waiter := sender.start_flush(None)) is not None:
                await waiter

        self.tasks = [asyncio.create_task(task()) for task in (receive, send, send, flush, flush)]

    async def settle(self) -> None:
        for _ in range(10):
            await turns(2)
            self.wire.drain()


ENDS: dict[str, Callable[[Crowd], Any]] = {
    "data": lambda crowd: crowd.protocol.buffer_updated(memoryview(crowd.protocol.get_buffer(-1)).nbytes),
    "the peer's end": lambda crowd: crowd.protocol.eof_received(),
    "loss": lambda crowd: crowd.protocol.connection_lost(OSError("gone")),
    "a heartbeat": lambda crowd: crowd.protocol.lose(OSError("silent")),
    "close": lambda crowd: crowd.protocol.close(),
    "abort": lambda crowd: crowd.protocol.abort(),
    "room": lambda crowd: crowd.wire.drain(),
}


@pytest.mark.parametrize("name", ENDS)
async def test_nobody_waits_for_ever_when_an_allocation_fails_at(name: str) -> None:
    for number in range(0, MOST, by_tier(2, nightly=1)):
        crowd = Crowd()
        await turns(2)
        with contextlib.suppress(MemoryError):
            Starved(0, number)(ENDS[name], crowd)
        await crowd.settle()
        if name != "abort" and not crowd.wire.aborted:
            # Those who receive may wait on; nobody else, as the peer takes all.
            assert all(task.done() for task in crowd.tasks[1:]), f"allocation {number}"
            crowd.protocol.abort()
            await crowd.settle()
        assert all(task.done() for task in crowd.tasks), f"allocation {number}"
        for task in crowd.tasks:
            assert task.exception() is None or isinstance(task.exception(), NetworkError)
