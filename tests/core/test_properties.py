"""Any bytes in any pieces, taken in any way and interrupted anywhere, are the bytes that were sent.

Two state machines play a connection against the plain-Python oracle: one receives, one (test_properties_sending.py)
sends. Each rule is one event; what an event schedules runs in a `turn` of its own, so any order of events is tried.
NIGHTLY=1 plays 50 times as many games (support/tiers.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.by_hand import HandTask, Workbench
from support.loops import UVLOOP
from support.oracle import (
    ReceivedStream,
    Request,
    SentStream,
    Wait,
    check_answer,
    check_counters,
    difference,
)
from support.tiers import by_tier

from pepperpy.network import (
    BufferLimits,
    BusyError,
    ClosedError,
    IncompleteReadError,
    NetworkConfig,
    NetworkTimeoutError,
)
from pepperpy.network.last_turns import LAST_TURNS

KIB = 1024
PLAY = settings(
    max_examples=by_tier(60, nightly=3000),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)

# Two kinds of bulk: with a newline or other separator every few dozen bytes, and with none at all.
DENSE = random.Random(1).randbytes(512 * KIB).translate(bytes(b"ab;\r\n"[i % 5] if i < 20 else i for i in range(256)))
BULK = {"dense": DENSE, "barren": DENSE.translate(bytes(i if i not in b"ab;\r\n" else i + 128 for i in range(256)))}


@dataclass(frozen=True)
class Data:
    """What the peer sends: a slice of the bulk, and something behind it. Short to print."""

    kind: str = "dense"
    start: int = 0
    size: int = 0
    tail: bytes = b""

    def __bytes__(self) -> bytes:
        return BULK[self.kind][self.start : self.start + self.size] + self.tail


# The borders: 64 KiB of headroom, 128 KiB from which an exact receive has its own memory, 256 KiB in one read.
borders = st.builds(
    lambda border, offset: border * KIB + offset, st.sampled_from([1, 64, 128, 192, 256, 320]), st.integers(-3, 3)
)
words = st.lists(st.sampled_from([b"a", b"b", b"ab", b"\r", b"\n", b"\r\n", b";", b"a;b"]), max_size=12).map(b"".join)
few = st.builds(Data, tail=words)
many = st.builds(Data, st.sampled_from(sorted(BULK)), st.integers(0, 100_000), borders, words)
chunks = st.lists(st.one_of(st.integers(1, 5), borders), max_size=8)
separators = st.sampled_from(
    [b"\n", b";", b"\r\n", b"ab", b"a;b", b"abab", (b"\r\n", b"\n"), (b";", b"ab"), (b"b", b"a;b", b"\r\n"), (b"abab",)]
)
sizes = st.one_of(st.integers(1, 20), borders)
requests = st.one_of(
    st.builds(Request, st.just("receive"), sizes),
    st.builds(Request, st.just("receive_into"), sizes),
    st.builds(Request, st.just("receive_exactly"), sizes),
    st.builds(
        Request,
        st.just("receive_until"),
        separator=separators,
        max_size=st.one_of(st.none(), st.integers(1, 30), borders),
    ),
    st.builds(Request, st.just("receive_line")),
    st.builds(Request, st.just("receive_lines")),
    st.builds(Request, st.just("peek"), sizes),
    st.builds(Request, st.just("skip_until"), separator=separators),
)
# What the reader does right after a receive, before it lets anybody else run.
sequels = st.lists(
    st.one_of(
        st.tuples(requests, st.sampled_from(["stay", "throw", "close"])),
        st.sampled_from(["hang up", "abort", "put back", "put back"]),
    ),
    max_size=3,
)


class Receiving(RuleBasedStateMachine):
    """One connection that receives, with at most one reader that waits."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] = staticmethod(asyncio.SelectorEventLoop)

    @initialize(
        marks=st.sampled_from([(256 * KIB, 64 * KIB), (1, 0), (100, 20), (70_000, 65_536)]),
        max_message_size=st.sampled_from([16 << 20, 30, 65_536, 200_000]),
    )
    def connect(self, marks: tuple[int, int], max_message_size: int) -> None:
        high, low = marks
        config = NetworkConfig(
            "memory",
            1,
            timeout=None,
            buffers=BufferLimits(receive_high=high, receive_low=low),
            max_message_size=max_message_size,
        )
        self.bench = Workbench(self.loop_factory, config)
        self.client, self.transport = self.bench.client, self.bench.transport
        self.stream = ReceivedStream(high, low, max_message_size)
        self.transport.before_update = self.stream.comes
        self.transport.before_loss = self.stream.lose
        self.sent = bytearray()  # by the peer
        self.reader: HandTask | None = None
        self.request = Request("receive")
        self.sequel: list[Any] = []
        self.timed = False
        self.given_up = False
        self.lets_loop_run = False  # the reader met the end of the stream not for the first time
        self.settled = False  # this side has called abort()
        self.skip: Request | None = None  # one that waits, or was given up since the last look at it

    # ---- The reader ----

    def start(self, request: Request, then: str, sequel: list[Any], timeout: float | None = None) -> None:
        if self.reader is not None:
            assert not self.bench.transport.breaches
            self.expect_busy(request)
            return
        self.look_at_skip()
        self.skip, self.stream.skipped = None, 0
        call = getattr(self.client, request.method)(*request.arguments(), timeout=timeout)
        self.reader = HandTask(self.bench.loop, call, self.ended)
        self.request, self.sequel, self.timed, self.given_up = request, sequel, timeout is not None, False
        self.lets_loop_run = False
        arguments = call.cr_frame.f_locals
        self.into = arguments.get("buffer")
        reader = self.reader
        reader.step()
        if self.reader is reader:
            self.lets_loop_run = self.stream.end_met and self.stream.is_at_end(request)
            assert self.lets_loop_run or self.stream.look(request) is Wait.NOT_YET, (
                f"{request} waits for what is on hand"
            )
            self.stream.waits(request)
            self.skip = request if request.method == "skip_until" else None
            if then != "stay":
                self.given_up = True
                reader.give_up(then)
                if then == "close":
                    self.reader = None

    def expect_busy(self, request: Request) -> None:
        outcome: list[BaseException | None] = []
        call = getattr(self.client, request.method)(*request.arguments(), timeout=None)
        HandTask(self.bench.loop, call, lambda task, value, error: outcome.append(error)).step()
        assert isinstance(outcome[0], BusyError)

    def ended(self, task: HandTask, value: object, error: BaseException | None) -> None:
        assert self.reader is task
        assert task.waits <= 1 or self.request.method == "skip_until", f"{self.request} was woken for nothing"
        self.reader = None
        if error is not None and not isinstance(error, IncompleteReadError):
            self.look_at_skip()
        self.skip = None
        if isinstance(error, asyncio.CancelledError):
            assert self.given_up
            return
        if isinstance(error, NetworkTimeoutError):
            assert self.timed and self.stream.look(self.request) is Wait.NOT_YET
        else:
            if self.request.method == "receive_into" and isinstance(value, int):
                assert self.into is not None
                value = bytes(self.into[:value])
            check_answer(self.stream.take(self.request), value, error, self.request)
        sequel, self.sequel = self.sequel, []
        for number, action in enumerate(sequel):
            if action == "hang up":
                self.hang_up()
            elif action == "abort":
                self.abort()
            elif action == "put back":
                if isinstance(value, bytes) and self.request.method != "peek":
                    self.put_back(value)
            else:
                self.start(action[0], action[1], sequel[number + 1 :])
                if self.reader is not None or self.sequel:
                    break

    def look_at_skip(self) -> None:
        if self.skip is not None:
            self.stream.skips(self.skip, self.client.stats.bytes_buffered)

    def put_back(self, data: bytes) -> None:
        if self.reader is not None:
            with pytest.raises(BusyError):
                self.client.unread(data)
            return
        self.look_at_skip()
        self.skip = None
        if self.stream.closed:
            with pytest.raises(ClosedError):
                self.client.unread(data)
        elif not self.stream.unread_again(data):
            with pytest.raises(ValueError, match="data must have"):
                self.client.unread(data)
        else:
            self.client.unread(data)

    @rule(data=words)
    def unread(self, data: bytes) -> None:
        with self.bench.inside():
            self.put_back(data)

    @rule(request=requests, then=st.sampled_from(["stay", "stay", "cancel", "throw", "close"]), sequel=sequels)
    def receive(self, request: Request, then: str, sequel: list[Any]) -> None:
        with self.bench.inside():
            self.start(request, then, sequel)

    @rule(request=requests, sequel=sequels)
    def receive_with_no_time_at_all(self, request: Request, sequel: list[Any]) -> None:
        with self.bench.inside():
            self.start(request, "stay", sequel, timeout=0)

    @precondition(lambda self: self.reader is not None and not self.given_up)
    @rule(how=st.sampled_from(["cancel", "throw", "close"]))
    def give_up(self, how: str) -> None:
        assert self.reader is not None
        self.given_up = True
        with self.bench.inside():
            self.reader.give_up(how)
        if how == "close":
            self.reader = None

    # ---- The peer and the network ----

    @rule(data=st.one_of(few, few, many), pieces=chunks, in_task=st.booleans())
    def bytes_come(self, data: Data, pieces: list[int], in_task: bool) -> None:
        if self.stream.ended or self.transport.closing:
            return
        self.sent += bytes(data)
        self.transport.inbox += bytes(data)
        with self.bench.inside(in_task):
            for size in [*pieces, 1 << 30, 1 << 30]:
                self.read(size, in_task)

    def read(self, size: int, in_task: bool) -> None:
        waiting = self.reader is not None and self.reader.is_waiting
        reader = self.reader
        if not self.transport.read(size):
            return
        if waiting and reader is not None and not in_task and not reader.is_waiting:
            assert reader.done, "a reader was woken outside of any task, and did not run at once"
        if in_task and reader is not None:
            assert not reader.done, "a reader ran inside another task"
        self.stream.was_read(self.reader is not None and self.reader.is_waiting, self.transport.reading_paused)

    @rule(pieces=chunks, in_task=st.booleans())
    def loop_reads_on(self, pieces: list[int], in_task: bool) -> None:
        with self.bench.inside(in_task):
            for size in [*pieces, 1 << 30]:
                self.read(size, in_task)

    @precondition(lambda self: not self.transport.inbox and self.transport.is_reading())
    @rule(in_task=st.booleans())
    def peer_ends(self, in_task: bool) -> None:
        self.stream.ended = True
        with self.bench.inside(in_task):
            self.transport.ends()

    @rule(error=st.sampled_from([None, ConnectionResetError(104, "reset"), TimeoutError(110, "timed out")]))
    def connection_breaks(self, error: OSError | None) -> None:
        if not self.transport.closing:
            with self.bench.inside():
                self.transport.breaks(error)
            self.turn()

    # ---- The loop and this side ----

    @rule()
    def turn(self) -> None:
        # A wake-up out of a callback of a turn runs in the next one.
        self.bench.turn(LAST_TURNS + 4 if self.timed else 2)
        over = self.timed or self.given_up or self.lets_loop_run
        assert self.reader is None or not over, "a receive outlived its end"

    @rule(again=st.booleans())
    def hang_up(self, again: bool = False) -> None:
        for _ in range(1 + again):
            if self.bench.protocol.state == "open":
                self.stream.close()
            with self.inside_unless_inside():
                self.bench.protocol.close()

    @rule(again=st.booleans())
    def abort(self, again: bool = False) -> None:
        for _ in range(1 + again):
            if self.bench.protocol.state == "open":
                self.stream.close()
            # Whoever aborts a connection that is lost wants no more of it, whatever is unread or put back.
            self.settled = True
            with self.inside_unless_inside():
                self.client.abort()

    def inside_unless_inside(self) -> Any:
        return self.bench.inside() if asyncio._get_running_loop() is None else contextlib.nullcontext()

    # ---- What always holds ----

    @invariant()
    def nothing_is_lost_doubled_or_reordered(self) -> None:
        if hasattr(self, "bench"):
            self.bench.check()
            self.look_at_skip()
            check_counters(self.client, self.stream, SentStream(1, 0))
            came = len(self.stream.came) + self.stream.dropped
            assert len(self.sent) == came + len(self.transport.inbox)
            assert self.stream.closed or difference(self.stream.came, self.sent[:came]) is None
            ended = self.stream.ended and not self.stream.closed
            assert self.client.at_eof == (ended and not self.stream.unread_count)
            if ended:
                assert self.client.is_connected == (not self.client.at_eof and not self.settled)

    @invariant()
    def reading_is_paused_when_it_should_be(self) -> None:
        if hasattr(self, "bench") and not self.transport.closing and not self.stream.closed:
            assert self.transport.reading_paused == self.stream.paused

    @invariant()
    def who_waits_waits_for_something(self) -> None:
        if hasattr(self, "bench") and self.reader is not None and self.reader.is_waiting:
            assert self.lets_loop_run or self.stream.look(self.request) is Wait.NOT_YET
            assert self.transport.closing or not self.transport.reading_paused

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            try:
                self.finish()
            finally:
                if self.reader is not None:
                    self.reader.coroutine.close()
                self.bench.discard()

    def finish(self) -> None:
        """What has not been read yet arrives whole; what nobody has taken by then, the close drops."""
        if self.reader is not None and not self.given_up:
            self.give_up("close")
        self.turn()
        while self.client.is_connected and self.transport.inbox:
            with self.bench.inside():
                self.read(1 << 30, False)
                self.start(Request("receive", 1 << 20), "stay", [])
        self.nothing_is_lost_doubled_or_reordered()
        self.abort()
        assert self.stream.lost or self.client.stats.bytes_buffered == 0
        self.bench.close()


TestReceiving = Receiving.TestCase
TestReceiving.settings = PLAY

if UVLOOP is not None:

    class ReceivingOnUvloop(Receiving):
        loop_factory = staticmethod(UVLOOP)

    TestReceivingOnUvloop = ReceivingOnUvloop.TestCase
    TestReceivingOnUvloop.settings = PLAY
