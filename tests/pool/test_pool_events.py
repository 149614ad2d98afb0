"""What `on_event` is told of a pool: how its connections are made, who waits for one, and why one is dropped."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from support.cancelling import until
from support.line_server import ask, line_server, pool_of
from support.seen import Seen, failing
from support.servers import echo_server, wait_for_the_kernel

from pepperpy.network import (
    AttemptDone,
    ConnectError,
    ConnectionDropped,
    NetworkConfig,
    NetworkPool,
    PoolTimeoutError,
    PoolWaitDone,
)

MADE = ["LookupDone", "ConnectDone", "AttemptDone", "PoolWaitDone"]


async def test_making_a_connection_and_the_wait_for_it_are_told_and_lending_an_idle_one_is_not() -> None:
    seen = Seen()
    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port, on_event=seen)) as pool:
        for _ in range(2):
            async with pool.acquire() as client:
                await client.send(b"x")
                assert await client.receive() == b"x"
                assert client.config.on_event is None
        assert seen.names == MADE
        wait, attempt = seen.one(PoolWaitDone), seen.one(AttemptDone)
        assert wait.error is None and wait.seconds >= attempt.seconds
        assert wait.id != attempt.id
    assert seen.names == MADE


async def test_each_connection_of_a_pool_has_an_id_of_its_own() -> None:
    seen = Seen()
    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port, on_event=seen), 2):
        assert len({event.id for event in seen.all(AttemptDone)}) == 2


async def test_a_connection_that_is_not_lent_again_is_told_with_the_reason() -> None:
    seen = Seen()
    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port, on_event=seen)) as pool:
        with pytest.raises(ValueError, match="mine"):
            async with pool.acquire():
                raise ValueError("mine")
        assert seen.one(ConnectionDropped).reason == "failed"
        assert pool.stats.dropped == {"failed": 1}


async def test_a_wait_that_ends_without_a_connection_is_told_with_its_error() -> None:
    seen = Seen()
    config = NetworkConfig("127.0.0.1", 1, retries=0, on_event=seen)
    async with NetworkPool(config) as pool:
        with pytest.raises(ConnectError) as refused:
            async with pool.acquire():
                pass
    assert seen.one(PoolWaitDone).error is refused.value
    seen.take()
    async with echo_server() as port, NetworkPool(config.replace(port=port), max_size=1) as pool:
        async with pool.acquire():
            seen.take()
            with pytest.raises(PoolTimeoutError) as late:
                async with pool.acquire(timeout=0.01):
                    pass
            assert seen.one(PoolWaitDone).error is late.value
            seen.take()
            task = asyncio.create_task(pool.acquire().__aenter__())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert isinstance(seen.one(PoolWaitDone).error, asyncio.CancelledError)


async def test_the_wait_of_a_task_that_is_served_twice_is_told_once() -> None:
    seen = Seen()
    async with line_server() as server, pool_of(server.port, 0, 1, config={"on_event": seen}) as pool:
        client = await pool.acquire()
        await ask(client)
        seen.take()
        task = asyncio.create_task(use(pool))
        await until(lambda: pool.stats.waiting == 1, "it waits")
        pool.release(client)
        assert pool.stats.waiting == 0, "it has been given the connection"
        (given,) = pool._slots.lent
        with socket.socket(fileno=os.dup(server.open[0].get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        wait_for_the_kernel(given.protocol.extra_info("socket"))
        await task
        assert pool.stats.dropped == {"lost": 1}
        assert seen.names == ["ConnectionDropped", "LookupDone", "ConnectDone", "AttemptDone", "PoolWaitDone"]
        assert seen.one(PoolWaitDone).error is None


async def use(pool: NetworkPool) -> None:
    async with pool.acquire() as client:
        await ask(client)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_on_event_that_ends_the_program_loses_no_connection(error: type[BaseException]) -> None:
    def ends(event: object) -> None:
        if isinstance(event, PoolWaitDone):
            raise error

    async with line_server() as server, pool_of(server.port, 0, 1, config={"on_event": ends}) as pool:
        with pytest.raises(error):
            await pool.acquire().__aenter__()
        assert (pool.stats.in_use, pool.stats.dropped) == (0, {"failed": 1})


async def test_an_on_event_that_raises_loses_no_connection() -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    config = NetworkConfig("127.0.0.1", 1, on_event=failing)
    async with echo_server() as port, NetworkPool(config.replace(port=port), max_size=1) as pool:
        async with pool.acquire() as client:
            await client.send(b"x")
            waiting = asyncio.create_task(pool.acquire().__aenter__())
            await asyncio.sleep(0)
            assert await client.receive() == b"x"
        assert (await waiting).is_connected
        assert pool.stats.in_use == 1
        pool.abort()
    assert reported
