"""What leaves, when, and who waits."""

from __future__ import annotations

import array
import asyncio
import random
import select
import socket
import tracemalloc

import pytest
from support.own_kind import own_kind
from support.servers import TOO_MUCH, Peer, peer_and_client, wait_for_the_kernel

from pepperpy.network import ClosedError, ConnectionLostError, NetworkTimeoutError

# More than the kernel takes from a peer that does not read: the sum of the largest socket buffers that Linux grows to.


async def test_a_lone_send_is_at_the_peer_before_the_sender_lets_the_loop_run() -> None:
    async with peer_and_client() as (peer, client):
        for number in range(5):
            await client.send(b"%d" % number)
            # Nothing has been awaited that suspends, so only a write of send()'s own can have brought it here.
            assert peer.receive_now(10) == b"%d" % number
            await asyncio.sleep(0.02)  # longer than QUIET of sender.pyx and a tick of the coarse clock


async def test_an_answer_leaves_before_the_sender_lets_the_loop_run() -> None:
    async with peer_and_client() as (peer, client):
        for number in range(100):
            await peer.send(b"?")
            assert await client.receive() == b"?"
            await client.send(b"%d" % number)
            assert peer.receive_now(10) == b"%d" % number


async def test_several_sends_of_one_turn_leave_as_two_writes() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"first,")
        for number in range(100):
            await client.send(b"%d," % number)
        first = peer.receive_now(1 << 16)
        together = b"first," + b"".join(b"%d," % number for number in range(100))
        assert first + await peer.receive(len(together) - len(first)) == together
        # On a machine that stalls between two sends the second one is a lone one again: no more than this is certain.
        assert first.startswith(b"first,")


async def test_sends_of_many_tasks_in_one_turn_arrive_whole() -> None:
    async with peer_and_client() as (peer, client):
        messages = [b"%03d\n" % number * 100 for number in range(200)]
        receiving = asyncio.create_task(peer.receive(sum(map(len, messages))))
        await asyncio.gather(*map(client.send, messages))
        data = await receiving
        assert sorted(data[i : i + 400] for i in range(0, len(data), 400)) == sorted(messages)


@pytest.mark.parametrize(
    "data",
    [bytes(9), bytearray(b"bytearray"), memoryview(b"memory"), memoryview(b"a-b-c-d-")[::2], array.array("I", [1, 2])],
    ids=["bytes", "bytearray", "memoryview", "strided memoryview", "array"],
)
async def test_any_bytes_like_object_can_be_sent(data: object) -> None:
    async with peer_and_client() as (peer, client):
        await client.send(data)
        await client.send_many([data, b"|", data])
        await client.send_eof()
        once = bytes(memoryview(data))  # type: ignore[arg-type]
        assert await peer.receive_all() == once + once + b"|" + once


@pytest.mark.parametrize("data", ["text", 7, None, [1, 2], [b"x"]])
async def test_what_is_not_bytes_like_is_refused_and_nothing_is_sent(data: object) -> None:
    async with peer_and_client() as (peer, client):
        with pytest.raises(TypeError, match="bytes-like"):
            await client.send(data)
        with pytest.raises(TypeError, match="bytes-like"):
            await client.send_many([b"before", data])
        await client.send(b"only this")
        await client.send_eof()
        assert await peer.receive_all() == b"only this"


async def test_send_many_refuses_a_single_buffer() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(TypeError, match="iterable of bytes-like"):
            await client.send_many(b"abc")


async def test_empty_data_is_accepted_and_sends_nothing() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"")
        await client.send_many([])
        await client.send_many([b"", b""])
        await client.send(b"x")
        await client.send(b"")
        await client.send_eof()
        assert await peer.receive_all() == b"x"


async def test_send_many_keeps_header_and_payload_in_order_whatever_their_sizes() -> None:
    async with peer_and_client() as (peer, client):
        sizes = [1, 100_000, 8191, 8192, 8193, 0, 300_000, 65536, 2]
        pieces = [bytes([number + 65]) * size for number, size in enumerate(sizes)]
        receiving = asyncio.create_task(peer.receive_all())
        await client.send_many(pieces)
        await client.send_many(pieces[::-1])
        await client.send_eof()
        assert await receiving == b"".join(pieces) + b"".join(pieces[::-1])


async def test_a_large_message_leaves_from_where_it_lies() -> None:
    data = random.Random(1).randbytes(32_000_000)
    got = bytearray(len(data))
    view = memoryview(got)
    loop = asyncio.get_running_loop()
    async with peer_and_client() as (peer, client):
        tracemalloc.start()
        try:
            await client.send(data)
            while view:
                view = view[await loop.sock_recv_into(peer.sock, view) :]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert got == data
        # asyncio copies what it is given, before Python 3.12: at most LARGEST_PIECE of sender.pyx.
        assert peak < 2_000_000


