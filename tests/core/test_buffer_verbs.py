"""peek and unread: what they give, and what they leave for the next receive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.by_hand import HandTask, Workbench
from support.cancelling import arrived, until
from support.servers import peer_and_client
from support.tls_peer import tls_peer_and_client

from pepperpy.network import (
    BufferLimits,
    BusyError,
    ClosedError,
    ConnectionLostError,
    Delimited,
    LengthPrefixed,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    NotConnectedError,
    ProtocolError,
)

KIB = 1024


# ---- peek ----


async def test_peek_waits_for_so_many_bytes_and_leaves_them() -> None:
    async with peer_and_client() as (peer, client):
        looking = asyncio.create_task(client.peek(4))
        await peer.send(b"abc")
        await arrived(client, 3)
        assert not looking.done()
        await peer.send(b"de")
        assert await looking == b"abcd"
        assert await client.peek() == b"a"
        assert client.stats.receives == 0
        assert await client.receive() == b"abcde"


async def test_peek_returns_what_is_left_at_the_end_and_lets_the_loop_run_when_asked_again() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abc")
        peer.send_eof()
        turns = 0

        def turned() -> None:
            nonlocal turns
            turns += 1

        for _ in range(4):
            asyncio.get_running_loop().call_soon(turned)
            assert await client.peek(10) == b"abc"
        assert turns >= 2
        assert not client.at_eof
        assert await client.receive_exactly(3) == b"abc"
        assert await client.peek(10) == b""
        assert client.at_eof


async def test_a_peek_that_waits_gets_what_is_left_when_the_end_comes() -> None:
    async with peer_and_client() as (peer, client):
        looking = asyncio.create_task(client.peek(4))
        await peer.send(b"abc")
        await arrived(client, 3)
        peer.send_eof()
        assert await looking == b"abc"
        assert await client.peek(3) == b"abc"
        assert await client.receive() == b"abc"


async def test_peek_returns_what_is_left_at_the_end_of_a_tls_stream() -> None:
    async with tls_peer_and_client() as (peer, client):
        peer.sock.send(peer.encrypted(b"abc") + peer.close_notify())
        assert await client.peek(4) == b"abc"
        assert await client.receive() == b"abc"
        assert await client.peek(4) == b""


def test_peek_is_woken_once_when_all_of_it_is_there() -> None:
    bench = Workbench(asyncio.SelectorEventLoop, NetworkConfig("127.0.0.1", 1))
    seen: list[object] = []
    with bench.inside():
        looking = HandTask(bench.loop, bench.client.peek(4), lambda _, data, error: seen.append(data))
        looking.step()
        for data in (b"a", b"b", b"cd"):
            bench.transport.arrives(data)
    assert (looking.waits, seen) == (1, [b"abcd"])
    bench.close()


async def test_peek_beyond_the_high_water_mark_gets_its_bytes() -> None:
    async with peer_and_client() as (peer, client):
        data = bytes(range(256)) * 4 * KIB
        sending = asyncio.create_task(peer.send(data))
        assert await client.peek(len(data)) == data
        assert await client.receive_exactly(len(data)) == data
        await sending


async def test_a_peek_that_times_out_or_is_cancelled_has_taken_nothing() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abc")
        with pytest.raises(NetworkTimeoutError):
            await client.peek(4, timeout=0.02)
        looking = asyncio.create_task(client.peek(4))
        await asyncio.sleep(0)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert await client.receive() == b"abc"


async def test_a_loss_raises_in_peek_and_what_came_before_can_be_received() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abc")
        await arrived(client, 3)
        peer.reset()
        with pytest.raises(ConnectionLostError):
            await client.peek(4)
        assert await client.peek(3) == b"abc"
        assert await client.receive() == b"abc"


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), ("4", TypeError)])
async def test_peek_refuses_a_size_that_is_none(n: Any, error: type[Exception]) -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(error, match="n must be"):
            await client.peek(n)


# ---- unread ----


async def test_what_was_put_back_comes_first_for_each_kind_of_receive() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"tail\n")
        await arrived(client, 5)
        received = client.stats.bytes_received
        client.unread(b"two ")
        client.unread(bytearray(b"one "))
        client.unread(b"")
        assert client.stats.bytes_buffered == 13
        assert client.stats.bytes_received == received
        assert not client.is_reusable
        assert await client.receive_exactly(4) == b"one "
        assert await client.receive_line() == b"two tail\n"
        assert client.is_reusable
        client.unread(b"\0\0\0\2ab\0\0\0\1c")
        assert await client.framed(LengthPrefixed(4)).receive_batch() == [b"ab", b"c"]


async def test_a_line_can_be_put_back_inside_of_the_read_that_brought_it() -> None:
    async with peer_and_client() as (peer, client):

        async def twice() -> list[bytes]:
            # It runs in the read callback, where the bytes still lie in the loop's memory.
            first = await client.receive_line()
            client.unread(first)
            everything = await client.receive()
            client.unread(everything)
            rest = await client.receive_exactly(len(everything) - 1)
            return [first, everything, rest]

        for _ in range(3):
            reading = asyncio.create_task(twice())
            await asyncio.sleep(0)
            await peer.send(b"one\ntwo\nthree\n")
            assert await reading == [b"one\n", b"one\ntwo\nthree\n", b"one\ntwo\nthree"]
            assert await client.receive() == b"\n"
            assert client.stats.bytes_buffered == 0


async def test_what_is_put_back_at_the_end_of_the_stream_can_be_received() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"last")
        peer.send_eof()
        assert await client.receive_exactly(4) == b"last"
        assert await client.receive() == b""
        assert client.at_eof
        client.unread(b"last")
        assert not client.at_eof
        assert client.is_connected
        assert await client.receive() == b"last"
        assert client.at_eof
        assert await client.receive() == b""


async def test_what_is_put_back_after_the_end_of_a_tls_stream_can_be_received() -> None:
    async with tls_peer_and_client() as (peer, client):
        peer.sock.send(peer.encrypted(b"last"))
        assert await client.receive_exactly(4) == b"last"
        peer.sock.send(peer.close_notify())
        assert await client.receive() == b""
        client.unread(b"last")
        assert await client.receive() == b"last"
        assert await client.receive() == b""


async def test_what_is_put_back_after_a_loss_comes_before_the_error() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abc")
        assert await client.receive() == b"abc"
        peer.reset()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        client.unread(b"abc")
        assert await client.receive() == b"abc"
        with pytest.raises(ConnectionLostError):
            await client.receive()


async def test_unread_is_refused_while_another_task_receives_and_where_the_bytes_would_be_dropped() -> None:
    with pytest.raises(NotConnectedError):
        NetworkClient(NetworkConfig("localhost", 1)).unread(b"x")
    async with peer_and_client() as (peer, client):
        receiving = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            client.unread(b"x")
        await peer.send(b"y")
        assert await receiving == b"y"
        with pytest.raises(TypeError, match="bytes-like"):
            client.unread("x")  # type: ignore[arg-type]
        client.close()
        for data in (b"x", bytes(17 << 20)):  # too many are refused for the same reason
            with pytest.raises(ClosedError):
                client.unread(data)


async def test_a_client_may_put_back_as_much_as_its_limit_and_again_when_that_was_taken() -> None:
    async with peer_and_client(max_message_size=300 * KIB) as (peer, client):
        await peer.send(b"tail")
        client.unread(bytes(200 * KIB))
        client.unread(bytes(100 * KIB))
        with pytest.raises(ValueError, match=r"data must have 0 bytes or fewer, not 1: .* 307200 are"):
            client.unread(b"x")
        await client.receive_exactly(50 * KIB)
        client.unread(bytes(50 * KIB))
        await client.receive_exactly(300 * KIB)
        assert await client.receive() == b"tail"
        with pytest.raises(ValueError, match="307200 bytes or fewer, not 307201"):
            client.unread(bytes(300 * KIB + 1))
        client.unread(bytes(300 * KIB))
        assert client.stats.bytes_buffered == 300 * KIB


async def test_the_limit_is_the_high_water_mark_where_that_is_larger() -> None:
    async with peer_and_client(max_message_size=100, buffers=BufferLimits(receive_high=1000, receive_low=0)) as (
        _,
        client,
    ):
        client.unread(bytes(1000))
        with pytest.raises(ValueError, match="0 bytes or fewer, not 1"):
            client.unread(b"x")
        assert await client.receive_exactly(1000) == bytes(1000)


async def test_too_much_is_refused_inside_of_a_read_too_and_nothing_is_lost() -> None:
    async with peer_and_client(max_message_size=10, buffers=BufferLimits(receive_high=10, receive_low=0)) as (
        peer,
        client,
    ):

        async def twice() -> bytes:
            # It runs in the read callback.
            line = await client.receive_line()
            client.unread(line)
            with pytest.raises(ValueError, match="data must have 6 bytes or fewer, not 7"):
                client.unread(bytes(7))
            client.unread(b"and ")
            return await client.receive_exactly(8)

        reading = asyncio.create_task(twice())
        await asyncio.sleep(0)
        await peer.send(b"one\ntwo\n")
        assert await reading == b"and one\n"
        assert await client.receive_line() == b"two\n"


async def test_another_task_that_waits_keeps_its_bytes_when_unread_is_refused() -> None:
    async with peer_and_client() as (peer, client):
        for receive, data in (
            (client.receive_exactly(200_000), bytes(200_000)),  # in memory of its own
            (client.receive_line(), b"line\n"),
            (client.peek(3), b"abc"),
        ):
            receiving = asyncio.create_task(receive)
            await asyncio.sleep(0)
            await peer.send(data[:2])
            await until(lambda: client.stats.bytes_buffered == 2, "the first bytes are there")
            with pytest.raises(BusyError):
                client.unread(b"x")
            await peer.send(data[2:])
            assert await receiving == data
        assert await client.receive() == b"abc"


async def test_a_request_is_refused_while_bytes_are_put_back() -> None:
    async with peer_and_client() as (_, client):
        client.unread(b"old")
        with pytest.raises(ProtocolError, match="3 bytes"):
            await client.request(b"?", NetworkClient.receive_line)


async def test_a_request_may_put_back_what_belongs_to_no_reply() -> None:
    async with peer_and_client() as (peer, client):

        async def reply(client: NetworkClient) -> bytes:
            line = await client.receive_line()
            client.unread(line)
            return await client.receive_line()

        asking = asyncio.create_task(client.request(b"?", reply))
        await peer.receive(1)
        await peer.send(b"yes\n")
        assert await asking == b"yes\n"


async def test_a_message_that_is_discarded_goes_on_behind_what_was_put_back_and_taken() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(Delimited(max_size=10), on_overflow="discard")
        receiving = asyncio.create_task(framed.receive())
        await peer.send(b"x" * 100)
        await until(lambda: framed.discarded > 0 and not client.stats.bytes_buffered, "all of it is discarded")
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        client.unread(b"mine\n")
        assert await client.receive_line() == b"mine\n"
        await peer.send(b"xxx\nnext\n")
        assert await framed.receive() == b"next"


async def test_another_connection_does_not_get_what_belongs_to_the_lost_one() -> None:
    async with peer_and_client(reconnect=True, retry_delay=5) as (peer, client):
        await peer.send(b"abc")
        assert await client.receive() == b"abc"
        peer.reset()
        await until(lambda: not client.is_connected, "the client knows of the loss")
        client.unread(b"abc")
        assert await client.receive() == b"abc"
        with pytest.raises(ConnectionLostError):
            await client.receive()
        with pytest.raises(ConnectionLostError, match="not connected now"):
            client.unread(b"abc")
