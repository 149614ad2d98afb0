"""Cancels one operation at an exact point, over a stream that shows where a byte was lost, doubled or moved.

A point is a suspension of the operation, or a moment between two pieces of what it waits for. Nothing here waits in
hope: an operation is cancelled by counting, and what has to happen before is waited for until it has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import os
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from pepperpy.network import NetworkClient

# A stream of the tests is made of these, each a line: b"0000000\n", b"0000001\n", ...; after the last, the first again.
COUNTER = 8
_COUNTERS = 1_000_000


class Mode(enum.Enum):
    WAITING = "while it waits"
    SAME_TICK = "in the tick of its result"
    TWICE = "and once more while it cleans up"


@dataclass(frozen=True)
class Outcome:
    suspensions: int
    cancelled: bool
    value: Any = None


async def cancelled_at(operation: Coroutine[Any, Any, Any], number: int, mode: Mode) -> Outcome:
    """Run the operation in a task of its own and cancel it at its suspension `number`, counted from 1.

    An operation that suspends less often is left untouched: `cancelled` is False then. One that was asked to end and
    did not fails the test, unless its result was there first.
    """
    points: list[bool] = []

    async def run() -> Any:
        return await _stepped(operation, number, mode, points)

    try:
        value = await asyncio.create_task(run())
    except asyncio.CancelledError:
        assert len(points) >= number, "cancelled by somebody else"
        return Outcome(len(points), True)
    assert len(points) < number, f"a cancellation at suspension {number} was swallowed"
    return Outcome(len(points), False, value)


@types.coroutine
def _stepped(
    operation: Coroutine[Any, Any, Any], number: int, mode: Mode, points: list[bool]
) -> Generator[Any, Any, Any]:
    # What a task does with the coroutine, one step at a time, so that each suspension passes by here.
    task = asyncio.current_task()
    assert task is not None
    resume: Callable[[Any], Any] = operation.send
    argument: Any = None
    while True:
        try:
            awaited = resume(argument)
        except StopIteration as stop:
            return stop.value
        points.append(True)
        if len(points) == number:
            if mode is Mode.SAME_TICK and awaited is not None:
                # Called before the task's own callback: what is awaited is done, and the task has not run since.
                awaited.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
            if mode is Mode.TWICE:
                asyncio.get_running_loop().call_soon(task.cancel)
        elif len(points) > number and mode is Mode.TWICE:
            task.cancel()
        try:
            argument = yield awaited
        except BaseException as error:
            resume, argument = operation.throw, error
        else:
            resume = operation.send


async def cancel_now(task: asyncio.Task[Any], mode: Mode, last_moment: Callable[[], object]) -> bool:
    """Cancel a task from outside; True if that ended it, False if it had its result already.

    `last_moment` brings what the task waits for: before the cancellation in the same tick, or after it.
    """
    if mode is Mode.SAME_TICK:
        # In the kernel before the task is cancelled; the loop, however, looks there later.
        last_moment()
        task.cancel()
    else:
        task.cancel()
        if mode is Mode.TWICE:
            task.cancel()
            asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.wait([task])
    if mode is not Mode.SAME_TICK:
        last_moment()
    return task.cancelled()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Let the loop run until something has happened."""
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


async def arrived(client: NetworkClient, total: int) -> None:
    """Wait until the client has got `total` bytes from its peer, taken or not."""
    await until(lambda: client.stats.bytes_received >= total, f"{total} bytes at the client")


def open_sockets() -> set[str]:
    """This process's sockets by their inode numbers; empty where the system has no /proc."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            # The descriptor of the listing itself is gone again.
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {target for target in found if target.startswith("socket:")}


class CounterStream:
    """Both ends of one direction: what comes next, and whether what has come is that."""

    def __init__(self) -> None:
        self.sent = 0
        self.taken = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes; they count as sent only after `sent += size`."""
        return _part(self.sent, size)

    def next(self, size: int) -> bytes:
        """The next `size` bytes, sent with that."""
        self.sent += size
        return _part(self.sent - size, size)

    def take(self, data: bytes) -> None:
        """Check that these are the next bytes."""
        expected = _part(self.taken, len(data))
        if data != expected:
            at = next(i for i in range(len(data)) if data[i] != expected[i])
            around = slice(max(0, at - COUNTER), at + 2 * COUNTER)
            raise AssertionError(
                f"byte {self.taken + at} of the stream is wrong: {data[around]!r} where {expected[around]!r} comes next"
            )
        self.taken += len(data)
        assert self.taken <= self.sent, f"{self.taken - self.sent} bytes more than were sent"


@functools.cache
def _all_counters() -> bytes:
    return b"".join(b"%07d\n" % number for number in range(_COUNTERS))


def _part(start: int, size: int) -> bytes:
    data = _all_counters()
    start %= len(data)
    part = data[start : start + size]
    while len(part) < size:
        part += data[: size - len(part)]
    return part


@contextlib.asynccontextmanager
async def under_way(*operations: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Tasks of these operations, which are cancelled at the end of the block."""
    tasks = [asyncio.create_task(operation) for operation in operations]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
