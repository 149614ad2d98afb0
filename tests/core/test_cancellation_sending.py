"""A send that is cancelled has queued nothing; a connect leaves no socket; a disconnect closes all the same.

Receiving is in test_cancellation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from support.cancelling import COUNTER, CounterStream, Mode, cancel_now, cancelled_at, open_sockets, until
from support.loops import begun_later
from support.servers import Peer, client_of, echo_server, peer_and_client

from pepperpy.network import ConnectError, ConnectionLostError, NetworkClient, NetworkTimeoutError
from pepperpy.network.lookup import forget

# Small socket buffers that do not grow, and far more than both hold.
SOCKET_BUFFER = 128 << 10
FILL = 1 << 20
STEP = 100_000


async def _send_many(client: NetworkClient, data: bytes) -> None:
    await client.send_many([data[:5], bytearray(data[5:9000]), data[9000:]])


# What is called with the next bytes of the stream, and with how many.
SENDS: dict[str, tuple[Callable[[NetworkClient, bytes], Coroutine[Any, Any, None]], int]] = {
    "send": (lambda client, data: client.send(data), 3 * COUNTER),
    "send a bytearray": (lambda client, data: client.send(bytearray(data)), 4000),
    "send a large one": (lambda client, data: client.send(data), 200_000),
    "send_many": (_send_many, 50_000),
    "flush": (lambda client, _: client.flush(), 0),
}


@contextlib.asynccontextmanager
async def full_connection(**settings: object) -> AsyncIterator[tuple[Peer, NetworkClient]]:
    """As `peer_and_client`, with buffers that `fill()` fills."""
    options = ((socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER),)
    async with peer_and_client(socket_options=options, **settings) as (peer, client):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        yield peer, client


async def fill(client: NetworkClient, data: bytes) -> None:
    await client.send(data)
    assert client.stats.bytes_queued >= client.config.buffers.send_high, "the next send would not wait"


def read_now(peer: Peer) -> bytes:
    """What is there makes room, before the loop looks."""
    try:
        return peer.sock.recv(STEP)
    except BlockingIOError:
        return b""


async def drain(peer: Peer, client: NetworkClient, stream: CounterStream) -> None:
    stream.take(await peer.receive(stream.sent - stream.taken))
    await client.flush()
    assert client.stats.bytes_queued == 0
    with pytest.raises(BlockingIOError):
        peer.sock.recv(1)


@pytest.mark.parametrize("name", SENDS)
async def test_a_send_cancelled_at_any_suspension_was_not_sent(name: str) -> None:
    call, size = SENDS[name]
    for mode in Mode:
        stream, points = CounterStream(), 0
        async with full_connection() as (peer, client):
            for number in itertools.count(1):
                await fill(client, stream.next(FILL))
                task = asyncio.create_task(cancelled_at(call(client, stream.peek(size)), number, mode))
                stream.take(await peer.receive(FILL))
                outcome = await task
                if not outcome.cancelled:
                    stream.sent += size
                points += outcome.cancelled
                await drain(peer, client, stream)
                if not outcome.cancelled:
                    break
        assert points == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SENDS)
async def test_a_send_cancelled_after_any_progress_of_the_peer_was_not_sent(name: str) -> None:
    call, size = SENDS[name]
    for mode in Mode:
        stream = CounterStream()
        async with full_connection() as (peer, client):
            for points in itertools.count():
                await fill(client, stream.next(FILL))
                task = asyncio.create_task(call(client, stream.peek(size)))
                await asyncio.sleep(0)
                for _ in range(points):
                    stream.take(await peer.receive(min(STEP, stream.sent - stream.taken)))
                if stream.taken == stream.sent:
                    await task
                if not task.done():
                    assert await cancel_now(task, mode, lambda: stream.take(read_now(peer)))  # noqa: B023
                else:
                    stream.sent += size
                await drain(peer, client, stream)
                await client.send(stream.next(COUNTER))
                if not task.cancelled():
                    break
        assert points >= 5


def message(number: int, size: int) -> bytes:
    """A message that is recognised on the wire, in whole and in part."""
    assert size % COUNTER == 0
    return b"%07d\n" % number * (size // COUNTER)


def messages_in(data: bytes) -> Iterator[tuple[int, int]]:
    """Number and size of each message; one that was torn comes in pieces, and so more than once or too short."""
    words = (data[i : i + COUNTER] for i in range(0, len(data), COUNTER))
    for word, group in itertools.groupby(words):
        yield int(word), COUNTER * sum(1 for _ in group)


@pytest.mark.slow
@pytest.mark.parametrize("mode", Mode)
async def test_one_of_several_senders_held_back_can_be_cancelled_without_harm_to_the_others(mode: Mode) -> None:
    sizes = [8, 80_000, 200_000, 8_000, 16]
    points = 0
    async with full_connection() as (peer, client):
        for victim, after in itertools.product(range(len(sizes)), (0, 3)):
            await fill(client, message(0, FILL))
            tasks = [asyncio.create_task(client.send(message(n + 1, size))) for n, size in enumerate(sizes)]
            await asyncio.sleep(0)
            received = [await peer.receive(STEP) for _ in range(after)]
            points += await cancel_now(tasks[victim], mode, lambda: received.append(read_now(peer)))  # noqa: B023
            accepted = {0: FILL} | {n + 1: size for n, size in enumerate(sizes) if n != victim}
            received.append(await peer.receive(sum(accepted.values()) - sum(map(len, received))))
            await asyncio.gather(*tasks[:victim], *tasks[victim + 1 :])
            await client.flush()
            found = list(messages_in(b"".join(received)))
            assert sorted(found) == sorted(accepted.items())
            with pytest.raises(BlockingIOError):
                peer.sock.recv(1)
    assert points == 2 * len(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", Mode)
async def test_a_sender_that_others_overtake_can_be_cancelled_at_each_of_its_suspensions(mode: Mode) -> None:
    points = 0
    async with full_connection() as (peer, client):
        for number in itertools.count(1):
            await fill(client, message(0, FILL))
            others = [asyncio.create_task(client.send(message(n, 200_000))) for n in (1, 2, 3)]
            await asyncio.sleep(0)
            task = asyncio.create_task(cancelled_at(client.send(message(4, 4_000)), number, mode))
            received = [await peer.receive(FILL + 600_000)]
            outcome = await task
            points += outcome.cancelled
            accepted = {0: FILL, 1: 200_000, 2: 200_000, 3: 200_000}
            if not outcome.cancelled:
                accepted[4] = 4_000
                received.append(await peer.receive(4_000))
            await asyncio.gather(*others)
            await client.flush()
            assert sorted(messages_in(b"".join(received))) == sorted(accepted.items())
            if not outcome.cancelled:
                break
    assert points >= 1


@pytest.mark.slow
async def test_a_send_whose_time_ends_when_there_is_room_has_sent_all_or_nothing() -> None:
    stream, timeouts, accepted = CounterStream(), 0, 0
    async with full_connection() as (peer, client):
        for turn in range(70):
            # There is room before the call, or it is made from 0 to 6 ms after its beginning, or when the call is over.
            # Of the first and the last, each machine knows how they end.
            moment = ("before", 0, 0.0015, 0.003, 0.0045, 0.006, "after")[turn % 7]
            await fill(client, stream.next(FILL))
            over = asyncio.Event()

            async def make_room(moment: float | str = moment, over: asyncio.Event = over) -> None:
                # Reading it all takes about a millisecond.
                await (over.wait() if isinstance(moment, str) else asyncio.sleep(moment))
                stream.take(await peer.receive(FILL))

            if moment == "before":
                over.set()
            room, limit = asyncio.create_task(make_room()), 0.004
            if moment == "before":
                await room
                await client.flush()
            try:
                if turn % 2:
                    await client.send(stream.peek(COUNTER), timeout=limit)
                else:
                    async with asyncio.timeout(limit):
                        await client.send(stream.peek(COUNTER))
            except TimeoutError as error:
                assert isinstance(error, NetworkTimeoutError) == turn % 2
                assert moment != "before"
                timeouts += 1
            else:
                assert moment != "after"
                stream.sent += COUNTER
                accepted += 1
            over.set()
            await room
            await drain(peer, client, stream)
    assert timeouts + accepted == 70


async def test_what_never_waits_has_no_point_at_which_to_cancel_it() -> None:
    async with peer_and_client() as (peer, client):
        for call in (client.connect, lambda: client.send(b"a"), lambda: client.send_many([b"b", b"c"]), client.flush):
            outcome = await cancelled_at(call(), 1, Mode.WAITING)
            assert (outcome.suspensions, outcome.cancelled) == (0, False)
        assert (await cancelled_at(client.send_eof(), 1, Mode.WAITING)).suspensions == 0
        assert await peer.receive_all() == b"abc"
        client.abort()
        await until(lambda: client.local_address is None, "the socket is closed")
        assert (await cancelled_at(client.disconnect(), 1, Mode.WAITING)).suspensions == 0


async def test_what_is_cancelled_before_it_has_begun_has_not_happened() -> None:
    async with peer_and_client() as (peer, client):
        for call in (
            lambda: client.send(b"never"),
            lambda: client.send_many([b"never"]),
            client.send_eof,
            client.flush,
            client.disconnect,
        ):
            await _cancel_unbegun(call())
            assert client.is_connected
            assert client.stats.bytes_sent == 0
        await client.send(b"only this")
        assert await peer.receive(9) == b"only this"
    async with echo_server() as port:
        client = client_of(port)
        await _cancel_unbegun(client.connect())
        assert not client.is_connected
        async with client:
            await client.send(b"x")
            assert await client.receive() == b"x"


async def _cancel_unbegun(operation: Coroutine[Any, Any, None]) -> None:
    task = begun_later(operation)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- Connecting and closing ----


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """The port of a server that accepts nobody, so that the system makes the connection and nothing is ever read."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as sock:
        yield sock.getsockname()[1]


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port at which every attempt is refused, as long as this holds it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def no_socket_left(before: set[str]) -> None:
    await until(lambda: open_sockets() <= before, f"no socket is left of {open_sockets() - before}")


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_connect_cancelled_at_any_suspension_leaves_no_socket_and_can_be_repeated(
    host: str, mode: Mode, distance: str
) -> None:
    with listener() as port:
        points = await _cancel_connect(host, port, mode, lambda client: client.connect())
    # The lookup, the connection to what is far, the transport.
    assert points >= (host == "localhost") + (distance == "far") + 1


