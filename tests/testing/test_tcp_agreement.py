"""`memory_pair` and a TCP connection: the same session, over both, has to see the same."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from support.servers import TOO_MUCH

from pepperpy.network import BufferLimits, NetworkClient, NetworkConfig, NetworkError, NetworkTimeoutError
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.testing import memory_pair

Session = Callable[[NetworkClient, NetworkClient], Awaitable[Any]]

# Far more than the loopback interface and `memory_pair` hold back.
BULK = bytes(range(256)) * (len(TOO_MUCH) // 256)
SESSIONS: dict[str, tuple[Session, dict[str, Any]]] = {}


def session(name: str, **settings: Any) -> Callable[[Session], Session]:
    def add(function: Session) -> Session:
        SESSIONS[name] = function, settings
        return function

    return add


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call comes to, without what names the address or takes time."""
    try:
        return await call
    except NetworkError as error:
        message = re.sub(r"^\S+:\d+: |after [\d.]+ s", "", error.message)
        details = {name: value for name, value in error.details.items() if name not in ("host", "port", "elapsed")}
        return type(error).__name__, message, details, repr(error.__cause__), getattr(error, "partial", None)


def counts(client: NetworkClient) -> tuple[int, ...]:
    stats = client.stats
    return (
        stats.bytes_received, stats.bytes_sent, stats.receives, stats.sends, stats.connects, stats.retries,
        stats.bytes_buffered, stats.bytes_queued,
    )  # fmt: skip


def uncounted(*clients: NetworkClient) -> None:
    """Leave out of the comparison what is not certain: how much each client has sent and received so far."""
    for client in clients:
        received, sent, receives, sends = client._link.totals()
        client._link.past = (-received, -sent, -receives, -sends)


