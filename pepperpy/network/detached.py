"""Running things in nobody's context (`contextvars`), as what outlives the call that made it has to.

asyncio's handles (timers, tasks, a socket's reader) copy the context in which they are made, and keep it as long as
they live. A connection that a request has made, and its timers, would keep what that request had in its context (its
user, a trace, 20 KB of anything) until they end, and run everybody's callbacks in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def detached_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], name: str | None = None
) -> asyncio.Task[T]:
    """A task in a context of its own. Not by `context=`, which task factories from before 3.11 do not know."""
    return contextvars.Context().run(functools.partial(loop.create_task, coroutine, name=name))


@types.coroutine
def detached(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await a coroutine whose own code runs in nobody's context, though in the task of its caller."""
    run = contextvars.Context().run
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            future = run(step, value)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            # An error that is thrown in has this frame in its traceback: a cycle, with all that the callers hold.
            value = None
        try:
            value = yield future
            step = coroutine.send
        except BaseException as error:
            step, value = coroutine.throw, error
