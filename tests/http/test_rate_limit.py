"""Requests leave in order and no faster than the limit; who is cancelled, too late or paused costs the others nothing.

The pace is tested with plain numbers. Of the limiter, most tests ask how long a request would have to wait, which
counts nothing, at rates so low that no slow machine can change the answer.
"""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
import time
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cancelling import Mode, cancelled_at, until
from support.tiers import by_tier

from pepperpy.network import NetworkTimeoutError
from pepperpy.network.http.rate_limit import Pace, RateLimit, RateLimiter

HOUR = 3600.0
ONE_AN_HOUR = RateLimit(1 / HOUR)


async def wait_of(limiter: RateLimiter, host: str = "a") -> float:
    """Seconds that a request would have to wait now."""
    with pytest.raises(NetworkTimeoutError) as caught:
        await limiter.acquire(host, -math.inf)
    return float(caught.value.details["wait"])


def start(limiter: RateLimiter, host: str, count: int, left: list[Any] | None = None) -> list[asyncio.Task[None]]:
    """So many requests that wait in this order, and add their host and number to the list when they leave."""

    async def leave(number: int) -> None:
        await limiter.acquire(host, None)
        if left is not None:
            left.append((host, number))

    return [asyncio.create_task(leave(number)) for number in range(count)]


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


def end_pause(limiter: RateLimiter, host: str = "a") -> None:
    """As if the time of the pause had passed now: no test has to be quicker than a pause that really passes."""
    gate, now = limiter._gates[host], asyncio.get_running_loop().time()
    gate.opens = now
    limiter._arm(gate, now)


async def end_pause_when_somebody_waits(limiter: RateLimiter, host: str = "a") -> None:
    while not limiter._gates[host].waiting:
        await asyncio.sleep(0)
    end_pause(limiter, host)


