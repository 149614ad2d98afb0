"""A response on a connection: it takes its own bytes, waits for what is missing, and tells an end from a loss."""

from __future__ import annotations

import asyncio
import errno
import gc
import sys
from collections.abc import Callable

import pytest
from support.transport_by_hand import TransportByHand

from pepperpy.network import BusyError, ClosedError, ConnectionLostError, NetworkConfig
from pepperpy.network._core.http_head import MalformedResponse, ResponseRules
from pepperpy.network._core.http_reader import ResponseReader, TruncatedResponse
from pepperpy.network._core.stream_protocol import StreamProtocol

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RULES = ResponseRules()


class Opened:
    """A connection in memory, and the response that is read from it."""

    def __init__(self) -> None:
        self.protocol = StreamProtocol(NetworkConfig("test", 1))
        self.transport = TransportByHand(asyncio.get_running_loop(), self.protocol)
        self.transport.connect()
        self.receiver = self.protocol.receiver
        self.reader = ResponseReader(RULES)

    async def head(self) -> None:
        while not self.reader.take_head(self.receiver):
            await self.reader.wait(self.receiver)

    async def body(self) -> bytes:
        pieces = []
        while not self.reader.is_whole:
            while (piece := self.reader.take_body(self.receiver)) is None:
                await self.reader.wait(self.receiver)
            pieces.append(piece)
        return b"".join(pieces)

    async def rest(self) -> bytes:
        while (rest := self.reader.take_rest(self.receiver)) is None:
            await self.reader.wait_for_rest(self.receiver)
        return rest

    async def close(self) -> None:
        self.protocol.abort()
        if (closed := self.protocol.wait_closed()) is not None:
            await closed


@pytest.mark.parametrize("size", [1, 3, 1 << 30])
async def test_a_response_takes_its_own_bytes_and_leaves_the_rest(size: int) -> None:
    opened = Opened()
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD % 11 + b"hello worldrest"
    head = asyncio.create_task(opened.head())
    await asyncio.sleep(0)
    opened.transport.arrives(data, [size] * len(data))
    await head
    assert await opened.body() == b"hello world"
    assert opened.receiver.bytes_buffered == len(b"rest")
    await opened.close()


@pytest.mark.parametrize("size", [100, 100_000, 128 * 1024, 3_000_000])
@pytest.mark.parametrize("early", [0, 10])
async def test_a_rest_of_known_length_is_waited_for_whole(size: int, early: int) -> None:
    opened = Opened()
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    opened.transport.arrives(HEAD % size + body[:early])
    await opened.head()
    rest = asyncio.create_task(opened.rest())
    await asyncio.sleep(0)
    receives = opened.receiver.receives
    while opened.transport.inbox or early < size:
        opened.transport.arrives(body[early : early + 50_000])
        early += 50_000
        assert opened.receiver.receives == receives or early >= size
    opened.transport.arrives(b"next")
    assert await rest == body
    assert opened.reader.is_whole
    assert opened.reader.body_bytes == size
    assert opened.receiver.bytes_buffered == 4
    await opened.close()


async def test_a_rest_whose_reader_is_cancelled_can_be_read_on_in_pieces() -> None:
    opened = Opened()
    opened.transport.arrives(HEAD % 1_000_000)
    await opened.head()
    rest = asyncio.create_task(opened.rest())
    await asyncio.sleep(0)
    opened.transport.arrives(b"x" * 300_000)
    rest.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rest
    body = asyncio.create_task(opened.body())
    await asyncio.sleep(0)
    opened.transport.arrives(b"y" * 700_000)
    while opened.transport.inbox:
        await asyncio.sleep(0)
        opened.transport.read_all()
    assert await body == b"x" * 300_000 + b"y" * 700_000
    await opened.close()


