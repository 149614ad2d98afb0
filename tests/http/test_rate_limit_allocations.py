"""Each allocation at a rate limit fails once: every request gets its turn or an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, STEP, Starved, starving

from pepperpy.network import NetworkTimeoutError
from pepperpy.network.http.rate_limit import RateLimit
from pepperpy.network.http.rate_limiter import RateLimiter

pytestmark = [
    pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE)),
    # There was no memory to await one.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]

# More allocations than any step makes.
MOST = 40
# After so many seconds, a task that waits counts as asleep. Arbitrary.
LONG_S = 5.0


async def acquire(limiter: RateLimiter, starved: Starved, within: float | None = None) -> None:
    try:
        await starving(starved, limiter.acquire("a", None if within is None else monotonic() + within))
    except (MemoryError, NetworkTimeoutError):
        pass
    except TypeError as error:
        # What the interpreter makes of it where a task is resumed.
        assert isinstance(error.__cause__, MemoryError)


def line(limiter: RateLimiter, starved: Starved) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(acquire(limiter, starved)) for _ in range(4)]


def behind_a_pause(limiter: RateLimiter, starved: Starved) -> list[asyncio.Task[None]]:
    limiter.pause("a", 0.004)
    return line(limiter, starved)


def prolonged(limiter: RateLimiter, starved: Starved) -> list[asyncio.Task[None]]:
    limiter.pause("a", 0.002)
    tasks = [*line(limiter, starved), asyncio.create_task(acquire(limiter, starved, 0.004))]
    asyncio.get_running_loop().call_soon(limiter.pause, "a", 0.006)
    return tasks


def paused_while_they_wait(limiter: RateLimiter, starved: Starved) -> list[asyncio.Task[None]]:
    def pause() -> None:
        with contextlib.suppress(MemoryError):
            starved(limiter.pause, "a", 0.004)

    tasks = [*line(limiter, starved), asyncio.create_task(acquire(limiter, starved, 0.005))]
    asyncio.get_running_loop().call_soon(pause)
    return tasks


@pytest.mark.slow
@pytest.mark.parametrize("scene", [line, behind_a_pause, prolonged, paused_while_they_wait])
async def test_every_request_gets_its_turn_or_an_error_whatever_allocation_fails(
    scene: Callable[[RateLimiter, Starved], list[asyncio.Task[None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_exception_handler(ignore_want_of_memory)
    serve = RateLimiter._serve

    async def play(starved: Starved) -> None:
        monkeypatch.setattr(RateLimiter, "_serve", lambda *arguments: starved(serve, *arguments))
        limiter = RateLimiter(RateLimit(500))
        tasks = scene(limiter, starved)
        asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
        for task in asleep:
            task.cancel()
        assert not asleep, "it waits for ever"
        assert all(task.exception() is None for task in tasks)
        for queue in (*limiter._lines.values(), *limiter._gates.values()):
            assert not queue.waiting

    untouched = Starved(-1, 0)
    await play(untouched)
    for call in range(untouched.calls):
        for number in range(call % STEP, MOST, STEP):
            try:
                await play(Starved(call, number))
            except BaseException as error:
                error.add_note(f"call {call}, allocation {number}")
                raise


def ignore_want_of_memory(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), MemoryError):
        raise AssertionError(context)
