"""`Framed` as a part of its client: cancellation, timeouts, and other receives in between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.cancelling import Mode, arrived, cancel_now, cancelled_at
from support.framing import encoded
from support.servers import Peer, client_of, echo_server, peer_and_client

from pepperpy.network import (
    COBS,
    SLIP,
    BusyError,
    ClosedError,
    Codec,
    ConnectionLostError,
    Delimited,
    Fixed,
    Framed,
    JSONLines,
    LengthPrefixed,
    Netstring,
    NetworkClient,
    NetworkTimeoutError,
    NotConnectedError,
)


class Upper:
    """A codec of a user's own, on a built-in one."""

    lines = Delimited(b"\r\n")
    max_size = 1000

    def encode(self, message: str) -> bytes:
        return message.lower().encode() + b"\r\n"

    def decode(self, data: bytes, start: int) -> tuple[str, int] | int | None:
        found = self.lines.decode(data, start)
        return (found[0].decode().upper(), found[1]) if isinstance(found, tuple) else found


CODECS: dict[str, tuple[Codec[Any], list[Any]]] = {
    "length": (LengthPrefixed(), [b"one", b"", b"three"]),
    "varint, offset": (LengthPrefixed("varint", offset=1), [b"1one", b"2", b"3" * 20]),
    "crlf": (Delimited(b"\r\n"), [b"one", b"", b"\r"]),
    "two separators": (Delimited((b"\n", b"\r\n")), [b"one", b""]),
    "fixed": (Fixed(3), [b"one", b"two", b"six"]),
    "netstring": (Netstring(), [b"one", b"", b"three"]),
    "slip": (SLIP(), [b"one", b"\xc0\xdb", b"three"]),
    "cobs": (COBS(), [b"one", b"\0\0", b""]),
    "json": (JSONLines(), [{"one": 1}, None, "three"]),
    "own": (Upper(), ["ONE", "", "THREE"]),
}


async def _one(framed: Framed[Any]) -> list[Any]:
    return [await framed.receive()]


async def _next(framed: Framed[Any]) -> list[Any]:
    return [await anext(framed)]


RECEIVES: dict[str, Callable[[Framed[Any]], Coroutine[Any, Any, list[Any]]]] = {
    "receive": _one,
    "receive_batch": lambda framed: framed.receive_batch(),
    "async for": _next,
}


async def rest_of(client: NetworkClient, codec: Codec[Any], wire: bytes, count: int, by: str) -> list[Any]:
    """The messages that have not been received yet, by the same means or as plain bytes."""
    if by == "framed":
        framed, messages = client.framed(codec), []
        while len(messages) < count:
            messages += await framed.receive_batch()
        return messages
    data = await client.receive_exactly(len(wire))
    at, messages = 0, []
    while at < len(data):
        found = codec.decode(data, at)
        assert isinstance(found, tuple)
        message, at = found
        messages.append(message)
    return messages


@pytest.mark.parametrize("name", CODECS)
async def test_a_receive_cancelled_at_any_suspension_has_taken_nothing(name: str) -> None:
    codec, messages = CODECS[name]
    wire, points = encoded(codec, messages), 0
    async with peer_and_client() as (peer, client):

        async def feed() -> None:
            for number in range(len(wire)):
                await peer.send(wire[number : number + 1])
                await asyncio.sleep(0)

        for receive, mode, by in itertools.product(RECEIVES.values(), Mode, ("framed", "bytes")):
            for number in itertools.count(1):
                feeding = asyncio.create_task(feed())
                outcome = await cancelled_at(receive(client.framed(codec)), number, mode)
                taken = [] if outcome.cancelled else outcome.value
                await feeding
                left = encoded(codec, messages[len(taken) :])
                assert taken + await rest_of(client, codec, left, len(messages) - len(taken), by) == messages
                assert client.stats.bytes_buffered == 0
                points += outcome.cancelled
                if not outcome.cancelled:
                    break
    assert points >= len(RECEIVES) * len(Mode) * 2


LARGE = 1 << 20
PIECES = [1, 3, 70_000, 300_000, 300_000, LARGE - 670_000, 1, 1]