async def test_send_waits_while_the_peer_does_not_read_and_times_out_with_nothing_queued() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        queued = client.stats.bytes_queued
        assert queued >= client.config.buffers.send_high
        with pytest.raises(NetworkTimeoutError, match="send timed out"):
            await client.send(b"never", timeout=0.05)
        assert client.stats.bytes_queued == queued
        held_back = asyncio.create_task(client.send(b"last"))
        await asyncio.sleep(0)
        assert not held_back.done()
        assert await peer.receive(len(TOO_MUCH)) == TOO_MUCH
        await held_back
        assert await peer.receive(4) == b"last"


@pytest.mark.parametrize("flushes", [False, True])
async def test_a_task_that_sends_without_end_to_a_peer_that_keeps_up_can_be_cancelled_and_starves_nobody(
    flushes: bool,
) -> None:
    async with peer_and_client() as (peer, client):
        loop = asyncio.get_running_loop()

        async def send_for_ever() -> None:
            while True:
                await client.send(b"x" * 4000)
                if flushes:
                    await client.flush()
                # A peer that keeps up, without the loop's help: the kernel never says that it is full.
                received.append(len(peer.sock.recv(1 << 20, socket.MSG_DONTWAIT)) if peer_has_data(peer) else 0)

        received: list[int] = []
        sending = asyncio.create_task(send_for_ever())
        loop.call_soon(loop.call_soon, sending.cancel)
        with pytest.raises(asyncio.CancelledError):
            await sending
        await client.send_eof()
        rest = await peer.receive_all()
        assert sum(received) + len(rest) == client.stats.bytes_sent


def peer_has_data(peer: Peer) -> bool:
    return bool(select.select([peer.sock], [], [], 0)[0])


async def test_flush_returns_when_the_kernel_has_everything() -> None:
    async with peer_and_client() as (peer, client):
        await client.flush()
        await client.send(b"a")
        await client.send(b"b")
        await client.flush()
        assert client.stats.bytes_queued == 0
        await client.send(TOO_MUCH)
        with pytest.raises(NetworkTimeoutError, match="flush timed out"):
            await client.flush(timeout=0.05)
        flushing = asyncio.create_task(client.flush())
        assert await peer.receive(2 + len(TOO_MUCH)) == b"ab" + TOO_MUCH
        await flushing
        assert client.stats.bytes_queued == 0


async def test_several_flushes_wait_side_by_side() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        flushes = [asyncio.create_task(client.flush()) for _ in range(3)]
        await asyncio.sleep(0)
        flushes[1].cancel()
        await peer.receive(len(TOO_MUCH))
        assert [type(result) for result in await asyncio.gather(*flushes, return_exceptions=True)] == [
            type(None),
            asyncio.CancelledError,
            type(None),
        ]


async def test_send_eof_comes_after_what_was_accepted_and_ends_only_sending() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        await client.send_eof()
        await client.send_eof()
        with pytest.raises(ClosedError, match="send_eof"):
            await client.send(b"more")
        assert await peer.receive_all() == TOO_MUCH
        await peer.send(b"still here")
        assert await client.receive() == b"still here"
        await client.flush()


async def test_sending_to_a_peer_that_is_gone_fails_at_the_next_call_with_the_cause() -> None:
    async with peer_and_client() as (peer, client):
        peer.reset()
        wait_for_the_kernel(client.extra_info("socket"), lost=True)
        with pytest.raises(ConnectionLostError) as caught:
            await client.send(b"x")
        assert isinstance(caught.value.__cause__, OSError)
        assert str(caught.value.__cause__)
        with pytest.raises(ConnectionLostError):
            await client.send_many([b"x"])
        with pytest.raises(ConnectionLostError):
            await client.flush()
        with pytest.raises(ConnectionLostError):
            await client.receive()


async def test_senders_held_back_are_told_of_a_loss() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        waiting = [asyncio.create_task(client.send(b"y")) for _ in range(2)] + [asyncio.create_task(client.flush())]
        await asyncio.sleep(0)
        peer.reset()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        # The first is also the system's error that was met, which the loop decides.
        assert [own_kind(result) for result in results] == [ConnectionLostError] * 3


async def test_senders_held_back_are_told_of_a_disconnect() -> None:
    async with peer_and_client(close_timeout=0.1) as (_, client):
        await client.send(TOO_MUCH)
        waiting = [asyncio.create_task(client.send(b"y")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(NetworkTimeoutError, match="did not take") as caught:
            await client.disconnect()
        assert caught.value.details["undelivered"] > 0
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ClosedError] * 2


async def test_statistics_count_both_ways_and_across_connections() -> None:
    async with peer_and_client() as (peer, client):
        assert client.stats.last_activity is None
        await client.send(b"abc")
        await client.send_many([b"d", b"e"])
        await peer.send(b"12345678")
        assert await client.receive(2) == b"12"
        await client.flush()
        stats = client.stats
        assert (stats.bytes_sent, stats.sends, stats.receives, stats.connects) == (5, 2, 1, 1)
        assert (stats.bytes_received, stats.bytes_buffered, stats.bytes_queued) == (8, 6, 0)
        assert stats.last_activity is not None
        assert abs(stats.last_activity - asyncio.get_running_loop().time()) < 5
        assert stats.connect_latency is not None
        await client.disconnect()
        assert client.stats.bytes_sent == 5
