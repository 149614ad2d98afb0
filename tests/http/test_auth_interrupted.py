"""A token that is fetched, when who waits for it, the fetch, the client or the loop ends meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.token_server import TokenServer

from pepperpy.network import ClosedError, UsageError
from pepperpy.network.http.auth import RefreshingAuth

# ---- Cancelling ----


@pytest.mark.parametrize("mode", Mode)
async def test_cancelling_one_who_waits_does_not_disturb_the_others(mode: Mode) -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    others = await fetch.waiting(auth, 2)
    cancelling = asyncio.create_task(cancelled_at(auth.header(), 1, mode))
    for _ in range(3):
        await asyncio.sleep(0)
    if mode is Mode.SAME_TICK:
        fetch.open.set()
    outcome = await cancelling
    assert (outcome.cancelled, outcome.suspensions) == (True, 1)
    fetch.open.set()
    assert await asyncio.gather(*others) == ["Bearer token-1"] * 2
    assert (fetch.started, fetch.cancelled) == (1, 0)


@pytest.mark.parametrize("mode", [Mode.WAITING, Mode.TWICE])
async def test_when_the_last_who_waits_is_cancelled_the_fetch_is_too(mode: Mode) -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    (task,) = await fetch.waiting(auth, 1)
    task.cancel()
    if mode is Mode.TWICE:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    # Cancelled once, it has waited for the end of the fetch.
    assert mode is Mode.TWICE or fetch.ended == 1
    await until(lambda: fetch.ended == 1, "the fetch has ended")
    assert (fetch.started, fetch.cancelled) == (1, 1)
    fetch.open.set()
    assert await auth.header() == "Bearer token-2"


@pytest.mark.parametrize("mode", Mode)
async def test_a_header_cancelled_at_any_suspension_leaves_nothing_and_the_next_gets_a_token(mode: Mode) -> None:
    for number in (1, 2):
        fetch = TokenServer()
        auth = RefreshingAuth(fetch)
        if mode is Mode.SAME_TICK or number == 2:
            fetch.open.set()
        outcome = await cancelled_at(auth.header(), number, mode)
        assert outcome.cancelled == (number == 1)
        fetch.open.set()
        # Cancelled in the very moment in which it came, the token is kept for the next.
        fetches = 2 if outcome.cancelled and mode is not Mode.SAME_TICK else 1
        assert await auth.header() == f"Bearer token-{fetches}"
        assert fetch.started == fetches


async def test_all_who_wait_cancelled_in_one_moment_end_the_fetch_once() -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    tasks = await fetch.waiting(auth, 100)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert (fetch.started, fetch.cancelled, fetch.ended) == (1, 1, 1)


async def test_who_comes_while_an_abandoned_fetch_cleans_up_starts_another() -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    (task,) = await fetch.waiting(auth, 1)
    task.cancel()
    await until(lambda: fetch.cancelled == 1, "the fetch cleans up")
    assert fetch.ended == 0
    fetch.open.set()
    assert await auth.header() == "Bearer token-2"
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_fetch_that_fails_while_it_is_abandoned_is_not_reported() -> None:
    begun = asyncio.Event()

    async def fetch() -> str:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            raise OSError("cleaning up failed")

    auth = RefreshingAuth(fetch)
    task = asyncio.create_task(auth.header())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    # Python reports an exception that nobody has retrieved when its task is collected; conftest.py looks for that.
    del task, auth
    gc.collect()


async def test_a_token_of_a_fetch_that_ignored_its_cancellation_does_not_replace_a_newer_one() -> None:
    started, first_ends = 0, asyncio.Event()

    async def fetch() -> str:
        nonlocal started
        started += 1
        if started > 1:
            return "new"
        while not first_ends.is_set():
            try:
                await first_ends.wait()
            except asyncio.CancelledError:
                continue
        return "old"

    auth = RefreshingAuth(fetch)
    abandoned = asyncio.create_task(auth.header())
    await until(lambda: started == 1, "a fetch has begun")
    abandoned.cancel()
    await asyncio.sleep(0)
    assert await auth.header() == "Bearer new"
    first_ends.set()
    await asyncio.wait([abandoned])
    assert abandoned.cancelled()
    assert await auth.header() == "Bearer new"


# ---- Closing, and other loops ----


async def test_close_ends_a_fetch_and_tells_those_who_wait() -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    tasks = await fetch.waiting(auth, 3)
    closing = asyncio.create_task(auth.close())
    await until(lambda: fetch.cancelled == 1, "the fetch cleans up")
    # Nothing new begins meanwhile.
    tasks.append(asyncio.create_task(auth.header()))
    await closing
    assert fetch.started == 1
    assert (fetch.cancelled, fetch.ended) == (1, 1)
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert type(error) is ClosedError
        assert error.details == {"phase": "auth"}
    await auth.close()
    fetch.open.set()
    assert await auth.header() == "Bearer token-2"


@pytest.mark.parametrize("mode", [Mode.WAITING, Mode.TWICE])
async def test_a_close_that_is_cancelled_has_cancelled_the_fetch(mode: Mode) -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    (task,) = await fetch.waiting(auth, 1)
    outcome = await cancelled_at(auth.close(), 1, mode)
    assert outcome.cancelled
    with pytest.raises(ClosedError):
        await task
    assert (fetch.cancelled, fetch.ended) == (1, 1)


def test_a_token_serves_the_next_loop_too_and_so_does_the_auth() -> None:
    count = 0

    async def fetch() -> str:
        nonlocal count
        await asyncio.sleep(0)
        count += 1
        return f"token-{count}"

    auth = RefreshingAuth(fetch)

    async def use() -> str:
        header = await auth.header()
        await auth.close()
        return header

    assert asyncio.run(use()) == asyncio.run(use()) == "Bearer token-1"
    auth.refused("Bearer token-1")
    assert asyncio.run(use()) == "Bearer token-2"


async def test_a_fetch_under_way_on_another_loop_is_an_error_instead_of_a_hang() -> None:
    begun, end = threading.Event(), threading.Event()

    def fetch() -> str:
        begun.set()
        end.wait(30)
        return "x"

    auth = RefreshingAuth(fetch)
    other = threading.Thread(target=lambda: asyncio.run(auth.header()))
    other.start()
    await asyncio.to_thread(begun.wait, 30)
    try:
        with pytest.raises(UsageError, match="another event loop"):
            await auth.header()
        with pytest.raises(UsageError, match="another event loop"):
            await auth.close()
    finally:
        end.set()
        await asyncio.to_thread(other.join)
    assert await auth.header() == "Bearer x"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_fetch_that_was_left_behind_in_a_closed_loop_does_not_block_the_next_loop() -> None:
    count = 0

    async def fetch() -> str:
        nonlocal count
        count += 1
        if count == 1:
            await asyncio.Event().wait()
        return "x"

    auth = RefreshingAuth(fetch)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    left_behind = loop.create_task(auth.header())
    loop.run_until_complete(until(lambda: count == 1, "a fetch has begun"))
    loop.close()
    assert not left_behind.done()
    assert asyncio.run(auth.header()) == "Bearer x"
    asyncio.run(auth.close())
    left_behind._log_destroy_pending = False  # type: ignore[attr-defined]
