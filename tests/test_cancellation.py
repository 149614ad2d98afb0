"""A receive that is cancelled, at whatever point, has not happened: no byte is lost, doubled or out of order.

Each test counts the points at which it has really cancelled something.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.cancelling import COUNTER, CounterStream, Mode, arrived, cancel_now, cancelled_at
from support.servers import Peer, peer_and_client

from pepperpy.network import NetworkClient, NetworkTimeoutError

# Ten counters, so that every message ends with b"9\n" and every kind of receive finds its end in it.
MESSAGE = 10 * COUNTER
LARGE_MESSAGE = 1 << 20

Receive = Callable[[NetworkClient], Coroutine[Any, Any, bytes]]


async def _receive_into(client: NetworkClient) -> bytes:
    buffer = bytearray(7)
    count = await client.receive_into(buffer)
    return bytes(buffer[:count])


async def _receive_lines(client: NetworkClient) -> bytes:
    return b"".join(await client.receive_lines())


async def _first_of_lines(client: NetworkClient) -> bytes:
    async with contextlib.aclosing(client.lines()) as lines:  # type: ignore[type-var]
        async for line in lines:
            return line
    return b""


async def _first_chunk(client: NetworkClient) -> bytes:
    async for chunk in client:
        return chunk
    return b""


RECEIVES: dict[str, Receive] = {
    "receive": lambda client: client.receive(),
    "receive_into": _receive_into,
    "receive_exactly": lambda client: client.receive_exactly(MESSAGE),
    "receive_until": lambda client: client.receive_until(b"9\n"),
    "receive_line": lambda client: client.receive_line(),
    "receive_lines": _receive_lines,
    "lines": _first_of_lines,
    "async for": _first_chunk,
}
# The next receive on the same connection is each of these in turn.
FOLLOWING = list(RECEIVES.values())

CHUNKINGS: dict[str, list[int]] = {
    "1 byte": [1] * MESSAGE,
    "3 bytes": [3] * (MESSAGE // 3) + [MESSAGE % 3],
    "whole": [MESSAGE],
    # More than one read takes, and more than the high-water mark.
    "300 kB": [300_000],
}
# How many pieces it takes, at most, until each receive has what it wants.
WANTED = dict.fromkeys(RECEIVES, 1) | {"receive_exactly": MESSAGE, "receive_until": MESSAGE}
WANTED |= dict.fromkeys(["receive_line", "receive_lines", "lines"], COUNTER)


async def take_the_rest(client: NetworkClient, peer: Peer, stream: CounterStream, following: Receive) -> None:
    """Go on with the same connection until nothing is left; the stream tells whether all of it was there."""
    rest = -stream.sent % MESSAGE + MESSAGE
    sending = asyncio.create_task(peer.send(stream.next(rest)))
    stream.take(await following(client))
    while stream.taken < stream.sent:
        stream.take(await client.receive())
    await sending
    assert client.stats.bytes_buffered == 0


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("name", RECEIVES)
async def test_a_receive_cancelled_at_any_suspension_has_taken_nothing(name: str, chunking: str, mode: Mode) -> None:
    stream, points = CounterStream(), 0
    async with peer_and_client() as (peer, client):
        for following in FOLLOWING:
            for number in itertools.count(1):

                async def feed() -> None:
                    for size in CHUNKINGS[chunking]:
                        await peer.send(stream.next(size))
                        await asyncio.sleep(0)

                feeding = asyncio.create_task(feed())
                outcome = await cancelled_at(RECEIVES[name](client), number, mode)
                if not outcome.cancelled:
                    stream.take(outcome.value)
                points += outcome.cancelled
                sending, following_too = feeding, following
                await asyncio.gather(sending, take_after(sending, client, peer, stream, following_too))
                if not outcome.cancelled:
                    break
    # Each receive waits once, however many pieces come.
    assert points == len(FOLLOWING)


async def take_after(
    sending: asyncio.Task[None], client: NetworkClient, peer: Peer, stream: CounterStream, following: Receive
) -> None:
    """As `take_the_rest`, while what was sent before is still on its way."""
    while not sending.done():
        await asyncio.sleep(0)
        if client.stats.bytes_buffered:
            stream.take(await client.receive())
    await take_the_rest(client, peer, stream, following)
