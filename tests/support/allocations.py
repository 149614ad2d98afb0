"""Makes one allocation fail, and stands in for a transport that allocates as those of both loops do.

Where an operation cannot take back what it has begun, the connection ends as lost. The long form of these tests, every
allocation at every call, runs at night.

`_testcapi`, which CPython's own tests use, is not part of every build of the interpreter.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from support.tiers import by_tier

try:
    _testcapi: Any = importlib.import_module("_testcapi")
except ImportError:
    _testcapi = None

IMPOSSIBLE = None if hasattr(_testcapi, "set_nomemory") else "this interpreter has no _testcapi.set_nomemory"
# Seen by sys.getrefcount(), and in crashes; not on 3.11, 3.14 and 3.15.
IMPOSSIBLE_WITH_FUNCTIONS = IMPOSSIBLE or (
    "CPython 3.12 and 3.13 lose a reference to the code where there is no memory for a function that is defined"
    if (3, 12) <= sys.version_info < (3, 14)
    else None
)


# More allocations than any operation makes.
MOST = 26
# At night each of them fails; every day some, which are others for each operation.
STEP = by_tier(5, nightly=1)


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Starved:
    """Calls functions; one of them meets a failing allocation: call `call` its allocation `number`, from 0."""

    def __init__(self, call: int, number: int) -> None:
        self.calls = 0
        self._call = call
        self._number = number

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.calls += 1
        if self.calls - 1 != self._call:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        debug = loop.get_debug()
        # In debug mode call_soon() takes a traceback, and CPython 3.12 and 3.13 crash in it where an allocation fails.
        loop.set_debug(False)
        # A collection allocates for `gc.callbacks`, of which hypothesis has one, and CPython reports where that fails.
        gc.disable()
        _testcapi.set_nomemory(self._number, self._number + 1)
        try:
            return function(*arguments)
        finally:
            _testcapi.remove_mem_hooks()
            gc.enable()
            loop.set_debug(debug)


@types.coroutine
def starving(starved: Starved, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await `coroutine`; each of its steps is one call of `starved`."""
    resume: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    while True:
        try:
            awaited = starved(resume, argument)
        except StopIteration as stop:
            return stop.value
        try:
            argument = yield awaited
        except BaseException as error:
            resume, argument = coroutine.throw, error
        else:
            resume = coroutine.send


class Wire(asyncio.Transport):
    """A transport that keeps what it is given; `stuffed`, it then wants no more until `drain()`."""

    def __init__(self, stuffed: bool = False) -> None:
        super().__init__()
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.paused = False
        self.aborted = False
        self._stuffed = stuffed
        self._full = False
        self._scraps: object = None

    def connect(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def drain(self) -> None:
        if self._full:
            self._full = False
            self.protocol.resume_writing()

    # ---- What the protocol calls ----

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        if self.aborted:
            return
        # Like a loop's: it takes the bytes, and may then fail.
        self.written.append(bytes(data))
        self._scraps = [object()]
        if self._stuffed and not self._full:
            self._full = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        self._scraps = [object()]

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True
        self._scraps = [object()]

    def resume_reading(self) -> None:
        # As add_reader() of a loop, which comes after the transport takes itself for reading.
        self.paused = False
        self._scraps = [object()]

    def abort(self) -> None:
        # As asyncio's: what fails in here is not done by a second call.
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    close = abort
