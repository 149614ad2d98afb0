"""`NetworkClient.request()`: turns, phases, and what a request that ends early leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from support.cancelling import Mode, arrived, cancel_now, cancelled_at
from support.requesting import asked, is_dropped, line, outcome, still_usable
from support.servers import TOO_MUCH, Peer, peer_and_client

from pepperpy.network import ClosedError, ConnectionLostError, NetworkClient, NetworkTimeoutError


async def hold_the_turn(client: NetworkClient) -> Callable[[], object]:
    """Let a request begin that ends, without a byte, when the result is called."""
    free = asyncio.Event()

    async def wait(_: NetworkClient) -> None:
        await free.wait()

    task = asyncio.create_task(client.request(b"", wait))
    await asyncio.sleep(0)
    assert not task.done()
    return free.set


# ---- Turns ----


async def test_requests_of_many_tasks_are_served_in_the_order_of_their_calls() -> None:
    async with peer_and_client() as (peer, client):
        tasks = [asked(client, b"%03d\n" % number) for number in range(100)]
        for number in range(100):
            assert await peer.receive(4) == b"%03d\n" % number
            assert client.stats.sends == number + 1, "sent before its turn"
            await peer.send(b"reply %03d\n" % number)
        assert await asyncio.gather(*tasks) == [b"reply %03d\n" % number for number in range(100)]
        assert client.stats.bytes_buffered == 0


async def test_a_request_gives_what_its_callable_gives_however_many_receives_that_takes() -> None:
    async def record(client: NetworkClient) -> tuple[int, bytes]:
        size = int(await client.receive_line())
        return size, await client.receive_exactly(size)

    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.request(memoryview(b"q"), record))
        assert await peer.receive(1) == b"q"
        for piece in (b"1", b"0\n", b"01234", b"56789"):
            await peer.send(piece)
            await asyncio.sleep(0)
        assert await task == (10, b"0123456789")
        second = asyncio.create_task(client.request(bytearray(b"q"), NetworkClient.receive_line))
        assert await peer.receive(1) == b"q"
        await peer.send(b"reply\n")
        assert await second == b"reply\n"


@pytest.mark.parametrize("mode", Mode)
async def test_a_request_cancelled_while_it_waits_for_its_turn_has_not_happened(mode: Mode) -> None:
    async with peer_and_client() as (peer, client):
        for number_of_waiting in range(1, 4):
            end = await hold_the_turn(client)
            tasks = [asked(client, b"never sent\n") for _ in range(number_of_waiting)]
            await asyncio.sleep(0)
            for task in tasks[1:]:
                assert await cancel_now(task, mode, lambda: None)
            assert await cancel_now(tasks[0], mode, end)
            assert client._link.exchanges is not None
            assert not client._link.exchanges._turns._waiting, "who gives up leaves something behind"
            await still_usable(peer, client)


async def test_a_turn_that_reaches_a_task_in_the_tick_of_its_cancellation_goes_to_the_next() -> None:
    async def line_and_cancel(client: NetworkClient) -> bytes:
        text = await line(client)
        # Called after the turn was given to the second task, and before that runs.
        asyncio.get_running_loop().call_soon(second.cancel)
        return text

    async with peer_and_client() as (peer, client):
        first = asyncio.create_task(client.request(b"1\n", line_and_cancel))
        second, third = asked(client, b"2\n"), asked(client, b"3\n")
        assert await peer.receive(2) == b"1\n"
        await peer.send(b"reply 1\n")
        assert await first == b"reply 1\n"
        assert await peer.receive(2) == b"3\n"
        await peer.send(b"reply 3\n")
        assert await third == b"reply 3\n"
        assert second.cancelled()


async def test_who_waits_for_a_turn_is_told_the_reason_when_the_connection_is_dropped() -> None:
    async with peer_and_client() as (peer, client):
        first, *waiting = [asked(client) for _ in range(4)]
        assert await peer.receive(2) == b"q\n"
        first.cancel("by the test")
        for task in waiting:
            error = await outcome(task)
            assert isinstance(error, ClosedError)
            assert isinstance(error.__cause__, asyncio.CancelledError)
            assert error.details["phase"] == "request"
        await is_dropped(peer, client)
        assert await peer.receive_all() == b"", "a request that waited was sent"


async def test_who_waits_for_a_turn_is_told_at_once_when_the_connection_is_lost() -> None:
    async with peer_and_client() as (peer, client):
        first, *waiting = [asked(client) for _ in range(4)]
        assert await peer.receive(2) == b"q\n"
        peer.reset()
        reason = await outcome(first)
        assert isinstance(reason, ConnectionLostError)
        for task in waiting:
            error = await outcome(task)
            assert isinstance(error, ConnectionLostError)
            assert error.__cause__ is reason


# ---- Phases ----


@pytest.mark.parametrize("mode", Mode)
async def test_a_request_cancelled_while_it_waits_for_room_has_not_happened(mode: Mode) -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        task = asked(client, b"never sent\n")
        await asyncio.sleep(0)
        assert await cancel_now(task, mode, lambda: None)
        assert client.is_connected
        assert client.stats.bytes_sent == len(TOO_MUCH)
        assert len(await peer.receive(len(TOO_MUCH))) == len(TOO_MUCH)
        await still_usable(peer, client)


async def test_a_request_cancelled_at_any_suspension_has_not_happened_or_drops_the_connection() -> None:
    dropped = 0
    for mode in Mode:
        for number in range(1, 4):
            async with peer_and_client() as (peer, client):
                end = await hold_the_turn(client)
                asyncio.get_running_loop().call_soon(end)

                async def answer(peer: Peer = peer) -> None:
                    if await peer.receive(2):
                        await peer.send(b"1 2 3\n")

                answering = asyncio.create_task(answer())
                result = await cancelled_at(client.request(b"q\n", line), number, mode)
                if not result.cancelled:
                    assert result.value == b"1 2 3\n"
                elif client.stats.sends == 2:
                    dropped += 1
                    await is_dropped(peer, client)
                answering.cancel()
                await asyncio.wait([answering])
                if client.is_connected:
                    await still_usable(peer, client)
    assert dropped == len(Mode), "one of its suspensions is the wait for the reply"


@pytest.mark.parametrize("part", [b"", b"a", b"a reply\n"])
@pytest.mark.parametrize("mode", Mode)
async def test_a_request_cancelled_before_it_has_its_reply_drops_the_connection(mode: Mode, part: bytes) -> None:
    async with peer_and_client() as (peer, client):
        task = asked(client)
        assert await peer.receive(2) == b"q\n"
        await peer.send(part[:-1])
        await arrived(client, len(part[:-1]))
        assert await cancel_now(task, mode, lambda: peer.sock.send(part[-1:]))
        await is_dropped(peer, client)


async def test_an_error_out_of_the_callable_drops_the_connection_and_is_raised() -> None:
    async def fail(client: NetworkClient) -> bytes:
        await client.receive_line()
        raise LookupError("the caller's own, with a secret")

    async with peer_and_client() as (peer, client):
        task, waiting = asyncio.create_task(client.request(b"q\n", fail)), asked(client)
        assert await peer.receive(2) == b"q\n"
        await peer.send(b"reply\n")
        error = await outcome(task)
        assert isinstance(error, LookupError)
        told = await outcome(waiting)
        assert isinstance(told, ClosedError)
        assert told.__cause__ is error
        assert "LookupError" in str(told)
        assert "secret" not in str(told)
        await is_dropped(peer, client)


async def test_a_bad_argument_is_refused_before_anything_is_sent() -> None:
    async with peer_and_client() as (peer, client):
        with pytest.raises(TypeError, match="data must be bytes-like"):
            await client.request("text", line)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="receive must be callable"):
            await client.request(b"q\n", b"\n")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            await client.request(b"q\n", line, timeout=-1)
        await still_usable(peer, client)


# ---- Time ----


async def test_the_timeout_is_that_of_the_whole_call_and_the_reason_for_those_behind() -> None:
    async with peer_and_client() as (peer, client):
        first = asked(client, timeout=0.02)
        waiting = asked(client)
        assert await peer.receive(2) == b"q\n"
        # A byte now and then does not help.
        await peer.send(b"a")
        error = await outcome(first)
        assert isinstance(error, NetworkTimeoutError)
        assert error.details["elapsed"] >= 0.019
        told = await outcome(waiting)
        assert isinstance(told, ClosedError)
        assert told.__cause__ is error
        await is_dropped(peer, client)


async def test_a_request_may_take_longer_than_one_operation_of_the_client() -> None:
    async with peer_and_client(timeout=0.01, connect_timeout=10) as (peer, client):
        for receive in (line, NetworkClient.receive_line, lambda client: client.receive_exactly(6)):
            task = asyncio.create_task(client.request(b"q\n", receive, timeout=10))
            await asyncio.sleep(0.03)  # longer than the timeout of the client
            await peer.send(b"reply\n")
            assert await task == b"reply\n"
        # What the caller limits himself is limited; and outside of requests the default holds again.
        with pytest.raises(NetworkTimeoutError, match="receive"):
            await client.receive_line()
        with pytest.raises(NetworkTimeoutError, match="receive"):
            await client.request(b"q\n", lambda client: client.receive_line(timeout=0.01), timeout=10)
        assert not client.is_connected


async def test_a_request_whose_time_is_up_before_its_turn_has_not_happened() -> None:
    async with peer_and_client() as (peer, client):
        end = await hold_the_turn(client)
        with pytest.raises(NetworkTimeoutError, match="request timed out after"):
            await client.request(b"never sent\n", line, timeout=0.01)
        end()
        await still_usable(peer, client)


class RaisingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "dropped" in record.getMessage():
            raise SystemError("as CPython's own, where a record has no memory")


async def test_no_handler_of_the_log_keeps_a_connection_open_whose_reply_is_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    log, handler = logging.getLogger("pepperpy.network.tcp"), RaisingHandler()
    log.addHandler(handler)
    try:
        async with peer_and_client() as (peer, client):
            first, second = asked(client, b"1\n"), asked(client, b"2\n")
            assert await peer.receive(2) == b"1\n"
            first.cancel()
            assert isinstance(await outcome(first), asyncio.CancelledError)
            assert isinstance(await outcome(second), (ClosedError, ConnectionLostError))
            assert not client.is_connected
    finally:
        log.removeHandler(handler)