@contextlib.asynccontextmanager
async def tcp_pair(config: NetworkConfig) -> AsyncIterator[tuple[NetworkClient, NetworkClient]]:
    """As `memory_pair`, over the loopback interface; the second one has been accepted."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        a = NetworkClient(config.replace(port=listener.getsockname()[1]))
        b = NetworkClient(config)
        await a.connect()
        accepted, _ = await loop.sock_accept(listener)
    _, protocol = await loop.connect_accepted_socket(lambda: StreamProtocol(config), accepted)
    b._link.use(protocol)
    b._link.connects += 1
    try:
        yield a, b
    finally:
        a.abort()
        b.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def run(pair: Any, act: Session) -> Any:
    async with pair as (a, b):
        result = await act(a, b)
        states = a.is_connected, b.is_connected
        return result, states, counts(a), counts(b)


async def arrived(client: NetworkClient, count: int) -> None:
    while client.stats.bytes_received < count:
        await asyncio.sleep(0)


async def until_lost(client: NetworkClient) -> Any:
    """Sends until that fails."""
    while True:
        try:
            await client.send(b"x")
        except NetworkError:
            return await outcome(client.send(b"x"))
        await asyncio.sleep(0)


@session("lines, an exact record, a separator and chunks")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send_many([b"one\n", b"two\n", b"3;", b"record"])
    await arrived(a, 16)
    return await a.receive_line(), await a.receive_until(b";"), await a.receive_exactly(3), await a.receive(2)


@session("a batch of lines and the unfinished last one")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"one\ntwo\nthr")
    await arrived(a, 11)
    first = await a.receive_lines()
    await b.disconnect()
    return first, await a.receive_lines(), await a.receive_lines(), await a.receive()


@session("into a buffer, and iteration over the rest")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"0123456789")
    await b.send_eof()
    await arrived(a, 10)
    memory = bytearray(4)
    return await a.receive_into(memory), bytes(memory), [chunk async for chunk in a]


@session("bulk both ways at once")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    async def talk(client: NetworkClient) -> bool:
        sending = asyncio.create_task(client.send(BULK))
        received = await client.receive_exactly(len(BULK))
        await sending
        await client.flush()
        return received == BULK

    return await asyncio.gather(talk(a), talk(b))


@session("bulk in small pieces, with high-water marks far below", buffers=BufferLimits(send_high=1000, send_low=10))
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    async def send_all() -> None:
        for start in range(0, 1_000_000, 1999):
            await a.send(BULK[start : min(start + 1999, 1_000_000)])
        await a.send_eof()

    sending = asyncio.create_task(send_all())
    received = b""
    async for line in b.lines():
        received += line
    await sending
    return received == BULK[:1_000_000]


@session("a half-close, after which the other side goes on")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await a.send(b"request")
    await a.send_eof()
    got = await b.receive_exactly(7), await b.receive()
    await b.send(b"answer")
    return got, await a.receive(), await outcome(a.send(b"more")), a.is_connected, b.is_connected


@session("the end of the stream in the middle of a record")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"half")
    await b.disconnect()
    return await outcome(a.receive_exactly(8)), await a.receive()


@session("the end of the stream in the middle of a message")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"half")
    await b.disconnect()
    return await outcome(a.receive_until(b";")), await a.receive()


@session("a line that is too long", max_message_size=10)
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"x" * 20 + b"\n")
    await arrived(a, 21)
    return await outcome(a.receive_line()), await a.receive()


@session("a receive that times out, and the late bytes")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    late = await outcome(a.receive(timeout=0.01)), await outcome(a.receive_exactly(8, timeout=0))
    await b.send(b"late")
    return late, await a.receive()


@session("a receive that is cancelled, and the bytes it waited for")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    receiving = asyncio.create_task(a.receive_exactly(8))
    await b.send(b"four")
    await arrived(a, 4)
    receiving.cancel()
    await asyncio.wait([receiving])
    await b.send(b"more")
    return receiving.cancelled(), await a.receive_exactly(8)


@session("a second receiver")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    receiving = asyncio.create_task(a.receive())
    await asyncio.sleep(0)
    refused = await outcome(a.receive())
    await b.send(b"data")
    return refused, await receiving


@session("bytes that arrive before a disconnect")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"last words")
    await b.disconnect()
    return await a.receive(4), await a.receive_until(b"s"), await a.receive(), a.is_connected


@session("a disconnect of one's own while a task receives")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    receiving = asyncio.create_task(outcome(a.receive()))
    await asyncio.sleep(0)
    await a.disconnect()
    return await receiving, await outcome(a.receive()), await outcome(a.send(b"x")), await b.receive()


@session("an abort of one's own")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    receiving = asyncio.create_task(outcome(a.receive()))
    await asyncio.sleep(0)
    a.abort()
    return await receiving, await outcome(a.receive()), await b.receive(), await outcome(a.disconnect())


@session("sending to a peer that has disconnected")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"bye")
    await b.disconnect()
    got = await a.receive(), await a.receive()
    first = await outcome(a.send(b"1"))
    result = got, first, await until_lost(a), await outcome(a.receive())
    uncounted(a)  # how many more are accepted before the loss is known
    return result


@session("an abort with bytes unread", buffers=BufferLimits(receive_high=1, receive_low=0))
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    # The first byte pauses the reading, the second one stays below.
    await a.send(b"1")
    await arrived(b, 1)
    await a.send(b"2")
    b.abort()
    return await outcome(a.receive()), await outcome(a.send(b"3")), await outcome(a.disconnect())


@session("an abort with accepted bytes unsent")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await a.send(BULK)
    await arrived(b, 1)
    a.abort()
    while isinstance(result := await outcome(b.receive()), bytes):
        pass
    uncounted(b)  # what the kernel had taken may be lost
    return result, b.at_eof, await outcome(a.disconnect())


@session("a loop over is_connected, and what the end leaves")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"one\ntwo\nthree")
    await b.send_eof()
    lines = []
    while a.is_connected:
        lines.append((await a.receive_line(), a.at_eof))
    await a.send(b"still here")
    return lines, await a.receive(), await a.receive(), await b.receive(), a.at_eof, b.at_eof


@session("connecting again with bytes on hand of a stream that has ended")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await b.send(b"last words")
    await b.disconnect()
    await arrived(a, 10)
    while not a._link.protocol.peer_ended:
        await asyncio.sleep(0)
    return await outcome(a.connect()), await a.receive(), a.at_eof


@session("a peer that receives nothing", buffers=BufferLimits(send_high=50_000), close_timeout=0.01)
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    # More than any kernel holds, however late the peer's side of it has its turn.
    await a.send(TOO_MUCH * 4)
    result = await outcome(a.send(b"more", timeout=0.01))
    flushing = await outcome(a.flush(timeout=0.01))
    with pytest.raises(NetworkTimeoutError, match="did not take") as caught:
        await a.disconnect()
    b.abort()
    uncounted(a, b)  # how much the kernel held
    return result, flushing, sorted(caught.value.details)


@session("a peer that stops receiving, and goes on", buffers=BufferLimits(receive_high=1000, receive_low=10))
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    sending = asyncio.create_task(a.send(BULK))
    await arrived(b, 1000)
    for _ in range(10):
        await asyncio.sleep(0)
    bounded = b.stats.bytes_buffered <= 1000 + 256 * 1024
    received = await b.receive_exactly(len(BULK))
    await sending
    await a.flush()
    return bounded, received == BULK


@session("a disconnect that first sends what was accepted")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await a.send(BULK)
    closing = asyncio.create_task(a.disconnect())
    received = await b.receive_exactly(len(BULK))
    await closing
    return received == BULK, await b.receive(), a.is_connected


@session("a peer that aborts while much is to be sent")
async def _(a: NetworkClient, b: NetworkClient) -> Any:
    await a.send(BULK)
    await arrived(b, 1)
    flushing = asyncio.create_task(outcome(a.flush()))
    b.abort()
    lost = await flushing
    uncounted(b)
    return lost, await outcome(a.receive()), await outcome(a.disconnect())


@pytest.mark.parametrize("name", SESSIONS)
async def test_a_memory_pair_and_a_tcp_connection_give_the_same(name: str) -> None:
    act, settings = SESSIONS[name]
    config = NetworkConfig("127.0.0.1", 1, retries=0, **settings)
    over_tcp = await run(tcp_pair(config), act)
    in_memory = await run(memory_pair(config), act)
    assert in_memory == over_tcp
