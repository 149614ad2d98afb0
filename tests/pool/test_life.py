"""The pool over time: opening, idling, ageing, checking, servers that go and come back."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
from time import monotonic
from typing import Any

import pytest
from support.cancelling import until
from support.line_server import ask, is_consistent, line_server, pool_of, server_and_pool
from support.loops import begin_tasks_at_once, needs_eager_tasks
from support.own_kind import own_kind
from support.servers import wait_for_the_kernel

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    NetworkClient,
    NetworkPool,
    NetworkTimeoutError,
    NotConnectedError,
    PoolTimeoutError,
)


async def use(pool: NetworkPool, **options: Any) -> object:
    async with pool.acquire(**options) as client:
        await ask(client)
        return client.local_address


# ---- Opening and refilling ----


async def test_min_size_connections_are_there_from_the_start() -> None:
    async with server_and_pool(3, 5) as (server, pool):
        assert (pool.stats.idle, pool.stats.size, pool.stats.created) == (3, 3, 3)
        await use(pool)
        assert server.accepted == 3
        assert pool.stats.reused == 0


async def test_a_pool_that_cannot_open_its_connections_says_why_and_is_closed() -> None:
    async with line_server() as server:
        await server.stop()
        pool = pool_of(server.port, 2)
        with pytest.raises(ConnectError) as caught:
            async with pool:
                pass
        assert caught.value.errno == errno.ECONNREFUSED
        assert pool.stats.size == 0


async def test_without_a_block_the_first_acquire_opens_the_pool() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 2)
        await use(pool)
        await until(lambda: pool.stats.idle == 2, "min_size is reached")
        await pool.close()


async def test_idle_connections_that_the_server_drops_are_noticed_and_replaced_at_once() -> None:
    async with server_and_pool(3, 5) as (server, pool):
        await asyncio.gather(*(use(pool) for _ in range(3)))
        server.drop_all()
        await until(lambda: pool.stats.dropped == {"lost": 3}, "all are dropped")
        await until(lambda: pool.stats.idle == 3, "all are replaced")
        await use(pool)
        assert pool.stats.dropped == {"lost": 3}


async def test_an_idle_connection_that_receives_something_is_dropped_there_and_then() -> None:
    async with server_and_pool(0, 2) as (server, pool):
        address = await use(pool)
        server.open[0].write(b"unasked\n")
        await until(lambda: pool.stats.size == 0, "it is dropped")
        assert pool.stats.dropped == {"unread": 1}
        assert await use(pool) != address


async def test_what_an_idle_connection_received_is_noticed_although_the_loop_has_not_seen_it() -> None:
    async with server_and_pool(0, 2) as (server, pool):
        address = await use(pool)
        (idle,) = pool._slots.idle
        os.write(server.open[0].get_extra_info("socket").fileno(), b"unasked\n")
        wait_for_the_kernel(idle.protocol.extra_info("socket"))
        assert await use(pool) != address
        assert pool.stats.dropped == {"unread": 1}


@pytest.mark.slow
async def test_a_server_that_restarts_costs_no_error_once_it_is_back() -> None:
    async with server_and_pool(2, 4, config={"retry_delay": 0.001}) as (server, pool):
        await asyncio.gather(*(use(pool) for _ in range(4)))
        await server.stop()
        # Refilling goes on, and one made just before the end is lost a little later.
        await until(lambda: pool.stats.idle == 0 and pool.stats.failures >= 2, "all are lost, and refilling has failed")
        with pytest.raises(ConnectError):
            await use(pool)
        await until(lambda: pool.stats.preparing == 0, "no connection is being made, which would still fail")
        await server.start()
        await use(pool)
        assert pool._slots.refill_failures == 0, "the next outage begins with a short wait"
        await until(lambda: pool.stats.idle >= 2, "the pool is refilled")
        assert is_consistent(pool)


@pytest.mark.slow
async def test_a_server_that_accepts_and_hangs_up_is_not_asked_again_and_again() -> None:
    async with server_and_pool(1, 1) as (server, pool):
        server.hangs_up = True
        started = monotonic()
        server.drop_all()
        # None of them was of use, so each replacement comes a while after the loss.
        await until(lambda: pool.stats.dropped.get("lost", 0) >= 3, "three were lost")
        # uvloop's clock has milliseconds, and their difference is a little less than one.
        assert round(monotonic() - started, 3) >= 0.2


# ---- Failing to connect ----


async def test_each_failure_to_connect_fails_one_who_waits_and_loses_no_slot() -> None:
    async with line_server() as server:
        await server.stop()
        async with pool_of(server.port, 0, 2) as pool:
            results = await asyncio.gather(*(use(pool) for _ in range(20)), return_exceptions=True)
            assert [own_kind(result) for result in results] == [ConnectError] * 20
            assert len({id(result) for result in results}) == 20
            assert (pool.stats.size, pool.stats.failures) == (0, 20)
            await server.start()
            await asyncio.gather(*(use(pool) for _ in range(20)))


class StuckFromTheSecond:
    """An `on_connect` that ends for the first connection only."""

    def __init__(self) -> None:
        self.begun = 0

    async def __call__(self, client: NetworkClient) -> None:
        self.begun += 1
        if self.begun > 1:
            await asyncio.Event().wait()


async def test_a_server_that_never_answers_starves_nobody_who_can_be_served() -> None:
    async with server_and_pool(0, 3, config={"on_connect": StuckFromTheSecond()}) as (_, pool):
        await use(pool)
        await asyncio.gather(*(use(pool) for _ in range(30)))
        assert pool.stats.preparing == 2
        with pytest.raises(PoolTimeoutError, match="1 are in use and 2 being made"):
            async with pool.acquire():
                await use(pool, timeout=0.01)


async def test_on_connect_is_run_once_on_each_connection_before_anybody_gets_it() -> None:
    greeted: list[bytes] = []

    async def on_connect(client: NetworkClient) -> None:
        greeted.append(await client.receive_line())
        await ask(client, b"login")

    async with line_server() as server:
        server.greeting = b"hello\n"
        async with pool_of(server.port, 1, 2, config={"on_connect": on_connect}) as pool:
            for _ in range(3):
                async with pool.acquire() as first, pool.acquire() as second:
                    await asyncio.gather(ask(first), ask(second))
    assert greeted == [b"hello\n"] * 2


async def test_what_on_connect_raises_who_waits_gets_as_the_cause_and_the_connection_is_closed() -> None:
    async def on_connect(client: NetworkClient) -> None:
        await ask(client)
        raise PermissionError("wrong password")

    async with server_and_pool(0, 1, config={"on_connect": on_connect}) as (server, pool):
        for _ in range(2):
            with pytest.raises(ConnectError, match="on_connect failed: wrong password") as caught:
                await use(pool)
            assert type(caught.value.__cause__) is PermissionError
        assert (pool.stats.size, pool.stats.failures, pool.stats.created) == (0, 2, 0)
        await until(lambda: not server.open, "both are closed")


async def test_an_on_connect_that_does_not_end_is_a_timeout() -> None:
    async def on_connect(client: NetworkClient) -> None:
        await client.receive(timeout=None)

    async with server_and_pool(0, 1, config={"connect_timeout": 0.2, "on_connect": on_connect}) as (server, pool):
        with pytest.raises(NetworkTimeoutError, match=r"on_connect not done within 0\.2 s"):
            await use(pool)
        assert (pool.stats.size, pool.stats.failures, server.accepted) == (0, 1, 1)
        await until(lambda: not server.open, "it is closed")


async def test_a_pool_moves_to_the_next_host_with_on_connect_and_what_may_pass_as_configured() -> None:
    asked: list[object] = []

    async def on_connect(client: NetworkClient) -> None:
        await ask(client, b"login")

    def may_pass(error: Exception) -> bool:
        asked.append(error)
        return len(asked) < 3

    async with line_server() as gone, line_server() as server:
        await gone.stop()
        hosts = (("127.0.0.1", server.port),)
        config = {"hosts": hosts, "on_connect": on_connect, "may_pass": may_pass}
        async with pool_of(gone.port, 0, 1, config=config) as pool:
            # Lent twice, the connection passes from client to client.
            assert await use(pool) == await use(pool)
            async with pool.acquire() as client:
                assert client.remote_address == hosts[0]
            assert (server.accepted, len(asked)) == (1, 1)
            await server.stop()
            await until(lambda: pool.stats.idle == 0, "its loss is noticed")
            with pytest.raises(ConnectError):
                await use(pool)
            assert len(asked) == 3


# ---- Checking ----


async def test_an_idle_connection_is_checked_before_it_is_lent() -> None:
    checked: list[NetworkClient] = []

    async def check(client: NetworkClient) -> None:
        await ask(client, b"check")
        checked.append(client)

    async with server_and_pool(0, 1, check=check, check_after=0) as (server, pool):
        for _ in range(4):
            await use(pool)
        assert len(checked) == 3
        # One that passes from hand to hand was not idle.
        await asyncio.gather(*(use(pool) for _ in range(5)))
        assert len(checked) == 4
        assert server.accepted == 1


@needs_eager_tasks
async def test_where_tasks_begin_at_once_a_check_sees_its_connection_in_the_counts_of_the_pool() -> None:
    sizes: list[tuple[int, int]] = []

    async def check(client: NetworkClient) -> None:
        sizes.append((pool.stats.size, pool.stats.preparing))

    begin_tasks_at_once()
    async with server_and_pool(0, 1, check=check, check_after=0) as (_, pool):
        await use(pool)
        await use(pool)
        assert sizes == [(1, 1)]


async def test_whoever_keeps_the_client_of_a_check_cannot_touch_its_connection() -> None:
    checked: list[NetworkClient] = []

    async def check(client: NetworkClient) -> None:
        checked.append(client)

    async with server_and_pool(0, 1, check=check, check_after=0) as (server, pool):
        await use(pool)
        async with pool.acquire() as client:
            for call in (checked[0].send(b"not mine\n"), checked[0].receive()):
                with pytest.raises(NotConnectedError):
                    await call
            checked[0].abort()
            await ask(client)
        assert (server.accepted, len(checked)) == (1, 1)


async def test_a_connection_that_was_not_idle_for_long_is_not_checked() -> None:
    async def check(client: NetworkClient) -> None:
        raise AssertionError

    async with server_and_pool(0, 1, check=check, check_after=60) as (server, pool):
        for _ in range(3):
            await use(pool)
        assert server.accepted == 1


async def _raise(client: NetworkClient) -> None:
    raise ConnectionLostError


async def _return_false(client: NetworkClient) -> bool:
    return False


async def _never_end(client: NetworkClient) -> None:
    await client.receive(timeout=None)


async def _leave_bytes(client: NetworkClient) -> None:
    await client.send(b"a\nb\n")
    await client.receive_exactly(1)


@pytest.mark.parametrize("check", [_raise, _return_false, _never_end, _leave_bytes])
async def test_a_connection_that_fails_its_check_is_replaced(check: Any) -> None:
    async with server_and_pool(0, 2, check=check, check_after=0, check_timeout=0.05) as (server, pool):
        address = await use(pool)
        assert await use(pool) != address
        assert pool.stats.dropped == {"check": 1}
        assert (server.accepted, pool.stats.size) == (2, 1)


async def test_after_one_failed_check_no_other_idle_connection_is_tried() -> None:
    checks = 0

    async def check(client: NetworkClient) -> bool:
        nonlocal checks
        checks += 1
        return False

    async with server_and_pool(3, 4, check=check, check_after=0) as (server, pool):
        await use(pool)
        assert (checks, server.accepted) == (1, 4)


async def test_a_check_that_fails_after_who_waited_for_it_has_left_makes_no_new_connection() -> None:
    gate = asyncio.Event()

    async def check(client: NetworkClient) -> bool:
        await gate.wait()
        return False

    async with server_and_pool(0, 1, check=check, check_after=0, check_timeout=60) as (server, pool):
        await use(pool)
        with pytest.raises(PoolTimeoutError):
            await use(pool, timeout=0)
        gate.set()
        await until(lambda: pool.stats.size == 0, "the check has failed")
        assert pool.stats.dropped == {"check": 1}
        assert server.accepted == 1


async def test_who_waits_for_a_slow_connect_may_have_an_idle_connection_that_must_be_checked() -> None:
    stuck = StuckFromTheSecond()
    async with server_and_pool(0, 2, check=ask, check_after=0, config={"on_connect": stuck}) as (_, pool):
        async with pool.acquire() as client:
            waiting = asyncio.create_task(use(pool))
            await until(lambda: stuck.begun == 2, "a second one is being made")
            await ask(client)
        await waiting
        assert (pool.stats.idle, pool.stats.preparing) == (1, 1)
        await use(pool)


# ---- Idle for too long, too old ----


async def test_surplus_connections_are_closed_when_they_have_been_idle_for_too_long() -> None:
    limit = 0.05
    async with server_and_pool(1, 4, max_idle=limit) as (server, pool):
        async with pool.acquire(), pool.acquire(), pool.acquire():
            since = monotonic()
        await until(lambda: pool.stats.size == 1, "all but min_size are closed")
        assert monotonic() - since >= limit - 0.002
        assert pool.stats.dropped == {"idle": 2}
        assert server.accepted == 3
        await until(lambda: len(server.open) == 1, "the server has seen it")
        assert pool._slots.timer is not None and pool._slots.timer.at == math.inf, "nothing will fall due"


async def test_a_connection_that_is_used_is_never_idle_for_too_long() -> None:
    async with server_and_pool(0, 1, max_idle=0.02) as (server, pool):
        async with pool.acquire() as client:
            await ask(client)
            until_ = monotonic() + 0.1
            while monotonic() < until_:
                await ask(client)
        assert server.accepted == 1
        assert pool.stats.idle == 1


async def test_a_connection_that_is_too_old_is_not_lent_again() -> None:
    age = 0.03
    async with server_and_pool(0, 1, max_age=age) as (_, pool):
        for number in (1, 2):
            async with pool.acquire() as client:
                begun = monotonic()
                # However old, nobody loses it while using it.
                while monotonic() < begun + age:
                    await ask(client)
            assert pool.stats.dropped == {"age": number}
            assert pool.stats.idle == 0


async def test_an_idle_connection_that_is_too_old_is_replaced_even_in_a_pool_of_min_size() -> None:
    async with server_and_pool(2, 2, max_age=0.05) as (server, pool):
        await until(lambda: pool.stats.dropped.get("age", 0) >= 2, "both are closed")
        await until(lambda: server.accepted >= 4 and pool.stats.idle == 2, "both are replaced")


async def test_connections_made_together_do_not_grow_too_old_together() -> None:
    began = monotonic()
    async with server_and_pool(20, 20, max_age=1000) as (_, pool):
        ends = sorted(connection.expires_at for connection in pool._slots.idle)
        assert began + 899 < ends[0] < ends[-1] <= monotonic() + 1000
        assert ends[-1] - ends[0] > 20


async def test_a_failure_to_refill_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with server_and_pool(1, 1) as (server, pool):
        await until(lambda: len(server.open) == 1, "the server has accepted it")
        with caplog.at_level(logging.WARNING, "pepperpy.network.pool.pool"):
            await server.stop()
            await until(lambda: pool.stats.failures > 0, "refilling fails")
        assert "the pool cannot make a connection: 127.0.0.1" in caplog.text
