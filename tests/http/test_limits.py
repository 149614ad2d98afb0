"""Time limits and the pool's limits: which one passed, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientTimeout
from support.cancelling import under_way, until
from support.http_faults import answering, response, silent
from support.http_peer import Connection, http_peer
from support.limits import longer_and_longer
from support.servers import full_listener

from pepperpy.network import (
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    NetworkTimeoutError,
    PoolTimeoutError,
)
from pepperpy.network.testing import MockHTTP
from pepperpy.network.watchdog import Watchdog


async def endless(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await connection.send(b"x")
        await asyncio.sleep(0.01)  # far less than any limit


class Gate:
    """Answers when it is opened, and knows how many wait."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            self.waiting += 1
            await self.opened.wait()
            await connection.send(response())


async def test_a_proxy_that_never_answers_ends_connecting() -> None:
    async with http_peer(silent) as proxy:
        for url, limit in (("https://host.example/", "connect_timeout"), ("http://host.example/", "read_timeout")):
            config = HTTPConfig(proxy=proxy.url, retries=0, **{limit: 0.05})
            async with HTTPClient(config) as client:
                with pytest.raises(NetworkTimeoutError) as caught:
                    await client.get(url)
                assert caught.value.details["limit"] == limit


@pytest.mark.parametrize("timeout", [0.05, ClientTimeout(total=0.05)], ids=["seconds", "ClientTimeout"])
@pytest.mark.parametrize("handler", [silent, endless], ids=["before the head", "in the body"])
async def test_timeout_limits_an_attempt(handler: Any, timeout: Any) -> None:
    async with http_peer(handler) as peer:
        async with HTTPClient() as client:
            with pytest.raises(NetworkTimeoutError, match=r"timed out \(timeout\)") as caught:
                await client.get(peer.url, timeout=timeout)
            assert caught.value.details["limit"] == "timeout"
            assert isinstance(caught.value, TimeoutError) and isinstance(caught.value.__cause__, TimeoutError)
            assert client.stats.open_connections == 0
        async with HTTPClient(HTTPConfig(timeout=timeout)) as client:
            with pytest.raises(NetworkTimeoutError, match=r"timed out \(timeout\)"):
                await client.get(peer.url)


async def test_timeout_begins_anew_with_each_attempt_and_the_deadline_does_not() -> None:
    with MockHTTP(real_delays=False) as mock:
        mock.get("http://host.test/").reply(503, delay=300)  # a third of timeout, of which deadline has no three
        config = HTTPConfig("http://host.test", retries=100, retry_delay=0, read_timeout=None)
        async with HTTPClient(config.replace(timeout=1000, retries=4)) as client:
            with pytest.raises(HTTPStatusError, match="attempt 5"):
                await client.get("/")
        async with HTTPClient(config.replace(timeout=None, deadline=800)) as client:
            with pytest.raises(NetworkTimeoutError) as caught:
                await client.get("/")
            assert (caught.value.details["limit"], caught.value.details["attempt"]) == ("deadline", 3)


async def test_the_deadline_covers_a_whole_call() -> None:
    async with http_peer(silent) as peer, HTTPClient(HTTPConfig(deadline=0.05)) as client:
        for arguments in ({}, {"deadline": 0.02}, {"timeout": 50.0}):
            with pytest.raises(NetworkTimeoutError, match="deadline") as caught:
                await client.get(peer.url, **arguments)
            assert caught.value.details["limit"] == "deadline"
        with pytest.raises(NetworkTimeoutError, match=r"\(timeout\)"):
            await client.get(peer.url, deadline=None, timeout=0.02)


@pytest.mark.slow
async def test_the_deadline_of_a_stream_goes_on_in_its_body() -> None:
    async def what_ends_the_body(client: HTTPClient, url: str, **limits: Any) -> str | None:
        """The limit; None: the head did not come in time."""
        began = False
        with pytest.raises(NetworkTimeoutError) as caught:
            async with client.stream("GET", url, **limits) as stream:
                began = True
                await stream.read()
        return caught.value.details["limit"] if began else None

    for seconds in longer_and_longer(0.2):
        async with http_peer(endless) as peer, HTTPClient(HTTPConfig(deadline=seconds)) as client:
            ended = [
                await what_ends_the_body(client, peer.url),
                await what_ends_the_body(client, peer.url, deadline=None, timeout=seconds / 2),
            ]
        if None not in ended:
            break
    assert ended == ["deadline", "timeout"]


