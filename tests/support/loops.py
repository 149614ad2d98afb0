"""The event loops that coroutine tests run on, by the names that `LOOPS` and the tests' parameters use.

    asyncio-debug   asyncio's selector loop, in debug mode
    uvloop          uvloop, or winloop on Windows, where it is installed
    asyncio-eager   as the first, with `asyncio.eager_task_factory`; CPython 3.12 and later

`LOOPS=asyncio-eager,uvloop` chooses; otherwise it is the first two, and at night all three.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from support.tiers import NIGHTLY

Factory = Callable[[], asyncio.AbstractEventLoop]
T = TypeVar("T")


def _fast_loop() -> Factory | None:
    name = "winloop" if sys.platform == "win32" else "uvloop"
    try:
        factory: Factory = importlib.import_module(name).new_event_loop
    except ImportError:
        return None
    return factory


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


# For tests that call `begin_tasks_at_once()`.
needs_eager_tasks = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")


def begin_tasks_at_once() -> None:
    """The running loop has eager tasks from now on."""

    # As asyncio.eager_task_factory, which before 3.13.3 does not take all that uvloop gives.
    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop, **options | {"eager_start": True})

    asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]


def begun_later(operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has not begun when this returns: on every loop, unlike one of `create_task()`."""
    return asyncio.Task(operation)


def _chosen() -> dict[str, Factory]:
    there: dict[str, Factory] = {"asyncio-debug": asyncio.SelectorEventLoop}
    if UVLOOP is not None:
        there["uvloop"] = UVLOOP
    if sys.version_info >= (3, 12):
        there["asyncio-eager"] = _eager_loop
    named = os.environ.get("LOOPS") or ("asyncio-debug,uvloop,asyncio-eager" if NIGHTLY else "asyncio-debug,uvloop")
    return {name: there[name] for name in named.split(",") if name in there}


# None: not installed.
UVLOOP = _fast_loop()
LOOPS = _chosen()
