"""Each allocation of the end of a name lookup fails once: whoever waits for the name gets its addresses or an error."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, MOST, Starved
from support.cancelling import until

from pepperpy.network import lookup

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))

# After so many seconds, a task that waits counts as asleep. Arbitrary.
LONG_S = 5.0


def found(*_: Any, **__: Any) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]


def unknown(*_: Any, **__: Any) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "unknown")


@pytest.mark.parametrize("system", [found, unknown])
async def test_nobody_waits_for_ever_whatever_allocation_fails_at_the_end_of_a_lookup(
    system: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    monkeypatch.setattr(socket, "getaddrinfo", system)
    done = lookup._Lookup._done
    for number in range(MOST):
        starved = Starved(0, number)
        monkeypatch.setattr(lookup._Lookup, "_done", lambda *arguments, starved=starved: starved(done, *arguments))
        tasks = [asyncio.create_task(lookup.look_up(f"{number}.test", 80)) for _ in range(2)]
        asleep = (await asyncio.wait(tasks, timeout=LONG_S))[1]
        for task in asleep:
            task.cancel()
        assert not asleep, f"allocation {number}: it waits for ever"
        for task in tasks:
            assert isinstance(task.exception(), socket.gaierror) if system is unknown else task.result()
        assert not lookup._names.lookups


async def test_an_answer_that_the_thread_could_not_pass_on_is_passed_on_again() -> None:
    # No allocation of a thread alone can be made to fail.
    loop = asyncio.get_running_loop()
    calls: list[Any] = []

    class Loop:
        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

        def call_soon_threadsafe(self, *arguments: Any) -> None:
            calls.append(arguments)
            if len(calls) == 1:
                raise MemoryError
            loop.call_soon_threadsafe(*arguments)

    begun = threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        begun.wait()
        return found()

    one = lookup._Lookup(("name.test", 0, slow), loop)
    asking = asyncio.create_task(one.answer())
    await asyncio.sleep(0)
    one.loop = Loop()  # type: ignore[assignment]
    begun.set()
    await until(asking.done, "it is passed on")
    assert asking.result() == found()
    assert len(calls) == 2
