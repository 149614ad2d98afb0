"""Each allocation of what a pool does fails once: nobody waits for ever, and no connection is lost or lent twice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE_WITH_FUNCTIONS, STEP, Starved, starving
from support.cancelling import until
from support.line_server import LineServer, ask, is_consistent, line_server, pool_of

from pepperpy.network import NetworkError, NetworkPool
from pepperpy.network._core.lending import PooledConnection
from pepperpy.network.pool.slots import Slots

pytestmark = [
    pytest.mark.skipif(IMPOSSIBLE_WITH_FUNCTIONS is not None, reason=str(IMPOSSIBLE_WITH_FUNCTIONS)),
    # A client that there was no memory to return is lost, and its connection with it.
    pytest.mark.filterwarnings("ignore:unreleased:ResourceWarning"),
    # Nor was there any to await one.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    # Where asyncio's transport has no memory for its end, its socket ends with it.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # So CPython tells of what it had no memory for itself, beside the MemoryError.
    pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"),
]

# More allocations than any of these steps makes.
MOST = 40
# After so many seconds, a task that waits counts as asleep. Arbitrary.
LONG_S = 5.0
# What the loop calls.
CALLBACKS = ("_prepared", "_disconnected", "_forsaken", "_look")

Scene = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A pool, and tasks that wait for its connections; what they do is starved."""

    def __init__(self, starved: Starved, server: LineServer, pool: NetworkPool) -> None:
        self.starved = starved
        self.server = server
        self.pool = pool
        self.tasks: list[asyncio.Task[None]] = []

    def wait(self, *users: Callable[[NetworkPool], Any]) -> None:
        """Begin a task for each of these, which are starved."""
        self.tasks += [asyncio.create_task(self._run(user(self.pool))) for user in users]

    async def _run(self, user: Coroutine[Any, Any, None]) -> None:
        # The traceback of an error has the client, which ends with it.
        with contextlib.suppress(MemoryError, NetworkError):
            await starving(self.starved, user)

    async def all_wait(self) -> None:
        # One that there was no memory for has ended.
        await until(lambda: self.pool.stats.waiting == sum(not task.done() for task in self.tasks), "all wait")

    async def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.suppress(MemoryError):
            self.starved(function, *arguments)


async def by_block(pool: NetworkPool) -> None:
    async with pool.acquire() as client:
        await ask(client)


async def by_await(pool: NetworkPool) -> None:
    client = await pool.acquire()
    await ask(client)
    pool.release(client)


async def in_no_time(pool: NetworkPool) -> None:
    async with pool.acquire(timeout=0.01):
        raise AssertionError("it was lent")


