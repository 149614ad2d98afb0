"""Connections of a pool that go from one place to another at unusual moments."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest
from support.cancelling import arrived, until
from support.line_server import LineServer, ask, is_consistent, line_server, pool_of, server_and_pool
from support.servers import wait_for_the_kernel

from pepperpy.network import (
    ClosedError,
    ConnectError,
    NetworkClient,
    NetworkError,
    NetworkPool,
    PoolTimeoutError,
    UsageError,
)
from pepperpy.network.pool.pool import Acquire


async def use(pool: NetworkPool) -> None:
    async with pool.acquire() as client:
        await ask(client)


@contextmanager
def in_the_kernel(server: LineServer, number: int = 0) -> Iterator[socket.socket]:
    """The server's socket of one connection: what is done with it here, no loop knows yet."""
    sock = socket.socket(fileno=os.dup(server.open[number].get_extra_info("socket").fileno()))
    with sock:
        yield sock


async def test_no_more_idle_connections_are_checked_than_tasks_wait() -> None:
    checked: list[NetworkClient] = []
    go_on = asyncio.Event()

    async def check(client: NetworkClient) -> None:
        checked.append(client)
        await go_on.wait()

    async with server_and_pool(3, 3, check=check, check_after=0) as (server, pool):
        tasks = [asyncio.create_task(use(pool))]
        await until(lambda: len(checked) == 1, "one is checked")
        tasks.append(asyncio.create_task(use(pool)))
        await until(lambda: len(checked) == 2, "another one is checked")
        assert (pool.stats.idle, pool.stats.preparing) == (1, 2)
        go_on.set()
        await asyncio.gather(*tasks)
        assert server.accepted == 3


async def test_an_idle_connection_that_was_lost_before_its_check_is_dropped_without_one() -> None:
    checked: list[NetworkClient] = []

    async with server_and_pool(1, 1, check=checked.append, check_after=0) as (server, pool):
        await until(lambda: len(server.open) == 1, "the server has accepted it")
        (idle,) = pool._slots.idle
        with in_the_kernel(server) as sock:
            sock.send(b"nobody asked\n")
            wait_for_the_kernel(idle.protocol.extra_info("socket"))
            async with pool.acquire() as client:
                await ask(client)
        assert not checked
        assert pool.stats.dropped == {"unread": 1}
        assert server.accepted == 2
        assert is_consistent(pool)


async def test_a_connection_is_replaced_only_when_it_is_closed_if_the_pool_is_full() -> None:
    async with server_and_pool(1, 1, max_age=0.02) as (server, pool):
        await until(lambda: pool.stats.closing == 1, "it is too old")
        assert (pool.stats.preparing, pool.stats.size) == (0, 1)
        await until(lambda: server.accepted == 2, "there is another one")


async def test_whoever_waits_gets_a_new_connection_with_what_the_server_has_said_on_it() -> None:
    async def greeted(client: NetworkClient) -> None:
        await arrived(client, len(b"hello\n"))

    async with server_and_pool(0, 1, config={"on_connect": greeted}) as (server, pool):
        server.greeting = b"hello\n"
        async with pool.acquire() as client:
            assert await client.receive_line() == b"hello\n"
        assert pool.stats.dropped == {}


async def test_a_connection_that_is_being_made_when_the_pool_closes_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()

    async def never(client: NetworkClient) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with line_server() as server:
        pool = pool_of(server.port, 0, 1, config={"on_connect": never})
        waiting = asyncio.create_task(use(pool))
        await begun.wait()
        with caplog.at_level(logging.WARNING, "pepperpy.network.pool"):
            await pool.close()
        with pytest.raises(ClosedError):
            await waiting
        assert (pool.stats.failures, caplog.records) == (0, [])


async def test_a_connection_with_bytes_that_nobody_asked_for_does_not_become_idle() -> None:
    async def greeted(client: NetworkClient) -> None:
        await arrived(client, len(b"hello\n"))

    async with line_server() as server:
        server.greeting = b"hello\n"
        async with pool_of(server.port, 1, 1, config={"on_connect": greeted}) as pool:
            assert pool.stats.idle == 0
            assert pool.stats.dropped == {"unread": 1}


async def test_what_fails_for_a_user_does_not_put_off_the_replacement_of_what_is_lost() -> None:
    fails = False

    async def fail(client: NetworkClient) -> None:
        if fails:
            raise LookupError("not this time")

    async with server_and_pool(1, 2, config={"on_connect": fail}) as (_, pool):
        client = await pool.acquire()
        fails = True
        with pytest.raises(ConnectError):
            await pool.acquire()
        fails = False
        client.abort()
        pool.release(client)
        assert pool.stats.preparing == 1, "at once, and not after a while"


async def test_connections_that_are_lost_together_count_as_one_failure_to_refill() -> None:
    async with server_and_pool(2, 2) as (server, pool):
        await until(lambda: len(server.open) == 2, "the server has accepted them")
        await server.stop()
        await until(lambda: pool.stats.dropped == {"lost": 2}, "both are lost")
        assert pool._slots.refill_failures == 1


