"""skip_until: what it drops, what it leaves, and what an end, a cancellation and a cut do to it."""

from __future__ import annotations

import asyncio

import pytest
from support.cancelling import arrived
from support.seen import Seen
from support.servers import peer_and_client

from pepperpy.network import IncompleteReadError, MessageTooLargeError, NetworkTimeoutError

KIB = 1024


@pytest.mark.parametrize("separator", [b"END", (b"END", b"FIN!")])
async def test_skip_drops_up_to_the_separator_and_counts(separator: bytes | tuple[bytes, ...]) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abcENDrest")
        assert await client.skip_until(separator) == 6
        assert await client.receive() == b"rest"
        skipping = asyncio.create_task(client.skip_until(separator))
        await peer.send(b"x" * 100_000 + b"EEN")
        await arrived(client, 10 + 100_003)
        await peer.send(b"Drest")
        assert await skipping == 100_004
        assert await client.receive() == b"rest"


async def test_skip_needs_little_memory_for_any_amount() -> None:
    async with peer_and_client() as (peer, client):
        skipping = asyncio.create_task(client.skip_until(b"\n"))
        most = 0
        for _ in range(50):
            await peer.send(bytes(200 * KIB))
            most = max(most, client.stats.bytes_buffered)
        await peer.send(b"\nnext\n")
        assert await skipping == 50 * 200 * KIB + 1
        assert most < (64 + 256) * KIB
        assert await client.receive_line() == b"next\n"


async def test_skip_gets_over_a_line_that_is_too_long() -> None:
    async with peer_and_client(max_message_size=100) as (peer, client):
        await peer.send(b"x" * 1000 + b"\nnext\n")
        with pytest.raises(MessageTooLargeError):
            await client.receive_line()
        assert await client.skip_until(b"\n") == 1001
        assert await client.receive_line() == b"next\n"


async def test_skip_that_is_cancelled_or_times_out_has_dropped_no_separator() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"x" * 100 + b"EN")
        with pytest.raises(NetworkTimeoutError):
            await client.skip_until(b"END", timeout=0.02)
        skipping = asyncio.create_task(client.skip_until(b"END"))
        await asyncio.sleep(0)
        skipping.cancel()
        await asyncio.gather(skipping, return_exceptions=True)
        await peer.send(b"Drest")
        assert await client.skip_until(b"END") == 3
        assert await client.receive() == b"rest"


async def test_all_waits_of_a_skip_share_one_timeout() -> None:
    async with peer_and_client() as (peer, client):
        loop = asyncio.get_running_loop()
        skipping = asyncio.create_task(client.skip_until(b"\n", timeout=0.3))
        began = loop.time()
        while not skipping.done() and loop.time() < began + 5:
            await peer.send(bytes(100 * KIB))
            await asyncio.sleep(0.05)  # the time is what the test is about
        assert skipping.done(), "each wait had a time of its own"
        with pytest.raises(NetworkTimeoutError):
            await skipping


async def test_a_stream_that_ends_in_a_skip_is_an_error_that_counts_what_was_dropped() -> None:
    async with peer_and_client() as (peer, client):
        skipping = asyncio.create_task(client.skip_until(b"\n"))
        await peer.send(bytes(100 * KIB))
        peer.send_eof()
        with pytest.raises(IncompleteReadError, match="102400 bytes") as caught:
            await skipping
        assert (caught.value.partial, caught.value.details["received"]) == (b"", 100 * KIB)
        assert client.at_eof


async def test_a_stream_that_ends_inside_of_a_separator_leaves_nothing_and_is_told_as_lost_at_once() -> None:
    seen = Seen()
    async with peer_and_client(on_event=seen) as (peer, client):
        await peer.send(b"abcEN")
        await arrived(client, 5)
        peer.send_eof()
        with pytest.raises(IncompleteReadError, match="5 bytes"):
            await client.skip_until(b"END")
        assert client.stats.bytes_buffered == 0
        assert seen.names[-1] == "lost"


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("before", [0, 64 * KIB - 4, 64 * KIB - 1, 64 * KIB, 300_000])
async def test_the_longest_of_several_separators_is_found_wherever_a_read_cuts_it(cut: int, before: int) -> None:
    # What a skip drops at a time are 64 KiB, or what one read brings.
    async with peer_and_client() as (peer, client):
        skipping = asyncio.create_task(client.skip_until((b"?", b"FIN!")))
        await peer.send(b"x" * before + b"FIN!"[:cut])
        await arrived(client, before + cut)
        await peer.send(b"FIN!"[cut:] + b"rest")
        assert await skipping == before + 4
        assert await client.receive() == b"rest"


async def test_a_skip_goes_on_with_what_was_put_back() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"Drest")
        await arrived(client, 5)
        client.unread(b"abcEN")
        assert await client.skip_until(b"END") == 6
        assert await client.receive() == b"rest"