# ---- The limit ----


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("rate", "5", TypeError),
        ("rate", True, TypeError),
        ("rate", None, TypeError),
        ("rate", 0, ValueError),
        ("rate", -1.0, ValueError),
        ("rate", math.inf, ValueError),
        ("rate", math.nan, ValueError),
        ("rate", 10**400, ValueError),
        ("rate", 5e-324, ValueError),
        ("burst", 1.0, TypeError),
        ("burst", True, TypeError),
        ("burst", 0, ValueError),
        ("burst", 10**30, ValueError),
        ("per", 1, TypeError),
        ("per", "user", ValueError),
    ],
)
def test_a_bad_field_is_named_with_its_value(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{field} ") as caught:
        RateLimit(**{"rate": 1.0, field: value})
    assert repr(value) in str(caught.value)


def test_a_limit_is_a_value_and_a_limiter_wants_one() -> None:
    limit = RateLimit(2.5, burst=3, per="host")
    assert pickle.loads(pickle.dumps(limit)) == limit == RateLimit(2.5, 3, "host") != RateLimit(2.5)
    with pytest.raises(TypeError, match="limit must be a RateLimit, not 5"):
        RateLimiter(5)  # type: ignore[arg-type]


# ---- The pace ----


def leave_at_once(pace: Pace, now: float, at_most: int = 1000) -> int:
    count = 0
    while count < at_most and pace.turn(now) <= now:
        pace.take(now, now)
        count += 1
    return count


@pytest.mark.parametrize("now", [0.0, 1234.5678, 1e9])
def test_a_burst_leaves_at_once_and_the_others_one_interval_apart(now: float) -> None:
    pace = Pace(RateLimit(10, burst=7))
    assert leave_at_once(pace, now) == 7
    assert pace.turn(now) == pytest.approx(now + 0.1, abs=1e-5)
    assert [pace.turn(now, ahead) - now for ahead in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-5)
    assert leave_at_once(pace, now + 0.1) == 1
    # What flows in during a quiet time is no more than one burst.
    assert leave_at_once(pace, now + 0.4) == 3
    assert leave_at_once(pace, now + 1000) == 7


def test_who_may_not_leave_before_a_time_has_a_turn_after_it() -> None:
    pace = Pace(RateLimit(10, burst=2))
    assert [pace.turn(5.0, ahead) for ahead in range(4)] == pytest.approx([5.0, 5.0, 5.1, 5.2], abs=1e-5)


def test_a_place_given_back_at_once_is_whole_again_and_later_only_the_rest_of_it() -> None:
    pace = Pace(RateLimit(1))
    pace.give_back(pace.take(10.0, 10.0), 10.0)
    assert pace.turn(10.0) == 10.0
    pace.give_back(pace.take(10.0, 10.0), 10.75)
    assert pace.turn(10.75) == pytest.approx(10.75, abs=1e-5)
    taken = pace.take(20.0, 20.0)
    pace.give_back(taken, 30.0)
    assert pace.turn(20.5) == pytest.approx(21.0, abs=1e-5)


def test_late_timers_do_not_slow_the_pace_and_a_blocked_loop_does_not_send_a_burst() -> None:
    pace = Pace(RateLimit(100))
    assert leave_at_once(pace, 0.0) == 1
    left, late = 0, 0.0
    while left < 100:
        late = pace.turn(0.0) + 0.004
        pace.take(late, since=0.0)
        left += 1
    assert late == pytest.approx(1.004, abs=0.001)
    blocked = late + 5.0
    while pace.turn(blocked) <= blocked:
        pace.take(blocked, since=0.0)
        left += 1
    # 0.05 s are made up for.
    assert left == 106
    # Who has not waited has nothing to make up for.
    pace = Pace(RateLimit(100))
    assert leave_at_once(pace, 10.0) == 1


@settings(max_examples=by_tier(300, nightly=15000))
@given(
    st.floats(0.1, 50),
    st.integers(1, 5),
    st.lists(
        st.tuples(st.floats(0, 0.5), st.sampled_from(["leave", "leave", "leave", "hold", "give back"])), max_size=60
    ),
)
def test_whatever_is_given_back_no_more_than_the_limit_ever_leaves(
    rate: float, burst: int, steps: list[tuple[float, str]]
) -> None:
    pace = Pace(RateLimit(rate, burst))
    now, left, held = 100.0, [], []
    for pause, step in steps:
        now += pause
        if step == "give back":
            if held:
                pace.give_back(held.pop(), now)
        elif pace.turn(now) <= now:
            taken = pace.take(now, now)
            if step == "leave":
                left.append(now)
            else:
                held.append(taken)
    for first, start_time in enumerate(left):
        for last, end_time in enumerate(left[first:], first):
            assert last - first + 1 <= burst + rate * (end_time - start_time) + 1e-3


# ---- Order and rate ----


async def test_a_request_leaves_without_waiting_when_its_turn_is_now() -> None:
    limiter = RateLimiter(RateLimit(1 / HOUR, burst=3))
    for _ in range(3):
        with pytest.raises(StopIteration):
            limiter.acquire("a", None).send(None)
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=1)


async def test_requests_leave_in_order_and_no_faster_than_the_rate() -> None:
    loop = asyncio.get_running_loop()
    limiter, left = RateLimiter(RateLimit(200, burst=3)), []
    begin = loop.time()
    await asyncio.gather(*start(limiter, "a", 13, left))
    # Ten of them had to wait; uvloop's clock is exact to a millisecond.
    assert loop.time() - begin >= 10 / 200 - 0.002
    assert left == [("a", number) for number in range(13)]


async def test_a_request_does_not_overtake_one_whose_turn_is_due_but_not_served_yet() -> None:
    limiter, left = RateLimiter(RateLimit(100)), []
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 2, left)
    await asyncio.sleep(0)
    # Blocks the loop beyond both turns.
    time.sleep(0.03)
    await limiter.acquire("late", None)
    assert left == [("a", 0), ("a", 1)]
    await asyncio.gather(*waiting)


