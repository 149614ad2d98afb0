"""The pool under cancellation: no slot is lost, and no connection goes to two or in the middle of something."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
from collections import Counter

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.line_server import ask, is_consistent, line_server, pool_of, server_and_pool

from pepperpy.network import NetworkClient, NetworkPool


async def lend_all(pool: NetworkPool) -> None:
    """Every slot can be lent, all at the same time, and each works."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(pool.acquire()) for _ in range(pool.max_size)]
        assert len({client.local_address for client in clients}) == pool.max_size
        await asyncio.gather(*map(ask, clients))
    assert is_consistent(pool)


@pytest.mark.slow
async def test_a_storm_of_10_000_tasks_and_cancellations_loses_no_slot_and_mixes_up_no_answers() -> None:
    # In debug mode asyncio keeps a traceback for each callback, which takes ten times as long as all else here.
    asyncio.get_running_loop().set_debug(False)
    chance = random.Random(20240607)
    outcomes: Counter[str] = Counter()
    owners: dict[object, int] = {}

    async def work(number: int) -> None:
        async with pool.acquire(timeout=300) as client:
            address = client.local_address
            assert owners.setdefault(address, number) == number, "lent to two"
            try:
                if number % 97 == 0:
                    raise LookupError
                await ask(client, b"%d" % number)
                if number % 89 == 0:
                    client.abort()
            finally:
                del owners[address]

    async with server_and_pool(0, 50, config={"timeout": 300}) as (_, pool):
        tasks = [asyncio.create_task(work(number)) for number in range(10_000)]
        first_left = 0
        while first_left < len(tasks):
            # Let the loop run a little, and cancel some, wherever they are: most wait, some have just been served.
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
                assert is_consistent(pool)
            while first_left < len(tasks) and tasks[first_left].done():
                first_left += 1
            for number in (first_left + chance.randrange(80), chance.randrange(len(tasks))):
                tasks[number % len(tasks)].cancel()
        for task in tasks:
            if task.cancelled():
                outcomes["cancelled"] += 1
            elif (error := task.exception()) is None:
                outcomes["done"] += 1
            else:
                assert isinstance(error, LookupError), repr(error)
                outcomes["failed"] += 1
        assert outcomes.keys() == {"cancelled", "done", "failed"}
        stats = pool.stats
        assert (stats.in_use, stats.waiting, stats.failures, stats.timeouts) == (0, 0, 0, 0)
        assert stats.dropped.keys() == {"cancelled", "failed", "closed"}
        await until(lambda: not pool.stats.preparing, "all connections that were begun are made")
        assert pool.stats.created - sum(stats.dropped.values()) == pool.stats.idle <= 50
        await lend_all(pool)
        assert pool.stats.size == 50
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is NetworkClient and thing.is_connected]


async def _use(pool: NetworkPool) -> None:
    async with pool.acquire() as client:
        await ask(client)


@pytest.mark.parametrize("mode", Mode)
async def test_an_acquire_cancelled_at_any_suspension_loses_no_slot_and_no_connection(mode: Mode) -> None:
    # Alone, behind a connection that is lent, and with an idle one that must be checked.
    for situation in ("new", "lent", "to be checked"):
        for number in itertools.count(1):
            check = ask if situation == "to be checked" else None
            async with server_and_pool(0, 1, check=check, check_after=0) as (server, pool):
                lender = None
                if situation == "lent":
                    loan = pool.acquire()
                    client = await loan.__aenter__()
                    lender = asyncio.create_task(_give_back_when_awaited(pool, loan, client))
                elif situation == "to be checked":
                    await _use(pool)
                outcome = await cancelled_at(_use(pool), number, mode)
                if lender is not None:
                    await lender
                in_the_queue = number == 1
                if outcome.cancelled and in_the_queue:
                    # What was begun for it, or came back for it, is kept for the next.
                    await until(lambda pool=pool: pool.stats.idle == 1, "the connection is idle")  # type: ignore[misc]
                    assert pool.stats.dropped == {}
                elif outcome.cancelled:
                    assert pool.stats.dropped == {"cancelled": 1}
                assert is_consistent(pool)
                await lend_all(pool)
                assert server.accepted == 1 + (outcome.cancelled and not in_the_queue)
                if not outcome.cancelled:
                    assert outcome.suspensions == number - 1 == 2
                    break