async def test_what_a_peer_only_announces_gets_no_memory() -> None:
    opened = Opened()
    opened.transport.arrives(HEAD % (1 << 55))
    await opened.head()
    rest = asyncio.create_task(opened.rest())
    await asyncio.sleep(0)
    opened.transport.arrives(b"x" * 300_000)
    opened.transport.ends()
    with pytest.raises(TruncatedResponse):
        await rest
    await opened.close()


@pytest.mark.parametrize("size", [50, 1_000_000])
async def test_the_bytes_that_a_cut_off_body_lacks_are_counted(size: int) -> None:
    opened = Opened()
    opened.transport.arrives(HEAD % size + b"hello")
    await opened.head()
    rest = asyncio.create_task(opened.rest())
    await asyncio.sleep(0)
    opened.transport.arrives(b" world")
    opened.transport.ends()
    with pytest.raises(TruncatedResponse, match=f"the body ended {size - 11} bytes before its Content-Length"):
        await rest
    await opened.close()


@pytest.mark.parametrize("start", [HEAD % 5, HEAD % 1_000_000, CHUNKED + b"5\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_loss_in_the_body_is_no_end_of_it(start: bytes) -> None:
    opened = Opened()
    opened.transport.arrives(start + b"abc")
    await opened.head()
    assert opened.reader.take_body(opened.receiver) == b"abc"
    opened.transport.breaks(ConnectionResetError(errno.ECONNRESET, "reset"))
    with pytest.raises(ConnectionLostError):
        await opened.body()
    await opened.close()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200", HEAD % 5, CHUNKED + b"5\r\n"])
async def test_an_end_in_the_middle_is_an_error_while_it_is_waited_for(start: bytes) -> None:
    opened = Opened()

    async def read() -> None:
        await opened.head()
        await opened.body()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    opened.transport.arrives(start)
    opened.transport.ends()
    with pytest.raises(TruncatedResponse):
        await reading
    await opened.close()


async def test_a_body_up_to_the_end_of_the_stream_is_whole_with_that() -> None:
    opened = Opened()
    opened.transport.arrives(b"HTTP/1.1 200 OK\r\n\r\nabc")
    await opened.head()
    body = asyncio.create_task(opened.body())
    await asyncio.sleep(0)
    opened.transport.arrives(b"def")
    opened.transport.ends()
    assert await body == b"abcdef"
    await opened.close()


async def test_data_on_hand_comes_before_a_fault_and_before_a_loss() -> None:
    opened = Opened()
    opened.transport.arrives(CHUNKED + b"3\r\nabc\r\nxyz")
    await opened.head()
    assert opened.reader.take_body(opened.receiver) == b"abc"
    with pytest.raises(MalformedResponse):
        opened.reader.take_body(opened.receiver)
    await opened.close()


class RunsAtItsEnd:
    """Garbage whose end calls `function`: a collection may come at any allocation."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._itself = self

    def __del__(self) -> None:
        self._function()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="garbage is collected between two instructions of Python only")
@pytest.mark.parametrize("part", ["head", "trailers"])
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "receives"])
async def test_garbage_that_uses_the_connection_while_an_answer_is_parsed_ends_the_answer(
    part: str, closes: bool
) -> None:
    opened = Opened()
    receiver = opened.receiver
    if part == "head":
        opened.transport.arrives(HEAD % 5 + b"hello")
    else:
        opened.transport.arrives(CHUNKED)
        await opened.head()
        opened.transport.arrives(b"0\r\nA: b\r\nC: d\r\n\r\nrest")
    taken: list[bytes | None] = []
    use = opened.protocol.abort if closes else lambda: taken.append(receiver.take(1000))
    take = opened.reader.take_head if part == "head" else opened.reader.take_body
    expected = ClosedError if closes else BusyError
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    RunsAtItsEnd(use)
    gc.set_threshold(1)
    try:
        gc.enable()
        take(receiver)
    except expected as error:
        raised: Exception | None = error
    else:
        raised = None
    finally:
        gc.set_threshold(*before)
        gc.enable()
    assert isinstance(raised, expected)
    assert closes or taken
    assert receiver.bytes_buffered == 0
    await opened.close()