async def test_per_client_counts_all_hosts_together_and_per_host_each_apart() -> None:
    together = RateLimiter(ONE_AN_HOUR)
    await together.acquire("a", None)
    assert await wait_of(together, "b") == pytest.approx(HOUR, abs=1)
    apart = RateLimiter(RateLimit(1 / HOUR, per="host"))
    await apart.acquire("a", None)
    await apart.acquire("b", None)
    assert await wait_of(apart, "a") == pytest.approx(HOUR, abs=1)
    assert await wait_of(apart, "c") == 0.0


def test_a_limiter_made_outside_a_loop_serves_one_loop_after_the_other() -> None:
    limiter = RateLimiter(RateLimit(1000))

    async def use() -> None:
        await asyncio.gather(*start(limiter, "a", 5))

    for _ in range(2):
        asyncio.run(use())


# ---- Deadlines ----


async def test_a_turn_after_the_deadline_fails_at_once_and_counts_nothing() -> None:
    loop = asyncio.get_running_loop()
    limiter = RateLimiter(ONE_AN_HOUR)
    await limiter.acquire("a", loop.time() + 1)
    waiting = start(limiter, "a", 1)
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(
            NetworkTimeoutError, match=r"request to a back for 7[12]\d\d\.\d+ s; (5000|4999)\.\d+ s are left"
        ) as caught:
            limiter.acquire("a", loop.time() + 5000).send(None)
    details = caught.value.details
    assert (details["phase"], details["host"]) == ("rate limit", "a")
    assert details["wait"] == pytest.approx(2 * HOUR, abs=60)
    await cancel(waiting)


