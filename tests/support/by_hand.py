"""Runs a client's coroutines by hand: no loop turns, no task steps unless the test says so.

The loop is real, and counts as running while the test is inside; its pending callbacks run in `turn()` only. So every
order of events between two turns can be tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from pepperpy.network import NetworkClient, NetworkConfig
from pepperpy.network._core.stream_protocol import StreamProtocol
from support.transport_by_hand import SocketByHand, TransportByHand


class HandTask:
    """Steps one coroutine as asyncio's tasks do, and tells at once how it ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        ended: Callable[[HandTask, object, BaseException | None], None],
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.loop = loop
        self.coroutine = coroutine
        self.done = False
        self.waits = 0  # how often it has begun to wait
        self.future: Any = None  # what it waits for
        self._ended = ended
        self._before_step = before_step

    def step(self, error: BaseException | None = None) -> None:
        outer = asyncio.current_task(self.loop)
        if outer is not None:
            asyncio.tasks._leave_task(self.loop, outer)
        asyncio.tasks._enter_task(self.loop, self)  # type: ignore[arg-type]
        try:
            self._before_step()
            self._step(error)
        finally:
            asyncio.tasks._leave_task(self.loop, self)  # type: ignore[arg-type]
            if outer is not None:
                asyncio.tasks._enter_task(self.loop, outer)

    def _step(self, error: BaseException | None) -> None:
        try:
            future = self.coroutine.send(None) if error is None else self.coroutine.throw(error)
        except StopIteration as stop:
            self.done = True
            self._ended(self, stop.value, None)
        except BaseException as caught:
            self.done = True
            self._ended(self, None, caught)
        else:
            assert future._asyncio_future_blocking
            future._asyncio_future_blocking = False
            self.waits += 1
            self.future = future
            future.add_done_callback(self._woken)

    def _woken(self, future: Any) -> None:
        if not self.done:
            self.step(asyncio.CancelledError() if future.cancelled() else None)

    @property
    def is_waiting(self) -> bool:
        return not self.done and not self.future.done()

    def give_up(self, how: str) -> None:
        """Cancel as a task does (one turn later), throw into the coroutine, or close it."""
        if how == "cancel":
            self.future.cancel()
        elif how == "throw":
            self.step(asyncio.CancelledError())
        else:
            self.coroutine.close()
            self.done = True


class Workbench:
    """A connected client on a transport in memory, and a loop that turns on demand."""

    def __init__(
        self, loop_factory: Callable[[], asyncio.AbstractEventLoop], config: NetworkConfig, on_socket: bool = False
    ) -> None:
        self.loop = loop_factory()
        self.loop_errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        self.client = NetworkClient(config)
        self.protocol = StreamProtocol(config)
        self.transport = (SocketByHand if on_socket else TransportByHand)(self.loop, self.protocol)
        with self.inside():
            self.transport.connect()
        self.client._link.use(self.protocol)

    @contextlib.contextmanager
    def inside(self, in_task: bool = False) -> Iterator[None]:
        """As if the loop called: out of a callback of its own, or while a task runs."""
        task = object()
        asyncio._set_running_loop(self.loop)
        if in_task:
            asyncio.tasks._enter_task(self.loop, task)  # type: ignore[arg-type]
        try:
            yield
        finally:
            if in_task:
                asyncio.tasks._leave_task(self.loop, task)  # type: ignore[arg-type]
            asyncio._set_running_loop(None)

    def turn(self, count: int = 1) -> None:
        """The loop runs every callback that is pending now."""
        for _ in range(count):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def check(self) -> None:
        assert not self.transport.breaches, self.transport.breaches
        assert not self.loop_errors, self.loop_errors

    def close(self) -> None:
        """Ends the connection, whatever state it is in, and checks that nothing is left of it."""
        try:
            with self.inside():
                self.client.abort()
            self.turn(3)
            self.check()
            assert self.transport.lost
            assert self.protocol.state in ("closed", "lost")
            assert self.client.stats.bytes_queued == 0
            assert not self.client.is_connected
        finally:
            self.discard()

    def discard(self) -> None:
        """Leaves nothing open, even after a failure in the middle of anything."""
        if not self.loop.is_closed():
            self.protocol.abort()
            self.turn(2)
            self.loop.close()
