"""The pool: who gets which connection, and how many."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from support.cancelling import until
from support.certificates import client_context
from support.line_server import ask, pool_of, server_and_pool
from support.servers import TOO_MUCH

from pepperpy.network import (
    BusyError,
    ClosedError,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    NotConnectedError,
    PoolTimeoutError,
    TLSConfig,
    UsageError,
)


async def test_a_connection_is_lent_again_and_again() -> None:
    async with server_and_pool() as (server, pool):
        for number in range(5):
            async with pool.acquire() as client:
                await ask(client, b"%d" % number)
                assert pool.stats.in_use == 1
        assert server.accepted == 1
        stats = pool.stats
        assert (stats.size, stats.idle, stats.in_use, stats.created, stats.reused) == (1, 1, 0, 1, 4)
        assert stats.dropped == {}


async def test_no_more_than_max_size_are_lent_at_once_and_the_others_wait() -> None:
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        async with pool.acquire() as client:
            most = max(most, pool.stats.in_use)
            await ask(client, b"%d" % number)

    async with server_and_pool(0, 3) as (server, pool):
        await asyncio.gather(*map(work, range(50)))
        assert most == 3
        assert server.accepted == 3
        longest = pool.stats.max_wait
        assert longest > 0
        # A shorter wait, which is the last, changes nothing.
        client = await pool.acquire()
        others = [await pool.acquire() for _ in range(2)]
        waiting = asyncio.create_task(work(50))
        await asyncio.sleep(0)
        pool.release(client)
        await waiting
        assert pool.stats.max_wait >= longest
        for other in others:
            pool.release(other)


async def test_those_who_wait_are_served_in_their_order_and_a_newcomer_comes_last() -> None:
    served: list[object] = []

    async def wait(name: object) -> None:
        async with pool.acquire() as client:
            served.append(name)
            await ask(client)

    async with server_and_pool(0, 2) as (_, pool):
        async with pool.acquire(), pool.acquire():
            tasks = [asyncio.create_task(wait(number)) for number in range(20)]
            await until(lambda: pool.stats.waiting == 20, "all wait")
            for number in (0, 7, 19):
                tasks[number].cancel()
            await asyncio.wait([tasks[0], tasks[7], tasks[19]])
            assert pool.stats.waiting == 17
        # Both connections are back, and nobody who was given one has run yet.
        await wait("newcomer")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served == [*(number for number in range(20) if number not in (0, 7, 19)), "newcomer"]


async def test_of_the_idle_connections_the_one_used_last_is_lent_first() -> None:
    async with server_and_pool(0, 3) as (_, pool):
        async with pool.acquire() as first, pool.acquire() as second:
            addresses = [first.local_address, second.local_address]
        # `second` was given back first.
        for _ in range(3):
            async with pool.acquire() as client:
                assert client.local_address == addresses[0]
        async with pool.acquire(), pool.acquire() as client:
            assert client.local_address == addresses[1]


async def test_whoever_keeps_a_client_after_the_block_cannot_touch_its_connection() -> None:
    async with server_and_pool() as (server, pool):
        async with pool.acquire() as kept:
            await kept.request(b"ping\n", NetworkClient.receive_line)
            sending_later = kept.send(b"not mine any more\n")
        async with pool.acquire() as client:
            asking = kept.request(b"nor this\n", NetworkClient.receive_line)
            for call in (sending_later, kept.send(b"nor now\n"), kept.receive(), kept.flush(), asking):
                with pytest.raises(NotConnectedError):
                    await call
            kept.abort()
            await kept.disconnect()
            await ask(client)
        assert kept.stats.sends == 1
        assert kept.stats.bytes_received == len(b"ping\n")
        assert server.accepted == 1


async def test_what_was_accepted_in_the_block_leaves_and_the_connection_is_lent_again() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        for number in range(3):
            async with pool.acquire() as client:
                # The second is gathered, and would leave at the end of the turn.
                await client.send(b"%d" % number)
                await client.send(b"\n")
                await client.receive_line()
                await client.send(b"")
                await client.send(b"")
        assert server.accepted == 1
        assert pool.stats.dropped == {}


async def test_what_the_kernel_does_not_take_is_sent_before_the_connection_is_closed() -> None:
    received = asyncio.get_running_loop().create_future()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(1 << 20):
            total += len(data)
        received.set_result(total)
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
        async with pool_of(server.sockets[0].getsockname()[1], 0, 1) as pool:
            async with pool.acquire() as client:
                await client.send(TOO_MUCH)
            assert pool.stats.dropped == {"unsent": 1}
            # It still counts until it is closed.
            assert (pool.stats.closing, pool.stats.size) == (1, 1)
            assert await received == len(TOO_MUCH)


async def test_an_acquire_that_runs_out_of_time_says_how_the_pool_is() -> None:
    async with server_and_pool(0, 2) as (_, pool):
        async with pool.acquire(), pool.acquire():
            for _ in range(2):
                with pytest.raises(PoolTimeoutError, match=r"2, 2 are in use and 0 being made; 1 tasks wait") as caught:
                    async with pool.acquire(timeout=0.01):
                        pass
            details = caught.value.details
            assert details["elapsed"] >= 0.009
            assert details | {"in_use": 2, "preparing": 0, "waiting": 1, "phase": "acquire"} == details
            assert pool.stats.waiting == 0
        assert pool.stats.timeouts == 2
        async with pool.acquire(timeout=0) as client:
            await ask(client)


async def test_the_default_time_limit_is_that_of_the_configuration() -> None:
    async with server_and_pool(0, 1, config={"timeout": 0.01, "connect_timeout": 10}) as (_, pool):
        async with pool.acquire(timeout=10):
            with pytest.raises(PoolTimeoutError):
                async with pool.acquire():
                    pass


async def test_one_acquire_is_one_connection() -> None:
    async with server_and_pool() as (_, pool):
        loan = pool.acquire()
        async with loan as client:
            with pytest.raises(UsageError, match="one connection"):
                async with loan:
                    pass
            await ask(client)
        async with loan as client:
            await ask(client)


async def test_a_receiver_of_the_pool_is_not_in_the_way() -> None:
    async with server_and_pool() as (_, pool), pool.acquire() as client:
        receiving = asyncio.create_task(client.receive_line())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await client.receive()
        await client.send(b"hello\n")
        assert await receiving == b"hello\n"


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"min_size": -1}, ValueError, "min_size must be 0 or more, not -1"),
        ({"max_size": 0}, ValueError, "max_size must be 1 or more, not 0"),
        ({"min_size": 11}, ValueError, "min_size must be at most max_size=10, not 11"),
        ({"max_size": 2.0}, TypeError, "max_size must be an int, not 2.0"),
        ({"max_idle": 0}, ValueError, "max_idle must be more than 0 seconds, not 0"),
        ({"max_age": "1"}, TypeError, "max_age must be a number of seconds, not '1'"),
        ({"check_after": -1}, ValueError, "check_after must be 0 or more seconds, not -1"),
        ({"check_timeout": None}, TypeError, "check_timeout must be a number of seconds, not None"),
        ({"check": 1}, TypeError, "check must be an async function of a client, or None, not int"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        NetworkPool(NetworkConfig("localhost", 1), **settings)


@pytest.mark.parametrize("field", [{"reconnect": True}, {"on_state": print}, {"heartbeat": print}])
def test_what_is_for_single_clients_is_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(field))} is for single clients"):
        NetworkPool(NetworkConfig("localhost", 1, **field))


def test_a_bad_configuration_or_time_limit_is_refused() -> None:
    with pytest.raises(TypeError, match="config must be a NetworkConfig, not str"):
        NetworkPool("localhost")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must be 0 or more seconds, not -1"):
        NetworkPool(NetworkConfig("localhost", 1)).acquire(timeout=-1)


async def _full(client: NetworkClient, server: socket.socket) -> socket.socket:
    """The other end, after sending until the next send has to wait."""
    peer = server.accept()[0]
    peer.setblocking(False)
    await client.send(TOO_MUCH)
    assert client.stats.bytes_queued >= client.config.buffers.send_high
    return peer


async def _all_has_left(client: NetworkClient, peer: socket.socket) -> None:
    while client.stats.bytes_queued:
        with contextlib.suppress(BlockingIOError):
            peer.recv(1 << 20)
        await asyncio.sleep(0)


async def test_tls_that_waited_for_room_does_not_begin_on_the_connection_of_the_next_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with NetworkPool(NetworkConfig("127.0.0.1", server.getsockname()[1]), 0, 1) as pool:
            async with pool.acquire() as client:
                peer = await _last_bytes_in_the_transport(client, server)
                tls = TLSConfig(context=client_context(), server_hostname="localhost")
                upgrading = asyncio.create_task(client.start_tls(tls))
                await asyncio.sleep(0)
                await _all_has_left(client, peer)
            async with pool.acquire() as other:
                with pytest.raises(ClosedError, match="given back"):
                    await upgrading
                assert (other.tls, pool.stats.reused) == (None, 1)
                await other.send(b"next")
                await other.flush()
                received = bytearray()
                while not received.endswith(b"next"):
                    received += await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
                assert received.strip(b"\0") == b"next"
        peer.close()


async def _last_bytes_in_the_transport(client: NetworkClient, server: socket.socket) -> socket.socket:
    """The other end, when all that has not left is in the loop's transport.

    It tells the core in one turn that they have left, and the core wakes who waits for that in the next. So a block can
    be left before the waiting task runs.
    """
    peer = server.accept()[0]
    peer.setblocking(False)
    while not client.stats.bytes_queued:
        await client.send(bytes(1 << 16))
    return peer


async def test_a_send_that_waited_for_room_does_not_go_on_in_the_connection_of_the_next_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # The block is left when the send may go on; whether its task has done so by then, differs from time to time.
        for _ in range(10):
            async with NetworkPool(NetworkConfig("127.0.0.1", server.getsockname()[1]), 0, 1) as pool:
                async with pool.acquire() as client:
                    peer = await _full(client, server)
                    sending = asyncio.create_task(client.send(b"of the first user"))
                    await asyncio.sleep(0)
                    await _all_has_left(client, peer)
                    await client.flush()
                    went_on = sending.done()
                if went_on:
                    await sending
                    assert not pool.stats.dropped
                else:
                    assert pool.stats.dropped == {"unfinished": 1}
                    with pytest.raises(ClosedError):
                        await sending
            peer.close()
