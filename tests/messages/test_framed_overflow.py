"""Messages that are too large and are discarded: `framed(codec, on_overflow="discard")`."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from support.cancelling import arrived
from support.servers import client_of, peer_and_client

from pepperpy.network import (
    COBS,
    SLIP,
    Codec,
    Delimited,
    Framed,
    JSONLines,
    LengthPrefixed,
    Mapped,
    Netstring,
    NetworkTimeoutError,
    ProtocolError,
)

MAX = 12
ANY_NEWLINE = (b"\r\n", b"\r", b"\n")

# Each with what its frames are made by, which knows no limit.
CODECS: dict[str, tuple[Codec[Any], Codec[Any]]] = {
    "length": (LengthPrefixed(max_size=MAX), LengthPrefixed()),
    "varint, offset": (LengthPrefixed("varint", offset=2, max_size=MAX), LengthPrefixed("varint", offset=2)),
    "line": (Delimited(max_size=MAX), Delimited()),
    "long separator": (Delimited(b"\r\n.\r\n", max_size=MAX), Delimited(b"\r\n.\r\n")),
    "two separators": (Delimited((b";", b"END"), max_size=MAX), Delimited((b"END", b";"))),
    "any newline, LF": (Delimited(ANY_NEWLINE, max_size=MAX), Delimited(b"\n")),
    "any newline, CR": (Delimited(ANY_NEWLINE, max_size=MAX), Delimited(b"\r")),
    "any newline, CR LF": (Delimited(ANY_NEWLINE, max_size=MAX), Delimited(b"\r\n")),
    "netstring": (Netstring(MAX), Netstring()),
    "slip": (SLIP(MAX), SLIP()),
    "cobs": (COBS(MAX), COBS()),
    "json": (JSONLines(max_size=MAX), JSONLines()),
    "mapped": (Mapped(LengthPrefixed(max_size=MAX), bytes, bytes), LengthPrefixed()),
}


def messages_of(name: str) -> list[Any]:
    sizes = [5, MAX + 1, 7, 8, 3 * MAX, MAX - 3, 6 * MAX, 2 * MAX, 6]
    if name == "json":
        return ["x" * size for size in sizes]
    return [b"abcdefghij" * (size // 10) + b"x" * (size % 10) for size in sizes]


def wire_of(codec: Codec[Any], messages: Iterable[Any]) -> bytes:
    frames = [codec.encode(message) for message in messages]
    return b"".join(frame if isinstance(frame, bytes) else b"".join(frame) for frame in frames)  # type: ignore[arg-type]


async def all_of(framed: Framed[Any], method: str) -> list[Any]:
    received: list[Any] = []
    if method == "one":
        return [message async for message in framed]
    while batch := await framed.receive_batch():
        received += batch
    return received


@pytest.mark.parametrize("method", ["one", "batch"])
@pytest.mark.parametrize("piece", [1, 5, 5000])
@pytest.mark.parametrize("name", CODECS)
async def test_what_is_too_large_is_left_out_and_counted_however_it_comes(name: str, piece: int, method: str) -> None:
    codec, sender = CODECS[name]
    messages = messages_of(name)
    wire = wire_of(sender, messages)
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec, on_overflow="discard")
        receiving = asyncio.create_task(all_of(framed, method))
        for start in range(0, len(wire), piece):
            await peer.send(wire[start : start + piece])
            await arrived(client, min(start + piece, len(wire)))
        peer.send_eof()
        assert await receiving == [message for message in messages if len(message) < MAX]
        assert framed.discarded == 4
        assert client.stats.bytes_buffered == 0


@pytest.mark.parametrize("name", CODECS)
async def test_the_end_of_the_stream_in_the_middle_of_it_is_a_clean_one(name: str) -> None:
    codec, sender = CODECS[name]
    messages = messages_of(name)
    wire = wire_of(sender, [messages[0], messages[6]])
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec, on_overflow="discard")
        await peer.send(wire[:-20])
        assert await framed.receive() == messages[0]
        peer.send_eof()
        for _ in range(2):
            assert await framed.receive() is None
            assert await framed.receive_batch() == []
        assert framed.discarded == 1
        assert client.stats.bytes_buffered == 0


async def test_a_receive_that_gives_up_goes_on_with_the_discarding_later() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(LengthPrefixed(max_size=MAX), on_overflow="discard")
        wire = wire_of(LengthPrefixed(), [bytes(1000), b"next"])
        await peer.send(wire[:500])
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        task = asyncio.create_task(framed.receive())
        await peer.send(wire[500:600])
        await arrived(client, 600)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.send(wire[600:])
        assert await framed.receive() == b"next"
        assert framed.discarded == 1


async def test_what_other_receives_take_of_it_is_theirs() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(Delimited(max_size=MAX), on_overflow="discard")
        await peer.send(b"x" * 300)
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        await peer.send(b"end of it\nnext\nlast\n")
        assert await client.receive_line() == b"end of it\n"
        assert await framed.receive() == b"next"
        assert await client.receive_line() == b"last\n"


async def test_memory_is_given_to_none_of_it() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(Delimited(max_size=MAX), on_overflow="discard")
        receiving = asyncio.create_task(framed.receive())
        piece = b"x" * 50_000
        await peer.send(piece)
        await arrived(client, len(piece))
        tracemalloc.start()
        try:
            for number in range(2, 40):
                await peer.send(piece)
                await arrived(client, number * len(piece))
                assert client.stats.bytes_buffered == 0
            assert tracemalloc.get_traced_memory()[0] < 300_000
        finally:
            tracemalloc.stop()
        await peer.send(b"\nnext\n")
        assert await receiving == b"next"


async def test_a_netstring_whose_length_is_no_number_is_malformed_all_the_same() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(Netstring(MAX), on_overflow="discard")
        await peer.send(b"9" * 25)
        with pytest.raises(ProtocolError, match="colon"):
            await framed.receive()
        assert await client.receive(25) == b"9" * 25
        await peer.send(b"999x")
        with pytest.raises(ProtocolError, match="colon"):
            await framed.receive()
        assert framed.discarded == 0


def test_a_setting_that_cannot_be_used_is_named() -> None:
    class Own:
        def encode(self, message: bytes) -> bytes:
            return message

        def decode(self, data: bytes, start: int) -> None:
            return None

    client = client_of(1)
    with pytest.raises(ValueError, match='on_overflow must be "raise" or "discard", not \'drop\''):
        client.framed(Delimited(), on_overflow="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"your own returns \(NO_MESSAGE, end\)"):
        client.framed(Own(), on_overflow="discard")
    assert client.framed(Own()).discarded == 0
