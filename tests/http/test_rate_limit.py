"""Requests leave in order and no faster than the limit, whose schedule is forgotten when it says no more.

Most tests ask the limiter how long a request would have to wait, which counts nothing, at rates so low that no slow
machine can change the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from time import monotonic
from typing import Any

import pytest
from support.rate_limits import HOUR, ONE_AN_HOUR, cancel, start, wait_of

from pepperpy.network import HTTPConfig, NetworkTimeoutError
from pepperpy.network.http.rate_limit import RateLimit
from pepperpy.network.http.rate_limiter import RateLimiter

# ---- Order and rate ----


async def test_a_request_leaves_without_waiting_when_its_turn_is_now() -> None:
    limiter = RateLimiter(RateLimit(1 / HOUR, burst=3))
    for _ in range(3):
        with pytest.raises(StopIteration):
            limiter.acquire("a", None).send(None)
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=60)


async def test_requests_leave_in_order_and_no_faster_than_the_rate() -> None:
    limiter, left = RateLimiter(RateLimit(200, burst=3)), []
    begin = monotonic()
    await asyncio.gather(*start(limiter, "a", 13, left))
    # Ten of them had to wait; uvloop's clock is exact to a millisecond.
    assert monotonic() - begin >= 10 / 200 - 0.002
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
    assert await wait_of(together, "b") == pytest.approx(HOUR, abs=60)
    apart = RateLimiter(RateLimit(1 / HOUR, per="host"))
    await apart.acquire("a", None)
    await apart.acquire("b", None)
    assert await wait_of(apart, "a") == pytest.approx(HOUR, abs=60)
    assert await wait_of(apart, "c") == 0.0


def test_a_limiter_made_outside_a_loop_serves_one_loop_after_the_other() -> None:
    limiter = RateLimiter(RateLimit(1000))

    async def use() -> None:
        await asyncio.gather(*start(limiter, "a", 5))

    for _ in range(2):
        asyncio.run(use())


# ---- Memory ----


@pytest.mark.slow
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


async def test_a_table_has_a_rate_for_each_host_and_no_limit_for_those_that_it_does_not_name() -> None:
    limiter = RateLimiter(HTTPConfig(rate_limit={"Slow.test": 1 / HOUR, "::1": RateLimit(2)}).rate_limit)  # type: ignore[arg-type]
    soon = monotonic() + 60
    for _ in range(1000):
        await limiter.acquire("other.test", soon)
    await limiter.acquire("slow.test", soon)
    with pytest.raises(NetworkTimeoutError, match=r"slow\.test"):
        await limiter.acquire("slow.test", soon)
    limiter.pause("other.test", HOUR)
    with pytest.raises(NetworkTimeoutError):
        await limiter.acquire("other.test", soon)
    rest = RateLimiter(HTTPConfig(rate_limit={"slow.test": 1 / HOUR, "*": ONE_AN_HOUR}).rate_limit)  # type: ignore[arg-type]
    await rest.acquire("a.test", soon)
    await rest.acquire("slow.test", soon)
    with pytest.raises(NetworkTimeoutError):
        await rest.acquire("b.test", soon)
    spelled = HTTPConfig(rate_limit={"B\xfccher.test": 1, "0:0::1": 1}).rate_limit
    assert isinstance(spelled, Mapping) and [*spelled] == ["xn--bcher-kva.test", "::1"]
    for table, words in (
        ({"http://a": 1}, "without scheme"),
        ({"\ud800": 1}, "must have hosts"),
        ({"a": 0}, r"rate_limit\['a'\]: rate must"),
    ):
        with pytest.raises(ValueError, match=words):
            HTTPConfig(rate_limit=table)
    with pytest.raises(TypeError, match="must have hosts"):
        HTTPConfig(rate_limit={1: 1})  # type: ignore[dict-item]
