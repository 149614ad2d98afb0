"""Runs what outlives its call in nobody's context (`contextvars`).

asyncio's handles (timers, tasks, a socket's reader) copy the context in which they are made, and keep it as long as
they live. So a connection, and its timers, would keep alive what the request that made it had in its context (a user, a
trace, 20 KB of anything), and would run everybody's callbacks in that context.
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
    """A task in an empty context of its own. Without the argument `context=`: task factories written before Python 3.11
    do not accept it.

    If this raises, `coroutine` is closed.
    """
    try:
        return contextvars.Context().run(functools.partial(loop.create_task, coroutine, name=name))
    except BaseException:
        coroutine.close()
        raise


@types.coroutine
def detached(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await a coroutine in the caller's task, but run its code in an empty context."""
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
            # An error that is thrown in has this frame in its traceback. If the frame held the error, that would be a
            # reference cycle with all that the callers hold.
            value = None
        try:
            value = yield future
            step = coroutine.send
        except BaseException as error:
            step, value = coroutine.throw, error
