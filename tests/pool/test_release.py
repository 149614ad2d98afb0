"""`await pool.acquire()` and `pool.release(client)`: what the block form does by itself, and what misuse is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools

import pytest
from support.allocations import IMPOSSIBLE, Starved
from support.cancelling import Mode, cancelled_at, until
from support.line_server import ask, is_consistent, line_server, pool_of, server_and_pool

from pepperpy.network import ClosedError, NetworkClient, NetworkPool, NotConnectedError, PoolTimeoutError, UsageError

_receive = NetworkClient.receive_line


async def test_a_client_is_lent_until_it_is_released_and_its_connection_is_lent_again() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        for number in range(3):
            client = await pool.acquire()
            assert (pool.stats.in_use, pool.stats.idle) == (1, 0)
            await ask(client, b"%d" % number)
            pool.release(client)
            assert (pool.stats.in_use, pool.stats.idle) == (0, 1)
            calls = ((client.send, b"no"), (client.receive_line,), (client.request, b"no", _receive))
            for call, *arguments in (*calls, (client.wait_connected,), (client.start_tls,), (client.flush,)):
                with pytest.raises(NotConnectedError, match=r"released to its pool; acquire\(\) lends another"):
                    await call(*arguments)  # type: ignore[operator]
        assert server.accepted == 1
        assert pool.stats.dropped == {}


async def test_whoever_waits_gets_the_connection_that_is_released_in_either_form() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        client = await pool.acquire()
        waiting = [asyncio.create_task(_by_await(pool)), asyncio.create_task(_by_block(pool))]
        await until(lambda: pool.stats.waiting == 2, "both wait")
        pool.release(client)
        assert await asyncio.gather(*waiting) == [None, None]
        assert server.accepted == 1


async def _by_await(pool: NetworkPool) -> None:
    client = await pool.acquire()
    try:
        await ask(client)
    finally:
        pool.release(client)


async def _by_block(pool: NetworkPool) -> None:
    async with pool.acquire() as client:
        await ask(client)


async def test_the_time_limit_holds_for_await_too() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        client = await pool.acquire()
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0.01)
        pool.release(client)
        assert is_consistent(pool)


async def test_a_client_that_was_aborted_before_its_release_is_not_lent_again() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        client = await pool.acquire()
        await client.send(b"answer to nobody\n")
        client.abort()
        pool.release(client)
        assert pool.stats.dropped == {"closed": 1}
        await _by_await(pool)
        assert server.accepted == 2


async def test_a_second_release_is_refused_and_does_not_take_the_connection_from_its_next_user() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        first = await pool.acquire()
        pool.release(first)
        second = await pool.acquire()
        with pytest.raises(UsageError, match="released before"):
            pool.release(first)
        assert pool.stats.in_use == 1
        await ask(second)
        pool.release(second)


async def test_a_client_of_another_pool_or_of_none_is_refused() -> None:
    async with server_and_pool(0, 1) as (server, pool), pool_of(server.port, 0, 1) as other:
        client = await other.acquire()
        with pytest.raises(UsageError, match="lent by another pool"):
            pool.release(client)
        await ask(client)
        other.release(client)
        with pytest.raises(UsageError, match="of no pool"):
            pool.release(NetworkClient(pool.config))
        with pytest.raises(TypeError, match="client must be a NetworkClient, not str"):
            pool.release("client")  # type: ignore[arg-type]


async def test_a_client_that_is_released_inside_of_its_block_is_refused_at_the_end_of_the_block() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        with pytest.raises(UsageError, match="released before"):
            async with pool.acquire() as client:
                pool.release(client)
                other = await pool.acquire()
        await ask(other)
        pool.release(other)
        assert is_consistent(pool)


async def test_the_end_of_a_block_that_was_not_entered_or_has_ended_is_refused() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        block = pool.acquire()
        for _ in range(2):
            with pytest.raises(UsageError, match="not entered, or has ended"):
                await block.__aexit__(None, None, None)
            async with block as client:
                await ask(client)
        assert (pool.stats.in_use, pool.stats.idle, pool.stats.dropped) == (0, 1, {})


async def test_a_block_that_two_tasks_enter_is_that_of_the_first_and_the_second_takes_no_connection() -> None:
    async with server_and_pool(0, 2) as (_, pool):
        clients = [await pool.acquire() for _ in range(2)]
        block = pool.acquire()
        entering = [asyncio.create_task(block.__aenter__()) for _ in range(2)]
        await until(lambda: pool.stats.waiting == 2, "both wait")
        for client in clients:
            pool.release(client)
        first = await entering[0]
        with pytest.raises(UsageError, match="gives one connection"):
            await entering[1]
        assert (pool.stats.in_use, pool.stats.idle) == (1, 1)
        await ask(first)
        await block.__aexit__(None, None, None)
        assert (pool.stats.in_use, pool.stats.idle, pool.stats.dropped) == (0, 2, {})


async def test_a_client_that_nobody_releases_is_warned_of_and_its_place_goes_to_the_next() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        for number, ending in enumerate((None, NetworkClient.abort), start=1):
            client = await pool.acquire()
            await ask(client)
            if ending is not None:
                ending(client)
            with pytest.warns(ResourceWarning, match="unreleased NetworkClient.*pool.release"):
                del client
                gc.collect()
            # The next one does not wait for a time limit.
            await _by_await(pool)
            assert pool.stats.dropped == {"unreleased": number}
            assert server.accepted == number + 1
            assert is_consistent(pool)


async def test_a_block_that_was_entered_and_forgotten_is_warned_of_too() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        loan = pool.acquire()
        await loan.__aenter__()
        with pytest.warns(ResourceWarning, match="unreleased NetworkClient"):
            del loan
            gc.collect()
        await _by_await(pool)
        assert pool.stats.dropped == {"unreleased": 1}


async def test_a_client_that_is_forgotten_while_the_pool_closes_does_not_hold_it_up() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 1)
        client = await pool.acquire()
        closing = asyncio.create_task(pool.close(timeout=None))
        await asyncio.sleep(0)
        assert not closing.done()
        with pytest.warns(ResourceWarning, match="unreleased NetworkClient"):
            del client
            gc.collect()
        await closing
        assert pool.stats.size == 0


async def test_a_client_that_is_forgotten_right_before_the_pool_is_aborted_counts_once() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 1)
        client = await pool.acquire()
        with pytest.warns(ResourceWarning, match="unreleased NetworkClient"):
            del client
            gc.collect()
        pool.abort()
        await until(lambda: not server.open, "it is closed")
        assert pool.stats.in_use == 0


async def test_a_client_that_the_pool_has_aborted_may_be_released_or_forgotten() -> None:
    async with line_server() as server:
        for forget in (False, True):
            pool = pool_of(server.port, 0, 1)
            client = await pool.acquire()
            pool.abort()
            with pytest.raises(ClosedError):
                await client.receive()
            if not forget:
                pool.release(client)
            del client
            gc.collect()
            assert pool.stats.in_use == 0


@pytest.mark.parametrize("mode", Mode)
async def test_an_await_cancelled_at_any_suspension_loses_no_slot(mode: Mode) -> None:
    for number in itertools.count(1):
        async with server_and_pool(0, 1) as (server, pool):
            outcome = await cancelled_at(_acquired(pool), number, mode)
            if outcome.cancelled:
                await until(lambda pool=pool: pool.stats.idle == 1, "it is kept for the next")  # type: ignore[misc]
            else:
                pool.release(outcome.value)
            await _by_await(pool)
            assert is_consistent(pool)
            assert server.accepted == 1
            if not outcome.cancelled:
                assert number == 2
                break


async def _acquired(pool: NetworkPool) -> NetworkClient:
    return await pool.acquire()


async def test_a_connection_released_in_the_tick_of_a_cancellation_goes_to_the_next() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        client = await pool.acquire()
        tasks = [asyncio.create_task(_by_await(pool)) for _ in range(4)]
        await until(lambda: pool.stats.waiting == 4, "all wait")
        pool.release(client)
        tasks[0].cancel()
        tasks[1].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]
        await asyncio.gather(*tasks[2:])
        assert server.accepted == 1
        assert pool.stats.dropped == {}


@pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))
async def test_a_connection_that_cannot_be_lent_for_want_of_memory_is_closed_and_not_forgotten() -> None:
    failed = 0
    for number in range(8):
        async with server_and_pool(5, 5) as (_, pool):
            # A set of Python grows with its fifth member.
            others = [await pool.acquire() for _ in range(4)]
            (connection,) = pool._slots.idle
            client = None
            with contextlib.suppress(MemoryError):
                client = Starved(0, number)(pool.acquire().take)
            if client is not None:
                others.append(client)
            else:
                failed += 1
                assert connection in pool._slots.idle or connection.protocol.state != "open"
            for other in others:
                pool.release(other)
            assert pool.stats.in_use == 0 and is_consistent(pool)
    assert failed
