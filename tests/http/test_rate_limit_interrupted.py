"""Who is cancelled, too late or paused at a rate limit costs the others nothing."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from time import monotonic
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.limits import longer_and_longer
from support.rate_limits import HOUR, ONE_AN_HOUR, cancel, end_pause, start, wait_of

from pepperpy.network import NetworkTimeoutError
from pepperpy.network.http.rate_limit import RateLimit
from pepperpy.network.http.rate_limiter import RateLimiter


async def end_pause_when_somebody_waits(limiter: RateLimiter, host: str = "a") -> None:
    while not limiter._gates[host].waiting:
        await asyncio.sleep(0)
    end_pause(limiter, host)


# ---- Deadlines ----


async def test_a_turn_after_the_deadline_fails_at_once_and_counts_nothing() -> None:
    limiter = RateLimiter(ONE_AN_HOUR)
    await limiter.acquire("a", monotonic() + 60)
    waiting = start(limiter, "a", 1)
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(
            NetworkTimeoutError, match=r"request to a back for 7[12]\d\d\.\d+ s; (5000|499\d)\.\d+ s are left"
        ) as caught:
            limiter.acquire("a", monotonic() + 5000).send(None)
    details = caught.value.details
    assert (details["phase"], details["host"]) == ("rate limit", "a")
    assert details["wait"] == pytest.approx(2 * HOUR, abs=60)
    await cancel(waiting)


async def test_a_deadline_that_has_passed_fails_even_if_the_turn_is_now() -> None:
    limiter = RateLimiter(ONE_AN_HOUR)
    with pytest.raises(NetworkTimeoutError, match=r"0\.000 s are left"):
        await limiter.acquire("a", monotonic() - 1)
    assert await wait_of(limiter) == 0.0


# ---- Cancellation ----


@pytest.mark.parametrize("mode", Mode)
async def test_a_request_cancelled_while_it_waits_or_in_the_moment_of_its_turn_counts_nothing(mode: Mode) -> None:
    for number, cancelled, wait in ((1, True, 0.0), (2, False, HOUR)):
        limiter = RateLimiter(ONE_AN_HOUR)
        limiter.pause("a", 2 * HOUR)
        ending = asyncio.create_task(end_pause_when_somebody_waits(limiter))
        outcome = await cancelled_at(limiter.acquire("a", None), number, mode)
        assert (outcome.suspensions, outcome.cancelled) == (1, cancelled)
        ending.cancel()  # who is cancelled at once has waited unseen
        await asyncio.wait([ending])
        end_pause(limiter)
        assert await wait_of(limiter) == pytest.approx(wait, abs=60)


async def test_who_is_cancelled_in_the_moment_of_its_turn_gives_it_to_the_next() -> None:
    limiter, left = RateLimiter(ONE_AN_HOUR), []
    limiter.pause("a", 2 * HOUR)

    async def wait_for_the_next() -> None:
        outcome = await cancelled_at(limiter.acquire("a", None), 1, Mode.SAME_TICK)
        assert outcome.cancelled

    first = asyncio.create_task(wait_for_the_next())
    await asyncio.sleep(0)
    second = start(limiter, "a", 1, left)
    while len(limiter._gates["a"].waiting) < 2:
        await asyncio.sleep(0)
    end_pause(limiter)
    # It would take an hour.
    await asyncio.wait_for(asyncio.gather(first, *second), 30)
    assert left == [("a", 0)]


async def test_a_turn_that_comes_in_the_moment_after_a_cancellation_goes_to_the_next() -> None:
    limiter, left = RateLimiter(ONE_AN_HOUR), []
    await limiter.acquire("a", None)
    tasks = start(limiter, "a", 2, left)
    await asyncio.sleep(0)
    (line,) = limiter._lines.values()
    line.pace.full_at = monotonic()
    # As a loop that was blocked, and finds the cancellation and the turn due together.
    tasks[0].cancel()
    limiter._serve(line)
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert left == [("a", 1)]


@pytest.mark.parametrize("order", ["first to last", "last to first", "all but the last", "every other"])
async def test_those_behind_a_cancelled_request_move_up(order: str) -> None:
    limiter = RateLimiter(ONE_AN_HOUR)
    tasks = start(limiter, "a", 101)
    await asyncio.sleep(0)
    assert tasks[0].done()
    waiting = tasks[1:]
    assert await wait_of(limiter) == pytest.approx(101 * HOUR, abs=60)
    chosen = {
        "first to last": waiting,
        "last to first": waiting[::-1],
        "all but the last": waiting[:-1],
        "every other": waiting[::2],
    }[order]
    await cancel(chosen)
    rest = [task for task in waiting if not task.done()]
    assert len(rest) == 100 - len(chosen)
    assert await wait_of(limiter) == pytest.approx((len(rest) + 1) * HOUR, abs=60)
    if rest:
        await cancel(rest)


async def test_a_storm_of_cancellations_neither_stops_nor_speeds_the_rest() -> None:
    limiter, left = RateLimiter(RateLimit(500)), []
    begin = monotonic()
    tasks = start(limiter, "a", 100, left)
    while not all(task.done() for task in tasks):
        waiting = [task for task in tasks if not task.done()]
        for task in waiting[:: max(1, len(waiting) // 3)]:
            task.cancel()
        await asyncio.sleep(0.002)  # one more is due
    done = len(left)
    await limiter.acquire("a", None)
    assert monotonic() - begin >= done / 500 - 0.002
    assert left == sorted(left)


async def test_when_nobody_waits_any_more_no_timer_is_left() -> None:
    limiter = RateLimiter(RateLimit(1 / HOUR))
    limiter.pause("paused", HOUR)
    tasks = start(limiter, "a", 3) + start(limiter, "paused", 3)
    await asyncio.sleep(0)
    await cancel(tasks[1:])
    await tasks[0]
    tasks = start(limiter, "b", 3)
    await asyncio.sleep(0)
    limiter.pause("b", HOUR)
    await cancel(tasks)
    alive = weakref.ref(limiter)
    del limiter, tasks
    gc.collect()
    assert alive() is None, "a timer of the loop holds it"


# ---- Pauses ----


@pytest.mark.parametrize("per", ["client", "host"])
async def test_a_pause_holds_back_its_host_and_no_other(per: Any) -> None:
    limiter = RateLimiter(RateLimit(1000, burst=100, per=per))
    limiter.pause("a", HOUR)
    assert await wait_of(limiter, "a") == pytest.approx(HOUR, abs=60)
    assert await wait_of(limiter, "b") == 0.0
    limiter.pause("a", 10.0)
    limiter.pause("a", 0.0)
    limiter.pause("a", -5.0)
    limiter.pause("a", math.nan)
    assert await wait_of(limiter, "a") == pytest.approx(HOUR, abs=60)
    limiter.pause("a", 2 * HOUR)
    assert await wait_of(limiter, "a") == pytest.approx(2 * HOUR, abs=60)


async def test_those_behind_a_paused_host_move_up() -> None:
    limiter, left = RateLimiter(ONE_AN_HOUR), []
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 50, left) + start(limiter, "b", 1, left)
    await asyncio.sleep(0)
    assert await wait_of(limiter, "b") == pytest.approx(52 * HOUR, abs=60)
    limiter.pause("a", 1.5 * HOUR)
    assert await wait_of(limiter, "b") == pytest.approx(2 * HOUR, abs=60)
    # Behind the fifty; the first of them as soon as the pause ends.
    assert await wait_of(limiter, "a") == pytest.approx(51.5 * HOUR, abs=60)
    await cancel(waiting)


@pytest.mark.slow
@pytest.mark.parametrize("per", ["client", "host"])
async def test_a_pause_keeps_the_order_and_the_rate_of_its_host(per: Any) -> None:
    # So slow that the pause comes before the next turn.
    for interval in longer_and_longer(0.25):
        limiter, left = RateLimiter(RateLimit(1 / interval, per=per)), []
        await limiter.acquire("a", None)
        await limiter.acquire("b", None)
        tasks = start(limiter, "a", 2, left)
        await asyncio.sleep(0)
        if left:
            await asyncio.gather(*tasks)
            continue
        limiter.pause("a", HOUR / 2)
        break
    tasks += start(limiter, "b", 1, left)
    await asyncio.sleep(0)
    limiter.pause("a", HOUR)
    tasks += start(limiter, "a", 1)
    await until(lambda: ("b", 0) in left, "the other host's request has left")
    assert left == [("b", 0)]
    opens = monotonic()
    end_pause(limiter)
    await tasks[0]
    assert monotonic() >= opens - 0.002
    await asyncio.gather(*tasks)
    # Three left, one interval apart from the end of the pause on.
    assert monotonic() >= opens + 2 * interval - 0.002
    assert left == [("b", 0), ("a", 0), ("a", 1)]


async def test_a_request_that_comes_when_the_pause_is_over_is_behind_those_it_held_back() -> None:
    limiter, left = RateLimiter(RateLimit(1000, burst=5)), []
    limiter.pause("a", 0.01)
    early = start(limiter, "a", 3, left)
    await asyncio.sleep(0)
    # Blocks the loop beyond the end of the pause.
    time.sleep(0.03)
    await limiter.acquire("a", None)
    assert left == [("a", 0), ("a", 1), ("a", 2)]
    await asyncio.gather(*early)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan])
async def test_a_pause_of_no_time_changes_no_order(seconds: float) -> None:
    limiter, left = RateLimiter(RateLimit(200)), []
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 2, left) + start(limiter, "b", 1, left)
    await asyncio.sleep(0)
    limiter.pause("a", seconds)
    await asyncio.gather(*waiting)
    assert left == [("a", 0), ("a", 1), ("b", 0)]


async def test_a_pause_fails_at_once_who_cannot_leave_before_its_deadline_any_more() -> None:
    limiter = RateLimiter(RateLimit(1 / 60))
    await limiter.acquire("a", None)
    hopeless = asyncio.create_task(limiter.acquire("a", monotonic() + 1800))
    patient = asyncio.create_task(limiter.acquire("a", monotonic() + 2 * HOUR))
    await asyncio.sleep(0)
    limiter.pause("a", HOUR)
    with pytest.raises(NetworkTimeoutError) as caught:
        await hopeless
    assert caught.value.details["wait"] == pytest.approx(HOUR, abs=60)
    # It has left no gap either.
    assert await wait_of(limiter, "a") == pytest.approx(HOUR + 60, abs=30)
    await cancel([patient])


async def test_a_prolonged_pause_fails_who_is_too_late_when_the_first_would_have_ended() -> None:
    limiter = RateLimiter(RateLimit(1000))
    limiter.pause("a", 60)
    hopeless = asyncio.create_task(limiter.acquire("a", monotonic() + 1800))
    patient = asyncio.create_task(limiter.acquire("a", None))
    await asyncio.sleep(0)
    limiter.pause("a", HOUR)
    assert not hopeless.done()
    limiter._serve(limiter._gates["a"])  # what the timer does at the end of the first pause
    with pytest.raises(NetworkTimeoutError):
        await asyncio.wait_for(hopeless, 30)
    assert not patient.done()
    await cancel([patient])


async def test_who_is_told_to_be_too_late_and_cancelled_in_the_same_moment_is_cancelled() -> None:
    limiter = RateLimiter(RateLimit(1 / 60))
    await limiter.acquire("a", None)
    before, after, neither = (asyncio.create_task(limiter.acquire("a", monotonic() + 1800)) for _ in range(3))
    await asyncio.sleep(0)
    before.cancel()
    limiter.pause("a", HOUR)
    after.cancel()
    await asyncio.wait([before, after, neither])
    assert before.cancelled()
    assert after.cancelled()
    assert isinstance(neither.exception(), NetworkTimeoutError)
    assert await wait_of(limiter, "b") == pytest.approx(60, abs=30)
