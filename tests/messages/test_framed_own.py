"""Codecs of a user's own that do more than find whole messages: bytes that are none, and decoders that keep state."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from support.cancelling import arrived
from support.limits import longer_and_longer
from support.servers import peer_and_client

from pepperpy.network import (
    NO_MESSAGE,
    DecodeError,
    IncompleteReadError,
    Mapped,
    MessageTooLargeError,
    NetworkTimeoutError,
    ProtocolError,
)


class Stomp:
    """Frames that end with a NUL, and newlines between them that say that the sender is alive."""

    def __init__(self, consumes: bool) -> None:
        self.consumes = consumes  # the newlines, or waits for the frame behind them

    def encode(self, message: bytes) -> bytes:
        return message + b"\0"

    def decode(self, data: bytes, start: int) -> Any:
        at = start
        while at < len(data) and data[at] in b"\r\n":
            at += 1
        if self.consumes and at > start:
            return NO_MESSAGE, at
        end = data.find(b"\0", at)
        return None if end < 0 else (data[at:end], end + 1)


@pytest.mark.parametrize("piece", [1, 2, 100])
@pytest.mark.parametrize("consumes", [True, False])
async def test_newlines_between_messages_are_none_and_the_end_behind_them_is_clean(consumes: bool, piece: int) -> None:
    wire = b"\n\r\nCONNECTED\0\nMESSAGE\n\nhello\0\0\n\r\n"
    messages = [b"CONNECTED", b"MESSAGE\n\nhello", b""]
    for method in ("one", "batch"):
        async with peer_and_client() as (peer, client):
            framed = client.framed(Stomp(consumes))
            received: list[bytes] = []

            async def read(framed: Any = framed, received: list[bytes] = received, method: str = method) -> None:
                if method == "one":
                    received += [message async for message in framed]
                while batch := await framed.receive_batch():
                    received += batch

            reading = asyncio.create_task(read())
            for start in range(0, len(wire), piece):
                await peer.send(wire[start : start + piece])
                await arrived(client, min(start + piece, len(wire)))
            if consumes:
                assert client.stats.bytes_buffered == 0
            peer.send_eof()
            await reading
            assert received == messages
            assert client.stats.bytes_buffered == 0
            assert client.at_eof and not client.is_connected


@pytest.mark.parametrize(("rest", "answer"), [(b"\n\n", 3), (b"\n \n", None), (b"\nM", None)])
async def test_line_ends_are_a_part_of_a_message_where_the_codec_knows_or_something_else_is_among_them(
    rest: bytes, answer: int | None
) -> None:
    class Knows(Stomp):
        def decode(self, data: bytes, start: int) -> Any:
            return answer and answer + 1

    async with peer_and_client() as (peer, client):
        await peer.send(rest)
        peer.send_eof()
        with pytest.raises(IncompleteReadError) as caught:
            await client.framed(Knows(False)).receive()
        assert caught.value.partial == rest


class Blocks:
    """One byte of size, then the block; one of more than 9 bytes is none of ours."""

    def encode(self, message: bytes) -> bytes:
        return bytes([len(message)]) + message

    def decode(self, data: bytes, start: int) -> Any:
        end = start + 1 + data[start]
        if data[start] > 9:
            return NO_MESSAGE, end
        return (data[start + 1 : end], end) if end <= len(data) else end - start


@pytest.mark.parametrize("piece", [1, 3, 1000])
async def test_bytes_that_are_no_message_may_be_still_to_come(piece: int) -> None:
    codec = Blocks()
    wire = b"".join(map(codec.encode, [b"one", bytes(100), b"two", bytes(10), bytes(11), b"", bytes(50)]))[:-3]
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        receiving = asyncio.create_task(anext(framed))
        for start in range(0, len(wire), piece):
            await peer.send(wire[start : start + piece])
            await arrived(client, min(start + piece, len(wire)))
        peer.send_eof()
        assert [await receiving, *[message async for message in framed]] == [b"one", b"two", b""]
        assert client.stats.bytes_buffered == 0


class Concatenated:
    """JSON objects one behind the other: a decoder counts braces outside of strings, and parses once."""

    max_size: int | None = None

    def __init__(self) -> None:
        self.fed: list[bytes] = []  # what decoders got, in order
        self.decoders = 0

    def encode(self, message: object) -> bytes:
        return json.dumps(message).encode()

    def decoder(self) -> Scanner:
        self.decoders += 1
        return Scanner(self)


class Scanner:
    def __init__(self, codec: Concatenated) -> None:
        self.codec = codec
        self.pieces: list[bytes] = []
        self.depth = 0
        self.quoted = self.escaped = False

    def feed(self, data: bytes, start: int) -> Any:
        assert start < len(data)
        self.codec.fed.append(data[start:])
        if not self.pieces and data[start] in b"\r\n ":
            return NO_MESSAGE, start + 1
        for at in range(start, len(data)):
            byte = data[at : at + 1]
            if self.escaped:
                self.escaped = False
            elif self.quoted:
                self.escaped = byte == b"\\"
                self.quoted = byte != b'"'
            elif byte == b'"':
                self.quoted = True
            elif byte in b"{}":
                self.depth += 1 if byte == b"{" else -1
                if not self.depth:
                    self.pieces.append(data[start : at + 1])
                    return json.loads(b"".join(self.pieces)), at + 1
            elif byte == b"!":
                raise LookupError("an exclamation mark")
        self.pieces.append(data[start:])
        return None


VALUES = [{"a": '}{\\"'}, {}, {"b": {"c": "\\\\"}}, {"d": "x" * 40}]


@pytest.mark.parametrize("piece", [1, 4, 1000])
async def test_a_decoder_is_fed_each_byte_once_and_gives_all_messages(piece: int) -> None:
    codec = Concatenated()
    wire = b"\n".join(map(codec.encode, VALUES)) + b"\n"
    for method in ("one", "batch"):
        codec.fed.clear()
        async with peer_and_client() as (peer, client):
            framed = client.framed(codec)
            received: list[Any] = []

            async def read(framed: Any = framed, received: list[Any] = received, method: str = method) -> None:
                while len(received) < len(VALUES):
                    received += [await framed.receive()] if method == "one" else await framed.receive_batch()

            reading = asyncio.create_task(read())
            for start in range(0, len(wire), piece):
                await peer.send(wire[start : start + piece])
                await arrived(client, min(start + piece, len(wire)))
            await reading
            assert received == VALUES
            if piece == 1:
                assert b"".join(codec.fed).strip() == wire.strip()
            peer.send_eof()
            assert await framed.receive() is None
            assert client.stats.bytes_buffered == 0


async def test_a_decoder_loses_nothing_to_cancellation_timeouts_and_other_receives() -> None:
    codec = Concatenated()
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(b'xy{"a"')
        assert await client.receive(1) == b"x"
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        assert client.stats.bytes_buffered == 5
        # What has been fed is not fed again, and what somebody else takes is known to no decoder.
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        assert codec.fed == [b'y{"a"'] and codec.decoders == 1
        assert await client.receive(1) == b"y"
        task = asyncio.create_task(framed.receive())
        await asyncio.sleep(0)
        assert codec.fed[1:] == [b'{"a"'] and codec.decoders == 2
        await peer.send(b": 1")
        await arrived(client, 9)
        assert codec.fed[2:] == [b": 1"] and codec.decoders == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(NetworkTimeoutError):
            await client.receive_until(b"none", timeout=0.02)
        await peer.send(b"}")
        await arrived(client, 10)
        assert await framed.receive() == {"a": 1}
        assert codec.fed[-1] == b'{"a": 1}'


async def test_what_a_decoder_does_wrong_consumes_nothing() -> None:
    codec = Concatenated()
    codec.max_size = 20
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(b'{"a": ')
        await arrived(client, 6)
        task = asyncio.create_task(framed.receive())
        await asyncio.sleep(0)
        await peer.send(b"!")
        for _ in range(2):
            with pytest.raises(ProtocolError, match=r"feed.. of the codec: LookupError: an exclamation mark") as caught:
                await task
            assert isinstance(caught.value.__cause__, LookupError)
            assert client.stats.bytes_buffered == 7
            task = asyncio.create_task(framed.receive())
        with pytest.raises(ProtocolError):
            await task
        assert await client.receive() == b'{"a": !'
        await peer.send(b"{" * 19)
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        await peer.send(b"{" * 20)
        await arrived(client, 46)
        for _ in range(2):
            with pytest.raises(MessageTooLargeError, match="the limit of 20 bytes"):
                await framed.receive()
        assert await client.receive() == b"{" * 39


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("m", 0), "an end from 1 to 3, not 0"),
        (("m", 4), "from 1 to 3, not 4"),
        (3, "above the 3 bytes"),
        ("m", "not 'm'"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_named(answer: Any, words: str) -> None:
    class Wrong:
        def encode(self, message: bytes) -> bytes:
            return message

        def decoder(self) -> Any:
            return self

        def feed(self, data: bytes, start: int) -> Any:
            return answer

    async with peer_and_client() as (peer, client):
        await peer.send(b"abc")
        await arrived(client, 3)
        with pytest.raises(TypeError, match=rf"feed.. must return .*{words}"):
            await client.framed(Wrong()).receive()
        assert client.stats.bytes_buffered == 3


async def test_a_message_may_turn_out_to_have_ended_before_what_came_last() -> None:
    class Numbers:
        """Digits, which end in front of the first byte that is none."""

        def encode(self, message: int) -> bytes:
            return b"%d" % message

        def decoder(self) -> Any:
            return Digits()

    class Digits:
        def __init__(self) -> None:
            self.digits = b""

        def feed(self, data: bytes, start: int) -> Any:
            if not self.digits and data[start] in b" ":
                return NO_MESSAGE, start + 1
            for at in range(start, len(data)):
                if data[at] not in b"0123456789":
                    return int(self.digits + data[start:at]), at
            self.digits += data[start:]
            return None

    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.framed(Numbers()).receive())
        for number, byte in enumerate(b"12 ", 1):
            await peer.send(bytes([byte]))
            await arrived(client, number)
        assert await task == 12
        assert await client.receive() == b" "


async def test_values_may_be_put_into_the_frames_of_such_a_codec() -> None:
    codec = Mapped(Concatenated(), bytes, lambda value: value["a"])  # type: ignore[arg-type, index]
    assert codec.decode(b'.{"a":1}', 1) == (1, 8)
    assert codec.decode(b"\n", 0) == (NO_MESSAGE, 1)
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(b'\n{"a":1}\n{"b":2}{"a":3}')
        assert await framed.receive() == 1
        with pytest.raises(DecodeError, match="KeyError: 'a'") as caught:
            await framed.receive()
        assert caught.value.content == {"b": 2}
        assert await framed.receive_batch() == [3]


async def test_a_codec_that_knows_nothing_of_a_long_message_is_asked_a_few_times_only() -> None:
    class Slow:
        """Knows that a message is whole only when its last byte is there, and takes its time."""

        cost = 0.0  # seconds
        asked = 0

        def encode(self, message: bytes) -> bytes:
            return message

        def decode(self, data: bytes, start: int) -> Any:
            self.asked += 1
            time.sleep(self.cost * (len(data) > 100_000))
            return (data[start:], len(data)) if data.endswith(b"!") else None

    pieces, size = 200, 5000
    for cost in longer_and_longer(0.002):
        codec = Slow()
        codec.cost = cost
        async with peer_and_client() as (peer, client):
            task = asyncio.create_task(client.framed(codec).receive())
            for number in range(1, pieces + 1):
                await peer.send(b"x" * size)
                await arrived(client, number * size)
            asked = codec.asked
            # And the end is not waited for in vain, although it is not a quarter of the whole.
            await peer.send(b"!")
            assert len(await task) == pieces * size + 1
        # Where each piece would be asked about: 200 times. Below 64 KiB that is so. A machine that is as slow as the
        # codec may ask more often.
        if asked < 100:
            break


@pytest.mark.slow
async def test_bytes_that_drip_in_behind_many_do_not_keep_the_processor_busy_with_a_codec_that_knows_nothing() -> None:
    class Slow:
        asked = 0

        def encode(self, message: bytes) -> bytes:
            return message

        def decode(self, data: bytes, start: int) -> None:
            self.asked += 1
            time.sleep(0.005)  # what the codec costs

    codec, size = Slow(), 100_000
    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.framed(codec).receive())
        await peer.send(b"x" * size)
        await arrived(client, size)
        before, end = codec.asked, time.monotonic() + 0.4
        while time.monotonic() < end:
            await peer.send(b"x")
            await asyncio.sleep(0.001)  # drips
        # 40 times, if it were asked again whenever an answer's time has passed. A busy machine only asks less often.
        assert codec.asked - before < 20
        task.cancel()


@pytest.mark.slow
async def test_a_message_does_not_wait_longer_the_more_messages_there_were_before_it() -> None:
    class Slow:
        def encode(self, message: bytes) -> bytes:
            return message

        def decode(self, data: bytes, start: int) -> Any:
            time.sleep(0.002)  # what the codec costs
            return (data[start:], len(data)) if data.endswith(b"!") else None

    size, waits = 70_000, []
    async with peer_and_client() as (peer, client):
        framed = client.framed(Slow())
        for number in range(1, 51):
            task = asyncio.create_task(framed.receive())
            await peer.send(b"x" * (size - 1))
            await arrived(client, number * size - 1)
            sent_at = time.monotonic()
            await peer.send(b"!")
            await task
            waits.append(time.monotonic() - sent_at)
    # The 25th would wait 25 times as long as an answer takes.
    assert min(waits[25:]) < 25 * 0.002
