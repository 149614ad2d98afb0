"""Each allocation of an exchange over an idle connection fails once: the answer is right, or the connection is gone."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, MOST, STEP, Starved
from support.cancelling import until
from support.exchanges import Exchanges, exchanges
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network.http.transport import Trip, WireError

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))


class _Starving:
    """Awaits `coroutine`; each of its steps is one call of `starved`."""

    def __init__(self, starved: Starved, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._starved = starved
        self._coroutine = coroutine
        self._result: Any = None

    async def _run(self) -> None:
        self._result = await self._coroutine

    def __await__(self) -> Generator[Any, None, Any]:
        steps = self._run()
        while True:
            try:
                waited_for = self._starved(steps.send, None)
            except StopIteration:
                return self._result
            except MemoryError:
                # Of the StopIteration, which a task does without.
                if self._result is None:
                    # It has not even begun, if what failed was its `await`.
                    self._coroutine.close()
                    raise
                return self._result
            yield waited_for


async def body_of(one: Exchanges, url: str, starved: Starved) -> bytes | None:
    """None: an allocation failed."""
    request = one.request("GET", url)
    try:
        answer = await _Starving(starved, starved(one.transport.exchange, request, Trip()))
        body: bytes | None = starved(answer.take_whole, None)
        return await answer.read() if body is None else body
    except (MemoryError, WireError):
        return None


def idle(one: Exchanges) -> int:
    return sum(len(origin.idle) for origin in one.pool.origins.values())


async def test_no_connection_and_no_slot_is_lost_whatever_allocation_fails() -> None:
    async with http_peer(answering(response(b"hello"))) as peer, exchanges() as one:
        assert await one.get(peer.url) == (200, b"hello")
        untouched = Starved(-1, 0)
        assert await body_of(one, peer.url, untouched) == b"hello"
        failed = 0
        for call in range(untouched.calls):
            for number in range(call % STEP, MOST, STEP):
                body = await body_of(one, peer.url, Starved(call, number))
                assert body in (None, b"hello")
                failed += body is None
                # From CPython 3.12 on, the StopIteration that carries an answer may be what there is no memory for.
                await until(lambda: one.pool.open_connections == idle(one), "a lost answer's connection is closed")
                assert one.pool.slots_taken == idle(one)
                # An idle one is there for the next round.
                assert await one.get(peer.url) == (200, b"hello")
        assert failed