async def one_is_released(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(by_block, by_await)
    await stage.all_wait()
    await stage.call(stage.pool.release, client)
    with contextlib.suppress(NetworkError):
        stage.pool.release(client)  # it still was his


async def one_is_dropped(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(by_block, by_await)
    await stage.all_wait()
    client.abort()
    await stage.call(stage.pool.release, client)
    with contextlib.suppress(NetworkError):
        stage.pool.release(client)


async def one_is_forgotten(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(by_await, by_block)
    await stage.all_wait()
    del client
    gc.collect()


async def one_is_cancelled_as_it_is_served(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(by_block, by_await)
    await stage.all_wait()
    stage.pool.release(client)
    stage.tasks[0].cancel()


async def idle_ones_are_checked(stage: Stage) -> None:
    # They were made before, and nothing has been lent.
    stage.wait(by_block, by_await, by_block)


async def time_runs_out(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(in_no_time, in_no_time, by_await)
    await asyncio.wait(stage.tasks[:2], timeout=LONG_S)
    stage.pool.release(client)


async def all_is_aborted(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(by_block, by_await)
    await stage.all_wait()
    await stage.call(stage.pool.abort)
    await asyncio.wait(stage.tasks, timeout=LONG_S)
    with pytest.raises(NetworkError):
        await client.receive()
    stage.pool.release(client)


async def all_is_closed(stage: Stage) -> None:
    client = await stage.pool.acquire()
    stage.wait(by_block, by_await)
    await stage.all_wait()
    closing = asyncio.create_task(starving(stage.starved, stage.pool.close(timeout=None)))
    await asyncio.wait(stage.tasks, timeout=LONG_S)
    stage.pool.release(client)
    with contextlib.suppress(MemoryError):
        await closing


async def some_grow_old(stage: Stage) -> None:
    stage.wait(by_block, by_await)
    await asyncio.wait(stage.tasks)
    await until(lambda: not stage.pool.stats.idle, "max_idle ends them")


SCENES: dict[Scene, tuple[tuple[int, int], dict[str, Any]]] = {
    one_is_released: ((0, 1), {}),
    one_is_dropped: ((0, 1), {}),
    one_is_forgotten: ((0, 1), {}),
    one_is_cancelled_as_it_is_served: ((0, 1), {}),
    idle_ones_are_checked: ((2, 2), {"check": ask, "check_after": 0}),
    time_runs_out: ((0, 1), {}),
    all_is_aborted: ((0, 1), {}),
    all_is_closed: ((0, 1), {}),
    some_grow_old: ((0, 2), {"max_idle": 0.01}),
}


@contextlib.asynccontextmanager
async def staged(scene: Scene, starved: Starved) -> AsyncIterator[Stage]:
    sizes, settings = SCENES[scene]
    async with line_server() as server:
        pool = pool_of(server.port, *sizes, **settings)
        await pool.__aenter__()
        try:
            yield Stage(starved, server, pool)
        finally:
            pool.abort()
            async with asyncio.timeout(LONG_S):
                await pool.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[PooledConnection]:
    """All connections of this test."""
    connections: list[PooledConnection] = []

    class Recorded(PooledConnection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            connections.append(self)

    monkeypatch.setattr("pepperpy.network.pool.connection.PooledConnection", Recorded)
    return connections


@pytest.fixture
def callbacks(monkeypatch: pytest.MonkeyPatch) -> list[Starved]:
    """What the loop calls is starved by the one in this list."""
    present: list[Starved] = []

    def also(name: str) -> None:
        original = getattr(Slots, name)
        monkeypatch.setattr(Slots, name, lambda *arguments: present[0](original, *arguments))

    for name in CALLBACKS:
        also(name)
    return present


async def play(scene: Scene, starved: Starved, callbacks: list[Starved], made: list[PooledConnection]) -> None:
    made.clear()
    callbacks[:] = [Starved(-1, 0)]
    async with staged(scene, starved) as stage:
        callbacks[:] = [starved]
        await scene(stage)
        pool, tasks = stage.pool, stage.tasks
        asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
        callbacks[:] = [Starved(-1, 0)]
        assert not asleep, "it waits for ever"
        for task in tasks:
            assert task.cancelled() or task.exception() is None
        if pool._slots.closed:
            await until(lambda: pool.stats.size == 0, "all are closed")
            assert not [connection for connection in made if is_open(connection)]
            return
        await until(lambda: not (pool.stats.in_use or pool.stats.preparing or pool.stats.closing), "all is done")
        assert set(pool._slots.idle) == {connection for connection in made if is_open(connection)}
        assert pool.stats.waiting == 0
        assert sum(pool.stats.dropped.values()) == pool.stats.created - pool.stats.idle
        await asyncio.gather(by_block(pool), by_await(pool))
        assert is_consistent(pool)


def is_open(connection: PooledConnection) -> bool:
    return connection.protocol.state == "open"


def ignore_want_of_memory(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio tells of a task that there was no memory to begin.
    if not isinstance(context.get("exception"), MemoryError) and "was destroyed" not in context["message"]:
        raise AssertionError(context)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_nobody_sleeps_and_no_connection_is_lost_whatever_allocation_fails(
    scene: Scene, callbacks: list[Starved], made: list[PooledConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pepperpy.network.timers.AGAIN_S", 0.0, raising=False)
    untouched = Starved(-1, 0)
    await play(scene, untouched, callbacks, made)
    asyncio.get_running_loop().set_exception_handler(ignore_want_of_memory)
    for call in range(untouched.calls):
        for number in range(call % STEP, MOST, STEP):
            try:
                await play(scene, Starved(call, number), callbacks, made)
            except BaseException as error:
                error.add_note(f"call {call}, allocation {number}")
                raise
