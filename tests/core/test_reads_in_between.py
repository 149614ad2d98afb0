"""Python code that runs while a read is under way, or between two steps of a receive, by the end of an object."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.by_hand import HandTask, Workbench

from pepperpy.network import LengthPrefixed, Mapped, NetworkConfig

LARGE = 1 << 20


class Stop(BaseException):
    """Ends the program, as KeyboardInterrupt does."""


class Meddler:
    """Garbage whose end calls `meddle`."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        self.itself = self
        self.meddle = meddle

    def __del__(self) -> None:
        self.meddle()


@pytest.fixture
def bench() -> Iterator[Workbench]:
    bench = Workbench(asyncio.new_event_loop, NetworkConfig("127.0.0.1", 1))
    yield bench
    bench.discard()


def start(bench: Workbench, receive: Any) -> tuple[HandTask, list[Any]]:
    results: list[Any] = []
    task = HandTask(bench.loop, receive, lambda _, value, error: results.append(value if error is None else error))
    task.step()
    return task, results


def take_by_hand(bench: Workbench, reader: HandTask) -> None:
    reader.give_up("close")
    start(bench, bench.client.receive(100))


def test_no_garbage_is_collected_while_a_loop_is_given_memory_to_read_into(bench: Workbench) -> None:
    ended: list[str] = []
    with bench.inside():
        start(bench, bench.client.receive_exactly(LARGE))
        get_buffer = bench.protocol.get_buffer
        gc.collect()
        gc.disable()
        try:
            Meddler(lambda: ended.append("in get_buffer" if view is None else "later"))
            view = None
            thresholds = gc.get_threshold()
            gc.set_threshold(1)
            gc.enable()
            view = get_buffer(-1)
            gc.set_threshold(*thresholds)
            assert len(view) == LARGE
        finally:
            gc.set_threshold(*thresholds)
            gc.enable()
        gc.collect()
    assert ended == ["later"]


def test_a_receive_that_ends_while_a_read_for_it_is_under_way_ends_the_connection(bench: Workbench) -> None:
    with bench.inside():
        reader, _ = start(bench, bench.client.receive_exactly(LARGE))
        view = bench.protocol.get_buffer(-1)
        take_by_hand(bench, reader)
        view[:10] = b"0123456789"
        bench.protocol.buffer_updated(10)
        assert bench.client.stats.bytes_buffered == 0
    bench.turn(2)
    assert bench.protocol.state == "lost"
    assert "ended during that read" in str(bench.protocol.loss)


def test_a_large_receive_that_begins_while_a_read_is_under_way_gets_what_was_read(bench: Workbench) -> None:
    data = bytes(range(250)) * 800
    with bench.inside():
        view = bench.protocol.get_buffer(-1)
        _, results = start(bench, bench.client.receive_exactly(len(data)))
        view[:10] = data[:10]
        bench.protocol.buffer_updated(10)
        rest = bench.protocol.get_buffer(-1)
        rest[: len(data) - 10] = data[10:]
        bench.protocol.buffer_updated(len(data) - 10)
    bench.turn(2)
    assert results == [data]


def test_a_large_message_is_not_lost_where_the_program_is_stopped_in_the_next_one(bench: Workbench) -> None:
    def loads(content: bytes) -> bytes:
        if content == b"stop" and stops:
            raise stops.pop()
        return content

    stops = [Stop()]
    received: list[Any] = []
    codec = Mapped(LengthPrefixed(), bytes, loads)
    framed = bench.client.framed(codec)
    messages = [b"x" * 600_000, b"stop", b"last"]
    wire = [b"".join(codec.encode(message)) for message in messages]
    with bench.inside():
        _, results = start(bench, framed.receive_batch())
        bench.transport.arrives(wire[0][:200_000])
    with bench.inside(in_task=True):
        # The reader is woken by the large message, and runs when the others have come.
        bench.transport.arrives(wire[0][200_000:])
        bench.transport.arrives(wire[1] + wire[2])
    bench.turn()
    for _ in range(3):
        (result,) = results
        received += [] if isinstance(result, Stop) else result
        with bench.inside():
            _, results = start(bench, framed.receive_batch())
    assert received == messages
