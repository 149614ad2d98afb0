"""What the core's reader makes of any bytes, however they are cut, alone and on a connection: for its fuzzing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pepperpy.network import NetworkConfig, NetworkError
from pepperpy.network._core.http_head import MalformedResponse, ResponseRules
from pepperpy.network._core.http_reader import ResponseReader, TruncatedResponse
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.http.h1.decoding import BadEncoding, Decoder, Truncated
from support.http_spoiled import edited, spoiled
from support.transport_by_hand import TransportByHand

# Answers that found something once, each as its server sent it. A new one is a file here, named after what it found.
CORPUS = sorted((Path(__file__).parent.parent / "core" / "corpus").glob("*.http"))
# The third one has limits that spoiled answers reach.
RULES = (
    ResponseRules(),
    ResponseRules(lenient=False),
    ResponseRules(max_head_size=300, max_field_size=60, max_fields=5, max_interim=1),
)


@dataclass
class Outcome:
    """What came of one stream. Of an error, `error` is its class: its words may differ by what was on hand.

    Attributes:
        used: Bytes of the stream that the reader took for the response.
    """

    error: str = ""
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    reusable: bool = False
    used: int = -1

    def note(self, reader: ResponseReader, error: Exception | None = None) -> None:
        self.error = "" if error is None else type(error).__name__
        if reader.has_head:
            self.status, self.headers = reader.status, tuple(reader.headers.items())
        if error is None:
            self.trailers = tuple(reader.trailers.items())
            self.whole, self.reusable = reader.is_whole, reader.reusable


def alone(pieces: Iterable[bytes], rules: ResponseRules, without_body: bool) -> Outcome:
    """By the reader alone, fed with these pieces; then the stream ends."""
    reader, outcome, data = ResponseReader(rules, without_body), Outcome(), bytearray()
    used = 0
    try:
        for piece in pieces:
            data += piece
            if not reader.has_head:
                used += (step := reader.read_head(bytes(data)))
                del data[:step]
            while reader.has_head and data:
                part, step = reader.read_body(bytes(data))
                outcome.body += part
                used += step
                del data[:step]
                if not step:
                    break
        if not reader.is_whole:
            reader.note_end()
        outcome.used = used
        outcome.note(reader)
    except (MalformedResponse, TruncatedResponse) as error:
        assert str(error)
        outcome.note(reader, error)
    return outcome


async def on_a_connection(
    pieces: Iterable[bytes], rules: ResponseRules, without_body: bool, chance: random.Random
) -> Outcome:
    """By the reader on a connection in memory, whose user takes the body in pieces, or the rest of it at once."""
    protocol = StreamProtocol(NetworkConfig("test", 1))
    transport = TransportByHand(asyncio.get_running_loop(), protocol)
    transport.connect()
    receiver, reader, outcome = protocol.receiver, ResponseReader(rules, without_body), Outcome()

    async def take() -> None:
        while not reader.take_head(receiver):
            await reader.wait(receiver)
        while not reader.is_whole:
            if reader.remaining is not None and chance.random() < 0.3:
                while (rest := reader.take_rest(receiver)) is None:
                    await reader.wait_for_rest(receiver)
                outcome.body += rest
                continue
            most = chance.choice([1, 5, 1 << 20])
            while (piece := reader.take_body(receiver, most)) is None:
                await reader.wait(receiver)
            assert len(piece) <= most
            outcome.body += piece

    taking = asyncio.create_task(take())
    sent = 0
    for piece in pieces:
        await asyncio.sleep(0)
        if not taking.done():
            transport.arrives(piece)
            sent += len(piece)
    await asyncio.sleep(0)
    if not taking.done():
        transport.ends()
    try:
        await taking
        outcome.used = sent - receiver.bytes_buffered - len(transport.inbox)
        outcome.note(reader)
    except (MalformedResponse, TruncatedResponse, NetworkError) as error:
        assert str(error)
        outcome.note(reader, error)
    finally:
        protocol.abort()
        if (closed := protocol.wait_closed()) is not None:
            await closed
    return outcome


def decoded(make: Callable[[], Decoder | None], pieces: Iterable[bytes]) -> tuple[str, bytes]:
    """The name of the error, and what was decoded before it."""
    output = bytearray()
    try:
        decoder = make()
        assert decoder is not None
        for piece in pieces:
            output += decoder.decode(piece)
            while not decoder.wants_input:
                output += decoder.decode(b"")
        decoder.finish()
    except (BadEncoding, Truncated) as error:
        assert str(error)
        return type(error).__name__, bytes(output)
    return "", bytes(output)


def streams(start: int, count: int) -> Iterator[tuple[str, bytes, random.Random]]:
    """Named streams to be judged, and chance for how: spoiled answers of these numbers, some of them of the corpus."""
    seeds = [path.read_bytes() for path in CORPUS]
    for number in range(start, start + count):
        chance = random.Random(number)
        if number % 8 == 0:
            data = chance.choice(seeds)
            for _ in range(chance.randint(1, 4)):
                data = edited(chance, data)
        else:
            data = spoiled(number)[0].sent
        yield f"number {number}", data, chance


def cut(data: bytes, chance: random.Random, most: int = 6) -> list[bytes]:
    """The data in up to so many pieces and one."""
    places = sorted(chance.sample(range(len(data) + 1), min(len(data), chance.randint(1, most))))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
