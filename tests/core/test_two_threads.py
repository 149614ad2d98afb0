"""Two loops in two threads at the same time: each client belongs to its loop, and nothing else is shared unguarded."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.line_server import ask, server_and_pool
from support.loops import LOOPS
from support.servers import client_of, echo_server
from support.tiers import by_tier

from pepperpy.network import HTTPClient, LengthPrefixed

THREADS = 2
ROUNDS = by_tier(20, nightly=2000)


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """The interpreter changes threads as often as it can, so that two are in the middle of the same thing."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def tcp(name: str) -> None:
    """Connections that come and go, to a host that is looked up, with lines, messages and large results."""
    large = name.encode() * 300_000
    async with echo_server() as port:
        for number in range(ROUNDS):
            async with client_of(port, timeout=None) as client:
                for line in (f"{name} {number} {again}\n".encode() for again in range(20)):
                    await client.send(line)
                    assert await client.receive_line() == line
                messages = client.framed(LengthPrefixed(4))
                await messages.send(large)
                assert await messages.receive() == large


async def pool_and_requests(name: str) -> None:
    async with server_and_pool(0, 3, max_age=0.01) as (_, pool):

        async def use(number: int) -> None:
            async with pool.acquire() as client:
                await ask(client, f"{name} {number}".encode())

        for _ in range(ROUNDS):
            await asyncio.gather(*map(use, range(8)))


async def http(name: str) -> None:
    async with http_peer(answering(response(name.encode()))) as peer, HTTPClient() as client:
        url = f"http://localhost:{peer.url.rpartition(':')[2]}"
        for _ in range(ROUNDS):
            answers = await asyncio.gather(*(client.get(url) for _ in range(4)))
            assert set(answers) == {name}


@pytest.mark.slow
@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("work", [tcp, pool_and_requests, http])
def test_loops_in_two_threads_do_not_disturb_each_other(loop_name: str, work: Callable[[str], Awaitable[None]]) -> None:
    start = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    def run(name: str) -> None:
        start.wait()
        try:
            with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
                runner.run(work(name))  # type: ignore[arg-type]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"thread-{number}",)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
