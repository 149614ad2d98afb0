"""What stands in for the two directions of a reconnecting client between the loss of a connection and the next one.

The coroutines of `NetworkClient` call these objects as they call a `Receiver` and a `Sender`. Each one answers by the
lost connection until that has raised its loss once. Then it answers "wait". Once there is a new connection, it puts the
new direction back in its place. So a client that does not reconnect runs the same code, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pepperpy.network._core.directions import Separator
from pepperpy.network._core.frame_reader import WAIT
from pepperpy.network._core.receiver import Receiver, Skip
from pepperpy.network._core.sender import Sender
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network._core.waiter import Waiter
from pepperpy.network.checks import BytesLike, Timeout
from pepperpy.network.errors import BusyError, ConnectionLostError
from pepperpy.network.link import Link, deadline_of, remaining

if TYPE_CHECKING:
    from pepperpy.network.tcp.reconnect import Supervisor

D = TypeVar("D", Receiver, Sender)
T = TypeVar("T")


class Pending(Generic[D]):
    """What both directions have in common: which connection answers now."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        # The connection whose loss this direction has not raised yet. If the next connections are lost before that as
        # well, nobody has used them: this one loss stands for all.
        self.lost: StreamProtocol | None = None

    @property
    def loss_raised(self) -> bool:
        """Whether this direction has raised the loss."""
        return self.lost is None or self._direction(self.lost).loss_raised

    def stand_in(self, link: Link) -> None:
        """Answer in place of the direction until there is a connection again."""
        raise NotImplementedError

    def _direction(self, protocol: StreamProtocol) -> D:
        raise NotImplementedError

    def _put_back(self, link: Link) -> None:
        raise NotImplementedError

    def _current(self) -> D | None:
        """The direction that answers now; None where the call has to wait."""
        supervisor = self._supervisor
        supervisor.check_user()
        if self.lost is not None and not supervisor.state.is_closed:
            if not self.loss_raised:
                return self._direction(self.lost)
            self.lost = None
        link = supervisor.connected_link()
        if link is None:
            return None
        self._put_back(link)
        return self._direction(link.protocol)


