"""What each receive gives, with data that comes whole, in pieces, or not at all."""

from __future__ import annotations

import asyncio

import pytest
from support.cancelling import arrived
from support.servers import peer_and_client

from pepperpy.network import (
    BusyError,
    ConnectionLostError,
    IncompleteReadError,
    MessageTooLargeError,
    NetworkTimeoutError,
)


async def test_receive_gives_what_has_come_up_to_the_size() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"hello world")
        assert await client.receive(5) == b"hello"
        assert await client.receive(100) == b" world"


async def test_receive_exactly_waits_for_the_last_byte() -> None:
    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.receive_exactly(6))
        for byte in (b"a", b"b", b"c", b"d", b"e"):
            await peer.send(byte)
            await asyncio.sleep(0)
            assert not task.done()
        await peer.send(b"fg")
        assert await task == b"abcdef"
        assert await client.receive() == b"g"


@pytest.mark.parametrize("size", [1 << 17, (1 << 20) + 1, 5 << 20])
async def test_a_large_exact_receive_is_whole_and_leaves_what_follows(size: int) -> None:
    pattern = bytes(range(251))
    data = (pattern * (size // len(pattern) + 1))[:size]
    async with peer_and_client() as (peer, client):
        sending = asyncio.create_task(peer.send(b"ab" + data + b"rest"))
        assert await client.receive_exactly(1) == b"a"
        assert await client.receive_exactly(size + 1) == b"b" + data
        assert await client.receive_exactly(4) == b"rest"
        await sending


async def test_a_large_exact_receive_that_times_out_keeps_its_bytes_for_the_next_one() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"x" * 1000)
        with pytest.raises(NetworkTimeoutError):
            await client.receive_exactly(1 << 20, timeout=0.05)
        await peer.send(b"y" * 10)
        assert await client.receive_exactly(1010) == b"x" * 1000 + b"y" * 10


async def test_lines_keep_their_newline_and_the_unfinished_one_comes_last() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"one\n\ntwo\nthree")
        peer.send_eof()
        assert [line async for line in client.lines()] == [b"one\n", b"\n", b"two\n", b"three"]
        assert await client.receive_line() == b""
        assert await client.receive_lines() == []


async def test_the_iterator_over_lines_goes_on_after_a_timeout_and_another_one_after_a_break() -> None:
    async with peer_and_client() as (peer, client):
        lines = client.lines(timeout=0.02)
        assert aiter(lines) is lines
        with pytest.raises(NetworkTimeoutError):
            await anext(lines)
        await peer.send(b"one\ntwo\nthree\n")
        assert await anext(lines) == b"one\n"
        async for line in client.lines():
            assert line == b"two\n"
            break
        assert await client.receive_line() == b"three\n"
        peer.send_eof()
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(lines)


async def test_receive_lines_gives_all_complete_lines_on_hand() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"a\nbb\nccc")
        assert await client.receive_lines() == [b"a\n", b"bb\n"]
        await peer.send(b"c\nd")
        assert await client.receive_lines() == [b"cccc\n"]
        peer.send_eof()
        assert await client.receive_lines() == [b"d"]
        assert await client.receive_lines() == []


async def test_receive_until_finds_a_separator_that_comes_in_two_pieces() -> None:
    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.receive_until(b"\r\n\r\n"))
        for piece in (b"head\r", b"\n\r", b"\r\n", b"\r\nbody"):
            await peer.send(piece)
            await asyncio.sleep(0)
        assert await task == b"head\r\n\r\r\n\r\n"
        assert await client.receive() == b"body"


async def test_the_separator_of_an_earlier_call_does_not_hide_another_one() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"a;b|c;")
        with pytest.raises(NetworkTimeoutError):
            await client.receive_until(b"\n", timeout=0.05)
        assert await client.receive_until(b"|") == b"a;b|"
        assert await client.receive_until(b";") == b"c;"


@pytest.mark.parametrize("method", ["receive_line", "receive_lines"])
async def test_a_line_that_never_ends_is_refused_at_the_limit_and_nothing_is_lost(method: str) -> None:
    async with peer_and_client(max_message_size=1000) as (peer, client):
        await peer.send(b"x" * 1000)
        with pytest.raises(MessageTooLargeError, match="1000 bytes") as caught:
            await getattr(client, method)()
        assert caught.value.details["limit"] == 1000
        assert client.is_connected
        assert await client.receive_exactly(1000) == b"x" * 1000


async def test_a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    async with peer_and_client(max_message_size=4) as (peer, client):
        await peer.send(b"abc\nabcd\nx\n")
        assert await client.receive_line() == b"abc\n"
        with pytest.raises(MessageTooLargeError):
            await client.receive_line()
        assert await client.receive_until(b"\n", max_size=5) == b"abcd\n"
        assert await client.receive_lines() == [b"x\n"]


async def test_a_batch_ends_before_a_line_beyond_the_limit() -> None:
    async with peer_and_client(max_message_size=4) as (peer, client):
        await peer.send(b"a\nb\nlong line\nc\n")
        assert await client.receive_lines() == [b"a\n", b"b\n"]
        with pytest.raises(MessageTooLargeError):
            await client.receive_lines()
        assert await client.receive_exactly(10) == b"long line\n"
        assert await client.receive_lines() == [b"c\n"]