async def test_a_deadline_that_has_passed_fails_even_if_the_turn_is_now() -> None:
    limiter = RateLimiter(ONE_AN_HOUR)
    with pytest.raises(NetworkTimeoutError, match=r"0\.000 s are left"):
        await limiter.acquire("a", asyncio.get_running_loop().time() - 1)
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
    limiter, left = RateLimiter(RateLimit(100)), []
    await limiter.acquire("a", None)
    tasks = start(limiter, "a", 2, left)
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.001, tasks[0].cancel)
    # Blocks the loop, so that it finds the cancellation and the turn due together.
    time.sleep(0.03)
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
    loop = asyncio.get_running_loop()
    limiter, left = RateLimiter(RateLimit(500)), []
    begin = loop.time()
    tasks = start(limiter, "a", 100, left)
    while not all(task.done() for task in tasks):
        waiting = [task for task in tasks if not task.done()]
        for task in waiting[:: max(1, len(waiting) // 3)]:
            task.cancel()
        await asyncio.sleep(0.002)
    done = len(left)
    await limiter.acquire("a", None)
    assert loop.time() - begin >= done / 500 - 0.002
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
    assert await wait_of(limiter, "a") == pytest.approx(HOUR, abs=1)
    assert await wait_of(limiter, "b") == 0.0
    limiter.pause("a", 10.0)
    limiter.pause("a", 0.0)
    limiter.pause("a", -5.0)
    limiter.pause("a", math.nan)
    assert await wait_of(limiter, "a") == pytest.approx(HOUR, abs=1)
    limiter.pause("a", 2 * HOUR)
    assert await wait_of(limiter, "a") == pytest.approx(2 * HOUR, abs=1)


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


@pytest.mark.parametrize("per", ["client", "host"])
async def test_a_pause_keeps_the_order_and_the_rate_of_its_host(per: Any) -> None:
    loop = asyncio.get_running_loop()
    limiter, left = RateLimiter(RateLimit(50, per=per)), []
    await limiter.acquire("a", None)
    await limiter.acquire("b", None)
    tasks = start(limiter, "a", 2, left)
    await asyncio.sleep(0)
    opens = loop.time() + 0.1
    limiter.pause("a", 0.05)
    tasks += start(limiter, "b", 1, left)
    await asyncio.sleep(0)
    limiter.pause("a", 0.1)
    tasks += start(limiter, "a", 3)
    await until(lambda: ("b", 0) in left, "the other host's request has left")
    assert left == [("b", 0)]
    await tasks[0]
    assert loop.time() >= opens - 0.002
    await asyncio.gather(*tasks)
    # Five left, one interval apart from the end of the pause on.
    assert loop.time() >= opens + 4 / 50 - 0.002
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
    loop = asyncio.get_running_loop()
    limiter = RateLimiter(RateLimit(1 / 60))
    await limiter.acquire("a", None)
    hopeless = asyncio.create_task(limiter.acquire("a", loop.time() + 1800))
    patient = asyncio.create_task(limiter.acquire("a", loop.time() + 2 * HOUR))
    await asyncio.sleep(0)
    limiter.pause("a", HOUR)
    with pytest.raises(NetworkTimeoutError) as caught:
        await hopeless
    assert caught.value.details["wait"] == pytest.approx(HOUR, abs=60)
    # It has left no gap either.
    assert await wait_of(limiter, "a") == pytest.approx(HOUR + 60, abs=30)
    await cancel([patient])


async def test_a_prolonged_pause_fails_who_is_too_late_when_the_first_would_have_ended() -> None:
    loop = asyncio.get_running_loop()
    limiter = RateLimiter(RateLimit(1000))
    limiter.pause("a", 60)
    hopeless = asyncio.create_task(limiter.acquire("a", loop.time() + 1800))
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
    loop = asyncio.get_running_loop()
    limiter = RateLimiter(RateLimit(1 / 60))
    await limiter.acquire("a", None)
    before, after, neither = (asyncio.create_task(limiter.acquire("a", loop.time() + 1800)) for _ in range(3))
    await asyncio.sleep(0)
    before.cancel()
    limiter.pause("a", HOUR)
    after.cancel()
    await asyncio.wait([before, after, neither])
    assert before.cancelled()
    assert after.cancelled()
    assert isinstance(neither.exception(), NetworkTimeoutError)
    assert await wait_of(limiter, "b") == pytest.approx(60, abs=30)


# ---- Memory ----


@pytest.mark.parametrize("per", ["client", "host"])
async def test_hosts_whose_schedule_lies_in_the_past_are_forgotten(per: Any) -> None:
    limiter = RateLimiter(RateLimit(1e6, burst=1000, per=per))
    most = 0
    for number in range(30_000):
        await limiter.acquire(f"host-{number}", None)
        if number % 3 == 0:
            limiter.pause(f"host-{number}", 1e-6)
        if number % 500 == 0:
            # uvloop's clock moves only between turns.
            await asyncio.sleep(0.001)
            most = max(most, len(limiter._lines) + len(limiter._gates))
    assert most <= 4096


async def test_hosts_that_are_paused_waited_for_or_not_quiet_yet_are_remembered() -> None:
    limiter = RateLimiter(RateLimit(1 / HOUR, per="host"))
    await limiter.acquire("busy", None)
    limiter.pause("paused", HOUR)
    waiting = start(limiter, "busy", 1)
    await asyncio.sleep(0)
    for number in range(5000):
        await limiter.acquire(f"host-{number}", None)
    assert await wait_of(limiter, "host-0") == pytest.approx(HOUR, abs=60)
    assert await wait_of(limiter, "busy") == pytest.approx(2 * HOUR, abs=60)
    assert await wait_of(limiter, "paused") == pytest.approx(HOUR, abs=60)
    await cancel(waiting)


async def test_a_host_whose_requests_are_due_but_not_served_yet_is_not_forgotten() -> None:
    limiter, left = RateLimiter(RateLimit(100, per="host")), []
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 1, left)
    await asyncio.sleep(0)
    # Blocks the loop beyond its turn, and until the burst would be whole if nobody waited.
    time.sleep(0.03)
    for number in range(2000):
        await limiter.acquire(f"host-{number}", None)
    await limiter.acquire("a", None)
    assert left == [("a", 0)]
    await asyncio.gather(*waiting)
