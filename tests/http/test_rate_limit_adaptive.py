"""`RateLimit(adaptive=True)`: what a server says is left slows the requests to it, and to nobody else.

Most tests ask the limiter how long a request would have to wait, as those of `test_rate_limit.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest
from support.cancelling import until
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer
from support.limits import longer_and_longer
from support.rate_limits import HOUR, cancel, end_pause, start, wait_of

from pepperpy.network import ClosedError, HTTPClient, HTTPConfig, HTTPStatusError, NetworkTimeoutError
from pepperpy.network.http.quota import Quota
from pepperpy.network.http.rate_limit import RateLimit
from pepperpy.network.http.rate_limiter import RateLimiter


def limiter_of(rate: float = 1e6, burst: int = 1, **options: Any) -> RateLimiter:
    return RateLimiter(RateLimit(rate, burst, adaptive=True, **options))


async def let_run(turns: int = 3) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


# ---- The pace ----


async def test_more_than_half_of_the_whole_slows_nothing() -> None:
    limiter = limiter_of()
    limiter.heed("a", Quota(51, HOUR, 100))
    for _ in range(20):
        await limiter.acquire("a", None)
    assert await wait_of(limiter) < 1


async def test_half_of_it_is_spread_over_the_time_until_there_is_more() -> None:
    limiter = limiter_of()
    limiter.heed("a", Quota(50, HOUR, 100))
    await limiter.acquire("a", None)
    assert await wait_of(limiter) == pytest.approx(HOUR / 50, abs=10)
    # The next answer says less; what has left already counts.
    limiter.heed("a", Quota(20, HOUR, 100))
    assert await wait_of(limiter) == pytest.approx(HOUR / 50, abs=10)
    limiter.heed("a", Quota(60, HOUR, None))
    assert await wait_of(limiter) == pytest.approx(60, abs=10)


async def test_a_burst_may_leave_at_once_but_never_more_than_is_left() -> None:
    limiter = limiter_of(burst=10)
    for left, at_once in ((40, 10), (4, 4)):
        limiter.heed(f"{left}", Quota(left, HOUR, 100))
        for _ in range(at_once):
            await limiter.acquire(f"{left}", None)
        assert await wait_of(limiter, f"{left}") == pytest.approx(HOUR / left, abs=10)


async def test_when_nothing_is_left_requests_wait_for_the_whole_time() -> None:
    limiter = limiter_of()
    limiter.heed("a", Quota(0, HOUR, 100))
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=60)
    # Answers to requests that left before do not shorten it.
    limiter.heed("a", Quota(90, HOUR, 100))
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=60)
    end_pause(limiter)
    await limiter.acquire("a", None)


async def test_a_whole_quota_ends_the_slow_pace_and_lets_those_go_that_wait() -> None:
    limiter, left = limiter_of(), []
    limiter.heed("a", Quota(1, HOUR, 100))
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 5, left)
    await let_run()
    assert not left
    limiter.heed("a", Quota(100, HOUR, 100))
    await asyncio.gather(*waiting)
    assert left == [("a", number) for number in range(5)]
    assert await wait_of(limiter) < 1


async def test_the_slow_pace_ends_with_its_time() -> None:
    limiter, left = limiter_of(), []
    begin = monotonic()
    limiter.heed("a", Quota(1, 0.05, 100))
    await asyncio.gather(*start(limiter, "a", 5, left))
    assert left == [("a", number) for number in range(5)]
    assert monotonic() - begin >= 0.05 - 0.002
    assert await wait_of(limiter) < 1


async def test_requests_leave_in_order_and_no_faster_than_the_server_asks() -> None:
    limiter, left = limiter_of(), []
    begin = monotonic()
    limiter.heed("a", Quota(200, 1.0, None))
    await asyncio.gather(*start(limiter, "a", 11, left))
    assert monotonic() - begin >= 10 / 200 - 0.002
    assert left == [("a", number) for number in range(11)]


async def test_those_that_wait_already_are_slowed_down_too_and_keep_their_order() -> None:
    limiter, left = limiter_of(200), []
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 3, left)
    await let_run()
    limiter.heed("a", Quota(1, HOUR, None))
    later = start(limiter, "a", 1, left)
    await let_run()
    # All leave then at the latest, because there is more.
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=60)
    limiter.heed("a", Quota(99, HOUR, 100))
    await asyncio.gather(*waiting, *later)
    assert left == [("a", 0), ("a", 1), ("a", 2), ("a", 0)]


async def test_another_host_is_not_slowed_down_even_in_the_same_line() -> None:
    limiter = limiter_of(1000)
    limiter.heed("a", Quota(1, HOUR, None))
    await limiter.acquire("a", None)
    waiting = start(limiter, "a", 3)
    await let_run()
    for _ in range(3):
        await limiter.acquire("b", monotonic() + 5)
    await cancel(waiting)


async def test_only_hosts_whose_limit_is_adaptive_are_slowed_down() -> None:
    table = {"a": RateLimit(1e6, adaptive=True), "b": RateLimit(1e6), "*": RateLimit(1e6)}
    limiter = RateLimiter(table)
    for host in "abc":
        limiter.heed(host, Quota(0, HOUR, None))
    assert limiter.adapts and not RateLimiter(RateLimit(1)).adapts
    assert await wait_of(limiter, "a") == pytest.approx(HOUR, abs=60)
    assert await wait_of(limiter, "b") < 1 and await wait_of(limiter, "c") < 1


async def test_the_own_rate_stays_the_fastest() -> None:
    limiter = limiter_of(1 / HOUR)
    limiter.heed("a", Quota(1000, 1.0, None))
    await limiter.acquire("a", None)
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=60)


# ---- Who does not leave costs nothing ----


async def test_a_request_that_is_cancelled_or_refused_behind_the_gate_is_not_counted_there() -> None:
    limiter = limiter_of(1 / HOUR)
    await limiter.acquire("a", None)
    limiter.heed("a", Quota(1, 2 * HOUR, None))
    for _ in range(3):
        with pytest.raises(NetworkTimeoutError):
            await limiter.acquire("a", monotonic() + 1)
        waiting = start(limiter, "a", 2)
        await let_run()
        await cancel(waiting)
    assert limiter._gates["a"].slow_pace.turn(monotonic()) <= monotonic() + 1
    assert await wait_of(limiter) == pytest.approx(HOUR, abs=60)


async def test_a_host_is_forgotten_when_its_time_is_over_and_not_before() -> None:
    limiter = limiter_of(per="host")
    limiter.heed("slow", Quota(1, HOUR, None))
    await limiter.acquire("slow", None)
    for number in range(5000):
        limiter.heed(f"host-{number}", Quota(1, 1e-6, None))
    await limiter.acquire("other", None)
    assert await wait_of(limiter, "slow") == pytest.approx(HOUR, abs=60)
    assert len(limiter._gates) < 3000


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_what_is_no_bool_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="adaptive must be"):
        RateLimit(1, adaptive=value)


# ---- Through a client ----

FORMS = [
    ('RateLimit: "default";r=0;t=1800', 'RateLimit-Policy: "default";q=100;w=3600'),
    ("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1784113577", "Date: Wed, 15 Jul 2026 10:36:17 GMT"),
]


@pytest.mark.parametrize("fields", FORMS)
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "429 Too Many Requests"])
async def test_a_call_that_cannot_keep_its_deadline_fails_at_once(fields: tuple[str, ...], status: str) -> None:
    config = HTTPConfig(rate_limit=RateLimit(1000, adaptive=True), retries=0, raise_for_status=False)
    async with http_peer(answering(response(b"ok", *fields, status=status))) as peer, HTTPClient(config) as client:
        assert await client.get(peer.url) == "ok"
        with pytest.raises(NetworkTimeoutError, match="rate limit holds the request") as caught:
            await client.get(peer.url, deadline=5)
        assert caught.value.details["wait"] == pytest.approx(1800, abs=60)
        assert len(peer.requests) == 1


@pytest.mark.slow
async def test_a_deadline_ends_a_wait_that_turns_out_to_be_longer() -> None:
    config = HTTPConfig(rate_limit=RateLimit(1000, adaptive=True))
    for deadline in longer_and_longer(0.5):
        lines = [f'RateLimit: "a";r=10;t={2 * deadline:.0f}', 'RateLimit: "a";r=1;t=3000']
        answers = [response(b"ok", line) for line in lines]
        async with http_peer(answering(*answers)) as peer, HTTPClient(config) as client:
            await client.get(peer.url)
            # One leaves at once, one after a fifth of the time, and one would after two if the answers to the others
            # did not say otherwise.
            calls = [client.get(peer.url, deadline=deadline) for _ in range(3)]
            *answered, late = await asyncio.gather(*calls, return_exceptions=True)
            if answered == ["ok"] * 2 and "held back by the rate limit (deadline)" in str(late):
                break
    assert isinstance(late, NetworkTimeoutError)
    assert len(peer.requests) == 3


async def test_without_adaptive_no_header_is_heeded() -> None:
    fields = 'RateLimit: "a";r=0;t=1800', "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1800"
    config = HTTPConfig(rate_limit=1000)
    async with http_peer(answering(response(b"ok", *fields))) as peer, HTTPClient(config) as client:
        for _ in range(3):
            assert await client.get(peer.url, deadline=5) == "ok"


async def test_a_redirect_tells_of_the_host_that_answers() -> None:
    spent = response(b"ok", 'RateLimit: "a";r=0;t=1800')
    config = HTTPConfig(rate_limit=RateLimit(1000, adaptive=True))
    async with http_peer(answering(spent)) as other:
        away = response(b"", f"Location: {other.url}", status="302 x")
        async with http_peer(answering(away, response(b"here"))) as peer, HTTPClient(config) as client:
            first = peer.url.replace("127.0.0.1", "localhost")
            assert await client.get(first) == "ok"
            assert await client.get(first, deadline=5) == "here"
            with pytest.raises(NetworkTimeoutError):
                await client.get(other.url, deadline=5)


@pytest.mark.parametrize("redirected", [True, False])
async def test_a_retry_after_holds_back_who_has_sent_it(redirected: bool) -> None:
    busy = response(b"busy", "Retry-After: 1800", status="503 x")
    config = HTTPConfig(rate_limit=1000, retries=0, max_retry_delay=1800)
    async with http_peer(answering(busy, response(b"other"))) as other:
        away = response(b"", f"Location: {other.url}", status="302 x")
        async with http_peer(answering(away, response(b"here"))) as peer, HTTPClient(config) as client:
            first = peer.url.replace("127.0.0.1", "localhost")
            with pytest.raises(HTTPStatusError):
                await client.get(first if redirected else other.url)
            with pytest.raises(NetworkTimeoutError, match=r"rate limit holds the request to 127\.0\.0\.1 back"):
                await client.get(other.url, deadline=5)
            assert await client.get(first, deadline=5, allow_redirects=False) == ("here" if redirected else "")


@contextlib.asynccontextmanager
async def redirected_to_a_paused_host(seconds: float, **settings: Any) -> AsyncIterator[tuple[HTTPClient, str, Any]]:
    """A client, a URL that redirects to a host, and the server of that, which has just asked for a pause."""
    busy = response(b"busy", f"Retry-After: {seconds}", status="503 x")
    config = HTTPConfig(rate_limit=1000, retries=0, max_retry_delay=1800, **settings)
    async with http_peer(answering(busy, response(b"other"))) as other:
        away = response(b"", f"Location: {other.url}", status="302 x")
        async with http_peer(answering(away)) as peer, HTTPClient(config) as client:
            with pytest.raises(HTTPStatusError):
                await client.get(other.url)
            yield client, peer.url.replace("127.0.0.1", "localhost"), other


async def test_a_redirect_to_a_paused_host_waits_for_its_pause_which_no_timeout_ends() -> None:
    for pause in longer_and_longer(1):
        began = monotonic()
        async with redirected_to_a_paused_host(pause) as (client, url, _):
            with contextlib.suppress(NetworkTimeoutError):
                assert await client.get(url, timeout=pause / 2) == "other"
                assert monotonic() - began >= pause
                break


async def test_a_redirect_to_a_host_that_is_paused_beyond_the_deadline_fails_at_once_and_asks_nobody() -> None:
    async with redirected_to_a_paused_host(1800) as (client, url, other):
        with pytest.raises(NetworkTimeoutError, match=r"rate limit holds the request to 127\.0\.0\.1 back") as caught:
            await client.get(url, deadline=60)
        assert caught.value.details["limit"] == "deadline" and caught.value.details["elapsed"] < 50
        assert len(other.requests) == 1


async def test_the_end_of_the_client_ends_the_wait_of_a_redirect() -> None:
    async with redirected_to_a_paused_host(1800) as (client, url, other):
        call = asyncio.create_task(client.get(url))
        await until(lambda: client.stats.attempts == 2, "the call has begun")
        await client.close()
        with pytest.raises(ClosedError):
            await call
        assert len(other.requests) == 1


@pytest.mark.slow
async def test_a_client_spends_what_a_server_allows_and_is_not_refused() -> None:
    """60 requests in each window of 0.6 s, from a client that could send 1,000 a second."""
    window, whole = 0.6, 60
    begin, taken, refused = monotonic(), 0, 0

    async def handle(connection: Connection) -> None:
        nonlocal begin, taken, refused
        while True:
            await connection.read_request()
            now = monotonic()
            if now >= begin + window:
                begin, taken = now, 0
            taken += 1
            line = f'RateLimit: "a";r={max(whole - taken, 0)};t={begin + window - now:.3f}'
            refused += taken > whole
            status = "429 x" if taken > whole else "200 OK"
            await connection.send(response(b"ok", line, f'RateLimit-Policy: "a";q={whole}', status=status))

    config = HTTPConfig(rate_limit=RateLimit(1000, adaptive=True), retries=0, max_connections=4)
    async with http_peer(handle) as peer, HTTPClient(config) as client:
        failures = 0
        async for result in client.map([f"{peer.url}/{number}" for number in range(180)], concurrency=4):
            failures += isinstance(result.error, HTTPStatusError)
    assert failures == refused == 0
