"""Each allocation of requests that share a connection fails once: nobody waits for ever, or gets another's reply."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE_WITH_FUNCTIONS, MOST, STEP, Starved, starving, turns
from support.pipelining import LINES, word
from support.requesting import line
from support.servers import client_of, echo_server, peer_and_client

from pepperpy.network import NetworkClient, NetworkError
from pepperpy.network.requests.pipeline import Pipeline

# More allocations than the reader of a pipeline makes in one step.
MORE = 60
# After so many seconds, a task that waits counts as asleep. Arbitrary.
LONG_S = 5.0

pytestmark = [
    pytest.mark.skipif(IMPOSSIBLE_WITH_FUNCTIONS is not None, reason=str(IMPOSSIBLE_WITH_FUNCTIONS)),
    # Where asyncio's transport has no memory for its end, its socket ends with it.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # There was no memory to await one.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


async def reply_to(request: Coroutine[Any, Any, bytes], starved: Starved) -> bytes | None:
    """None: an allocation failed, of this request or of another one."""
    try:
        return await starving(starved, request)
    except (MemoryError, NetworkError):
        return None


async def replies(starved: Starved, client: NetworkClient) -> list[bytes | None]:
    """Three requests at once, with each step of all of them starved."""
    tasks = [asyncio.create_task(reply_to(client.request(b"%d\n" % number, line), starved)) for number in range(3)]
    asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
    for task in asleep:
        task.cancel()
    assert not asleep, "it waits for ever"
    return [task.result() for task in tasks]


@pytest.mark.slow
async def test_requests_get_their_own_replies_or_an_error_whatever_allocation_fails() -> None:
    async with echo_server() as port:
        untouched = Starved(-1, 0)
        async with client_of(port) as client:
            assert await replies(untouched, client) == [b"0\n", b"1\n", b"2\n"]
        failed = 0
        for call in range(untouched.calls):
            for number in range(MOST):
                async with client_of(port) as client:
                    got = await replies(Starved(call, number), client)
                    assert all(reply in (None, b"%d\n" % place) for place, reply in enumerate(got))
                    failed += got.count(None)
                    if client.is_connected:
                        assert await client.request(b"next\n", line) == b"next\n"
        assert failed


async def test_a_cancelled_request_ends_its_connection_whatever_allocation_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # There is less that can fail while the log is off.
    caplog.set_level(logging.INFO)
    for number in range(MOST):
        async with peer_and_client() as (peer, client):
            # Its first step sends the request, the second one is its cancellation.
            first = asyncio.create_task(reply_to(client.request(b"0\n", line), Starved(1, number)))
            second = asyncio.create_task(reply_to(client.request(b"1\n", line), Starved(-1, 0)))
            assert await peer.receive(2) == b"0\n"
            first.cancel()
            assert not (await asyncio.wait([first, second], timeout=LONG_S))[1], "it waits for ever"
            assert not client.is_connected, "its late reply would be another one's"
            assert second.result() is None


async def test_where_there_is_no_memory_to_begin_a_pipeline_the_client_is_as_it_was() -> None:
    # asyncio destroys a task that it had no memory to schedule, and tells of that.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    failed = 0
    async with peer_and_client() as (peer, client):
        for number in range(MORE):
            pipeline = client.pipeline(LINES)
            try:
                await starving(Starved(0, number), pipeline.__aenter__())
            except MemoryError:
                failed += 1
            if pipeline._reader is not None:
                # It has begun. Where that failed all the same, there was no memory for the StopIteration of a step.
                await pipeline.__aexit__(None, None, None)
            await turns()
            assert client.is_reusable, number
            await peer.send(b"one line\n")
            assert await client.receive_line() == b"one line\n"
    assert 0 < failed < MORE


async def piped(starved: Starved, client: NetworkClient, key: Any) -> list[bytes | None]:
    """Five requests in a pipeline for two, with each step of all of them, or of its reader, starved."""
    replies: list[bytes | None] = []
    with contextlib.suppress(MemoryError):
        async with client.pipeline(LINES, key=key, max_in_flight=2) as pipeline:
            requests = [reply_to(pipeline.request(b"%d q" % number), starved) for number in range(5)]
            tasks = [asyncio.create_task(request) for request in requests]
            asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
            for task in asleep:
                task.cancel()
            assert not asleep, "it waits for ever"
            replies += [task.result() for task in tasks]
            assert pipeline.in_flight == pipeline.abandoned or not client.is_connected
    return replies


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["requests", "reader"])
@pytest.mark.parametrize("key", [None, word], ids=["in order", "by id"])
async def test_requests_in_a_pipeline_get_their_own_replies_or_an_error_whatever_allocation_fails(
    whose: str, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = Starved(-1, 0)
    readers = [nobody]
    read = Pipeline._read
    if whose == "reader":
        monkeypatch.setattr(Pipeline, "_read", lambda pipeline: starving(readers[0], read(pipeline)))
    # There is none that would tell of a reader that had no memory for its end.
    asyncio.get_running_loop().set_exception_handler(ignore_want_of_memory)
    async with echo_server() as port:
        untouched = Starved(-1, 0)
        readers[0] = untouched
        async with client_of(port) as client:
            assert await piped(untouched, client, key) == [b"%d q" % number for number in range(5)]
        failed = 0
        for call in range(untouched.calls):
            for number in range(call % STEP, MORE, STEP):
                async with client_of(port) as client:
                    starved = readers[0] = Starved(call, number)
                    got = await piped(starved if whose == "requests" else nobody, client, key)
                    assert all(reply in (None, b"%d q" % place) for place, reply in enumerate(got))
                    failed += got.count(None)
                    if client.is_connected:
                        assert await client.request(b"next\n", line) == b"next\n"
        assert failed


def ignore_want_of_memory(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), MemoryError):
        raise AssertionError(context)
