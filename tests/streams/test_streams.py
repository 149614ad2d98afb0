"""What `pepperpy.network.streams` does by itself: when writes leave, what is kept, what is not imitated."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.certificates import ca_file
from support.stream_scripts import PlainPeer, TLSPeer, shaken

from pepperpy.network import streams

Opened = tuple[streams.StreamReader, streams.StreamWriter, PlainPeer]


@contextlib.asynccontextmanager
async def opened(limit: int = 65_536) -> AsyncIterator[Opened]:
    ours, theirs = socket.socketpair()
    peer = PlainPeer(theirs)
    reader, writer = await streams.open_connection(sock=ours, limit=limit)
    try:
        yield reader, writer, peer
    finally:
        writer.close()
        peer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def coarse_monotonic() -> float:
    """The clock by which a writer knows that the program was quiet for a moment. Python has no name for Linux's."""
    return time.clock_gettime(6) if sys.platform == "linux" else time.monotonic()


def sends_at_once() -> bool:
    # uvloop gathers writes itself.
    return isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)


# ---- When writes leave ----


async def test_the_first_write_leaves_at_once_and_further_ones_together_when_the_turn_ends() -> None:
    async with opened() as (_, writer, peer):
        while True:
            # If the clock moves on in between, the program was quiet for a moment, and the next write leaves at once.
            began = coarse_monotonic()
            writer.write(b"a")
            writer.write(b"b")
            if coarse_monotonic() - began < 0.001:
                break
            await turns()
            peer.receive()
        writer.writelines([b"c", b"d"])
        await writer.drain()
        if sends_at_once():
            assert peer.receive() == b"a"
            await asyncio.sleep(0)
            assert peer.receive() == b"bcd"
        else:
            await turns()
            assert peer.receive() == b"abcd"


async def test_many_writes_leave_before_the_turn_ends() -> None:
    async with opened() as (_, writer, peer):
        for _ in range(1000):
            writer.write(b"x" * 100)
        if sends_at_once():
            assert len(peer.receive()) > 65_536
        await turns()
        peer.receive()


async def test_a_write_after_a_quiet_moment_leaves_at_once() -> None:
    async with opened() as (_, writer, peer):
        writer.write(b"a")
        time.sleep(0.05)  # the program computes
        writer.write(b"b")
        if sends_at_once():
            assert peer.receive() == b"ab"


async def test_what_is_gathered_leaves_before_a_large_write_and_before_other_memory() -> None:
    large = b"x" * 100_000
    async with opened() as (_, writer, peer):
        writer.write(b"a")
        writer.write(b"b")
        writer.write(large)
        writer.write(b"c")
        writer.write(bytearray(b"d"))
        writer.writelines([b"e", memoryview(b"f")])
        received = b""
        while len(received) < 100_006:
            received += peer.receive()
            await asyncio.sleep(0)
        assert received == b"ab" + large + b"cdef"


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_what_is_gathered_leaves_before_the_end(end: str) -> None:
    async with opened() as (_, writer, peer):
        writer.write(b"a")
        writer.write(b"b")
        getattr(writer, end)()
        await turns()
        assert peer.receive() == b"ab"


async def test_whoever_asks_for_the_transport_finds_everything_there_and_writes_in_order() -> None:
    async with opened() as (_, writer, peer):
        writer.write(b"a")
        writer.write(b"b")
        transport = writer.transport
        assert transport is writer.transport
        transport.write(b"c")
        writer.write(b"d")
        transport.write(b"e")
        if sends_at_once():
            assert transport.get_write_buffer_size() == 0
        await turns()
        assert peer.receive() == b"abcde"


async def test_drain_waits_at_the_limit_of_the_transport() -> None:
    async with opened() as (_, writer, peer):
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(b"x" * 4_000_000)
        draining = asyncio.ensure_future(writer.drain())
        await turns()
        assert not draining.done()
        received = 0
        while received < 4_000_000:
            received += len(peer.receive())
            await asyncio.sleep(0)
        await draining


# ---- What is kept ----


async def test_a_cancelled_read_of_everything_has_taken_nothing() -> None:
    async with opened(limit=10) as (reader, _, peer):
        reading = asyncio.ensure_future(reader.read())
        peer.send(b"x" * 1000)
        await turns()
        reading.cancel()
        await turns()
        peer.eof()
        assert await reader.read() == b"x" * 1000
        assert reader.at_eof()


async def test_a_read_of_everything_beside_another_read_takes_nothing() -> None:
    async with opened() as (reader, _, peer):
        reading = asyncio.ensure_future(reader.readexactly(5))
        peer.send(b"abc")
        await turns()
        with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
            await reader.read()
        peer.send(b"de")
        assert await reading == b"abcde"