async def test_connecting_has_a_limit_of_its_own() -> None:
    with full_listener() as port:
        async with HTTPClient(HTTPConfig(connect_timeout=0.05, retries=0)) as client:
            with pytest.raises(NetworkTimeoutError, match="connect_timeout") as caught:
                await client.get(f"http://127.0.0.1:{port}")
            assert caught.value.details["phase"] == "connect"


async def test_waiting_in_the_queue_is_not_connecting() -> None:
    gate = Gate()
    async with http_peer(gate) as peer:
        config = HTTPConfig(max_connections=1, connect_timeout=0.05, retries=0)
        async with HTTPClient(config) as client, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(client.get(peer.url))
            second = tasks.create_task(client.get(peer.url))
            await asyncio.sleep(0.2)  # longer than connect_timeout
            gate.opened.set()
            assert (await first, await second) == ("ok", "ok")
            assert len(peer.connections) == 1


async def test_a_limit_that_passes_in_the_queue_is_a_pool_timeout() -> None:
    gate = Gate()
    async with http_peer(gate) as peer, HTTPClient(HTTPConfig(max_connections=1)) as client:
        first = asyncio.create_task(client.get(peer.url))
        await until(lambda: gate.waiting == 1, "the first has the connection")
        with pytest.raises(PoolTimeoutError, match=r"became free in time \(max_connections=1\)") as caught:
            await client.get(peer.url, timeout=0.05)
        assert (caught.value.details["phase"], caught.value.details["limit"]) == ("queue", "max_connections")
        gate.opened.set()
        assert await first == "ok"
        assert await client.get(peer.url) == "ok"


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_pool_timeout_limits_the_wait_in_the_queue_alone(transport: Any) -> None:
    gate = Gate()
    config = HTTPConfig(transport=transport, max_connections=1, pool_timeout=0.05, timeout=None, retries=0)
    async with http_peer(gate) as peer, HTTPClient(config) as client:
        first = asyncio.create_task(client.get(peer.url))
        await until(lambda: gate.waiting == 1, "the first has the connection")
        with pytest.raises(PoolTimeoutError, match=r"in time \(pool_timeout; max_connections=1\)") as caught:
            await client.get(peer.url)
        assert (caught.value.details["phase"], caught.value.details["limit"]) == ("queue", "pool_timeout")
        gate.opened.set()
        assert await first == "ok", "it has waited longer than pool_timeout, but for its answer"
        assert await client.get(peer.url) == "ok"


async def test_at_most_as_many_connections_as_allowed_are_open() -> None:
    gate = Gate()
    async with http_peer(gate) as peer:
        async with HTTPClient(HTTPConfig(max_connections=3)) as client, asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(client.get(peer.url))
            await until(lambda: gate.waiting == 3, "as many as allowed are under way")
            assert (client.stats.in_flight, client.stats.open_connections) == (10, 3)
            gate.opened.set()
        assert len(peer.connections) == 3


async def test_one_host_cannot_take_all_connections() -> None:
    gate = Gate()
    gate_of_other = Gate()
    gate_of_other.opened.set()
    async with http_peer(gate) as peer, http_peer(gate_of_other) as other:
        config = HTTPConfig(max_connections=10, max_connections_per_host=2)
        async with HTTPClient(config) as client, asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(client.get(peer.url))
            await until(lambda: gate.waiting == 2, "as many as allowed are under way")
            assert await client.get(other.url) == "ok"
            assert len(peer.connections) == 2
            gate.opened.set()