@pytest.mark.parametrize("by", ["framed", "bytes", "the same size"])
@pytest.mark.parametrize("mode", Mode)
async def test_a_large_message_cancelled_between_any_two_pieces_has_taken_nothing(mode: Mode, by: str) -> None:
    codec = LengthPrefixed()
    message = bytes(range(256)) * (LARGE // 256)
    wire = encoded(codec, [message, b"next"])
    ends = [*itertools.accumulate(PIECES), len(wire)]
    for point in range(len(ends)):
        async with peer_and_client() as (peer, client):
            framed, sent = client.framed(codec), 0
            task = asyncio.create_task(framed.receive())
            await asyncio.sleep(0)
            for end in ends[:point]:
                await peer.send(wire[sent:end])
                sent = end
                await arrived(client, sent)

            def push(peer: Peer = peer, end: int = ends[point]) -> None:
                nonlocal sent
                sent += peer.sock.send(wire[sent:end])

            if task.done():
                assert await task == message
                wanted = wire[len(message) + 4 :]
            else:
                assert await cancel_now(task, mode, push)
                wanted = wire
            sending = asyncio.create_task(peer.send(wire[sent:]))
            if by == "the same size" and wanted == wire:
                # Exactly as many bytes as the message has, which begin with its header.
                assert await client.receive_exactly(LARGE) == wire[:LARGE]
                wanted = wire[LARGE:]
            if by == "framed":
                received = []
                while len(encoded(codec, received)) < len(wanted):
                    received.append(await framed.receive())
                assert encoded(codec, received) == wanted
            else:
                assert await client.receive_exactly(len(wanted)) == wanted
            await sending
            assert client.stats.bytes_buffered == 0


@pytest.mark.parametrize("following", ["receive", "receive_exactly", "another codec"])
async def test_a_large_message_whose_reader_is_cancelled_in_the_tick_that_completes_it_is_not_taken_for_plain_bytes(
    following: str,
) -> None:
    codec, wire = LengthPrefixed(), encoded(LengthPrefixed(), [bytes(LARGE)])
    async with peer_and_client() as (peer, client):
        # Woken at the half, and when it is whole.
        sending = asyncio.create_task(peer.send(wire))
        outcome = await cancelled_at(client.framed(codec).receive(), 3, Mode.SAME_TICK)
        number = outcome.suspensions
        assert outcome.value == bytes(LARGE)
        await sending
        framed = client.framed(codec)
        sending = asyncio.create_task(peer.send(wire))
        assert (await cancelled_at(framed.receive(), number, Mode.SAME_TICK)).cancelled
        await sending
        if following == "receive":
            assert await framed.receive() == bytes(LARGE)
        elif following == "receive_exactly":
            assert await client.receive_exactly(LARGE) + await client.receive(10) == wire
        else:
            assert await client.framed(Fixed(LARGE)).receive() + await client.receive(10) == wire


@pytest.mark.parametrize("size", [100_000, 131_072, 131_073, 300_000, 2_000_000])
async def test_large_messages_come_whole_and_in_order_among_small_ones(size: int) -> None:
    pattern = bytes(range(251))
    large = (pattern * (size // 251 + 1))[:size]
    messages = [b"a", large, b"", large + b"x", b"b"]
    for codec in (
        LengthPrefixed(),
        LengthPrefixed("varint"),
        LengthPrefixed(4, offset=2, adjust=3),
        Netstring(),
        COBS(),
    ):
        if isinstance(codec, LengthPrefixed) and codec.offset:
            messages = [b"0123456" + message for message in messages]
        async with peer_and_client() as (peer, client):
            framed = client.framed(codec)
            for method in ("one", "batch"):
                sending = asyncio.create_task(peer.send(encoded(codec, messages)))
                received: list[bytes] = []
                while len(received) < len(messages):
                    received += [await anext(framed)] if method == "one" else await framed.receive_batch()
                assert received == messages
                await sending
            assert client.stats.bytes_buffered == 0


async def test_a_batch_begins_with_the_large_message_that_was_waited_for() -> None:
    async with peer_and_client() as (peer, client):
        wire = encoded(LengthPrefixed(), [bytes(LARGE), b"a", b"b"])
        receiving = asyncio.create_task(client.framed(LengthPrefixed()).receive_batch())
        await peer.send(wire[:600_000])
        await arrived(client, 600_000)
        assert client.stats.bytes_buffered == 600_000
        await peer.send(wire[600_000:-1])
        batch = await receiving
        assert batch[0] == bytes(LARGE)
        await peer.send(wire[-1:])
        while len(batch) < 3:
            batch += await client.framed(LengthPrefixed()).receive_batch()
        assert batch[1:] == [b"a", b"b"]


@pytest.mark.slow
async def test_a_timeout_takes_nothing_and_is_not_moved_by_bytes_that_trickle_in() -> None:
    for codec, wire in ((LengthPrefixed(), b"\0\0\1\0"), (Delimited(), b""), (Upper(), b""), (JSONLines(), b"")):
        async with peer_and_client() as (peer, client):
            framed: Framed[Any] = client.framed(codec)  # type: ignore[arg-type]
            await peer.send(wire)
            sent = len(wire)
            receiving = asyncio.create_task(framed.receive(timeout=0.1))
            with pytest.raises(NetworkTimeoutError, match=r"receive timed out after (0\.[1-9]|[1-9])"):
                while not receiving.done():
                    await peer.send(b"1")
                    sent += 1
                    await asyncio.sleep(0.005)  # a twentieth of the time that there is
                await receiving
            await arrived(client, sent)
            assert client.stats.bytes_buffered == sent


async def test_plain_and_framed_receives_take_from_the_same_stream() -> None:
    async with peer_and_client() as (peer, client):
        lines, frames = client.framed(Delimited((b"\n", b";"))), client.framed(LengthPrefixed(1))
        values = client.framed(JSONLines())
        await peer.send(b"HELLO\n\x03abcline\nrest;12\n\x05by")
        assert await client.receive_line() == b"HELLO\n"
        assert await frames.receive() == b"abc"
        assert await lines.receive_batch() == [b"line", b"rest", b"12"]
        with pytest.raises(NetworkTimeoutError):
            await frames.receive(timeout=0.02)
        with pytest.raises(NetworkTimeoutError):
            await lines.receive(timeout=0.02)
        assert await client.receive(2) == b"\x05b"
        await peer.send(b"e;{}\n")
        assert await lines.receive() == b"ye"
        assert await values.receive() == {}
        # A search that was told where it had got to looks again where the bytes have moved.
        with pytest.raises(NetworkTimeoutError):
            await client.receive_until(b"|", timeout=0.02)
        await peer.send(b"ab")
        with pytest.raises(NetworkTimeoutError):
            await lines.receive(timeout=0.02)
        assert await client.receive_exactly(1) == b"a"
        await peer.send(b";|")
        assert await lines.receive() == b"b"
        assert await client.receive_until(b"|") == b"|"


async def test_a_second_reader_is_refused_and_the_first_goes_on() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(LengthPrefixed())
        first = asyncio.create_task(framed.receive())
        await peer.send(b"\0\0")
        await arrived(client, 2)
        for call in (framed.receive(), framed.receive_batch(), anext(framed), client.receive()):
            with pytest.raises(BusyError):
                await call
        await peer.send(b"\0\1x")
        assert await first == b"x"


async def test_what_came_before_a_reset_can_still_be_received() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(LengthPrefixed(1))
        await peer.send(b"\1a\1b\5c")
        assert await framed.receive() == b"a"
        peer.reset()
        assert await framed.receive() == b"b"
        for _ in range(2):
            with pytest.raises(ConnectionLostError):
                await framed.receive()


async def test_it_needs_a_connection_and_stays_good_over_several() -> None:
    async with echo_server() as port:
        client = client_of(port)
        framed = client.framed(LengthPrefixed())
        for call in (framed.send(b"x"), framed.receive(), framed.receive_batch()):
            with pytest.raises(NotConnectedError):
                await call
        for _ in range(2):
            async with client:
                await framed.send_many([b"one", b"two"])
                assert [await framed.receive(), await framed.receive()] == [b"one", b"two"]
                await client.send(b"\0\0\0\5half")
                with pytest.raises(NetworkTimeoutError):
                    await framed.receive(timeout=0.02)
            with pytest.raises(ClosedError):
                await framed.receive()


async def test_a_send_that_waits_for_room_and_is_cancelled_has_queued_nothing() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(LengthPrefixed())
        count = 0
        with pytest.raises(NetworkTimeoutError):
            while True:
                await framed.send_many([b"x" * 100_000, b"y"], timeout=0.05)
                count += 1
        waiting = asyncio.create_task(framed.send(b"z"))
        await asyncio.sleep(0)
        waiting.cancel()
        receiving = asyncio.create_task(peer.receive_all())
        await client.send_eof()
        assert await receiving == (b"\0\1\x86\xa0" + b"x" * 100_000 + b"\0\0\0\1y") * count