@pytest.mark.parametrize("mode", Mode)
async def test_a_connect_cancelled_at_any_suspension_of_any_attempt_leaves_no_socket(mode: Mode, distance: str) -> None:
    async def fails(client: NetworkClient) -> None:
        with pytest.raises(ConnectError, match="3 attempts"):
            await client.connect()

    with closed_port() as port:
        points = await _cancel_connect("127.0.0.1", port, mode, fails, retries=2, retry_delay=0.001)
    # The two waits between the attempts, and the three attempts if what refuses is far.
    assert points >= (5 if distance == "far" else 2)


async def _cancel_connect(
    host: str, port: int, mode: Mode, again: Callable[[NetworkClient], Awaitable[None]], **settings: object
) -> int:
    client = client_of(port, **settings)
    client = NetworkClient(client.config.replace(host=host))
    with contextlib.suppress(ConnectError):
        # The first lookup opens what the loop keeps for the next.
        await client.connect()
    await client.disconnect()
    before = open_sockets()
    for number in itertools.count(1):
        forget(host)
        with contextlib.suppress(ConnectError):
            outcome = await cancelled_at(client.connect(), number, mode)
            if outcome.cancelled:
                assert not client.is_connected
                await no_socket_left(before)
                await again(client)
                await client.disconnect()
                continue
        await client.disconnect()
        await no_socket_left(before)
        return number - 1
    raise AssertionError("unreachable")