class PendingReceiver(Pending[Receiver]):
    """Stands in for a `Receiver`: `link.StandIn`."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(supervisor)
        self._waiting = False
        # The deadline of the one call that waits. It is set at its first wait and kept until its end, because one
        # call may wait several times.
        self._deadline: float | None = None

    def stand_in(self, link: Link) -> None:
        link.swap(receiver=self)

    def _direction(self, protocol: StreamProtocol) -> Receiver:
        return protocol.receiver

    def _put_back(self, link: Link) -> None:
        link.swap(receiver=link.protocol.receiver)

    def raise_loss(self) -> None:
        while not self.loss_raised:
            self.take(65536)

    async def catch_up(self, timeout: Timeout, phase: str) -> float | None:
        deadline = deadline_of(timeout, self._supervisor.config)
        while (receiver := self._current()) is None:
            await self._supervisor.state.wait(deadline, phase)
        while not self.loss_raised:
            receiver.take(65536)
        return remaining(deadline)

    # ---- As a Receiver ----

    def take(self, size: int) -> bytes | None:
        return self._take(lambda receiver: receiver.take(size))

    def take_into(self, buffer: BytesLike) -> int | None:
        return self._take(lambda receiver: receiver.take_into(buffer))

    def take_exactly(self, size: int) -> bytes | None:
        return self._take(lambda receiver: receiver.take_exactly(size))

    def take_until(self, separator: Separator, max_size: int | None = None) -> bytes | None:
        return self._take(lambda receiver: receiver.take_until(separator, max_size))

    def take_line(self) -> bytes | None:
        return self._take(lambda receiver: receiver.take_line())

    def take_lines(self) -> list[bytes] | None:
        return self._take(lambda receiver: receiver.take_lines())

    def take_skipped(self, skip: Skip) -> int | None:
        return self._take(lambda receiver: receiver.take_skipped(skip))

    def peek(self, size: int) -> bytes | None:
        return self._take(lambda receiver: receiver.peek(size))

    def put_back(self, data: BytesLike) -> None:
        receiver = self._current()
        if receiver is None:
            what = "not connected now, so there is nothing to put bytes back into"
            raise self._supervisor.state.error(ConnectionLostError, what, "receive")
        receiver.put_back(data)

    def take_framed(self, take: Callable[[Any], Any]) -> Any:
        """Call a take method of a `FrameReader` with the direction that answers."""
        return self._take(take, WAIT)

    def wait(self, timeout: Timeout) -> Awaitable[None]:
        return self._wait(lambda receiver, left: receiver.wait(left), timeout)

    def wait_exactly(self, size: int, timeout: Timeout) -> Awaitable[None]:
        return self._wait(lambda receiver, left: receiver.wait_exactly(size, left), timeout)

    def wait_until(self, separator: Separator, max_size: int | None, timeout: Timeout) -> Awaitable[None]:
        return self._wait(lambda receiver, left: receiver.wait_until(separator, max_size, left), timeout)

    def wait_line(self, timeout: Timeout) -> Awaitable[None]:
        return self._wait(lambda receiver, left: receiver.wait_line(left), timeout)

    def wait_skipped(self, skip: Skip, timeout: Timeout) -> Awaitable[None]:
        return self._wait(lambda receiver, left: receiver.wait_skipped(skip, left), timeout)

    def wait_peek(self, size: int, timeout: Timeout) -> Awaitable[None]:
        return self._wait(lambda receiver, left: receiver.wait_peek(size, left), timeout)

    def wait_framed(self, wait: Callable[[Any, Timeout, None], Awaitable[None]], timeout: Timeout) -> Awaitable[None]:
        """Call a wait method of a `FrameReader` with the direction that answers."""
        return self._wait(lambda receiver, left: wait(receiver, left, None), timeout)

    def _take(self, take: Callable[[Receiver], T], nothing: object = None) -> T | Any:
        done = True
        try:
            receiver = self._current()
            taken = nothing if receiver is None else take(receiver)
            done = taken is not nothing
            return taken
        finally:
            if done and not self._waiting:
                self._deadline = None

    async def _wait(self, wait: Callable[[Receiver, Timeout], Awaitable[None]], timeout: Timeout) -> None:
        receiver = self._current()
        if self._waiting:
            what = "another task is already receiving; only one at a time can"
            raise self._supervisor.state.error(BusyError, what, "receive")
        if self._deadline is None:
            self._deadline = deadline_of(timeout, self._supervisor.config)
        self._waiting = True
        try:
            if receiver is None:
                await self._supervisor.state.wait(self._deadline, "receive")
            else:
                await wait(receiver, remaining(self._deadline))
        except BaseException:
            self._deadline = None
            raise
        finally:
            self._waiting = False


class WaitToSend:
    """One sender's wait for the next connection. It keeps the deadline for the same call's next wait."""

    def __init__(self, supervisor: Supervisor, deadline: float) -> None:
        self._supervisor = supervisor
        self.deadline = deadline

    def __await__(self) -> Generator[Any, None, None]:
        return self._supervisor.state.wait(self.deadline, "send").__await__()


class PendingSender(Pending[Sender]):
    """Stands in for a `Sender`."""

    def stand_in(self, link: Link) -> None:
        link.swap(sender=self)

    def _direction(self, protocol: StreamProtocol) -> Sender:
        return protocol.sender

    def _put_back(self, link: Link) -> None:
        link.swap(sender=link.protocol.sender)

    # ---- As a Sender ----

    def send(self, data: BytesLike) -> bool:
        sender = self._current()
        if sender is None:
            self.immutable([data])  # refuses what is not bytes-like, before any wait
            return False
        return sender.send(data)

    def immutable(self, buffers: Iterable[BytesLike]) -> list[bytes]:
        return self._supervisor.last.sender.immutable(buffers)

    def send_many(self, messages: list[bytes]) -> bool:
        sender = self._current()
        return sender is not None and sender.send_many(messages)

    def send_eof(self) -> None:
        sender = self._current()
        if sender is None:
            what = "not connected now, so there is nothing to end"
            raise self._supervisor.state.error(ConnectionLostError, what, "send")
        sender.send_eof()

    def wait(self, timeout: Timeout, previous: WaitToSend | Waiter | None) -> WaitToSend | Waiter:
        sender = self._current()
        if isinstance(previous, WaitToSend):
            timeout, previous = remaining(previous.deadline), None
        if sender is None:
            return WaitToSend(self._supervisor, deadline_of(timeout, self._supervisor.config))
        return sender.wait(timeout, previous)

    def start_flush(self, timeout: Timeout) -> Awaitable[None] | None:
        sender = self._current()
        if sender is None:
            return self._flush_later(deadline_of(timeout, self._supervisor.config))
        return sender.start_flush(timeout)

    async def _flush_later(self, deadline: float) -> None:
        while (sender := self._current()) is None:
            await self._supervisor.state.wait(deadline, "flush")
        waiter = sender.start_flush(remaining(deadline))
        if waiter is not None:
            await waiter