@pytest.mark.slow
async def test_a_rate_limit_paces_attempts_and_heeds_retry_after() -> None:
    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(rate_limit=20)) as client:
            began = time.monotonic()
            await asyncio.gather(*(client.get(peer.url) for _ in range(5)))
            # Whatever its burst: 25 requests take a second and more.
            await asyncio.gather(*(client.get(peer.url) for _ in range(20)))
            assert time.monotonic() - began >= 4 / 20
    refusal = response(b"", "Retry-After: 1", status="429 x")
    async with http_peer(answering(refusal, response())) as peer:
        async with HTTPClient(HTTPConfig(rate_limit=1000, retries=0)) as client:
            with pytest.raises(HTTPStatusError):
                await client.get(peer.url)
            with pytest.raises(NetworkTimeoutError, match="rate limit") as caught:
                await client.get(peer.url, deadline=0.5)
            assert caught.value.details["phase"] == "rate limit"
            assert len(peer.requests) == 1


# ---- The watchdog ----


async def test_a_limit_ends_only_its_own_block() -> None:
    dog = Watchdog(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        with dog.limit(0.01):
            await asyncio.Event().wait()
    with dog.limit(10):
        await asyncio.sleep(0.02)  # beyond the limit before
    dog.close()
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_shorter_limit_that_comes_later_is_looked_after_in_time() -> None:
    """And the next one after it. The others are longer than this test may take."""
    dog = Watchdog(asyncio.get_running_loop())

    async def limited(seconds: float) -> float:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError), dog.limit(seconds):
            await asyncio.Event().wait()
        return time.monotonic() - began

    async with under_way(limited(1000), limited(500)) as longer:
        await asyncio.sleep(0)
        times = await asyncio.gather(limited(0.02), limited(0.01))
        assert all(waited >= limit - 0.002 for waited, limit in zip(times, (0.02, 0.01), strict=True))
        assert not any(task.done() for task in longer)
    dog.close()


async def test_limits_that_pass_while_the_loop_is_held_up_end_in_their_order() -> None:
    dog = Watchdog(asyncio.get_running_loop())
    ended: list[int] = []
    began = time.monotonic()

    async def limited(number: int) -> None:
        limit = dog.limit(0)
        limit.ends_at = began + number / 1000
        with contextlib.suppress(TimeoutError), limit:
            await asyncio.Event().wait()
        ended.append(number)

    tasks = [asyncio.create_task(limited(number)) for number in (3, 9, 1, 7, 5, 8, 2, 6, 4)]
    await asyncio.sleep(0)
    time.sleep(0.02)  # now all have passed
    await asyncio.gather(*tasks)
    assert ended == sorted(ended)
    dog.close()


async def test_a_cancellation_from_outside_stays_one_even_in_the_moment_of_the_limit() -> None:
    dog = Watchdog(asyncio.get_running_loop())
    began = asyncio.Event()

    async def limited() -> None:
        with dog.limit(0.01):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(limited())
    await began.wait()
    task.cancel()
    time.sleep(0.02)  # now the limit has passed as well
    with pytest.raises(asyncio.CancelledError):
        await task
    dog.close()


async def test_other_exceptions_pass_a_limit_as_they_are() -> None:
    dog = Watchdog(asyncio.get_running_loop())
    with pytest.raises(LookupError):
        with dog.limit(10):
            raise LookupError
    dog.close()


async def test_many_limits_share_one_timer() -> None:
    class Loop:
        def call_later(self, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
            timers.append(arguments[0])
            return asyncio.get_running_loop().call_later(*arguments, **options)

    timers: list[float] = []
    loop = Loop()
    dog = Watchdog(loop)  # type: ignore[arg-type]
    for _ in range(1000):
        with dog.limit(60):
            pass
    dog.close()
    assert len(timers) == 1


async def chunks() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 65536
        await asyncio.sleep(0)


async def test_timeout_limits_an_upload_too() -> None:
    async def never_reads(connection: Connection) -> None:
        await connection.read_head()
        await asyncio.Event().wait()

    async with http_peer(never_reads) as peer:
        client = HTTPClient(HTTPConfig(close_timeout=60))
        with pytest.raises(NetworkTimeoutError, match=r"\(timeout\)"):
            await client.post(peer.url, data=chunks(), timeout=0.1)
        assert client.stats.open_connections == 0
        # What was not sent is not waited for: the peer would never read it.
        async with asyncio.timeout(20):
            await client.close()
