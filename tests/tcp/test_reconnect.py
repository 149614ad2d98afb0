"""What the users of a reconnecting client see of a loss: once in each direction, then the new connection."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from support.cancelling import Mode, arrived, cancelled_at, until
from support.mortal import mortal_and_client, reconnecting, silence, stall
from support.servers import TOO_MUCH

from pepperpy.network import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    NetworkClient,
    NetworkTimeoutError,
    UsageError,
)

CALLS = {
    "receive": lambda c, **t: c.receive(**t),
    "receive_into": lambda c, **t: c.receive_into(bytearray(1), **t),
    "receive_exactly": lambda c, **t: c.receive_exactly(1, **t),
    "receive_large": lambda c, **t: c.receive_exactly(1 << 18, **t),
    "receive_until": lambda c, **t: c.receive_until(b"x", **t),
    "receive_line": lambda c, **t: c.receive_line(**t),
    "receive_lines": lambda c, **t: c.receive_lines(**t),
    "send": lambda c, **t: c.send(b"x", **t),
    "send_many": lambda c, **t: c.send_many([b"x", b"y"], **t),
    "flush": lambda c, **t: c.flush(**t),
}
RECEIVES = {name: call for name, call in CALLS.items() if name.startswith("receive")}


async def lost(client: NetworkClient) -> None:
    await until(lambda: not client.is_connected, "the client has noticed the loss")


async def told(client: NetworkClient) -> None:
    """Take the news of the loss in both directions."""
    await lost(client)
    with pytest.raises(ConnectionLostError):
        await client.receive()
    with pytest.raises(ConnectionLostError):
        await client.send(b"lost")


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
            await asyncio.sleep(0.005)
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


async def test_a_call_made_while_reconnecting_has_its_timeout_and_queues_nothing() -> None:
    async with mortal_and_client(silence) as (server, client):
        await server.kill()
        await told(client)
        sent = client.stats.bytes_sent
        for call in CALLS.values():
            with pytest.raises(NetworkTimeoutError, match="without a connection") as caught:
                await call(client, timeout=0.005)
            assert caught.value.details["elapsed"] > 0
        with pytest.raises(NetworkTimeoutError):
            await client.wait_connected(timeout=0.005)
        assert client.stats.bytes_sent == sent
        await server.start()
        await client.wait_connected()


async def test_the_timeout_spans_the_wait_for_the_connection_and_the_wait_for_bytes() -> None:
    async with mortal_and_client(silence) as (server, client):
        await server.kill()
        await told(client)
        loop = asyncio.get_running_loop()
        started = loop.time()
        receiving = asyncio.create_task(client.receive(timeout=0.2))
        await asyncio.sleep(0.15)
        await server.start()
        await client.wait_connected()
        with pytest.raises(NetworkTimeoutError):
            await receiving
        # With a time of its own, the second wait would have ended 0.35 s after the start.
        assert loop.time() - started < 0.3


async def test_a_waiting_call_that_is_cancelled_disturbs_nobody() -> None:
    async with mortal_and_client() as (server, client):
        for number, call in enumerate(CALLS.values(), 1):
            await server.kill()
            await told(client)
            for mode in (Mode.WAITING, Mode.TWICE):
                assert (await cancelled_at(call(client), 1, mode)).cancelled
            cancelled = asyncio.create_task(call(client))
            staying = asyncio.create_task(client.send(b"the one\n"))
            await asyncio.sleep(0)
            # In the tick of the connection, before the task has run.
            client._supervisor._changed.add_done_callback(lambda _, task=cancelled: task.cancel())  # type: ignore
            await server.start()
            await staying
            await asyncio.wait([cancelled])
            assert cancelled.cancelled()
            assert await client.receive_line() == b"the one\n"
            assert client.stats.bytes_sent == 8 * number


async def test_two_receivers_are_two_also_while_reconnecting() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        first = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await client.receive()
        await server.start()
        await client.send(b"x")
        assert await first == b"x"


async def test_bad_arguments_are_refused_while_reconnecting() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        with pytest.raises(TypeError, match="data"):
            await client.send("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            await client.receive(timeout=-1)
        with pytest.raises(ConnectionLostError, match="nothing to end"):
            await client.send_eof()


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
    high = {"receive_high_water": 1000, "receive_low_water": 10}
    async with mortal_and_client(flood, **high) as (server, client):
        await until(lambda: client._protocol.receiver.reading_paused, "reading is paused")
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
    async with mortal_and_client(stall, send_high_water=1 << 30) as (server, client):
        await client.send(TOO_MUCH)
        flushing = [asyncio.create_task(client.flush()) for _ in range(2)]
        await asyncio.sleep(0)
        protocol = client._protocol
        on_end = client._supervisor._ended  # type: ignore[union-attr]

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
    async with mortal_and_client(stall, send_high_water=1 << 30) as (server, client):
        await client.send(TOO_MUCH)
        assert client.stats.bytes_queued
        server.drop()
        await lost(client)
        await client.wait_connected()
        with pytest.raises(ConnectionLostError, match="unsent") as caught:
            await client.disconnect()
        assert caught.value.details["undelivered"] > 0
        await client.disconnect()


async def test_connect_does_not_meddle_and_another_thread_may_not() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await lost(client)
        with pytest.raises(BusyError, match="wait_connected"):
            await client.connect()

        async def elsewhere() -> None:
            for call in (client.receive, lambda: client.send(b"x"), client.wait_connected, client.disconnect):
                with pytest.raises(UsageError):
                    await call()  # type: ignore[operator]
            with pytest.raises(UsageError):
                client.abort()

        await asyncio.to_thread(asyncio.run, elsewhere())
        await server.start()
        await client.wait_connected()


async def test_after_disconnect_the_news_and_the_unread_bytes_are_dropped() -> None:
    async with mortal_and_client() as (server, client):
        await client.send(b"unread\n")
        await arrived(client, 7)
        server.drop()
        await lost(client)
        await client.disconnect()
        for name in ("receive", "send", "flush"):
            with pytest.raises(ClosedError):
                await CALLS[name](client)


@pytest.mark.parametrize("end", ["disconnect", "abort"])
async def test_whoever_waits_is_told_of_the_end_and_connect_may_follow(end: str) -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        waiting = [asyncio.create_task(CALLS[name](client)) for name in ("receive", "send", "flush")]
        waiting.append(asyncio.create_task(client.wait_connected()))
        await asyncio.sleep(0)
        await client.disconnect() if end == "disconnect" else client.abort()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ClosedError] * 4
        for call in (client.receive, lambda: client.send(b"x"), client.wait_connected):
            with pytest.raises(ClosedError):
                await call()  # type: ignore[operator]
        await server.start()
        await client.connect()
        await client.send(b"again")
        assert await client.receive() == b"again"


async def test_the_end_of_the_attempts_is_told_to_all_again_and_again() -> None:
    async with mortal_and_client(reconnect_attempts=3) as (server, client):
        await server.kill()
        waiting = asyncio.create_task(client.wait_connected())
        await told(client)
        with pytest.raises(ConnectError, match="3 attempts") as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        for call in (client.receive, lambda: client.send(b"x"), client.flush, client.wait_connected):
            with pytest.raises(ConnectError, match="3 attempts"):
                await call()  # type: ignore[operator]
        with pytest.raises(ConnectError):
            await waiting
        await client.disconnect()


async def test_a_plain_client_waits_for_the_connect_of_another_task_only() -> None:
    async with mortal_and_client() as (server, _):
        client = reconnecting(server.port, reconnect=False)
        with pytest.raises(Exception, match="not connected"):
            await client.wait_connected()
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        await client.wait_connected()
        assert client.is_connected
        await connecting
        server.drop(reset=True)
        await lost(client)
        with pytest.raises(ConnectionLostError):
            await client.wait_connected()
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
        watch, own = client._protocol.watch, client._supervisor._ended  # type: ignore[union-attr]
        watch(lambda protocol: (own(protocol), [task.cancel() for task in reconnections()]), True)
        server.drop()
        await lost(client)
        with pytest.raises(ClosedError, match="reconnecting was cancelled"):
            await client.wait_connected()
        await client.connect()
        assert client.is_connected
