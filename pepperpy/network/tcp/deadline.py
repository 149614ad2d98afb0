"""`NetworkClient.deadline()`: one time limit for a block of calls."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from types import TracebackType
from typing import Any

from pepperpy.network._core.limit import Limit
from pepperpy.network._core.waiter import Waiter
from pepperpy.network.checks import check_timeout
from pepperpy.network.errors import NetworkTimeoutError, UsageError
from pepperpy.network.link import Link
from pepperpy.network.watchdog import watchdog_of

# Phases of errors by the beginning of a method's name; any other method is a phase of its own.
_PHASES = {"receive": "receive", "peek": "receive", "skip_until": "receive", "send": "send"}
# Calls by the names of special methods: of `async for`, and of `await pool.acquire()`.
_CALLS = {"__anext__": "receive", "__await__": "acquire"}


class Deadline:
    """A block that may last so long: `async with client.deadline(5):`. Not a public name.

    The task is cancelled when the time is over, and the block makes a `NetworkTimeoutError` of that cancellation only
    (limit.pyx). The one timer of the loop watches all blocks (watchdog.py).
    """

    __slots__ = ("_began", "_call", "_limit", "_link", "_seconds", "_waited")

    def __init__(self, link: Link, seconds: float | None) -> None:
        check_timeout("seconds", seconds, zero=True)
        self._link = link
        self._seconds = seconds
        self._limit: Limit | None = None
        self._call: str | None = None
        self._waited: float | None = None

    async def __aenter__(self) -> None:
        if self._limit is not None:
            raise self._link.error(UsageError, "this deadline is in use already; call deadline() again", "deadline")
        self._began = monotonic()
        seconds = math.inf if self._seconds is None else self._seconds
        limit = watchdog_of(asyncio.get_running_loop()).limit(seconds, self._error, self._look)
        limit.__enter__()
        self._limit = limit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        limit, self._limit = self._limit, None
        assert limit is not None, "it was entered"
        limit.__exit__(kind, error, traceback)

    def _look(self, task: asyncio.Task[object]) -> None:
        self._call, since = awaited_call(task)
        self._waited = round(monotonic() - since, 3) if since else None

    def _error(self) -> NetworkTimeoutError:
        what = f"the deadline of {self._seconds:g} s was over"
        more: dict[str, Any] = {"elapsed": round(monotonic() - self._began, 3)}
        if self._call is None:
            return self._link.error(NetworkTimeoutError, f"{what} outside of a call", "deadline", **more)
        more["call"] = self._call
        if self._waited is None:
            what += f" in {self._call}()"
        else:
            what += f" when {self._call}() had waited for {self._waited} s"
            more["waited"] = self._waited
        phase = next((phase for name, phase in _PHASES.items() if self._call.startswith(name)), self._call)
        return self._link.error(NetworkTimeoutError, what, phase, **more)


def awaited_call(task: asyncio.Task[object]) -> tuple[str | None, float]:
    """The public method of this package that a task awaits, and since when it waits there; None, and 0 if not known."""
    call = None
    awaited: Any = task.get_coro()
    while awaited is not None and not isinstance(awaited, Waiter):
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if call is None and frame is not None and frame.f_globals.get("__name__", "").startswith("pepperpy.network."):
            name = frame.f_code.co_name
            call = _CALLS.get(name) or (None if name.startswith("_") else name)
        awaited = getattr(awaited, "cr_await", None)
    return call, 0.0 if awaited is None else awaited.started