@pytest.mark.slow
@pytest.mark.parametrize("mode", Mode)
async def test_a_connect_cancelled_in_a_crowd_mixes_up_no_sockets(mode: Mode) -> None:
    async with echo_server() as port:
        for number in range(1, 4):
            clients = [client_of(port) for _ in range(20)]
            attempts = [
                cancelled_at(client.connect(), number if i % 2 else 99, mode) for i, client in enumerate(clients)
            ]
            await asyncio.gather(*attempts)
            for i, client in enumerate(clients):
                if client.is_connected:
                    await client.send(b"%03d" % i)
            for i, client in enumerate(clients):
                assert client.is_connected or i % 2
                if client.is_connected:
                    assert await client.receive_exactly(3) == b"%03d" % i
                await client.disconnect()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("unsent", [0, FILL], ids=["nothing to send", "much to send"])
async def test_a_disconnect_cancelled_at_any_suspension_has_closed_the_connection(unsent: int, mode: Mode) -> None:
    for number in itertools.count(1):
        async with full_connection(close_timeout=0.05) as (peer, client):
            if unsent:
                await fill(client, b"x" * unsent)
            waiting = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            with contextlib.suppress(NetworkTimeoutError):
                outcome = await cancelled_at(client.disconnect(), number, mode)
                if not outcome.cancelled:
                    assert not unsent
                assert not client.is_connected
                await until(lambda: client.local_address is None, "the socket is closed")
                assert client.stats.bytes_queued == 0
                with pytest.raises(ConnectionError, match="closed by this side"):
                    await waiting
                with contextlib.suppress(ConnectionResetError):
                    assert len(await peer.receive_all()) < unsent or not unsent
                # Whoever has not been told yet that something was not sent is told now, and only now.
                with contextlib.suppress(ConnectionLostError):
                    await client.disconnect()
                await client.disconnect()
                if outcome.cancelled:
                    continue
            await asyncio.wait([waiting])
            assert isinstance(waiting.exception(), ConnectionError)
            break
    assert number - 1 >= 1, "it has waited, and was cancelled there"
