"""Closing a pool, in every state it can be in; and the loops, threads and processes it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket

import pytest
from support.cancelling import open_sockets, until
from support.line_server import ask, line_server, pool_of, server_and_pool
from support.servers import TOO_MUCH

from pepperpy.network import ClosedError, NetworkClient, NetworkPool, UsageError

# conftest fails each test that leaves a task or a descriptor behind.


async def use(pool: NetworkPool) -> None:
    async with pool.acquire() as client:
        await ask(client)


async def hold(pool: NetworkPool, held: asyncio.Event, release: asyncio.Event) -> None:
    async with pool.acquire() as client:
        held.set()
        await release.wait()
        await ask(client)


async def test_closing_waits_for_all_that_are_lent() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 2)
        first, second = await pool.acquire(), await pool.acquire()
        closing = asyncio.create_task(pool.close(timeout=None))
        await asyncio.sleep(0)
        pool.release(first)
        await until(lambda: pool.stats.size == 1, "the first one is closed")
        await ask(second)
        assert not closing.done()
        pool.release(second)
        await closing
        assert pool.stats.size == 0


async def test_closing_waits_for_what_is_lent_and_refuses_the_rest() -> None:
    held, release = asyncio.Event(), asyncio.Event()
    async with line_server() as server:
        pool = pool_of(server.port, 0, 2)
        await asyncio.gather(use(pool), use(pool))
        holder = asyncio.create_task(hold(pool, held, release))
        await held.wait()
        closing = asyncio.create_task(pool.close(timeout=None))
        await until(lambda: pool.stats.size == 1, "the idle one is closed")
        with pytest.raises(ClosedError, match="the pool is closed"):
            await use(pool)
        assert not closing.done()
        release.set()
        await holder
        await closing
        assert pool.stats.size == 0
        await until(lambda: not server.open, "the server has seen it")
        await pool.close()
        pool.abort()


async def test_after_its_time_limit_closing_aborts_what_is_lent() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 1)
        async with pool.acquire() as client:
            waiting = asyncio.create_task(use(pool))
            await until(lambda: pool.stats.waiting == 1, "somebody waits")
            receiving = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            await pool.close(timeout=0.01)
            for task in (waiting, receiving):
                with pytest.raises(ClosedError):
                    await task
            with pytest.raises(ClosedError):
                await client.send(b"too late")
            assert pool.stats.size == 0
        assert pool.stats.size == 0


async def test_the_time_limit_of_closing_is_close_timeout_by_default() -> None:
    async with server_and_pool(0, 1, config={"close_timeout": 0.01}) as (_, pool):
        async with pool.acquire():
            await pool.close()


async def test_closing_ends_connecting_checking_and_those_who_wait_for_it() -> None:
    async def stuck(client: NetworkClient) -> None:
        await client.receive(timeout=None)

    for hook in ({"config": {"on_connect": stuck}}, {"check": stuck}):
        async with line_server() as server:
            pool = pool_of(server.port, 0, 1, check_after=0, check_timeout=60, **hook)
            if "check" in hook:
                await use(pool)
            waiting = [asyncio.create_task(use(pool)) for _ in range(2)]
            await until(lambda server=server, pool=pool: server.open and pool.stats.preparing, "it is stuck")  # type: ignore[misc]
            await pool.close()
            for task in waiting:
                with pytest.raises(ClosedError):
                    await task
            assert pool.stats.size == 0


async def test_closing_in_the_tick_in_which_things_begin_or_end() -> None:
    async with line_server() as server:
        # A connection that has just been dropped; one whose making has just begun; one that has just been handed over.
        pool = pool_of(server.port, 1, 1)
        async with pool:
            with pytest.raises(ZeroDivisionError):
                async with pool.acquire():
                    raise ZeroDivisionError
            await pool.close()
        pool = pool_of(server.port, 0, 2)
        waiting = asyncio.create_task(use(pool))
        while not pool.stats.preparing:
            await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(ClosedError):
            await waiting
        pool = pool_of(server.port, 0, 1)
        async with pool.acquire():
            waiting = asyncio.create_task(use(pool))
            await until(lambda: pool.stats.waiting == 1, "somebody waits")
        # It is lent: closing waits for it.
        await pool.close()
        await waiting


async def test_when_closing_returns_all_descriptors_are_given_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = open_sockets()
        for kind in ("dropped", "lent", "idle"):
            pool = pool_of(listener.getsockname()[1], 0, 2)
            async with pool.acquire():
                with contextlib.suppress(ZeroDivisionError):
                    async with pool.acquire():
                        if kind == "dropped":
                            raise ZeroDivisionError
                if kind == "lent":
                    await pool.close(timeout=0)
                    assert open_sockets() == before
            await pool.close()
            assert open_sockets() == before


async def test_closing_right_after_the_last_connection_was_dropped_waits_until_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = open_sockets()
        pool = pool_of(listener.getsockname()[1], 0, 1)
        with contextlib.suppress(ZeroDivisionError):
            async with pool.acquire():
                raise ZeroDivisionError
        await pool.close()
        assert open_sockets() == before


async def test_aborting_takes_the_connection_from_one_who_has_just_been_given_it() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 1)
        async with pool.acquire():
            waiting = asyncio.create_task(use(pool))
            await until(lambda: pool.stats.waiting == 1, "somebody waits")
        pool.abort()
        with pytest.raises(ClosedError, match="the pool is closed"):
            await waiting


async def test_aborting_ends_everything_at_once() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 3, 5)
        async with pool, pool.acquire() as client:
            receiving = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            pool.abort()
            with pytest.raises(ClosedError):
                await receiving
            with pytest.raises(ClosedError):
                await use(pool)
        assert pool.stats.size == 0
        await until(lambda: not server.open, "the server has seen it")


async def test_aborting_cuts_short_what_is_closing_in_order() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        async with pool.acquire() as client:
            await ask(client)
            server.open[0].transport.pause_reading()
            await client.send(TOO_MUCH)
        assert pool.stats.closing == 1
        pool.abort()
        await until(lambda: pool.stats.size == 0, "it is gone")


async def test_a_cancelled_close_aborts() -> None:
    async with line_server() as server:
        pool = pool_of(server.port, 0, 1)
        async with pool.acquire() as client:
            closing = asyncio.create_task(pool.close(timeout=None))
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert not client.is_connected
        assert pool.stats.size == 0


async def test_a_cancelled_start_leaves_nothing() -> None:
    async def stuck(client: NetworkClient) -> None:
        await client.receive(timeout=None)

    async with line_server() as server:
        pool = pool_of(server.port, 2, 2, config={"on_connect": stuck})
        starting = asyncio.create_task(pool.__aenter__())
        await until(lambda: server.accepted == 2, "both are connected")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        with pytest.raises(ClosedError):
            await use(pool)


async def test_a_pool_that_was_never_used_can_be_closed_and_stays_closed() -> None:
    for close in (NetworkPool.close, lambda pool: asyncio.to_thread(pool.abort)):
        pool = pool_of(1)
        await close(pool)
        with pytest.raises(ClosedError):
            async with pool:
                pass


# ---- Where it may be used ----


async def test_another_loop_or_thread_is_refused() -> None:
    async with server_and_pool(1, 2) as (_, pool):

        async def elsewhere() -> None:
            for call in (use(pool), pool.close(), pool.__aenter__()):
                with pytest.raises(UsageError, match="another event loop"):
                    await call
            with pytest.raises(UsageError, match="another thread"):
                pool.abort()

        await asyncio.to_thread(asyncio.run, elsewhere())
        await use(pool)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_after_its_loop_was_closed_a_pool_can_only_be_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = pool_of(listener.getsockname()[1], 2)
        with asyncio.Runner() as runner:
            runner.run(pool.__aenter__())

        async def elsewhere() -> None:
            with pytest.raises(UsageError, match="another event loop"):
                await use(pool)
            await pool.close()

        asyncio.run(elsewhere())
        assert pool.stats.size == 0
        gc.collect()


async def test_a_forked_process_is_refused_and_the_parent_goes_on() -> None:
    async with server_and_pool(1, 1) as (_, pool):
        await use(pool)
        child = os.fork()
        if not child:
            status = 1
            try:
                # It goes on in the coroutine of its parent.
                for call in (pool.acquire().__aenter__, pool.acquire().__await__().__next__, pool.__aenter__):
                    with pytest.raises(UsageError, match="does not run here; make a new pool after a fork"):
                        result = call()
                        result.send(None)  # type: ignore[attr-defined]
                with pytest.raises(UsageError, match="another event loop; close it there"):
                    pool.close().send(None)
                assert pool.stats.idle == 1
                with pytest.raises(UsageError, match="another event loop"):
                    asyncio.new_event_loop().run_until_complete(use(pool))
                with pytest.raises(UsageError, match="parent process"):
                    pool.abort()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        await use(pool)
        assert pool.stats.created == 1
