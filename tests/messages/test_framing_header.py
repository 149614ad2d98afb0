"""LengthPrefixed(header=n): messages are pairs (header, payload), as the protocols of databases have them."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cancelling import arrived
from support.framing import encoded, three_ways
from support.servers import peer_and_client

from pepperpy.network import DecodeError, LengthPrefixed, Mapped, MessageTooLargeError, ProtocolError

POSTGRES = LengthPrefixed(4, offset=1, adjust=-4, header=1)
MYSQL = LengthPrefixed(3, byteorder="little", adjust=1, header=1)
KAFKA = LengthPrefixed(4, header=4)  # the number of the request, which the length counts
HTTP2 = LengthPrefixed(3, adjust=6, header=6)
AROUND = LengthPrefixed("varint", offset=2, header=5)
CODECS = {"postgres": POSTGRES, "mysql": MYSQL, "kafka": KAFKA, "http2": HTTP2, "around": AROUND}

Pair = tuple[bytes, bytes]


def pairs(codec: LengthPrefixed[Pair], sizes: list[int]) -> list[Pair]:
    assert codec.header is not None
    return [(bytes(range(65 + n, 65 + n + codec.header)), bytes([n]) * size) for n, size in enumerate(sizes)]


def test_the_frames_are_those_of_the_protocols() -> None:
    assert encoded(POSTGRES, [(b"Q", b"select 1\0")]) == b"Q" + struct.pack(">I", 13) + b"select 1\0"
    assert encoded(MYSQL, [(b"\7", b"abc")]) == b"\3\0\0\7abc"
    assert encoded(KAFKA, [(b"\0\0\0\1", b"abc")]) == b"\0\0\0\7\0\0\0\1abc"
    assert encoded(HTTP2, [(b"\4\1\0\0\0\0", b"")]) == b"\0\0\0\4\1\0\0\0\0"
    assert encoded(AROUND, [(b"12345", b"abc")]) == b"12" + b"\x06" + b"345abc"


@pytest.mark.parametrize("name", CODECS)
async def test_pairs_come_at_once_byte_by_byte_and_with_a_rest_behind(name: str) -> None:
    codec = CODECS[name]
    messages = pairs(codec, [3, 0, 200])
    await three_ways(codec, encoded(codec, messages), messages, b"\0")


@given(st.sampled_from(sorted(CODECS)), st.lists(st.integers(0, 300), max_size=4), st.binary(max_size=3))
def test_what_encode_makes_decode_takes_apart(name: str, sizes: list[int], front: bytes) -> None:
    codec = CODECS[name]
    messages = pairs(codec, sizes)
    data, at = front + encoded(codec, messages), len(front)
    for message in messages:
        found = codec.decode(data, at)
        assert isinstance(found, tuple)
        assert found[0] == message
        for end in range(at, found[1]):
            needed = codec.decode(data[:end], at)
            assert isinstance(needed, int)
            assert end - at < needed <= found[1] - at
        at = found[1]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("batch", [False, True])
async def test_a_large_payload_is_received_and_sent_as_it_is(name: str, batch: bool) -> None:
    codec = CODECS[name]
    messages = pairs(codec, [400_000, 5, 1_000_000])
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        sending = asyncio.create_task(peer.send(encoded(codec, messages)))
        received: list[Pair] = []
        while len(received) < 3:
            message: Any = await (framed.receive_batch() if batch else framed.receive())
            received += message if batch else [message]
        assert received == messages
        await sending
        listening = asyncio.create_task(peer.receive(len(encoded(codec, messages))))
        await framed.send_many(messages)
        assert await listening == encoded(codec, messages)
        # No piece of a large message is a copy of its payload.
        assert any(piece is messages[0][1] for piece in codec.encode(messages[0]))


async def test_a_large_pair_that_was_cancelled_is_whole_for_the_next_receive() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(MYSQL)
        messages = pairs(MYSQL, [900_000, 3])
        wire = encoded(MYSQL, messages)
        receiving = asyncio.create_task(framed.receive())
        await peer.send(wire[:300_000])
        await arrived(client, 300_000)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        sending = asyncio.create_task(peer.send(wire[300_000:]))
        assert await framed.receive() == messages[0]
        assert await framed.receive() == messages[1]
        await sending


@pytest.mark.parametrize("cut", [4, 5, 40_000, 60_003, 60_004, 60_005])
async def test_a_large_header_may_come_in_pieces_before_a_large_payload(cut: int) -> None:
    codec = LengthPrefixed(4, header=60_000)
    message = (bytes(range(250)) * 240, b"p" * 400_000)
    wire = b"".join(codec.encode(message))
    async with peer_and_client() as (peer, client):
        receiving = asyncio.create_task(client.framed(codec).receive())
        await peer.send(wire[:cut])
        await arrived(client, cut)
        sending = asyncio.create_task(peer.send(wire[cut:]))
        assert await receiving == message
        await sending


async def test_the_limit_counts_header_and_payload() -> None:
    codec = LengthPrefixed(3, adjust=6, header=6, max_size=10)
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec, on_overflow="discard")
        await peer.send(b"\0\0\5abcdefhello" + b"\0\0\4ghijklgood")
        assert await framed.receive() == (b"ghijkl", b"good")
        assert framed.discarded == 1
        await peer.send(b"\0\0\5abcdefhello")
        with pytest.raises(MessageTooLargeError, match="message of 11 bytes"):
            await client.framed(codec).receive()
    with pytest.raises(ValueError, match="message of 11 bytes exceeds max_size=10"):
        codec.encode((b"abcdef", b"hello"))


async def test_a_length_that_leaves_no_room_for_the_header_is_malformed() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"\0\0\0\3abc")
        with pytest.raises(ProtocolError, match="leaves 3 bytes, fewer than the 4 of the header"):
            await client.framed(KAFKA).receive()
        assert await client.receive() == b"\0\0\0\3abc"


async def test_a_value_of_a_pair_that_cannot_be_loaded_shows_its_bytes() -> None:
    frames: Any = MYSQL

    def loads(pair: Any) -> int:
        return int(pair[1])

    codec: Mapped[int] = Mapped(frames, lambda number: (b"\0", b"%d" % number), loads)  # type: ignore[arg-type,return-value]
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(b"\1\0\0\0x" + b"\1\0\0\x007")
        with pytest.raises(DecodeError) as caught:
            await framed.receive()
        assert caught.value.content == b"\0x"
        assert await framed.receive() == 7


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [
        (b"abc", TypeError, r"a pair \(header, payload\), not bytes"),
        ((b"a",), TypeError, r"a pair \(header, payload\), not tuple"),
        ((b"ab", b""), ValueError, "must have header=1 bytes, not 2"),
        ((b"a", "text"), TypeError, "must be bytes, not str"),
        ((b"a", bytes(1 << 24)), ValueError, "size=3 can say"),
    ],
)
def test_a_message_that_is_no_such_pair_is_refused(message: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        MYSQL.encode(message)


@pytest.mark.parametrize(
    ("header", "error"), [(1, ValueError), (65536, ValueError), ("2", TypeError), (True, TypeError)]
)
def test_a_header_that_cannot_be_is_refused(header: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="header must be"):
        LengthPrefixed(4, offset=2, header=header)