@pytest.mark.parametrize("make", [bytearray, lambda n: memoryview(bytearray(n))], ids=["bytearray", "memoryview"])
async def test_receive_into_fills_the_callers_buffer(make: object) -> None:
    async with peer_and_client() as (peer, client):
        buffer = make(8)  # type: ignore[operator]
        await peer.send(b"0123456789")
        assert await client.receive_into(buffer) == 8
        assert bytes(buffer) == b"01234567"
        assert await client.receive_into(buffer) == 2
        assert bytes(buffer) == b"89234567"
        peer.send_eof()
        assert await client.receive_into(buffer) == 0


async def test_iterating_gives_chunks_until_the_peer_ends() -> None:
    async with peer_and_client() as (peer, client):
        sending = asyncio.create_task(peer.send(b"z" * 300_000))
        await sending
        peer.send_eof()
        chunks = [chunk async for chunk in client]
        assert b"".join(chunks) == b"z" * 300_000
        assert max(map(len, chunks)) <= 65536


async def test_the_end_of_the_stream_is_empty_bytes_again_and_again() -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        assert [await client.receive() for _ in range(3)] == [b"", b"", b""]


async def test_an_exact_receive_cut_short_hands_over_its_part_once() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"half")
        peer.send_eof()
        with pytest.raises(IncompleteReadError) as caught:
            await client.receive_exactly(10)
        assert caught.value.partial == b"half"
        assert caught.value.details["received"] == 4
        assert caught.value.details["expected"] == 10
        assert await client.receive() == b""


async def test_what_came_before_a_reset_can_still_be_received() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"last words")
        assert await client.receive(5) == b"last "
        peer.reset()
        assert await client.receive() == b"words"
        for _ in range(2):
            with pytest.raises(ConnectionLostError) as caught:
                await client.receive()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert not client.is_connected


async def test_a_second_reader_is_refused_and_the_first_goes_on() -> None:
    async with peer_and_client() as (peer, client):
        first = asyncio.create_task(client.receive_exactly(4))
        await asyncio.sleep(0)
        await peer.send(b"ab")
        await arrived(client, 2)
        for call in (
            client.receive(),
            client.receive_line(),
            client.receive_exactly(1),
            client.receive_into(bytearray(1)),
        ):
            with pytest.raises(BusyError):
                await call
        await peer.send(b"cd")
        assert await first == b"abcd"


async def test_a_timeout_names_the_wait_and_the_connection_goes_on() -> None:
    async with peer_and_client(timeout=0.05) as (peer, client):
        with pytest.raises(NetworkTimeoutError, match="timed out after") as caught:
            await client.receive()
        assert caught.value.details["phase"] == "receive"
        assert caught.value.details["elapsed"] >= 0.05
        await peer.send(b"late")
        assert await client.receive(timeout=None) == b"late"


async def test_the_deadline_is_not_moved_by_bytes_that_trickle_in() -> None:
    async with peer_and_client() as (peer, client):
        receiving = asyncio.create_task(client.receive_exactly(1000, timeout=0.2))
        with pytest.raises(NetworkTimeoutError):
            while not receiving.done():
                await peer.send(b"x")
                # Ten bytes in the time that there is: each comes before it has passed.
                await asyncio.sleep(0.02)
            await receiving


async def test_a_shorter_timeout_after_a_longer_one_is_kept() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"x")
        assert await client.receive(timeout=60) == b"x"
        with pytest.raises(NetworkTimeoutError):
            await client.receive(timeout=0.05)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c: c.receive(0), ValueError, "size"),
        (lambda c: c.receive(-1), ValueError, "size"),
        (lambda c: c.receive("9"), TypeError, "size"),
        (lambda c: c.receive(1 << 70), ValueError, "size"),
        (lambda c: c.receive_exactly(-1), ValueError, "size"),
        (lambda c: c.receive_exactly(1.5), TypeError, "size"),
        (lambda c: c.receive_until(b""), ValueError, "separator"),
        (lambda c: c.receive_until("x"), TypeError, "separator"),
        (lambda c: c.receive_until(b"x", max_size=0), ValueError, "max_size"),
        (lambda c: c.receive_into(b"constant"), TypeError, "buffer"),
        (lambda c: c.receive_into(bytearray()), ValueError, "buffer"),
        (lambda c: c.receive(timeout=-1), ValueError, "timeout"),
        (lambda c: c.receive(timeout=float("nan")), ValueError, "timeout"),
        (lambda c: c.receive(timeout="5"), TypeError, "timeout"),
    ],
)
async def test_bad_arguments_are_named(call: object, error: type[Exception], words: str) -> None:
    async with peer_and_client() as (peer, client):
        with pytest.raises(error, match=words):
            await call(client)  # type: ignore[operator]
        await peer.send(b"still fine\n")
        assert await client.receive_line() == b"still fine\n"


async def test_a_wait_begun_in_the_step_that_a_timeout_woke_times_out_as_well() -> None:
    async with peer_and_client() as (_, client):
        for _ in range(3):
            with pytest.raises(NetworkTimeoutError):
                await client.receive(timeout=0.02)
