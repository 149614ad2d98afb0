"""`pepperpy.network.streams` where memory or the transport fails: a byte is kept, or the connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, Starved

from pepperpy.network import streams
from pepperpy.network._core.writer_core import WriterCore


class FailingTransport(asyncio.Transport):
    """Its first `failures` calls of `write` or `resume_reading` find no memory."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.aborted = False
        self.failures = failures

    def _may_fail(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise MemoryError

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self._may_fail()
        self.reading = True

    def write(self, data: Any) -> None:
        self._may_fail()
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("n", [2**63 - 1, 2**63, 2**70])
async def test_a_size_beyond_all_memory_is_one_like_any_other(n: int) -> None:
    reader = streams.StreamReader()
    reader.feed_data(b"abc")
    assert await reader.read(n) == b"abc"
    reading = asyncio.create_task(reader.readexactly(n))
    await asyncio.sleep(0)
    reader.feed_data(b"abc")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reading
    assert (caught.value.partial, caught.value.expected) == (b"abc", n)


@pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))
@pytest.mark.parametrize(
    "take",
    [
        lambda core: core.take_exactly(9),
        lambda core: core.take_until(b";"),
        lambda core: core.take_until_any([b";"]),
        lambda core: core.take(3),
        lambda core: core.take_all(),
    ],
    ids=["exactly", "until", "until any", "some", "all"],
)
async def test_what_is_left_at_the_end_stays_where_there_is_no_memory_for_it(take: Callable[[Any], bytes]) -> None:
    failed = 0
    # Later ones are those of the traceback, which are the interpreter's.
    for number in range(5):
        reader = streams.StreamReader()
        reader.feed_data(b"abc")
        reader.feed_eof()
        core = reader._core
        try:
            result = Starved(0, number)(take, core)
        except MemoryError:
            failed += 1
            assert core.unread == 3
        except asyncio.IncompleteReadError as error:
            assert (error.partial, core.unread) == (b"abc", 0)
        else:
            assert (result, core.unread) == (b"abc", 0)
    assert failed


async def test_a_read_takes_nothing_if_the_transport_cannot_read_on_and_the_next_one_tries_again() -> None:
    reader = streams.StreamReader(limit=4)
    transport = FailingTransport(1)
    reader.set_transport(transport)
    reader.feed_data(b"0123456789")
    assert not transport.reading
    with pytest.raises(MemoryError):
        await reader.read(10)
    assert await reader.read(10) == b"0123456789"
    assert transport.reading


async def test_gathered_writes_that_the_transport_refuses_end_the_connection_so_that_no_gap_is_left() -> None:
    while True:
        transport = FailingTransport(0)
        core = WriterCore(asyncio.get_running_loop(), transport)
        core.write(b"a")
        core.write(b"b")
        # Where a millisecond passes between the two, the second leaves at once, too.
        if transport.written == [b"a"]:
            break
    transport.failures = 1
    with pytest.raises(MemoryError):
        core.flush()
    assert transport.aborted
