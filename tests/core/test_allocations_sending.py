"""Each allocation of each send, and of what ends a connection, fails once: nothing is torn, no task waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, IMPOSSIBLE_WITH_FUNCTIONS, MOST, STEP, Starved, Wire, turns
from support.servers import peer_and_client
from support.tiers import by_tier

from pepperpy.network import (
    BufferLimits,
    NetworkConfig,
    NetworkError,
)
from pepperpy.network._core.stream_protocol import StreamProtocol

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))

# ---- Sending ----


SIZES = ([10, 20, 30, 40], [20_000, 10, 20_000, 10], [10, 70_000, 5, 9000])


class Outlet:
    """Where a protocol sends to: a socket that takes little at a time, or a transport in memory."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.protocol = StreamProtocol(
            NetworkConfig("127.0.0.1", 1, buffers=BufferLimits(send_high=1 << 30), timeout=None)
        )
        self.got = bytearray()

    async def open(self) -> None:
        if self.kind == "socket":
            ours, self.peer = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for sock in (ours, self.peer):
                sock.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: self.protocol, sock=ours)
        else:
            self.wire = Wire(stuffed=self.kind == "stuffed")
            self.wire.connect(self.protocol)

    async def settle(self) -> None:
        for _ in range(3):
            while self.protocol.state == "open" and self.protocol.sender.bytes_queued:
                before = self.protocol.sender.bytes_queued, len(self.got)
                await self._read()
                if (self.protocol.sender.bytes_queued, len(self.got)) == before:
                    break
            await self._read()

    async def _read(self) -> None:
        await turns(3)
        if self.kind == "socket":
            with contextlib.suppress(BlockingIOError):
                while data := self.peer.recv(1 << 20):
                    self.got += data
        else:
            self.wire.drain()
            self.got[:] = b"".join(self.wire.written)

    async def close(self) -> None:
        self.protocol.abort()
        await turns(3)
        if self.kind == "socket":
            self.peer.close()


async def send_starved(kind: str, in_parts: bool, sizes: list[int], starved: Starved) -> None:
    """Send messages, of which one call meets the failing allocation, and another one when all is quiet again."""
    outlet = Outlet(kind)
    await outlet.open()
    sender = outlet.protocol.sender
    accepted: list[tuple[bytes, bool]] = []

    def send(message: bytes) -> bool:
        try:
            if in_parts:
                starved(sender.send_many, [message[:7], message[7:-1], message[-1:]])
            else:
                starved(sender.send, message)
        except (MemoryError, NetworkError):
            return False
        return True

    for i, size in enumerate(sizes):
        message = b"%06d:%s\n" % (i, b"x" * size)
        accepted.append((message, send(message)))
    await outlet.settle()
    if outlet.protocol.is_open:
        accepted.append((b"the last\n", send(b"the last\n")))
        assert accepted[-1][1]
        await outlet.settle()
    got = bytes(outlet.got)
    for message, whole in accepted:
        if got.startswith(message):
            got = got[len(message) :]
        elif whole and not outlet.protocol.is_open:
            assert message.startswith(got)
            got = b""
        else:
            # Refused, and so not a byte of it has left; of the last one before the end, some may have.
            assert not whole, "an accepted message has not left"
    assert not got or (not outlet.protocol.is_open and any(message.startswith(got) for message, _ in accepted))
    await outlet.close()


def ignore_lack_of_memory() -> None:
    """A transport reports what it fails of to the loop's exception handler as well.

    A selector of asyncio's that fails in modify() forgets the descriptor, which epoll remembers; so the next connection
    that gets the same number may meet FileNotFoundError.
    """
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    assert handler is not None

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), (MemoryError, FileNotFoundError)):
            handler(loop, context)

    loop.set_exception_handler(handle)


