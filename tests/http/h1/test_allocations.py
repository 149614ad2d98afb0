"""Each allocation of an exchange over an idle connection fails once: the answer is right, or the connection is gone."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, IMPOSSIBLE_WITH_FUNCTIONS, MOST, STEP, Starved, starving, turns
from support.cancelling import until
from support.exchanges import Exchanges, exchanges
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network.http.h1 import upload
from pepperpy.network.http.transport import Trip, WireError

# More allocations than the first step of an exchange makes that waits.
MORE = 60
# After so many seconds, a task that waits counts as asleep. Arbitrary.
LONG_S = 5.0

pytestmark = [
    pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE)),
    # Where asyncio's transport has no memory for its end, its socket ends with it.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # There was no memory to await one.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


async def body_of(one: Exchanges, url: str, starved: Starved) -> bytes | None:
    """None: an allocation failed."""
    request = one.request("GET", url)
    try:
        answer = await starving(starved, starved(one.transport.exchange, request, Trip()))
        body: bytes | None = starved(answer.take_whole, None)
        return await answer.read() if body is None else body
    except (MemoryError, WireError):
        return None
    except TypeError as error:
        # What `async for` makes of it.
        assert isinstance(error.__cause__, MemoryError)
        return None


def idle(one: Exchanges) -> int:
    return sum(len(origin.idle) for origin in one.pool.origins.values())


@pytest.mark.parametrize("leave", [True, False])
async def test_a_body_that_waits_for_leave_gets_the_answer_whatever_allocation_fails(
    leave: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "CONTINUE_WAIT", 1000.0)
    for number in range(MOST):
        sent: list[bytes] = []
        sender = SimpleNamespace(send_many=lambda pieces, sent=sent: sent.extend(pieces) or True)
        connection: Any = SimpleNamespace(protocol=SimpleNamespace(sender=sender))
        request: Any = SimpleNamespace(headers={"Expect": "100-continue", "Content-Length": "5"})
        head: Any = SimpleNamespace(has_head=True, continued=leave)
        body = upload.Upload(connection, request, b"hello")
        await turns()
        try:
            Starved(0, number)(body.note, head)
        except MemoryError:
            body.note(head)
        asleep = (await asyncio.wait([asyncio.create_task(body.wait_ended())], timeout=LONG_S))[1]
        for task in asleep:
            task.cancel()
        assert not asleep, "it waits for ever"
        assert sent == ([b"hello"] if leave else [])


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


@pytest.mark.skipif(IMPOSSIBLE_WITH_FUNCTIONS is not None, reason=str(IMPOSSIBLE_WITH_FUNCTIONS))
async def test_nobody_sleeps_in_the_queue_and_no_connection_is_lost_whatever_allocation_fails() -> None:
    async with http_peer(answering(response(b"hello"))) as peer, exchanges(max_connections=1) as one:
        untouched = Starved(-1, 0)
        await queued(one, peer.url, untouched)
        failed = 0
        for call in range(untouched.calls):
            for number in range(call % STEP, MORE, STEP):
                bodies = await queued(one, peer.url, Starved(call, number))
                assert set(bodies) <= {None, b"hello"}
                failed += bodies.count(None)
                await until(lambda: one.pool.open_connections == idle(one), "a lost answer's connection is closed")
                assert (one.pool.slots_taken, one.pool.waiting) == (idle(one), 0)
                assert await one.get(peer.url) == (200, b"hello")
        assert failed


async def queued(one: Exchanges, url: str, starved: Starved) -> list[bytes | None]:
    """The bodies of three requests over one connection, with each step of all of them starved."""
    tasks = [asyncio.create_task(body_of(one, url, starved)) for _ in range(3)]
    asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
    assert not asleep, "it waits for ever"
    return [task.result() for task in tasks]


@pytest.mark.skipif(IMPOSSIBLE_WITH_FUNCTIONS is not None, reason=str(IMPOSSIBLE_WITH_FUNCTIONS))
async def test_all_who_wait_are_told_of_the_end_whatever_allocation_fails() -> None:
    for number in range(0, MORE, STEP):
        async with http_peer(answering(response(b"hello"))) as peer, exchanges(max_connections=1) as one:
            busy = await one.ask("GET", peer.url)
            tasks = [asyncio.create_task(one.get(peer.url)) for _ in range(2)]
            await until(lambda one=one: one.pool.waiting == 2, "both wait")  # type: ignore[misc]
            with contextlib.suppress(MemoryError):
                await starving(Starved(0, number), one.pool.close(0.0))
            asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
            assert not asleep, "it waits for ever"
            for task in tasks:
                assert isinstance(task.exception(), (WireError, MemoryError))
            assert (one.pool.open_connections, one.pool.slots_taken) == (0, 0)
            assert busy.connection is None or busy.connection.protocol.state != "open"
