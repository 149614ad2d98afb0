"""`Timer`: it moves itself, runs in nobody's context, and keeps nobody alive."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import weakref
from collections.abc import Callable
from time import monotonic

import pytest

from pepperpy.network.last_turns import LAST_TURNS
from pepperpy.network.timers import Timer
from pepperpy.network.watchdog import time_limit

user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


class Owner:
    """Notes when its timer looks, and lets `answer` say when to look again."""

    def __init__(self, answer: Callable[[float], float] = lambda now: math.inf) -> None:
        self.answer = answer
        self.looks: list[float] = []
        self.looked = asyncio.Event()
        self.seen_user: str | None = None
        self.timer = Timer(asyncio.get_running_loop(), self.look)

    def look(self, now: float) -> float:
        self.looks.append(now)
        self.seen_user = user.get(None)
        self.looked.set()
        return self.answer(now)


async def test_it_looks_by_the_earliest_time_and_not_at_the_later_ones() -> None:
    owner, now = Owner(), monotonic()
    owner.timer.look_by(now + 60)
    owner.timer.look_by(now + 0.01)
    owner.timer.look_by(now + 30)
    assert owner.timer.at == now + 0.01
    await owner.looked.wait()
    assert len(owner.looks) == 1 and owner.looks[0] >= now + 0.01
    assert owner.timer.at == math.inf


async def test_it_is_set_again_for_what_is_left() -> None:
    ends: list[float] = []
    done = asyncio.Event()

    def answer(now: float) -> float:
        if not ends:
            ends.append(now + 0.01)
            return ends[0]
        done.set()
        return math.inf

    owner = Owner(answer)
    owner.timer.look_by(monotonic() + 0.01)
    await done.wait()
    assert len(owner.looks) == 2 and owner.looks[1] >= ends[0]


async def test_it_looks_in_nobodys_context() -> None:
    owner = Owner()
    user.set("somebody")
    owner.timer.look_by(monotonic())
    await owner.looked.wait()
    assert owner.seen_user is None


async def test_it_does_not_look_once_it_is_ended_and_may_be_set_again() -> None:
    owner, now = Owner(), monotonic()
    owner.timer.look_by(now)
    owner.timer.end()
    assert owner.timer.at == math.inf
    later = Owner()
    later.timer.look_by(now)
    await later.looked.wait()
    assert owner.looks == []
    owner.timer.look_by(now)
    await owner.looked.wait()


async def test_it_keeps_no_owner_alive() -> None:
    owner = Owner()
    timer, gone = owner.timer, weakref.ref(owner)
    timer.look_by(monotonic())
    del owner
    gc.collect()
    assert gone() is None
    other = Owner()
    other.timer.look_by(monotonic())
    await other.looked.wait()
    assert timer.at == math.inf, "it has fired, and set itself for nothing"


async def test_it_stays_as_it_was_where_it_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    loop, owner = asyncio.get_running_loop(), Owner()
    owner.timer.look_by(at := monotonic() + 0.02)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_later", fail)
        with pytest.raises(MemoryError):
            owner.timer.look_by(at - 0.01)
    assert owner.timer.at == at
    await asyncio.wait_for(owner.looked.wait(), 5)


async def test_a_limit_shorter_than_a_turn_ends_what_does_not_end_and_no_sooner_than_after_its_last_turns() -> None:
    async def turns(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    with time_limit(1e-9):
        await turns(LAST_TURNS // 2)
    with pytest.raises(TimeoutError):
        with time_limit(1e-9):
            await turns(100_000_000)


def test_a_loop_that_was_closed_in_the_middle_of_a_time_limit_is_not_kept_once_there_is_another() -> None:
    async def begin(limited: bool) -> None:
        async def wait() -> None:
            with time_limit(60):
                await asyncio.Event().wait()

        task = asyncio.get_running_loop().create_task(wait())
        await asyncio.sleep(0)
        if not limited:
            task.cancel()
            await asyncio.wait([task])

    def run(limited: bool) -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: reported.append(context["message"]))
        try:
            loop.run_until_complete(begin(limited))
        finally:
            loop.close()
        return weakref.ref(loop)

    reported: list[str] = []
    closed = run(True)
    run(False)
    gc.collect()
    assert closed() is None
    assert reported == ["Task was destroyed but it is pending!"]


async def test_a_function_that_nobody_owns_is_refused() -> None:
    with pytest.raises(TypeError):
        Timer(asyncio.get_running_loop(), lambda now: math.inf)


async def test_an_owner_that_fails_is_reported_and_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepperpy.network.timers.AGAIN_S", 0.0)
    errors: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def fail_once(now: float) -> float:
        if not errors:
            raise MemoryError
        return math.inf

    owner = Owner(fail_once)
    owner.timer.look_by(monotonic())
    while len(owner.looks) < 2:
        owner.looked.clear()
        await asyncio.wait_for(owner.looked.wait(), 5)
    assert [type(error) for error in errors] == [MemoryError]
    assert owner.timer.at == math.inf
