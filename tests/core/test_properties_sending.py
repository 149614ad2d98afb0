"""Any order of sends, waits, cancellations and of what the kernel takes: the wire holds what was accepted, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.by_hand import HandTask, Workbench
from support.loops import UVLOOP
from support.oracle import ReceivedStream, SentStream, check_counters, difference
from support.tiers import by_tier
from support.transport_by_hand import SocketByHand

from pepperpy.network import BufferLimits, ClosedError, ConnectionLostError, NetworkConfig, NetworkTimeoutError
from pepperpy.network.last_turns import LAST_TURNS

SIZES = st.one_of(
    st.integers(0, 20),
    st.builds(
        lambda border, offset: border + offset,
        st.sampled_from([512, 8192, 16_384, 65_536, 200_000]),
        st.integers(-2, 2),
    ),
)
KINDS = st.sampled_from([bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
HOW = st.sampled_from(["cancel", "throw", "close"])
NO_TIME_OR_ENOUGH = st.sampled_from([None, None, 0])
RESET = ConnectionResetError(104, "reset")


class Sending(RuleBasedStateMachine):
    """One connection that sends, with any number of tasks that wait for room or for an empty queue."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] = staticmethod(asyncio.SelectorEventLoop)

    @initialize(
        marks=st.sampled_from([(1, 0), (1000, 250), (65_536, 16_384), (300_000, 299_999)]),
        room=st.sampled_from([0, 5000, 100_000, 10**9]),
        on_socket=st.booleans(),
    )
    def connect(self, marks: tuple[int, int], room: int, on_socket: bool) -> None:
        high, low = marks
        config = NetworkConfig("memory", 1, None, buffers=BufferLimits(send_high=high, send_low=low))
        self.bench = Workbench(self.loop_factory, config, on_socket)
        self.transport = self.bench.transport
        if not on_socket:
            self.transport.room = room
        self.transport.before_loss = self.connection_is_lost
        self.stream = SentStream(high, low)
        self.received = ReceivedStream(1 << 20, 0, 1 << 20)
        self.transport.before_update = self.received.comes
        self.number = 0
        self.tasks: list[HandTask] = []
        self.timed: list[HandTask] = []
        self.closed = self.aborted = self.lost = self.failed = self.vanished = self.told = False
        self.owed = 0  # bytes that were not with the kernel when the connection was lost

    @property
    def over(self) -> bool:
        return self.closed or self.aborted or self.lost or self.vanished

    @property
    def queued(self) -> int:
        return self.bench.client.stats.bytes_queued

    def next_data(self, size: int) -> bytes:
        self.number += 1
        return (b"%d," % self.number * size)[:size]

    # ---- Tasks ----

    def look(self) -> None:
        if not self.transport.closing:
            self.stream.look(self.queued)

    def start(self, call: Coroutine[Any, Any, None], ended: Callable[[], None], timeout: float | None) -> None:
        def done(task: HandTask, value: object, error: BaseException | None) -> None:
            assert value is None
            if error is None:
                ended()
                self.look()
            elif isinstance(error, NetworkTimeoutError):
                assert timeout is not None
            elif not isinstance(error, asyncio.CancelledError):
                self.told |= isinstance(error, ConnectionLostError)
                if self.closed or self.aborted:
                    kinds: tuple[type[Exception], ...] = (ClosedError,)
                elif self.lost or not self.stream.ended:
                    kinds = (ConnectionLostError,)
                else:
                    # A peer that vanished is found by the next write, and after send_eof() there may be none.
                    kinds = (ClosedError, ConnectionLostError) if self.vanished else (ClosedError,)
                assert isinstance(error, kinds), error
                assert self.over or self.stream.ended

        task = HandTask(self.bench.loop, call, done, self.look)
        task.step()
        if not task.done:
            self.tasks.append(task)
            if timeout is not None:
                self.timed.append(task)

    def send(self, call: Coroutine[Any, Any, None], data: bytes, again: int, timeout: float | None) -> None:
        def accepted() -> None:
            self.stream.accept(data)
            if again:
                # In the same step, as a task does that sends in a loop.
                more = self.next_data(len(data))
                self.send(self.bench.client.send(more, timeout=timeout), more, again - 1, timeout)

        waiting = len(self.tasks)
        self.start(call, accepted, timeout)
        if (
            len(self.tasks) > waiting
            and self.tasks[-1].coroutine is call
            and not self.over
            and not self.transport.closing
        ):
            # A transport that has failed drops what it holds, and says so in the next turn: until then one may wait.
            assert self.stream.may_hold_back, f"a send waits with {self.queued} bytes queued"

    @rule(size=SIZES, kind=KINDS, in_task=st.booleans(), again=st.integers(0, 3), timeout=NO_TIME_OR_ENOUGH)
    def send_one(
        self, size: int, kind: Callable[[bytes], Any], in_task: bool, again: int, timeout: float | None
    ) -> None:
        data = self.next_data(size)
        buffer = kind(data)
        waiting = len(self.tasks)
        with self.bench.inside(in_task):
            self.send(self.bench.client.send(buffer, timeout=timeout), data, again, timeout)
        if isinstance(buffer, bytearray) and len(self.tasks) == waiting:
            # It was accepted: what happens to the buffer now must not show.
            buffer[:] = b"?" * len(buffer)

    @rule(sizes=st.lists(SIZES, max_size=5), timeout=NO_TIME_OR_ENOUGH)
    def send_several(self, sizes: list[int], timeout: float | None) -> None:
        pieces = [self.next_data(size) for size in sizes]
        with self.bench.inside():
            self.send(self.bench.client.send_many(pieces, timeout=timeout), b"".join(pieces), 0, timeout)

    @rule(in_task=st.booleans(), timeout=NO_TIME_OR_ENOUGH)
    def flush(self, in_task: bool, timeout: float | None) -> None:
        target = len(self.stream.accepted)

        def flushed() -> None:
            assert self.vanished or self.transport.handed >= target, "flush() came back too early"
            assert not self.lost

        with self.bench.inside(in_task):
            self.start(self.bench.client.flush(timeout=timeout), flushed, timeout)

    @precondition(lambda self: any(task.is_waiting for task in self.tasks))
    @rule(how=HOW, data=st.data())
    def give_up(self, how: str, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([task for task in self.tasks if task.is_waiting]))
        before = len(self.stream.accepted)
        with self.bench.inside():
            task.give_up(how)
        assert len(self.stream.accepted) == before

    # ---- The kernel, the peer and the loop ----

    @rule(n=st.sampled_from([1, 100, 5000, 70_000, 10**7]))
    def peer_takes(self, n: int) -> None:
        if not self.transport.lost:
            with self.bench.inside():
                self.transport.peer_takes(n)
            self.look()

    @rule(in_task=st.booleans())
    def something_arrives(self, in_task: bool) -> None:
        # After which a send is an answer again, and leaves at once.
        with self.bench.inside(in_task):
            self.transport.arrives(b"?")

    @rule()
    def turn(self) -> None:
        self.bench.turn(LAST_TURNS + 4 if self.timed else 2)
        self.stream.turned()
        self.look()
        if not self.transport.closing and not self.vanished:
            assert self.queued == 0 or self.transport.is_full, "what was gathered did not leave with the turn"
        assert all(task.done for task in self.timed), "a task without time still waits"
        if not self.stream.held_back and not self.transport.is_full:
            assert not any(task.is_waiting for task in self.tasks), "a task waits for nothing"

    @rule()
    def kernel_fails(self) -> None:
        self.failed = True
        self.transport.kernel_error = RESET

    @precondition(lambda self: not self.over)
    @rule()
    def connection_breaks(self) -> None:
        with self.bench.inside():
            self.transport.breaks(RESET)
        self.bench.turn(2)

    def connection_is_lost(self) -> None:
        self.lost = not (self.closed or self.aborted)
        self.owed = len(self.stream.accepted) - self.transport.handed

    @precondition(lambda self: not self.over and isinstance(self.transport, SocketByHand))
    @rule()
    def peer_vanishes(self) -> None:
        self.vanished = True
        assert isinstance(self.transport, SocketByHand)
        self.transport.peer_vanishes()

    # ---- This side ----

    @precondition(lambda self: not self.over)
    @rule()
    def send_eof(self) -> None:
        with self.bench.inside():
            try:
                self.bench.client._sender.send_eof()
            except ConnectionLostError:
                assert self.vanished or self.failed
            else:
                self.stream.ended = True

    @rule()
    def close(self) -> None:
        if not (self.aborted or self.lost):
            self.closed = True
            self.received.close()
        with self.bench.inside():
            self.bench.protocol.close()

    @rule()
    def abort(self) -> None:
        if not self.lost:
            self.aborted = True
            self.received.close()
        with self.bench.inside():
            self.bench.protocol.abort()

    # ---- What always holds ----

    @invariant()
    def the_wire_holds_a_prefix_of_what_was_accepted(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.bench.check()
        assert self.stream.accepted.startswith(self.transport.wire)
        if not self.vanished:
            check_counters(self.bench.client, self.received, self.stream)
        if not self.transport.closing and not self.vanished:
            assert self.queued == len(self.stream.accepted) - self.transport.handed

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            try:
                self.finish()
            finally:
                for task in self.tasks:
                    task.coroutine.close()
                self.bench.discard()

    def finish(self) -> None:
        """To a peer that reads on everything comes, and nobody is left waiting."""
        for turn in range(3000):
            over = self.transport.lost or self.vanished
            if turn >= 300 and (over or len(self.transport.wire) == len(self.stream.accepted)):
                break
            if not self.transport.lost:
                with self.bench.inside():
                    self.transport.peer_takes(10**7)
            self.bench.turn()
        assert not any(task.is_waiting for task in self.tasks)
        if self.vanished or self.failed:
            self.close()
            self.bench.turn(3)
            assert self.transport.lost
        elif not self.lost and not self.aborted:
            wrong = difference(self.transport.wire, self.stream.accepted)
            assert wrong is None, f"the peer got {wrong}"
            assert self.transport.wire_ended or not self.stream.ended or self.closed
            assert self.transport.lost == self.closed
        if self.lost and not self.told and not self.vanished:
            # Whoever closes now is told how much never left; never too little.
            assert self.bench.protocol.take_undelivered() >= self.owed
        self.bench.close()


PLAY = settings(
    max_examples=by_tier(100, nightly=5000),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
TestSending = Sending.TestCase
TestSending.settings = PLAY

if UVLOOP is not None:

    class SendingOnUvloop(Sending):
        loop_factory = staticmethod(UVLOOP)

    TestSendingOnUvloop = SendingOnUvloop.TestCase
    TestSendingOnUvloop.settings = PLAY
