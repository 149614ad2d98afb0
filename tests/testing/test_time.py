"""`MockHTTP` and time: delays and the limits that pass in them, closing meanwhile, retries that do not wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from pepperpy.network import (
    ClosedError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    NetworkError,
    NetworkTimeoutError,
)
from pepperpy.network.backoff import Backoff
from pepperpy.network.testing import MockHTTP, MockRequest, Reply, no_retry_waits

API = "https://api.example.com"


# ---- Delays ----


async def test_a_reply_waits_for_an_event_of_the_test() -> None:
    event = asyncio.Event()
    with MockHTTP() as mock:
        mock.get(API).reply(text="ok", delay=event)
        async with HTTPClient() as client:
            task = asyncio.create_task(client.get(API))
            while not mock.requests:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not task.done()
            event.set()
            assert await task == "ok"


async def test_a_stream_waits_between_chunks_for_an_event_of_the_test() -> None:
    event = asyncio.Event()
    with MockHTTP() as mock:
        mock.get(API).reply(chunks=["one\n", event, "two\n"])
        async with HTTPClient() as client:
            async with client.stream("GET", API) as stream:
                lines = stream.lines()
                assert await anext(lines) == b"one"
                second = asyncio.create_task(anext(lines))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not second.done()
                event.set()
                assert await second == b"two"


@pytest.mark.parametrize("delay", [math.inf, 60.0, None])
async def test_the_limits_of_the_client_hold_during_a_delay(delay: float | None) -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(delay=asyncio.Event() if delay is None else delay)
        async with HTTPClient(HTTPConfig(retries=0)) as client:
            for limit, options in {"timeout": {"timeout": 0.02}, "deadline": {"deadline": 0.02}}.items():
                with pytest.raises(NetworkTimeoutError) as caught:
                    await client.get(API, **options)
                assert caught.value.details["limit"] == limit
        async with HTTPClient(HTTPConfig(retries=0, read_timeout=0.02)) as client:
            with pytest.raises(NetworkTimeoutError) as caught:
                await client.get(API)
            assert caught.value.details["limit"] == "read_timeout"


async def test_a_failure_to_connect_may_take_its_time() -> None:
    with MockHTTP() as mock:
        mock.get(API).fail("connect", delay=60.0)
        async with HTTPClient(HTTPConfig(retries=0, connect_timeout=0.02)) as client:
            with pytest.raises(NetworkTimeoutError) as caught:
                await client.get(API)
    assert caught.value.details["limit"] == "connect_timeout"


async def test_a_request_that_is_cancelled_during_a_delay_leaves_the_client_usable() -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(delay=math.inf, times=1).reply(text="ok")
        async with HTTPClient() as client:
            task = asyncio.create_task(client.get(API))
            while not mock.requests:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.get(API) == "ok"


async def test_delays_that_are_not_real_count_but_take_no_time() -> None:
    with MockHTTP(real_delays=False) as mock:
        mock.get(API).reply(text="late", delay=25.0)
        async with HTTPClient() as client:
            async with asyncio.timeout(20):
                response = await client.request("GET", API)
    assert 25 <= response.elapsed < 45
    assert 25 <= response.timings.first_byte < 45
    assert response.timings.connect < 20


@pytest.mark.parametrize(
    ("delay", "options", "limit", "elapsed", "attempts"),
    [
        (15.0, {"timeout": 10.0}, "timeout", 10, 1),
        (25.0, {"deadline": 20.0}, "deadline", 20, 1),
        (100.0, {}, "read_timeout", 90, 3),
        (100.0, {"deadline": 70.0}, "deadline", 70, 3),
        (100.0, {"timeout": aiohttp.ClientTimeout(sock_read=7)}, "read_timeout", 21, 3),
    ],
)
async def test_limits_pass_in_delays_that_are_not_real(
    delay: float, options: Any, limit: str, elapsed: float, attempts: int
) -> None:
    with MockHTTP(real_delays=False) as mock:
        mock.get(API).reply(delay=delay)
        async with HTTPClient() as client:
            async with asyncio.timeout(20):
                with pytest.raises(NetworkTimeoutError) as caught:
                    await client.get(API, **options)
    details = caught.value.details
    assert (details["limit"], details["attempt"]) == (limit, attempts)
    assert elapsed <= details["elapsed"] < elapsed + 20


async def test_limits_pass_in_streams_too_when_delays_are_not_real() -> None:
    with MockHTTP(real_delays=False) as mock:
        mock.get(API).reply(chunks=["a", 20.0, "b", 20.0, "c", 20.0, "d"])
        async with HTTPClient() as client:
            got = []
            with pytest.raises(NetworkTimeoutError) as caught:
                async with client.stream("GET", API, timeout=50.0) as stream:
                    async for chunk in stream:
                        got.append(chunk)
    assert got == [b"a", b"b", b"c"]
    assert caught.value.details["limit"] == "timeout"


async def test_what_does_not_really_pass_while_the_body_comes_is_time_of_the_body() -> None:
    with MockHTTP(real_delays=False) as mock:
        mock.get(API).reply(chunks=["a", 25.0, "b"])
        async with HTTPClient() as client:
            timings = (await client.request("GET", API)).timings
    assert 25 <= timings.body < 45
    assert timings.first_byte < 20


async def test_closing_the_client_ends_what_waits() -> None:
    async def never(request: MockRequest) -> Reply:
        await asyncio.Event().wait()
        return Reply()

    async def source() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    with MockHTTP() as mock:
        mock.get(f"{API}/delay").reply(delay=math.inf)
        mock.get(f"{API}/function").call(never)
        mock.put(f"{API}/body")
        mock.get(f"{API}/chunk").reply(chunks=[math.inf])
        client = HTTPClient()
        tasks = [
            asyncio.create_task(client.get(f"{API}/delay")),
            asyncio.create_task(client.get(f"{API}/function")),
            asyncio.create_task(client.put(f"{API}/body", data=source())),
            asyncio.create_task(client.get(f"{API}/chunk")),
        ]
        while len(mock.requests) < 4:
            await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ClosedError] * 4


async def test_a_stream_ends_with_its_client_and_its_block() -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(chunks=["a", math.inf])
        client = HTTPClient()
        async with client.stream("GET", API) as stream:
            task = asyncio.create_task(stream.read())
            for _ in range(10):
                await asyncio.sleep(0)
            await client.close()
            with pytest.raises(ClosedError):
                await task
        mock.get(f"{API}/whole").reply(text="whole")
        async with HTTPClient() as client:
            async with client.stream("GET", f"{API}/whole") as stream:
                pass
            with pytest.raises(ClosedError):
                await stream.read()


async def test_closing_the_client_in_the_turn_of_a_timeout_is_possible() -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(delay=math.inf)
        client = HTTPClient(HTTPConfig(read_timeout=0.02, retries=0))

        async def close_later() -> None:
            await asyncio.sleep(0.01)  # less than read_timeout
            await client.close()

        task = asyncio.create_task(client.get(API))
        while not mock.requests:
            await asyncio.sleep(0)
        closing = asyncio.create_task(close_later())
        await asyncio.sleep(0)
        # So that both times pass in the same turn: closing comes when the timeout is decided, but not yet raised.
        time.sleep(0.05)
        await closing
        with pytest.raises(NetworkError):
            await task


# ---- Retries ----

WAITS = {"Retry-After": "20"}


async def ask_for_twenty_seconds(mock: MockHTTP, **config: Any) -> str:
    """A retry that would have to wait longer than the deadline is not made."""
    mock.get(API).reply(503, headers=WAITS).reply(text="retried")
    async with HTTPClient(HTTPConfig(deadline=5.0, **config)) as client:
        return await client.get(API)


def test_retries_wait_again_after_the_blocks_whichever_ends_first() -> None:
    one, two = no_retry_waits(), no_retry_waits()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert Backoff(1.0, 1.0).delay_after(1, 20.0) == 0
    two.__exit__(None, None, None)
    assert Backoff(1.0, 1.0).delay_after(1, 20.0) >= 20


async def test_retries_do_not_wait_under_a_mock() -> None:
    with MockHTTP() as mock:
        assert await ask_for_twenty_seconds(mock) == "retried"


async def test_retries_wait_if_asked_to() -> None:
    with MockHTTP(retry_waits=True) as mock:
        with pytest.raises(HTTPStatusError):
            await ask_for_twenty_seconds(mock)


async def test_no_retry_waits_holds_for_its_block() -> None:
    with MockHTTP(retry_waits=True) as mock:
        with no_retry_waits():
            assert await ask_for_twenty_seconds(mock) == "retried"
        with pytest.raises(HTTPStatusError):
            await ask_for_twenty_seconds(mock)


async def test_the_rate_limit_waits_all_the_same() -> None:
    with MockHTTP() as mock:
        with pytest.raises(NetworkTimeoutError) as caught:
            await ask_for_twenty_seconds(mock, rate_limit=1000)
    assert caught.value.details["phase"] == "rate limit"
