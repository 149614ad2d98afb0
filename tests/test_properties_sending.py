"""Any order of sends, waits, cancellations and of what the kernel takes: the wire holds what was accepted, in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.by_hand import HandTask, Workbench

from pepperpy.network import ClosedError, ConnectionLostError, NetworkConfig

SIZES = st.sampled_from([0, 1, 10, 511, 512, 513, 8191, 8192, 8193, 65535, 65536, 65537, 200_000])
KINDS = st.sampled_from([bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
HOW = st.sampled_from(["cancel", "throw", "close"])


class Sending(RuleBasedStateMachine):
    @staticmethod
    def loop_factory() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop()

    @initialize(
        high=st.sampled_from([1, 1000, 65536, 300_000]),
        room=st.sampled_from([0, 5000, 100_000]),
        on_socket=st.booleans(),
    )
    def open(self, high: int, room: int, on_socket: bool) -> None:
        config = NetworkConfig("memory", 1, None, send_high_water=high, send_low_water=high // 4)
        self.bench = Workbench(self.loop_factory, config, on_socket)
        if not on_socket:
            self.bench.transport.room = room
        self.accepted = bytearray()
        self.sends = 0
        self.number = 0
        self.tasks: list[HandTask] = []
        self.ended = self.closed = self.aborted = self.lost = False

    @property
    def over(self) -> bool:
        return self.closed or self.aborted or self.lost

    def data(self, size: int) -> bytes:
        self.number += 1
        return (b"%d," % self.number * size)[:size]

    def send(self, call: Any, data: bytes) -> None:
        def done(task: HandTask, value: object, error: BaseException | None) -> None:
            if error is None:
                self.accepted.extend(data)
                self.sends += 1
            elif not isinstance(error, asyncio.CancelledError):
                assert isinstance(error, ConnectionLostError if self.lost else ClosedError), error
                assert self.over or self.ended

        task = HandTask(self.bench.loop, call, done)
        task.step()
        if not task.done:
            self.tasks.append(task)

    # ---- Events ----

    @rule(size=SIZES, kind=KINDS, in_task=st.booleans())
    def send_one(self, size: int, kind: Callable[[bytes], Any], in_task: bool) -> None:
        data = self.data(size)
        buffer = kind(data)
        waiting = len(self.tasks)
        with self.bench.inside(in_task):
            self.send(self.bench.client.send(buffer), data)
        if isinstance(buffer, bytearray) and len(self.tasks) == waiting:
            # It was accepted: what happens to the buffer now must not show.
            buffer[:] = b"?" * len(buffer)

    @rule(sizes=st.lists(SIZES, max_size=5))
    def send_several(self, sizes: list[int]) -> None:
        pieces = [self.data(size) for size in sizes]
        with self.bench.inside():
            self.send(self.bench.client.send_many(pieces), b"".join(pieces))

    @rule(n=st.sampled_from([1, 100, 5000, 70_000, 10**7]), turns=st.integers(0, 2))
    def peer_takes(self, n: int, turns: int) -> None:
        if not self.bench.transport.lost:
            with self.bench.inside():
                self.bench.transport.peer_takes(n)
        self.bench.turn(turns)

    @rule()
    def loop_turns(self) -> None:
        self.bench.turn()

    @precondition(lambda self: any(task.is_waiting for task in self.tasks))
    @rule(how=HOW, data=st.data())
    def give_up(self, how: str, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([task for task in self.tasks if task.is_waiting]))
        before = self.sends
        with self.bench.inside():
            task.give_up(how)
        assert self.sends == before

    @precondition(lambda self: not self.over)
    @rule()
    def send_eof(self) -> None:
        self.ended = True
        with self.bench.inside():
            self.bench.client._sender.send_eof()

    @precondition(lambda self: not self.over)
    @rule()
    def close(self) -> None:
        self.closed = True
        with self.bench.inside():
            self.bench.protocol.close()

    @precondition(lambda self: not self.over)
    @rule()
    def abort(self) -> None:
        self.aborted = True
        with self.bench.inside():
            self.bench.protocol.abort()

    @precondition(lambda self: not self.over)
    @rule()
    def lose(self) -> None:
        self.lost = True
        with self.bench.inside():
            self.bench.transport.breaks(ConnectionResetError(104, "reset"))
        self.bench.turn(2)

    # ---- What always holds ----

    @invariant()
    def the_wire_holds_a_prefix_of_what_was_accepted(self) -> None:
        self.bench.check()
        assert self.accepted.startswith(self.bench.transport.wire)
        stats = self.bench.client.stats
        assert (stats.bytes_sent, stats.sends) == (len(self.accepted), self.sends)

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for _ in range(200):
            if self.bench.transport.lost:
                break
            with self.bench.inside():
                self.bench.transport.peer_takes(10**7)
            self.bench.turn()
        if not self.lost and not self.aborted:
            # To a peer that reads on, everything comes, and nobody is left waiting.
            assert bytes(self.bench.transport.wire) == bytes(self.accepted)
            assert self.bench.client.stats.bytes_queued == 0
            assert not any(task.is_waiting for task in self.tasks)
            assert self.bench.transport.wire_ended or not self.ended or self.closed
            assert self.bench.transport.lost == self.closed
        self.bench.close()
        for task in self.tasks:
            task.coroutine.close()


class SendingOnUvloop(Sending):
    @staticmethod
    def loop_factory() -> asyncio.AbstractEventLoop:
        return uvloop.new_event_loop()


PLAY = settings(
    max_examples=int(os.environ.get("NETWORK_EXAMPLES", "60")),
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSending = Sending.TestCase
TestSending.settings = PLAY
TestSendingOnUvloop = SendingOnUvloop.TestCase
TestSendingOnUvloop.settings = PLAY