async def test_an_exception_reaches_a_reader_that_has_just_been_woken() -> None:
    reader = streams.StreamReader()
    reading = asyncio.ensure_future(reader.readexactly(2))
    await turns()
    reader.feed_data(b"ab")
    reader.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await reading


# ---- Limits ----


async def test_a_peer_cannot_send_more_than_twice_the_limit_and_one_read() -> None:
    async with opened(limit=1000) as (reader, writer, peer):
        for _ in range(50):
            peer.send(b"x" * 65_536)
            await turns()
        assert not writer.transport.is_reading()
        assert 2000 < reader._core.unread <= 2000 + 327_680
        while writer.transport.is_reading() is False:
            await reader.read(10_000)
        assert reader._core.unread <= 1000


async def test_a_reader_that_wants_more_than_the_limit_gets_it() -> None:
    async with opened(limit=10) as (reader, _, peer):
        peer.send(b"x" * 50)
        await turns()
        reading = asyncio.ensure_future(reader.readexactly(100_000))
        for _ in range(2):
            peer.send(b"x" * 49_975)
            await turns()
        assert await reading == b"x" * 100_000


async def test_what_comes_for_a_reader_that_is_gone_is_dropped_up_to_the_end() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    peer = PlainPeer(theirs)
    reader = streams.StreamReader(10)
    protocol = streams._Protocol(reader, None, loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    peer.send(b"x" * 1000)
    await turns()
    assert not transport.is_reading()
    del reader
    gc.collect()
    for _ in range(20):
        peer.send(b"x" * 65_536)
        await turns()
    assert transport.is_reading()
    transport.abort()
    peer.close()
    await turns()


async def test_a_limit_may_be_any_number_as_asyncios() -> None:
    for limit in (10.5, float("inf"), 2**100):
        reader = streams.StreamReader(limit)  # type: ignore[arg-type]
        reader.feed_data(b"x" * 11 + b"\n")
        if limit == 10.5:
            with pytest.raises(ValueError, match="longer than limit"):
                await reader.readline()
        else:
            assert await reader.readline() == b"x" * 11 + b"\n"


# ---- What they are ----


async def test_clients_and_servers_get_subclasses_of_asyncios() -> None:
    met: list[Any] = []

    async def serve(reader: streams.StreamReader, writer: streams.StreamWriter) -> None:
        met.extend((reader, writer))
        async for line in reader:
            writer.write(line.upper())
        writer.close()

    server = await streams.start_server(serve, "127.0.0.1", 0)
    reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
    writer.writelines([b"one\n", b"two\n"])
    assert [await reader.readline(), await reader.readline()] == [b"ONE\n", b"TWO\n"]
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    for stream in (reader, writer, *met):
        assert isinstance(stream, (asyncio.StreamReader, asyncio.StreamWriter))
        assert type(stream).__module__ == "pepperpy.network.streams"


async def test_unix_sockets(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")

    async def serve(reader: streams.StreamReader, writer: streams.StreamWriter) -> None:
        writer.write(await reader.readexactly(3))
        writer.close()

    server = await streams.start_unix_server(serve, path)
    reader, writer = await streams.open_unix_connection(path)
    writer.write(b"abc")
    assert await reader.read() == b"abc"
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_private_names_of_asyncio_are_not_there() -> None:
    reader = streams.StreamReader()
    for name in ("_buffer", "_eof", "_waiter", "_exception", "_transport", "_limit", "_loop"):
        assert not hasattr(reader, name)


async def test_a_separator_of_a_wrong_type_raises_at_once() -> None:
    reader = streams.StreamReader()
    with pytest.raises(TypeError, match="bytes-like object, not 'str'"):
        await reader.readuntil("\n")


async def test_a_library_begins_tls_by_the_loop() -> None:
    """As NATS clients do: with a protocol and a writer of asyncio's for the same reader."""
    if not sends_at_once():
        pytest.skip("asyncio's own streams hang here on uvloop, too")
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=str(ca_file()))
    ours, theirs = socket.socketpair()
    peer = TLSPeer(theirs)
    reader, plain = await streams.open_connection(sock=ours)
    protocol = asyncio.StreamReaderProtocol(reader)
    starting = loop.start_tls(plain.transport, protocol, context, server_hostname="localhost")
    writer = streams.StreamWriter(await shaken(peer, starting), protocol, reader, loop)
    peer.send(b"question\n")
    assert await reader.readline() == b"question\n"
    writer.write(b"answer")
    await turns()
    assert peer.receive() == b"answer"
    writer.transport.abort()
    peer.close()
    await turns()