async def _give_back_when_awaited(pool: NetworkPool, loan: object, client: NetworkClient) -> None:
    while not pool.stats.waiting and pool.stats.in_use:
        await asyncio.sleep(0)
    await ask(client)
    await loan.__aexit__(None, None, None)  # type: ignore[attr-defined]


async def test_a_connection_given_back_in_the_tick_of_a_cancellation_goes_to_the_next() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        async with pool.acquire():
            tasks = [asyncio.create_task(_use(pool)) for _ in range(5)]
            await until(lambda: pool.stats.waiting == 5, "all wait")
        # The first has the connection and does not know it yet; it hands it to the second, which is cancelled as well.
        tasks[0].cancel()
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, True, False, False, False]
        assert server.accepted == 1
        assert pool.stats.dropped == {}


async def test_a_connection_begun_for_a_task_that_is_cancelled_serves_the_next() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        tasks = [asyncio.create_task(_use(pool)) for _ in range(2)]
        await until(lambda: pool.stats.preparing == 1, "connecting has begun")
        tasks[0].cancel()
        await tasks[1]
        assert tasks[0].cancelled()
        assert server.accepted == 1


async def test_a_slow_connect_does_not_hold_up_who_can_have_a_returned_connection() -> None:
    gate, begun = asyncio.Event(), 0

    async def on_connect(client: NetworkClient) -> None:
        nonlocal begun
        begun += 1
        if begun > 1:
            await gate.wait()

    async with server_and_pool(0, 2, config={"on_connect": on_connect}) as (_, pool):
        async with pool.acquire() as client:
            address = client.local_address
            waiting = asyncio.create_task(_address(pool))
            await until(lambda: begun == 2, "the second is being made")
        assert await waiting == address
        assert pool.stats.preparing == 1
        gate.set()
        await until(lambda: pool.stats.idle == 2, "the second is idle")


async def _address(pool: NetworkPool) -> object:
    async with pool.acquire() as client:
        return client.local_address


async def test_cancelling_every_task_there_is_strands_nobody_and_loses_no_slot() -> None:
    async with server_and_pool(0, 2) as (_, pool):
        for turns in range(6):
            waiting = asyncio.ensure_future(asyncio.shield(asyncio.create_task(_use(pool))))
            for _ in range(turns):
                await asyncio.sleep(0)
            mine = asyncio.current_task()
            for task in asyncio.all_tasks():
                if task is not mine and task.get_name().startswith("pool of"):
                    task.cancel()
            with contextlib.suppress(ConnectionError):
                await waiting
            await until(lambda: pool.stats.preparing == 0, "nothing is being made")
            assert is_consistent(pool)
        await lend_all(pool)


async def test_cancelling_the_task_that_closes_a_connection_closes_it_all_the_same() -> None:
    for turns in range(3):
        async with server_and_pool(0, 1, max_age=1e-6) as (server, pool):
            loop = asyncio.get_running_loop()
            async with pool.acquire():
                begun = loop.time()
                while loop.time() == begun:
                    await asyncio.sleep(0)
            assert pool.stats.closing == 1
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asyncio.all_tasks():
                if task.get_name().startswith("pool of"):
                    task.cancel()
            await until(lambda pool=pool: pool.stats.size == 0, "it is closed")  # type: ignore[misc]
            await until(lambda server=server: not server.open, "the server has seen it")  # type: ignore[misc]
            await _use(pool)


async def test_an_error_that_comes_in_the_tick_of_a_cancellation_is_not_left_behind() -> None:
    async with line_server() as server:
        await server.stop()
        async with pool_of(server.port, 0, 1) as pool:
            tasks = [asyncio.create_task(_use(pool)) for _ in range(2)]
            await until(lambda: pool.stats.failures == 1, "the first has failed")
            tasks[0].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            assert isinstance(results[1], ConnectionError)
            assert pool.stats.size == 0
        gc.collect()
