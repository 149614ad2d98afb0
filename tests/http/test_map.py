"""`HTTPClient.map`: many URLs, bounded, results as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.cancelling import until
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, HTTPStatusError, InvalidRequestError, NetworkError


class Held:
    """Answers with the target, those of one target only when told to; counts what is under way."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.release = asyncio.Event()
        self.all_held: asyncio.Semaphore | None = None  # if it is set, each answer waits for it

    async def __call__(self, connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            self.now += 1
            self.most = max(self.most, self.now)
            if request.target == "/held":
                await self.release.wait()
            if self.all_held is not None:
                await self.all_held.acquire()
            self.now -= 1
            status = "404 x" if request.target == "/missing" else "200 OK"
            await connection.send(response(request.target.encode(), status=status))


async def test_results_come_as_they_are_ready_with_their_place() -> None:
    held = Held()
    async with http_peer(held) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        urls = ["/held", "/1", "/2", "/3"]
        seen = []
        async for result in client.map(urls, concurrency=2):
            assert result.unwrap().text == result.url
            seen.append(result.index)
            if len(seen) == 3:
                held.release.set()
        assert seen == [1, 2, 3, 0]


@pytest.mark.slow
async def test_no_more_are_under_way_than_asked_for() -> None:
    held = Held()
    held.all_held = asyncio.Semaphore(0)
    async with http_peer(held) as peer, HTTPClient(HTTPConfig(peer.url)) as client:

        async def count_results() -> int:
            return len([result async for result in client.map((f"/{n}" for n in range(60)), concurrency=7)])

        counting = asyncio.create_task(count_results())
        for left in range(60, 0, -1):
            now = min(7, left)
            await until(lambda now=now: held.now == client.stats.in_flight == now, f"{now} are under way")  # type: ignore[misc]
            held.all_held.release()
        assert (await counting, held.most) == (60, 7)


async def test_a_large_concurrency_makes_no_more_tasks_than_there_are_urls() -> None:
    held = Held()
    async with http_peer(held) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        results = client.map(["/1", "/held", "/2"], concurrency=10_000)
        async with contextlib.aclosing(results):
            before = asyncio.all_tasks()
            assert sorted([(await anext(results)).url for _ in range(2)]) == ["/1", "/2"]
            # One for each URL, one that finds no more, and what the server runs.
            assert len(asyncio.all_tasks() - before) < 20
            held.release.set()
            assert [result.url async for result in results] == ["/held"]


async def test_a_failure_is_a_result_or_ends_all() -> None:
    async with http_peer(Held()) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        results = [result async for result in client.map(["/missing", "/1"])]
        by_url = {result.url: result for result in results}
        assert isinstance(by_url["/missing"].error, HTTPStatusError) and by_url["/missing"].response is None
        assert by_url["/1"].error is None
        with pytest.raises(HTTPStatusError):
            by_url["/missing"].unwrap()
        with pytest.raises(HTTPStatusError):
            async for _ in client.map(["/1", "/missing", "/held", "/held"], concurrency=4, errors="raise"):
                pass
        assert client.stats.in_flight == 0


async def test_an_endless_source_is_read_only_as_results_are_taken() -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"/{taken}"

    async with http_peer(Held()) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        async with contextlib.aclosing(client.map(endless(), concurrency=3)) as results:
            for _ in range(10):
                await anext(results)
            await until(lambda: client.stats.in_flight == 0, "what was taken is answered, and nothing more is asked")
            assert taken == 10 + 1 + 3, "one result waits to be taken, and each of three tasks has another"
        assert client.stats.in_flight == 0


async def test_an_async_source_and_other_methods_work_too() -> None:
    async def urls() -> AsyncIterator[str]:
        for n in range(5):
            await asyncio.sleep(0)
            yield f"/{n}"

    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        results = [r async for r in client.map(urls(), method="POST", json={"a": 1}, headers={"X-A": "1"})]
        assert sorted(result.index for result in results) == list(range(5))
        assert {(r.method, r.body, r.headers["X-A"]) for r in peer.requests} == {("POST", b'{"a":1}', "1")}


async def test_an_error_of_the_source_ends_all() -> None:
    def urls() -> Iterator[str]:
        yield "/1"
        raise LookupError

    async with http_peer(Held()) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        with pytest.raises(LookupError):
            async for _ in client.map(urls()):
                pass
        assert client.stats.in_flight == 0


async def test_a_cancelled_consumer_cancels_the_requests() -> None:
    held = Held()
    async with http_peer(held) as peer, HTTPClient(HTTPConfig(peer.url)) as client:

        async def consume() -> None:
            async for _ in client.map(["/held"] * 10, concurrency=5):
                pass

        task = asyncio.create_task(consume())
        await until(lambda: held.now == 5, "as many as allowed are under way")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats.in_flight == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"concurrency": 0}, InvalidRequestError),
        ({"concurrency": "2"}, TypeError),
        ({"errors": "x"}, InvalidRequestError),
    ],
)
async def test_a_bad_argument_is_refused_by_name(arguments: Any, error: type[Exception]) -> None:
    async with HTTPClient() as client:
        with pytest.raises(error, match=next(iter(arguments))):
            async for _ in client.map(["http://127.0.0.1:1"], **arguments):
                pass


async def test_no_urls_are_no_results() -> None:
    async with HTTPClient() as client:
        assert [result async for result in client.map([])] == []


async def test_a_url_that_cannot_be_used_is_a_result_too() -> None:
    async with HTTPClient() as client:
        (result,) = [result async for result in client.map(["nowhere"])]
        assert isinstance(result.error, NetworkError)
