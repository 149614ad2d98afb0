"""Lengths that a peer only claims, messages that never end, and bytes that are no message."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from support.cancelling import arrived
from support.memory import held_in_large_blocks
from support.servers import peer_and_client

from pepperpy.network import (
    COBS,
    SLIP,
    BufferLimits,
    Codec,
    Delimited,
    Fixed,
    IncompleteReadError,
    JSONLines,
    LengthPrefixed,
    MessageTooLargeError,
    Netstring,
    NetworkClient,
    NetworkTimeoutError,
    ProtocolError,
)

MAX = 1000
# The borders of what a length can be, and of the integers that it could be computed with.
LENGTHS = [
    *(0, 1, MAX - 1, MAX, MAX + 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFF),
    *(2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1),
]


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])


def headers() -> list[tuple[Codec[bytes], bytes, int]]:
    """Each codec with a length field, each length that it can hold, with what adjusts it."""
    cases: list[tuple[Codec[bytes], bytes, int]] = []
    for adjust in (0, -4, 4, -(2**28), 2**28):
        for length in LENGTHS:
            for size in (1, 2, 3, 4, 8):
                for order in ("big", "little") if not adjust else ("big",):
                    if length < 1 << 8 * size:
                        codec = LengthPrefixed(size, byteorder=order, adjust=adjust, max_size=MAX)  # type: ignore[arg-type]
                        cases.append((codec, length.to_bytes(size, order), length + adjust))  # type: ignore[arg-type]
            cases.append((LengthPrefixed("varint", adjust=adjust, max_size=MAX), varint(length), length + adjust))
    cases += [(Netstring(MAX), b"%d:" % length, length) for length in [*LENGTHS, 2**64, 10**30]]
    return cases


async def refused(client: NetworkClient, codec: Codec[Any], error: type[Exception]) -> Any:
    """Each kind of receive raises it again and again, and none consumes anything."""
    framed = client.framed(codec)
    before = client.stats.bytes_buffered
    for receive in (framed.receive, framed.receive_batch, framed.__anext__, framed.receive):
        with pytest.raises(error) as caught:
            await receive()
    assert client.stats.bytes_buffered == before
    assert client.is_connected
    return caught.value


@pytest.mark.slow
async def test_a_claimed_length_is_checked_before_anything_else() -> None:
    async with peer_and_client() as (peer, client):
        for codec, header, size in headers():
            total = client.stats.bytes_received + len(header)
            await peer.send(header)
            await arrived(client, total)
            if size < 0:
                error = await refused(client, codec, ProtocolError)
                assert str(size) in str(error)
            elif size > MAX:
                error = await refused(client, codec, MessageTooLargeError)
                assert error.details["limit"] == MAX
                assert "1000 bytes" in str(error)
                if isinstance(codec, LengthPrefixed):
                    assert error.details["size"] == size
                    assert f"message of {size} bytes" in str(error)
            else:
                await peer.send(b"x" * size + b"," * isinstance(codec, Netstring))
                assert await client.framed(codec).receive() == b"x" * size
                continue
            assert await client.receive_exactly(len(header)) == header


async def test_no_memory_is_given_to_what_has_not_arrived() -> None:
    claimed = 200 << 20
    for codec, header in (
        (LengthPrefixed(max_size=claimed), claimed.to_bytes(4, "big")),
        (LengthPrefixed("varint", max_size=claimed), varint(claimed)),
        (Netstring(claimed), b"%d:" % claimed),
    ):
        async with peer_and_client() as (peer, client):
            framed = client.framed(codec)
            tracemalloc.start()
            try:
                receiving = asyncio.create_task(framed.receive())
                await peer.send(header + b"x")
                await arrived(client, len(header) + 1)
                assert held_in_large_blocks() < 64 << 10
                # Nor was it given for a moment. asyncio's debug mode reads sources of up to 75 KB for its tracebacks.
                assert tracemalloc.get_traced_memory()[1] < 1 << 20
                for _ in range(4):
                    await peer.send(bytes(1 << 20))
                await arrived(client, len(header) + (4 << 20))
                # What has come, as much again while it is being copied, and the doubling of the buffer.
                assert tracemalloc.get_traced_memory()[1] < 16 << 20
            finally:
                tracemalloc.stop()
                receiving.cancel()


@pytest.mark.parametrize(
    "codec", [SLIP(MAX), COBS(MAX), Delimited(max_size=MAX), Delimited((b";", b"END"), max_size=MAX)]
)
async def test_a_message_that_never_ends_is_refused_at_the_limit_and_not_before(codec: Codec[bytes]) -> None:
    async with peer_and_client() as (peer, client):
        wire = b"".join(codec.encode(b"x" * MAX))
        await peer.send(wire)
        framed = client.framed(codec)
        assert await framed.receive() == b"x" * MAX
        receiving = asyncio.create_task(framed.receive())
        longer = {"SLIP": b"x" * (2 * MAX + 1), "COBS": b"\x01" * (MAX + MAX // 254 + 2)}.get(type(codec).__name__)
        await peer.send(longer or b"x" * (MAX + 3))
        with pytest.raises(MessageTooLargeError, match="1000 bytes"):
            await receiving
        await refused(client, codec, MessageTooLargeError)


@pytest.mark.parametrize(
    ("codec", "wire"),
    [
        (SLIP(MAX), b"\xdb\xdc" * (MAX + 1) + b"\xc0"),
        (COBS(MAX), b"\x01" * (MAX + 2) + b"\0"),
        (Delimited(max_size=MAX), b"x" * (MAX + 1) + b"\n"),
        (Delimited((b";", b"END"), max_size=MAX), b"x" * (MAX + 1) + b"END"),
        (JSONLines(max_size=MAX), b" " * (MAX + 1) + b"\n"),
        (LengthPrefixed(2, offset=3, max_size=MAX), b"abc" + (MAX - 2).to_bytes(2, "big") + b"x" * MAX),
    ],
)
async def test_a_whole_message_one_byte_beyond_the_limit_is_refused(codec: Codec[Any], wire: bytes) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(wire)
        await arrived(client, len(wire))
        error = await refused(client, codec, MessageTooLargeError)
        assert error.details["limit"] == MAX
        assert await client.receive_exactly(len(wire)) == wire


async def test_the_limit_is_the_configured_one_where_the_codec_has_none() -> None:
    async with peer_and_client(max_message_size=10) as (peer, client):
        await peer.send(b"\0\0\0\x0a0123456789\0\0\0\x0b")
        framed = client.framed(LengthPrefixed())
        assert await framed.receive() == b"0123456789"
        with pytest.raises(MessageTooLargeError, match="message of 11 bytes exceeds the limit of 10 bytes"):
            await framed.receive()
        receiving = asyncio.create_task(client.framed(LengthPrefixed(max_size=11)).receive())
        await peer.send(b"0123456789a")
        assert await receiving == b"0123456789a"
        # Its own size is no limit of the peer's.
        await peer.send(b"x" * 20)
        assert await client.framed(Fixed(20)).receive() == b"x" * 20


MALFORMED: list[tuple[Codec[Any], bytes, str]] = [
    (LengthPrefixed("varint"), b"\x80" * 10 + b"\0", "varint"),
    (LengthPrefixed("varint"), b"\x80" * 9 + b"\x02", "varint"),
    (LengthPrefixed("varint"), b"\xff" * 20, "varint"),
    (LengthPrefixed(2, adjust=-2), b"\0\1abc", "length field of 1 with adjust=-2 leaves -1"),
    (Netstring(), b":", "colon"),
    (Netstring(), b"x", "colon"),
    (Netstring(), b"-1:,", "colon"),
    (Netstring(), b" 1:a,", "colon"),
    (Netstring(), b"3;abc,", "colon"),
    (Netstring(), b"03:abc,", "leading zero"),
    (Netstring(), b"00:,", "leading zero"),
    (Netstring(), b"3:abc;", "comma"),
    (Netstring(), b"3:abcd,", "comma"),
    (SLIP(), b"a\xdbb\xc0", "escape"),
    (SLIP(), b"a\xdb\xc0", "escape"),
    (SLIP(), b"\xdb\xdb\xdc\xc0", "escape"),
    (COBS(), b"\x03a\0", "longer than its frame"),
    (COBS(), b"\xff\0", "longer than its frame"),
    (COBS(), b"\x02a\x02\0", "longer than its frame"),
]


@pytest.mark.parametrize(("codec", "wire", "words"), MALFORMED)
async def test_malformed_bytes_are_the_same_error_each_time_however_they_come(
    codec: Codec[Any], wire: bytes, words: str
) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(wire)
        await arrived(client, len(wire))
        error = await refused(client, codec, ProtocolError)
        assert words in str(error)
        assert error.details["phase"] == "receive"
        assert await client.receive_exactly(len(wire)) == wire
        receiving = asyncio.create_task(client.framed(codec).receive())
        for number in range(len(wire)):
            await peer.send(wire[number : number + 1])
            await arrived(client, len(wire) + number + 1)
        with pytest.raises(ProtocolError, match=words):
            await receiving
        assert await client.receive_exactly(len(wire)) == wire


async def test_a_batch_ends_before_what_cannot_be_read() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(Netstring(9))
        await peer.send(b"1:a,1:b,x")
        await arrived(client, 9)
        assert await framed.receive_batch() == [b"a", b"b"]
        with pytest.raises(ProtocolError):
            await framed.receive_batch()
        assert await client.receive(1) == b"x"
        await peer.send(b"1:c,10:")
        await arrived(client, 16)
        assert await framed.receive_batch() == [b"c"]
        with pytest.raises(MessageTooLargeError):
            await framed.receive_batch()


async def test_a_malformed_frame_can_be_taken_away_by_hand_and_reading_goes_on() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(COBS())
        await peer.send(b"\xffbad\0\x03ok\0")
        with pytest.raises(ProtocolError):
            await framed.receive()
        assert await client.receive_until(b"\0") == b"\xffbad\0"
        assert await framed.receive() == b"ok"


@pytest.mark.parametrize(
    ("codec", "wire"),
    [
        (LengthPrefixed(), b"\0\0\0\3ab"),
        (LengthPrefixed(), b"\0"),
        (LengthPrefixed(), (300_000).to_bytes(4, "big") + b"x" * 290_000),
        (LengthPrefixed("varint"), b"\x80"),
        (Delimited((b"\n", b"\r\n")), b"unfinished\r"),
        (Fixed(5), b"four"),
        (Netstring(), b"3:abc"),
        (SLIP(), b"a\xdb"),
        (COBS(), b"\x02a"),
        (JSONLines(), b"12"),
    ],
)
async def test_a_stream_that_ends_inside_a_message_hands_over_its_part_once(codec: Codec[Any], wire: bytes) -> None:
    for method in ("receive", "receive_batch", "__anext__"):
        async with peer_and_client() as (peer, client):
            framed = client.framed(codec)
            receiving = asyncio.create_task(getattr(framed, method)())
            await peer.send(wire)
            peer.send_eof()
            with pytest.raises(IncompleteReadError, match="before the end of a message") as caught:
                await receiving
            assert caught.value.partial == wire
            assert caught.value.details["received"] == len(wire)
            assert await framed.receive() is None


async def test_a_message_beyond_the_high_water_mark_is_received() -> None:
    async with peer_and_client(buffers=BufferLimits(receive_high=1000, receive_low=10)) as (peer, client):
        for codec in (
            LengthPrefixed(),
            Delimited(),
            Delimited((b"\n", b"\r\n")),
            Netstring(),
            SLIP(),
            COBS(),
            JSONLines(),
        ):
            message: Any = b"x" * 3_000_000 if not isinstance(codec, JSONLines) else "x" * 3_000_000
            # Reading has paused before anybody asks.
            sending = asyncio.create_task(peer.send(b"".join(codec.encode(message)) * 2))  # type: ignore[arg-type]
            with pytest.raises(NetworkTimeoutError):
                await client.receive_exactly(20_000_000, timeout=0.02)
            framed = client.framed(codec)
            assert await framed.receive() == message
            assert await framed.receive_batch() == [message]
            await sending
            assert client.stats.bytes_buffered == 0
