"""A receive that is cancelled, at whatever point, has not happened: no byte is lost, doubled or out of order.

Each test counts the points at which it has really cancelled something. Sending, connecting and closing are in
test_cancellation_sending.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.cancelling import COUNTER, CounterStream, Mode, arrived, cancel_now, cancelled_at, until
from support.loops import begun_later
from support.servers import Peer, peer_and_client

from pepperpy.network import NetworkClient, NetworkTimeoutError

# Ten counters, so that every message ends with b"9\n" and every kind of receive finds its end in it.
MESSAGE = 10 * COUNTER
# Received into memory of its own, which the loop fills directly.
LARGE_MESSAGE = 13_120 * MESSAGE
assert LARGE_MESSAGE > 1 << 20

Receive = Callable[[NetworkClient], Coroutine[Any, Any, bytes]]


async def _receive_into(client: NetworkClient) -> bytes:
    buffer = bytearray(100_000)
    count = await client.receive_into(buffer)
    assert not any(buffer[count:]), "wrote beyond its count"
    return bytes(buffer[:count])


async def _receive_lines(client: NetworkClient) -> bytes:
    return b"".join(await client.receive_lines())


async def _next_of_lines(client: NetworkClient) -> bytes:
    return await anext(client.lines())


async def _async_for(client: NetworkClient) -> bytes:
    async for chunk in client:
        return chunk
    return b""


async def _receive_large(client: NetworkClient) -> bytes:
    return await client.receive_exactly(LARGE_MESSAGE)


RECEIVES: dict[str, Receive] = {
    "receive": lambda client: client.receive(),
    "receive_into": _receive_into,
    "receive_exactly": lambda client: client.receive_exactly(MESSAGE),
    "receive_until": lambda client: client.receive_until(b"9\n"),
    "receive_line": lambda client: client.receive_line(),
    "receive_lines": _receive_lines,
    "lines": _next_of_lines,
    "async for": _async_for,
}
# After how many bytes each has what it waits for; 1 where it is not named.
ENOUGH = {"receive_exactly": MESSAGE, "receive_until": MESSAGE}
ENOUGH |= dict.fromkeys(["receive_line", "receive_lines", "lines"], COUNTER)

# The sizes in which the bytes come. The last is more than one read takes and more than the high-water mark.
CHUNKINGS: dict[str, list[int]] = {
    "1 byte": [1] * MESSAGE,
    "3 bytes": [3] * 26 + [2],
    "whole": [MESSAGE],
    "300 kB": [300_000],
}
# A large message and the beginning of what follows it.
LARGE_CHUNKS = [1, 3, 70_000, 300_000, 400_000, LARGE_MESSAGE - 770_005, 1]


async def go_on(client: NetworkClient, peer: Peer, stream: CounterStream, following: Receive, size: int) -> None:
    """The same connection serves another receive, and then gives what is left; the stream tells whether it was all."""
    to_the_end_of_the_message = -stream.sent % MESSAGE
    sending = asyncio.create_task(peer.send(stream.next(to_the_end_of_the_message + size)))
    stream.take(await following(client))
    while stream.taken < stream.sent:
        stream.take(await client.receive())
    await sending
    assert client.stats.bytes_buffered == 0
    assert client.stats.bytes_received == stream.sent


@pytest.mark.slow
@pytest.mark.parametrize("name", RECEIVES)
async def test_a_receive_cancelled_at_any_suspension_has_taken_nothing(name: str) -> None:
    for mode, chunks in itertools.product(Mode, CHUNKINGS.values()):
        points = await _cancel_at_suspensions(RECEIVES[name], chunks, MESSAGE, list(RECEIVES.values()), mode)
        # Each receive waits once, however many pieces come; and each of the others has gone on after that.
        assert points == len(RECEIVES)


@pytest.mark.slow
async def test_a_large_exact_receive_cancelled_at_any_suspension_has_taken_nothing() -> None:
    everything = [*RECEIVES.values(), _receive_large]
    for mode, chunks in itertools.product(Mode, (LARGE_CHUNKS, [*LARGE_CHUNKS, 100], [LARGE_MESSAGE])):
        assert await _cancel_at_suspensions(_receive_large, chunks, LARGE_MESSAGE, everything, mode) == len(everything)


async def _cancel_at_suspensions(
    operation: Receive, chunks: list[int], size: int, followings: list[Receive], mode: Mode
) -> int:
    stream, points = CounterStream(), 0
    async with peer_and_client() as (peer, client):

        async def feed() -> None:
            for chunk in chunks:
                await peer.send(stream.next(chunk))
                await asyncio.sleep(0)

        for following in followings:
            for number in itertools.count(1):
                feeding = asyncio.create_task(feed())
                outcome = await cancelled_at(operation(client), number, mode)
                if not outcome.cancelled:
                    stream.take(outcome.value)
                points += outcome.cancelled
                while not feeding.done():
                    # More than the system keeps for a client that takes nothing.
                    stream.take(await client.receive(1000))
                    await asyncio.sleep(0)
                await go_on(client, peer, stream, following, size)
                if not outcome.cancelled:
                    break
    return points


@pytest.mark.slow
@pytest.mark.parametrize("name", RECEIVES)
async def test_a_receive_cancelled_between_any_two_pieces_has_taken_nothing(name: str) -> None:
    for mode, chunks in itertools.product(Mode, CHUNKINGS.values()):
        points = await _cancel_between_pieces(RECEIVES[name], chunks, MESSAGE, mode)
        # Before each piece up to the one that brings enough.
        assert points == -(-ENOUGH.get(name, 1) // chunks[0])


@pytest.mark.slow
async def test_a_large_exact_receive_cancelled_between_any_two_pieces_has_taken_nothing() -> None:
    for mode, following in itertools.product(Mode, (*RECEIVES.values(), _receive_large)):
        points = await _cancel_between_pieces(_receive_large, LARGE_CHUNKS, LARGE_MESSAGE, mode, following)
        assert points == len(LARGE_CHUNKS)


async def _cancel_between_pieces(
    operation: Receive, chunks: list[int], size: int, mode: Mode, always_following: Receive | None = None
) -> int:
    stream, followings = CounterStream(), itertools.cycle(RECEIVES.values())
    async with peer_and_client() as (peer, client):
        for points in itertools.count():
            task = asyncio.create_task(operation(client))
            await asyncio.sleep(0)
            # The last pieces before the cancellation come one by one, those before them together.
            together = max(0, points - 3)
            for chunk in (sum(chunks[:together]), *chunks[together:points]):
                await peer.send(stream.next(chunk))
                await arrived(client, stream.sent)
            if not task.done():
                ended = await cancel_now(task, mode, functools.partial(_push, peer, stream, chunks[points]))
                assert ended, "data that came later was taken by a task that was cancelled before"
            else:
                stream.take(await task)
            await go_on(client, peer, stream, always_following or next(followings), size)
            if not task.cancelled():
                return points
    raise AssertionError("unreachable")


def _push(peer: Peer, stream: CounterStream, size: int) -> None:
    """Give the system as much as it takes now: it is at the client before the loop looks."""
    stream.sent += peer.sock.send(stream.peek(size))


async def _within(client: NetworkClient, seconds: float, size: int) -> bytes:
    async with asyncio.timeout(seconds):
        return await client.receive_exactly(size)


TIMEOUTS: dict[str, Callable[[NetworkClient, float, int], Coroutine[Any, Any, bytes]]] = {
    "asyncio.timeout": _within,
    "asyncio.wait_for": lambda client, seconds, size: asyncio.wait_for(client.receive_exactly(size), seconds),
    "its own timeout": lambda client, seconds, size: client.receive_exactly(size, timeout=seconds),
}


@pytest.mark.slow
@pytest.mark.parametrize("size", [COUNTER, 200_000], ids=["small", "large"])
@pytest.mark.parametrize("kind", TIMEOUTS)
async def test_a_time_limit_that_ends_when_the_data_comes_takes_all_of_it_or_nothing(kind: str, size: int) -> None:
    loop = asyncio.get_running_loop()
    stream, timeouts, results = CounterStream(), 0, 0
    limit = 0.003
    async with peer_and_client() as (peer, client):
        for turn in range(70):
            # The last byte is here before the call, or comes from 2 ms before the limit to 1 ms after it, or when the
            # call is over. Of the first and the last, each machine knows how they end; of the others, some do so ...
            moment = ("before", -0.002, -0.001, -0.0005, 0, 0.001, "after")[turn % 7]
            begun = stream.sent

            def last_byte() -> None:
                if not sending.done():
                    loop.call_soon(last_byte)
                    return
                _push(peer, stream, 1)
                if turn % 3 == 0:
                    # ... or the loop sees both at once.
                    while loop.time() < start + limit:
                        pass

            sending = asyncio.create_task(peer.send(stream.next(size - 1)))
            if moment == "before":
                await sending
                _push(peer, stream, 1)
                await arrived(client, stream.sent)
            start = loop.time()
            if isinstance(moment, (int, float)):
                loop.call_at(start + limit + moment, last_byte)
            try:
                data = await TIMEOUTS[kind](client, limit, size)
            except TimeoutError as error:
                assert isinstance(error, NetworkTimeoutError) == (kind == "its own timeout")
                assert moment != "before"
                timeouts += 1
            else:
                assert moment != "after"
                stream.take(data)
                results += 1
            await sending
            if moment == "after":
                _push(peer, stream, 1)
            await until(lambda: stream.sent == begun + size, "the last byte is sent")
            if stream.taken < stream.sent:
                stream.take(await client.receive_exactly(size))
            assert stream.taken == stream.sent
    assert timeouts + results == 70


@pytest.mark.slow
@pytest.mark.parametrize("name", RECEIVES)
async def test_a_receive_cancelled_before_it_has_begun_has_taken_nothing(name: str) -> None:
    stream = CounterStream()
    async with peer_and_client() as (peer, client):
        await peer.send(stream.next(MESSAGE))
        await arrived(client, MESSAGE)
        for following in RECEIVES.values():
            task = begun_later(RECEIVES[name](client))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.stats.bytes_buffered == MESSAGE
            await go_on(client, peer, stream, following, MESSAGE)
            await peer.send(stream.next(MESSAGE))
            await arrived(client, stream.sent)


@pytest.mark.slow
async def test_a_reader_cancelled_while_another_takes_over_leaves_no_gap() -> None:
    stream = CounterStream()
    async with peer_and_client() as (peer, client):
        readers = itertools.cycle(RECEIVES.values())
        for number in range(200):
            first = asyncio.create_task(next(readers)(client))
            await asyncio.sleep(0)
            # Half of the time there is something to take in the turn of the handover.
            _push(peer, stream, number % 2 * 5)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(next(readers)(client))
            await peer.send(stream.next(-stream.sent % MESSAGE + MESSAGE))
            stream.take(await second)
            while stream.taken < stream.sent:
                stream.take(await client.receive())


async def test_leaving_an_iteration_by_cancellation_keeps_the_lines_that_were_not_asked_for() -> None:
    stream = CounterStream()
    async with peer_and_client() as (peer, client):
        for _ in range(20):
            lines: list[bytes] = []

            async def iterate(into: list[bytes] = lines) -> None:
                async for line in client.lines():
                    into.append(line)

            task = asyncio.create_task(iterate())
            await peer.send(stream.next(10 * COUNTER + 3))
            await until(lambda into=lines: len(into) == 10, "ten lines")  # type: ignore[misc]
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            stream.take(b"".join(lines))
            await peer.send(stream.next(COUNTER - 3))
            stream.take(await client.receive_line())
            assert stream.taken == stream.sent
