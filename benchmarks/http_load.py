"""What the peers over HTTP share: what nginx serves, what must come back, and how requests are kept in flight."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from workloads import EVENT

if TYPE_CHECKING:
    from client import Job


def _items(count: int) -> list[dict[str, Any]]:
    return [
        {"id": number, "name": f"item {number}", "price": number * 1.25, "in_stock": number % 3 > 0, "tags": ["a", "b"]}
        for number in range(count)
    ]


JSON_SENT = {"wanted": _items(26)}  # 2 KB, written without spaces
JSON_ANSWER = {"count": 40, "items": _items(40)}  # 3 KB


@functools.cache
def body_of(path: str, size: int) -> bytes:
    """What comes back from `path`, unpacked, or is sent there: `size` bytes, but of JSON about as many."""
    if path == "/json":
        return json.dumps(JSON_ANSWER, separators=(",", ":")).encode()
    if path == "/packed":
        return json.dumps(_items(size // 88)).encode()
    if path in ("/file", "/upload"):
        return random.Random(1).randbytes(size)
    return b"x" * size


def urls(job: Job) -> list[str]:
    """One for each host. All of 127.0.0.0/8 is this machine, on Linux; only many hosts need more than 127.0.0.1."""
    scheme = "https" if job.workload.tls else "http"
    return [f"{scheme}://127.0.0.{n}:{job.port}{job.workload.path}" for n in range(1, job.workload.hosts + 1)]


Check = Callable[[Any], bool]


def checks(job: Job) -> tuple[Check, Check]:
    """Whether an answer is right: all of it, for the first ones; then as far as that costs next to nothing."""
    workload = job.workload
    expected = body_of(workload.path, workload.size)
    if workload.kind == "post_json":
        return (
            lambda answer: answer == JSON_ANSWER,
            lambda answer: answer["count"] == len(answer["items"]) and answer["items"][-1]["name"] == "item 39",
        )
    if workload.kind == "get_bytes":  # some peers give another object with the bytes in it
        length = len(expected)
        return (lambda body: bytes(body) == expected), (lambda body: len(body) == length)
    if workload.kind == "post_bytes":  # nginx says how many have come
        expected = str(len(expected)).encode()
    text = expected.decode()
    return (lambda body: body == text), (lambda body: body == text)


async def keep_in_flight(job: Job, one: Callable[[str], Awaitable[Any]]) -> None:
    """Call `one` with the workload's URLs in turn, `job.connections` times at once, until the time is over.

    Args:
        one: Sends one request, checks the status, and returns the text, the bytes or the decoded JSON of the answer.
    """
    all_right, right = checks(job)
    cycle = itertools.cycle(urls(job))

    async def work() -> None:
        begun = perf_counter()
        while begun < clock.end:
            if not right(await one(next(cycle))):
                raise RuntimeError("wrong answer")
            now = perf_counter()
            done(now - begun)
            begun = now

    for _ in range(max(1, job.workload.hosts // job.connections)):
        answers = await asyncio.gather(*(one(next(cycle)) for _ in range(job.connections)))
        if not all(map(all_right, answers)):
            raise RuntimeError("wrong answer")
    with job.measure() as clock:
        done = counter(job, clock)
        await asyncio.gather(*(work() for _ in range(job.connections)))


def counter(job: Job, clock: Any) -> Callable[[float], None]:
    """Counts a request that took so many seconds, as the workload's unit wants it."""
    if job.workload.unit != "bytes":
        append: Callable[[float], None] = clock.latencies.append
        return append

    def count_bytes(_: float) -> None:
        clock.operations += job.size

    return count_bytes


async def keep_streaming(job: Job, events: Callable[[str], AsyncGenerator[str, None]]) -> None:
    """Read `job.connections` streams at once until the time is over.

    Args:
        events: Asks for a stream, and gives the data of its events.
    """
    (url,) = urls(job)
    expected = EVENT.decode()

    async def follow(stream: AsyncGenerator[str, None]) -> None:
        while clock.running():
            for _ in range(10):
                if len(await anext(stream)) != len(expected):
                    raise RuntimeError("wrong event")
            clock.operations += 10

    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(contextlib.aclosing(events(url))) for _ in range(job.connections)]
        for stream in streams:
            if await anext(stream) != expected:
                raise RuntimeError("wrong event")
        with job.measure() as clock:
            await asyncio.gather(*map(follow, streams))