@pytest.mark.slow
@pytest.mark.parametrize("in_parts", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("kind", ["socket", "memory", "stuffed"])
async def test_what_is_sent_has_no_hole_and_no_torn_message(kind: str, in_parts: bool) -> None:
    ignore_lack_of_memory()
    for sizes in SIZES:
        for call in range(len(sizes)):
            for number in range(call % STEP, MOST, STEP):
                await send_starved(kind, in_parts, sizes, Starved(call, number))


# ---- Ending ----

# More allocations than the end of a connection makes on which so many tasks wait. CPython 3.12 and 3.13 crash in later
# ones, where an error is made.
MORE = 100 if IMPOSSIBLE_WITH_FUNCTIONS is None else MOST


class Crowd:
    """A connection on which tasks receive, wait for room, flush and wait for the end."""

    def __init__(self) -> None:
        self.protocol = StreamProtocol(
            NetworkConfig("127.0.0.1", 1, buffers=BufferLimits(send_high=100, send_low=10), timeout=None)
        )
        self.wire = Wire(stuffed=True)
        self.wire.connect(self.protocol)
        sender, receiver = self.protocol.sender, self.protocol.receiver
        sender.send(b"x" * 200)

        async def receive() -> None:
            while receiver.take(100) is None:
                await receiver.wait(None)

        async def send() -> None:
            waiter = None
            while not sender.send(b"y"):
                waiter = sender.wait(None, waiter)
                await waiter

        async def flush() -> None:
            while (waiter := sender.start_flush(None)) is not None:
                await waiter

        async def end() -> None:
            if (closed := self.protocol.wait_closed()) is not None:
                await closed

        self.tasks = [asyncio.create_task(task()) for task in (receive, end, end, send, send, flush, flush)]

    async def settle(self) -> None:
        for _ in range(10):
            await turns(2)
            self.wire.drain()


ENDS: dict[str, Callable[[Crowd], Any]] = {
    "data": lambda crowd: crowd.protocol.buffer_updated(memoryview(crowd.protocol.get_buffer(-1)).nbytes),
    "the peer's end": lambda crowd: crowd.protocol.eof_received(),
    "loss": lambda crowd: crowd.protocol.connection_lost(OSError("gone")),
    "a heartbeat": lambda crowd: crowd.protocol.lose(OSError("silent")),
    "close": lambda crowd: crowd.protocol.close(),
    "abort": lambda crowd: crowd.protocol.abort(),
    "room": lambda crowd: crowd.wire.drain(),
}


@pytest.mark.parametrize("name", ENDS)
async def test_nobody_waits_for_ever_when_an_allocation_fails_at(name: str) -> None:
    for number in range(by_tier(1, nightly=0), MORE, by_tier(2, nightly=1)):
        crowd = Crowd()
        await turns(2)
        with contextlib.suppress(MemoryError):
            Starved(0, number)(ENDS[name], crowd)
        await crowd.settle()
        if name != "abort" and not crowd.wire.aborted:
            # Those who receive or wait for the end may wait on; nobody else, as the peer takes all.
            assert all(task.done() for task in crowd.tasks[3:]), f"allocation {number}"
            crowd.protocol.abort()
            await crowd.settle()
        assert all(task.done() for task in crowd.tasks), f"allocation {number}"
        for task in crowd.tasks:
            assert task.exception() is None or isinstance(task.exception(), NetworkError)


async def test_what_a_sender_copies_is_freed_once_whatever_allocation_fails() -> None:
    protocol = StreamProtocol(NetworkConfig("127.0.0.1", 1))
    data = bytes(100)
    count = sys.getrefcount(data)
    for number in range(MOST):
        with contextlib.suppress(MemoryError):
            Starved(0, number)(protocol.sender.immutable, [data] * 5)
        assert sys.getrefcount(data) == count, f"allocation {number}"


# Where the loop's transport has no memory for its end, its socket ends with it.
@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore:.*UVHandle:pytest.PytestUnraisableExceptionWarning"
)
async def test_an_aborted_connection_ends_and_the_next_one_is_heard_whatever_allocation_fails() -> None:
    for number in range(MOST):
        async with peer_and_client() as (peer, client):
            with contextlib.suppress(MemoryError):
                Starved(0, number)(client.abort)
            await turns()
            gc.collect()
            async with asyncio.timeout(5):
                assert await peer.receive(1) == b"", f"allocation {number}"
            # The socket of the next one has the same descriptor: the loop must not take it for one that it listens to.
            async with peer_and_client() as (next_peer, another):
                await next_peer.send(b"x")
                assert await another.receive(timeout=5) == b"x", f"allocation {number}"
