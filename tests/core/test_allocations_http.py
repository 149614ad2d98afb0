"""Each allocation of the reading of a response fails once: what was read is right, or the reading fails; never less."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, MOST, STEP, Starved, turns
from support.transport_by_hand import TransportByHand

from pepperpy.network import NetworkConfig, NetworkError
from pepperpy.network._core.http_head import ResponseRules
from pepperpy.network._core.http_reader import ResponseReader
from pepperpy.network._core.stream_protocol import StreamProtocol

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))

KNOWN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: keep-alive, x\r\nKeep-Alive: timeout=5\r\nX: y \r\n\r\n"
CHUNKED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nTransfer-Encoding: chunked\nX: folded\r\n  value\r\n\r\n"
HELLO = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nA: b\r\nC: d\r\n\r\n"
LARGE = bytes(300_000)
# What comes, its body, whether it is taken as a whole, and the bytes of each read.
CASES = {
    "known": (KNOWN % 11 + b"hello world", b"hello world", False, 7),
    "rest": (KNOWN % 11 + b"hello world", b"hello world", True, 1 << 20),
    "chunked": (CHUNKED + HELLO, b"hello world", False, 7),
    "chunked at once": (CHUNKED + HELLO, b"hello world", False, 1 << 20),
    "large rest": (KNOWN % len(LARGE) + LARGE, LARGE, True, 70_000),
    "large chunk": (CHUNKED + b"%x\r\n" % len(LARGE) + LARGE + b"\r\n0\r\n\r\n", LARGE, False, 70_000),
}


async def body_of(data: bytes, whole: bool, size: int, starved: Starved) -> bytes | None:
    """The body as it is read from a connection, behind which two more bytes come; None: an allocation failed."""
    protocol = StreamProtocol(NetworkConfig("test", 1))
    transport = TransportByHand(asyncio.get_running_loop(), protocol)
    transport.connect()
    transport.inbox += data + b"!!"
    receiver = protocol.receiver
    reader = ResponseReader(ResponseRules())

    async def taken(take: Callable[..., Any], wait: Callable[..., Awaitable[None]]) -> Any:
        while (result := starved(take, receiver)) is None or result is False:
            waiting = asyncio.ensure_future(starved(wait, receiver))
            await asyncio.sleep(0)
            while not waiting.done() and transport.read(size):
                await turns(2)
            await waiting
        return result

    try:
        await taken(reader.take_head, reader.wait)
        pieces = []
        while not reader.is_whole:
            pieces.append(
                await (taken(reader.take_rest, reader.wait_for_rest) if whole else taken(reader.take_body, reader.wait))
            )
        assert receiver.bytes_buffered + len(transport.inbox) == 2
        return b"".join(pieces)
    except (MemoryError, NetworkError):
        return None
    finally:
        assert 0 <= receiver.bytes_buffered <= len(data) + 2
        protocol.abort()
        await turns()


@pytest.mark.parametrize("case", CASES)
async def test_a_response_is_read_whole_or_not_at_all_whatever_allocation_fails(case: str) -> None:
    data, body, whole, size = CASES[case]
    untouched = Starved(-1, 0)
    assert await body_of(data, whole, size, untouched) == body
    failed = 0
    for call in range(untouched.calls):
        for number in range(call % STEP, MOST, STEP):
            read = await body_of(data, whole, size, Starved(call, number))
            assert read in (None, body)
            failed += read is None
    assert failed
