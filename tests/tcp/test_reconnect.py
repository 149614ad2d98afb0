"""What the users of a reconnecting client see of a loss: once in each direction, then the new connection."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from support.cancelling import arrived, until
from support.mortal import CALLS, lost, mortal_and_client, reconnecting, silence, stall, told
from support.servers import TOO_MUCH

from pepperpy.network import BufferLimits, ClosedError, ConnectionLostError

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")

RECEIVES = {name: call for name, call in CALLS.items() if name.startswith("receive")}


async def test_after_the_news_in_each_direction_the_client_goes_on_with_a_new_connection() -> None:
    async with mortal_and_client() as (server, client):
        for number in range(3):
            await client.send(b"%d" % number)
            assert await client.receive() == b"%d" % number
            server.drop()
            await told(client)
            await client.wait_connected()
        await client.send(b"last")
        assert await client.receive() == b"last"
        assert (server.accepted, client.stats.connects) == (4, 4)
        assert (client.stats.bytes_received, client.stats.bytes_sent) == (7, 7)


async def test_the_receive_under_way_is_told_and_the_next_one_waits() -> None:
    async with mortal_and_client() as (server, client):
        for name, receive in RECEIVES.items():
            under_way = asyncio.create_task(receive(client))
            await asyncio.sleep(0)
            await server.kill()
            with pytest.raises(ConnectionLostError):
                await under_way
            next_one = asyncio.create_task(client.receive_line())
            retries = client.stats.retries
            await until(lambda n=retries: client.stats.retries > n, "an attempt has failed")  # type: ignore[misc]
            assert not next_one.done(), name
            await server.start()
            await client.wait_connected()
            with pytest.raises(ConnectionLostError):
                await client.send(b"the sender has not heard of it yet\n")
            await client.send(b"new\n")
            assert await next_one == b"new\n"


async def test_the_news_waits_for_its_direction_though_the_new_connection_is_there() -> None:
    async with mortal_and_client() as (server, client):
        for name, call in CALLS.items():
            server.drop()
            await lost(client)
            await client.wait_connected()
            for each in (call, CALLS["send" if name in RECEIVES else "receive"]):
                with pytest.raises(ConnectionLostError):
                    await each(client)
            await client.send(b"whole\n")
            assert await client.receive_line() == b"whole\n"


async def test_what_had_arrived_comes_before_the_news_and_never_joins_the_new_stream() -> None:
    async with mortal_and_client() as (server, client):
        await client.send(b"line\nhalf")
        await until(lambda: client.stats.bytes_buffered == 9, "all is back")
        server.drop()
        await lost(client)
        await client.wait_connected()
        assert await client.receive_line() == b"line\n"
        with pytest.raises(ConnectionLostError):
            await client.receive_line()
        with pytest.raises(ConnectionLostError):
            await client.send(b"x")
        await client.send(b"other\n")
        assert await client.receive_line() == b"other\n"


async def test_a_second_loss_before_the_first_is_told_is_one_piece_of_news_without_bytes_in_between() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"greeting %d\n" % next(number))
        await reader.read(1)

    number = itertools.count(1)

    async with mortal_and_client(greet) as (server, client):
        for connects in (2, 3):
            await until(lambda: client.stats.bytes_buffered == 11, "the greeting is there")
            server.drop()
            await lost(client)
            await until(lambda n=connects: client.stats.connects == n, "connected")  # type: ignore[misc]
        assert await client.receive_line() == b"greeting 1\n"
        with pytest.raises(ConnectionLostError):
            await client.receive_line()
        assert await client.receive_line() == b"greeting 3\n"


async def test_the_peers_end_of_stream_is_a_loss_after_its_last_bytes() -> None:
    async def one_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d\n" % next(number))

    number = itertools.count(1)
    async with mortal_and_client(one_line) as (_, client):
        for expected in range(1, 4):
            assert await client.receive_line() == b"%d\n" % expected
            with pytest.raises(ConnectionLostError, match="ended its stream") as caught:
                await client.receive_line()
            assert isinstance(caught.value.__cause__, EOFError)


async def test_a_sender_that_waits_for_room_is_told() -> None:
    async with mortal_and_client(stall) as (server, client):

        async def send_for_ever() -> None:
            while True:
                await client.send(bytes(1 << 16))

        sending = asyncio.create_task(send_for_ever())
        await until(lambda: client.stats.bytes_queued > 1 << 16, "the queue is full")
        server.handler = silence
        server.drop()
        with pytest.raises(ConnectionLostError):
            await sending
        await client.wait_connected()
        await client.send(b"fine")


async def test_a_reset_that_only_a_send_has_met_is_found_though_reading_is_paused_and_loses_no_byte() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(payloads))
        await reader.read(1)

    payloads = itertools.chain([b"old" * 10_000], itertools.repeat(b"new"))
    high = {"buffers": BufferLimits(receive_high=1000, receive_low=10)}
    async with mortal_and_client(flood, **high) as (server, client):
        await until(lambda: client._link.protocol.receiver.reading_paused, "reading is paused")
        await arrived(client, 30_000)
        server.drop(reset=True)
        with pytest.raises(ConnectionLostError):
            while True:
                await client.send(b"x")
                await asyncio.sleep(0)
        await until(lambda: client.stats.connects == 2, "a new connection")
        assert await client.receive_exactly(30_000) == b"old" * 10_000
        with pytest.raises(ConnectionLostError):
            await client.receive()
        assert await client.receive() == b"new"


async def test_a_flush_that_was_cancelled_in_the_tick_of_the_loss_leaves_the_news_to_the_next_call() -> None:
    async with mortal_and_client(stall, buffers=BufferLimits(send_high=1 << 30)) as (server, client):
        await client.send(TOO_MUCH)
        flushing = [asyncio.create_task(client.flush()) for _ in range(2)]
        await asyncio.sleep(0)
        protocol = client._link.protocol
        on_end = client._link.supervisor._ended  # type: ignore[union-attr]

        def ended(lost: object) -> None:
            on_end(lost)  # type: ignore[arg-type]
            for task in flushing:
                task.cancel()

        protocol.watch(ended, True)
        server.drop()
        await asyncio.wait(flushing)
        assert all(task.cancelled() for task in flushing)
        with pytest.raises(ConnectionLostError):
            await client.send(b"x")


async def test_bytes_that_were_lost_unsent_are_reported_by_disconnect_if_nobody_else_has_been_told() -> None:
    async with mortal_and_client(stall, buffers=BufferLimits(send_high=1 << 30)) as (server, client):
        await client.send(TOO_MUCH)
        assert client.stats.bytes_queued
        server.drop()
        await lost(client)
        await client.wait_connected()
        with pytest.raises(ConnectionLostError, match="unsent") as caught:
            await client.disconnect()
        assert caught.value.details["undelivered"] > 0
        await client.disconnect()


async def test_connect_after_a_send_that_failed_makes_one_connection_and_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = reconnecting(server.getsockname()[1])
        await client.connect()
        for number in range(3):
            peer = server.accept()[0]
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            peer.close()
            # The loop has not looked yet: only sending meets the end, and connect() begins before the loop finds it.
            with pytest.raises(ConnectionLostError):
                await client.send(b"%d" % number)
            await client.connect()
            assert client.is_connected and reconnections() == []
        with server.accept()[0] as peer:
            server.setblocking(False)
            await client.send(b"alone")
            assert peer.recv(5) == b"alone"
            with pytest.raises(BlockingIOError):
                server.accept()
            assert client.stats.connects == 4
            await client.disconnect()


def reconnections() -> list[asyncio.Task[None]]:
    return [task for task in asyncio.all_tasks() if "_reconnect" in repr(task)]


async def test_a_reconnection_cancelled_before_its_first_step_has_ended_and_says_so() -> None:
    async with mortal_and_client() as (server, client):
        # Called by the loop, between the creation of the task and its first step.
        watch, own = client._link.protocol.watch, client._link.supervisor._ended  # type: ignore[union-attr]
        watch(lambda protocol: (own(protocol), [task.cancel() for task in reconnections()]), True)
        server.drop()
        await lost(client)
        with pytest.raises(ClosedError, match="reconnecting was cancelled"):
            await client.wait_connected()
        await client.connect()
        assert client.is_connected
