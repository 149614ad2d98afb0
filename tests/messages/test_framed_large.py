"""Large messages behind a length: they grow in memory of their own, and come back whole from whatever fails."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from typing import Any

import pytest
from support.by_hand import HandTask, Workbench
from support.cancelling import Mode, arrived, cancel_now
from support.memory import held_in_large_blocks
from support.servers import peer_and_client

from pepperpy.network import DecodeError, LengthPrefixed, Mapped, NetworkConfig, UsageError

LARGE = 3 << 20
PATTERN = bytes(range(251)) * (LARGE // 251 + 1)
CODECS = [LengthPrefixed(), LengthPrefixed("varint", offset=1), LengthPrefixed(4, offset=5, adjust=-4)]


def framed(codec: LengthPrefixed) -> tuple[bytes, bytes]:
    """A large message, and its frame."""
    message = PATTERN[:LARGE]
    return message, b"".join(codec.encode(message))


@pytest.mark.parametrize("codec", CODECS, ids=str)
async def test_no_more_than_twice_of_what_has_arrived_is_allocated(codec: LengthPrefixed) -> None:
    message, wire = framed(codec)
    async with peer_and_client() as (peer, client):
        messages = client.framed(codec)
        receiving = asyncio.create_task(messages.receive())
        sent = 0
        tracemalloc.start()
        try:
            for end in (5, 1000, 40_000, 200_000, 1_000_000, 2_000_000, len(wire) - 1):
                while sent < end:
                    sent += peer.sock.send(memoryview(wire)[sent:end])
                    await arrived(client, sent)
                assert client.stats.bytes_buffered == end
                assert held_in_large_blocks() < 2 * end + (16 << 10)
        finally:
            tracemalloc.stop()
        await peer.send(wire[-1:])
        assert await receiving == message


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("mode", Mode)
async def test_a_cancelled_receive_gives_back_what_has_come_with_its_header(mode: Mode, codec: LengthPrefixed) -> None:
    message, wire = framed(codec)
    for end in (200_000, 2_000_000, len(wire) - 1):
        async with peer_and_client() as (peer, client):
            task = asyncio.create_task(client.framed(codec).receive())
            await peer.send(wire[: end - 1])
            await arrived(client, end - 1)
            assert await cancel_now(task, mode, lambda end=end: peer.sock.send(wire[end - 1 : end]))
            assert await client.receive_exactly(3) == wire[:3]
            sending = asyncio.create_task(peer.send(wire[end:] + wire))
            assert await client.receive_exactly(len(wire) - 3) == wire[3:]
            assert await client.framed(codec).receive() == message
            await sending


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_loop_that_keeps_its_views_looks_at_no_memory_that_is_gone(codec: LengthPrefixed) -> None:
    class Keeps:
        """The protocol, for a loop that lets go of no view."""

        def __init__(self, protocol: Any) -> None:
            self.protocol = protocol
            self.views: list[memoryview] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self.protocol, name)

        def get_buffer(self, hint: int) -> memoryview:
            self.views.append(self.protocol.get_buffer(hint))
            return self.views[-1]

    message, wire = framed(codec)
    bench = Workbench(asyncio.SelectorEventLoop, NetworkConfig("127.0.0.1", 1, timeout=None))
    try:
        results: list[object] = []
        bench.transport.protocol = kept = Keeps(bench.protocol)  # type: ignore[assignment]
        with bench.inside():
            task = HandTask(bench.loop, bench.client.framed(codec).receive(), lambda *end: results.append(end[1:]))
            task.step()
            bench.transport.arrives(wire, itertools.repeat(100_000))
            assert results == [(message, None)]
            # None of them is of freed memory: `make sanitize` would tell.
            assert sum(len(bytes(view)) for view in kept.views) > LARGE
        bench.close()
    finally:
        bench.discard()


async def test_a_large_message_that_cannot_be_loaded_is_consumed_and_one_of_a_stopped_program_is_not() -> None:
    raised: BaseException | None = None

    def loads(content: bytes) -> int:
        if raised is not None:
            raise raised
        return len(content)

    codec = Mapped(LengthPrefixed(offset=1), bytes, loads)
    message, wire = framed(codec.frames)  # type: ignore[arg-type]
    for method in ("receive", "receive_batch"):
        async with peer_and_client() as (peer, client):
            messages = client.framed(codec)
            sending = asyncio.create_task(peer.send(wire + wire + wire))
            raised = RecursionError("too deep")
            with pytest.raises(DecodeError, match="cannot be decoded: RecursionError: too deep") as caught:
                await getattr(messages, method)()
            assert caught.value.content == message
            assert caught.value.__cause__ is raised
            raised = KeyboardInterrupt()
            with pytest.raises(KeyboardInterrupt):
                await getattr(messages, method)()
            raised = None
            assert await messages.receive() == LARGE
            assert await client.receive_exactly(len(wire)) == wire
            await sending


async def test_a_large_message_that_its_loads_receives_once_more_is_delivered_once() -> None:
    message, wire = framed(LengthPrefixed())
    async with peer_and_client() as (peer, client):
        inner: list[bytes] = []

        def loads(content: bytes) -> bytes:
            if not inner:
                inner.append(content)
                # Runs to its end without waiting, because the message is whole.
                with pytest.raises(StopIteration) as end:
                    messages.receive().send(None)
                inner[0] = end.value.value
            return content

        messages = client.framed(Mapped(LengthPrefixed(), bytes, loads))
        receiving = asyncio.create_task(messages.receive())
        await peer.send(wire + b"".join(LengthPrefixed().encode(b"next")))
        with pytest.raises(UsageError, match="took other bytes"):
            await receiving
        assert inner == [message]
        assert await messages.receive() == b"next"
