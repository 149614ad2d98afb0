"""What a reconnecting client calls between the loss of a connection and the next one, in place of its two directions.

The coroutines of `NetworkClient` ask these objects as they ask a `Receiver` and a `Sender`. Each answers with the lost
connection until that has raised its loss once, then with "wait", and at last with the next connection, which it puts
back in its place. So a client that never reconnects runs the same code, and pays nothing.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from pepperpy.network._frame_reader import WAIT
from pepperpy.network.checks import BytesLike, Timeout, seconds_of
from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import BusyError, ConnectionLostError

if TYPE_CHECKING:
    from pepperpy.network._sender import Sender
    from pepperpy.network._stream_protocol import StreamProtocol
    from pepperpy.network.reconnect import Supervisor


def deadline_of(timeout: Timeout, config: NetworkConfig) -> float:
    """When a call with this `timeout` ends, in seconds of `time.monotonic()`; infinite for no limit."""
    seconds = seconds_of(timeout, config.timeout)
    return math.inf if seconds is None else time.monotonic() + seconds


def remaining(deadline: float) -> float | None:
    """Seconds until the deadline, as a `timeout`."""
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


class Pending:
    """What both directions have in common: whose turn it is to answer."""

    side: str  # of StreamProtocol

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        # The connection whose loss is still to be raised here. If its successors are lost too before that, they have
        # no bytes and no news that anybody could have met: this one's loss stands for all.
        self.lost: StreamProtocol | None = None

    @property
    def is_told(self) -> bool:
        return self.lost is None or getattr(self.lost, self.side).told

    def _current(self) -> Any:
        """The direction that answers now, or None: wait."""
        supervisor = self._supervisor
        supervisor.check_user()
        if self.lost is not None and not supervisor.is_closed:
            if not self.is_told:
                return getattr(self.lost, self.side)
            self.lost = None
        return supervisor.next_of(self)


class PendingReceiver(Pending):
    """Stands in for a `Receiver`; each of its `take_*` and `wait_*` is here under its own name."""

    side = "receiver"

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(supervisor)
        self._waiting = False
        # Of the one call that waits, from its first wait here to its end, so that it has its time once.
        self._deadline: float | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("take"):
            return functools.partial(self._take, name)
        if name.startswith("wait"):
            return functools.partial(self._wait, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def take_framed(self, take: Callable[[Any], Any]) -> Any:
        """As `take*`, for a method of a `FrameReader`, which is given the direction that answers."""
        return self._take_by(take, WAIT)

    def wait_framed(self, wait: Callable[[Any, Timeout, None], Awaitable[None]], timeout: Timeout) -> Awaitable[None]:
        """As `wait*`, likewise."""
        return self._wait_by(lambda receiver, left: wait(receiver, left, None), timeout)

    async def catch_up(self, timeout: Timeout, phase: str) -> float | None:
        """Raise the loss if that is still to be told; otherwise wait for the next connection.

        Gives the seconds that are left of `timeout`.
        """
        deadline = deadline_of(timeout, self._supervisor.config)
        while (receiver := self._current()) is None:
            await self._supervisor.wait(deadline, phase)
        while not self.is_told:
            receiver.take(65536)
        return remaining(deadline)

    def _take(self, name: str, *arguments: Any) -> Any:
        return self._take_by(lambda receiver: getattr(receiver, name)(*arguments), None)

    def _wait(self, name: str, *arguments: Any) -> Awaitable[None]:
        # The timeout is the last argument of each.
        *what, timeout = arguments
        return self._wait_by(lambda receiver, left: getattr(receiver, name)(*what, left), timeout)

    def _take_by(self, take: Callable[[Any], Any], nothing: object) -> Any:
        done = True
        try:
            receiver = self._current()
            taken = nothing if receiver is None else take(receiver)
            done = taken is not nothing
            return taken
        finally:
            if done and not self._waiting:
                self._deadline = None

    async def _wait_by(self, wait: Callable[[Any, Timeout], Awaitable[None]], timeout: Timeout) -> None:
        receiver = self._current()
        if self._waiting:
            raise BusyError(
                *self._supervisor.words("another task is already receiving; only one at a time can", "receive")
            )
        if self._deadline is None:
            self._deadline = deadline_of(timeout, self._supervisor.config)
        self._waiting = True
        try:
            if receiver is None:
                await self._supervisor.wait(self._deadline, "receive")
            else:
                await wait(receiver, remaining(self._deadline))
        except BaseException:
            self._deadline = None
            raise
        finally:
            self._waiting = False


class Turn:
    """The wait of one sender, which knows its deadline, for the next connection."""

    def __init__(self, supervisor: Supervisor, deadline: float) -> None:
        self._supervisor = supervisor
        self.deadline = deadline

    def __await__(self) -> Generator[Any, None, None]:
        return self._supervisor.wait(self.deadline, "send").__await__()


class PendingSender(Pending):
    """Stands in for a `Sender`."""

    side = "sender"

    def send(self, data: BytesLike) -> bool:
        sender: Sender | None = self._current()
        if sender is None:
            self.immutable([data])  # refuses what is not bytes-like, before any wait
            return False
        return sender.send(data)

    def immutable(self, buffers: Iterable[BytesLike]) -> list[bytes]:
        return self._supervisor.last.sender.immutable(buffers)

    def send_many(self, messages: list[bytes]) -> bool:
        sender: Sender | None = self._current()
        return sender is not None and sender.send_many(messages)

    def send_eof(self) -> None:
        sender: Sender | None = self._current()
        if sender is None:
            raise ConnectionLostError(*self._supervisor.words("not connected now, so there is nothing to end", "send"))
        sender.send_eof()

    def wait(self, timeout: Timeout, previous: Any) -> Any:
        sender: Sender | None = self._current()
        if isinstance(previous, Turn):
            timeout, previous = remaining(previous.deadline), None
        if sender is None:
            return Turn(self._supervisor, deadline_of(timeout, self._supervisor.config))
        return sender.wait(timeout, previous)

    def start_flush(self, timeout: Timeout) -> Any:
        sender: Sender | None = self._current()
        if sender is None:
            return self._flush_later(deadline_of(timeout, self._supervisor.config))
        return sender.start_flush(timeout)

    async def _flush_later(self, deadline: float) -> None:
        while (sender := self._current()) is None:
            await self._supervisor.wait(deadline, "flush")
        waiter = sender.start_flush(remaining(deadline))
        if waiter is not None:
            await waiter
