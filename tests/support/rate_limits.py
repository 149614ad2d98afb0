"""What tests of rate limits share: an hour's limit, requests that wait, and pauses that end when the test says so."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any

import pytest

from pepperpy.network import NetworkTimeoutError
from pepperpy.network.http.rate_limit import RateLimit
from pepperpy.network.http.rate_limiter import RateLimiter

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
    gate, now = limiter._gates[host], monotonic()
    gate.opens = now
    limiter._arm(gate, now)