async def test_a_look_before_its_time_closes_nothing_and_looks_again_in_time() -> None:
    async with server_and_pool(0, 1, max_idle=60) as (_, pool):
        await use(pool)
        timer = pool._slots.timer
        assert timer is not None
        timer.look_by(monotonic())
        await until(lambda: timer.at > monotonic() + 1, "it has looked")
        assert pool.stats.idle == 1 and timer.at < monotonic() + 61


async def test_a_look_before_a_refill_is_due_does_not_forget_it() -> None:
    async with server_and_pool(1, 1) as (server, pool):
        await until(lambda: len(server.open) == 1, "the server has accepted it")
        await server.stop()
        await until(lambda: pool._slots.refill_failures == 1, "it is put off")
        await server.start()
        assert pool._slots.timer is not None
        pool._slots.timer.look_by(monotonic())
        await until(lambda: pool.stats.idle == 1, "it is there again")
        await use(pool)
        assert pool._slots.refill_failures == 0, "it works again"


async def test_each_of_several_waits_ends_by_its_own_limit() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        client = await pool.acquire()
        waits = [pool.acquire(timeout=seconds) for seconds in (0.05, 0.01, 0.03)]
        ended = await asyncio.wait_for(asyncio.gather(*map(entered, waits), return_exceptions=True), 10)
        assert [type(error) for error in ended] == [PoolTimeoutError] * 3
        pool.release(client)


async def entered(block: Acquire) -> None:
    async with block:
        raise AssertionError("it was lent")


def test_a_client_that_is_released_in_another_loop_is_still_lent() -> None:
    async def begin() -> tuple[LineServer, NetworkPool, NetworkClient]:
        server = LineServer()
        await server.start()
        pool = pool_of(server.port, 0, 1)
        return server, pool, await pool.acquire()

    async def release(pool: NetworkPool, client: NetworkClient) -> None:
        pool.release(client)

    async def end(server: LineServer, pool: NetworkPool, client: NetworkClient) -> None:
        await ask(client)
        pool.release(client)
        assert pool.stats.idle == 1
        await pool.close()
        await server.stop()

    with asyncio.Runner() as mine:
        server, pool, client = mine.run(begin())
        other = asyncio.new_event_loop()
        with pytest.raises(UsageError, match="another event loop"):
            other.run_until_complete(release(pool, client))
        other.close()
        assert pool.stats.in_use == 1
        mine.run(end(server, pool, client))


async def test_a_pool_that_is_aborted_closes_at_once_what_is_being_checked() -> None:
    checked: list[NetworkClient] = []

    async def check(client: NetworkClient) -> None:
        checked.append(client)
        await asyncio.Event().wait()

    async with server_and_pool(1, 1, check=check, check_after=0) as (_, pool):
        waiting = asyncio.create_task(use(pool))
        await until(lambda: len(checked) == 1, "it is checked")
        pool.abort()
        assert not checked[0].is_connected
        with pytest.raises(ClosedError):
            await waiting


async def test_an_abort_ends_a_close_that_waits_and_the_timer() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 1, max_idle=60)
        await use(pool)
        client = await pool.acquire()
        timer = pool._slots.timer
        assert timer is not None and timer.at < math.inf
        closing = asyncio.create_task(pool.close(timeout=None))
        await asyncio.sleep(0)
        assert timer.at == math.inf
        pool.abort()
        await asyncio.wait_for(closing, 10)
        assert not client.is_connected
        pool.release(client)


@pytest.mark.parametrize("unread", [False, True])
async def test_an_old_connection_leaves_its_user_and_why_else_it_is_dropped_goes_before_its_age(unread: bool) -> None:
    async with server_and_pool(0, 1, max_age=0.001) as (_, pool):
        client = await pool.acquire()
        if unread:
            await client.send(b"hello\n")
            await arrived(client, len(b"hello\n"))
        (connection,) = pool._slots.lent
        await until(lambda: monotonic() > connection.expires_at, "it is old")
        pool.release(client)
        with pytest.raises(NetworkError):
            await client.send(b"not mine any more\n")
        assert pool.stats.dropped == {"unread" if unread else "age": 1}
        assert isinstance(connection.client, NetworkClient) and (connection.client is client) == unread


async def test_a_connection_that_is_released_right_after_a_cancellation_goes_to_the_next_at_once() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        client = await pool.acquire()
        tasks = [asyncio.create_task(use(pool)) for _ in range(2)]
        await until(lambda: pool.stats.waiting == 2, "both wait")
        tasks[0].cancel()
        pool.release(client)
        assert (pool.stats.waiting, pool.stats.in_use) == (0, 1)
        await tasks[1]
        assert pool.stats.dropped == {}


async def test_a_wait_that_is_cancelled_as_its_time_runs_out_is_no_timeout() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        client = await pool.acquire()
        task = asyncio.create_task(use(pool))
        await until(lambda: pool.stats.waiting == 1, "it waits")
        task.cancel()
        pool._slots._look(monotonic() + 60)
        assert pool.stats.timeouts == 0
        pool.release(client)
