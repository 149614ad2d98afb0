"""Each allocation of each receive fails once: no byte is lost or repeated, no task waits for ever."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, MOST, STEP, Starved, Wire, turns
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
from pepperpy.network._core.receiver import Skip
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.messages.frame_codec import framer_of

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))

EVER = 10_000_000


LINES = b"".join(b"%05d-%s\n" % (i, b"x" * (i * 37 % 300)) for i in range(60))
LARGE = b"".join(b"%08d\n" % i for i in range(45_000))
PREFIXED = LengthPrefixed(4)
CRLF = Delimited(b"\r\n")
SMALL_FRAMES = [b"%05d" % i + b"y" * (i * 53 % 600) for i in range(40)]
PAIRS = LengthPrefixed(4, offset=1, adjust=2, header=3)
SMALL_PAIRS = [(b"abc", frame) for frame in SMALL_FRAMES]
LARGE_PAIRS = [(b"abc", bytes([65 + i]) * (190_000 + i)) for i in range(3)]
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


class UntilOneOf(Some):
    def take(self) -> Any:
        return self.receiver.take_until((b"\r\n", b"\n", b"xx5"))

    def wait(self) -> Any:
        return self.receiver.wait_until((b"\r\n", b"\n", b"xx5"), None, None)


class Skipped(Some):
    def open(self, protocol: StreamProtocol) -> None:
        super().open(protocol)
        self._skip, self._at = Skip(b"\n"), 0

    def take(self) -> Any:
        return self.receiver.take_skipped(self._skip)

    def wait(self) -> Any:
        return self.receiver.wait_skipped(self._skip, None)

    def raw(self, result: Any) -> bytes:
        # What is dropped counts as taken.
        self._skip, at = Skip(b"\n"), self._at
        self._at += result
        return self.stream[at : self._at]


class Peeked(Some):
    def take(self) -> Any:
        seen = self.receiver.peek(900)
        return self.receiver.take(1000) if seen else seen

    def wait(self) -> Any:
        return self.receiver.wait_peek(900, None)


class PutBack(Some):
    """Keeps 300 bytes of what comes, and puts back the others; all of them where there is no memory."""

    def take(self) -> Any:
        data = self.receiver.take(1000)
        try:
            if data is None or len(data) < 600:
                return data
            first, rest = data[:300], data[300:]
            self.receiver.put_back(rest)
        except MemoryError:
            return data
        return first


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


def encoded(codec: Any, messages: list[Any]) -> bytes:
    return b"".join(b"".join(codec.encode(message)) for message in messages)


READINGS: dict[str, Callable[[], Reading]] = {
    "some": lambda: Some(LINES, [5, 300, 2500, 5000]),
    "exactly": lambda: Exactly(LINES[:7000], [100, 900, 3500]),
    "large": lambda: ExactlyLarge(LARGE, [10, 100_000, 150_000, 260_000, 399_999]),
    "until": lambda: Until(LINES, [3, 400, 2500]),
    "until one of": lambda: UntilOneOf(LINES, [3, 400, 2500]),
    "skipped": lambda: Skipped(LINES, [3, 400, 2500]),
    "peeked": lambda: Peeked(LINES, [3, 400, 2500]),
    "put back": lambda: PutBack(LINES, [3, 400, 2500]),
    "line": lambda: Line(LINES, [3, 400, 2500, 2502]),
    "lines": lambda: Lines(LINES, [3, 400, 2500]),
    "message": lambda: Reading(encoded(PREFIXED, SMALL_FRAMES), [2, 5, 700, 3000], PREFIXED, "take"),
    "messages": lambda: Reading(encoded(PREFIXED, SMALL_FRAMES), [2, 5, 700, 3000], PREFIXED, "take_all"),
    "pair": lambda: Reading(encoded(PAIRS, SMALL_PAIRS), [2, 5, 700, 3000], PAIRS, "take"),
    "pairs": lambda: Reading(encoded(PAIRS, SMALL_PAIRS), [2, 5, 700, 3000], PAIRS, "take_all"),
    "large pair": lambda: Reading(encoded(PAIRS, LARGE_PAIRS), [3, 50_000, 190_003, 300_000], PAIRS, "take"),
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
