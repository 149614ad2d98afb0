"""An event stream gives the events of the WHATWG standard however it is cut, and holds none beyond the limit."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiers import by_tier

from pepperpy.network import MessageTooLargeError
from pepperpy.network._core.event_stream import EventParser
from pepperpy.network.http.sse import ServerSentEvent

MIB = 1024 * 1024
BOM = b"\xef\xbb\xbf"
Event = ServerSentEvent

# Each ends with an empty line.
STREAMS = {
    "nothing": (b"\n", []),
    "data": (b"data: a\n\n", [Event("a")]),
    "no space behind the colon": (b"data:a\n\n", [Event("a")]),
    "only one space is taken off": (b"data:  a \n\n", [Event(" a ")]),
    "other white space stays": (b"data:\ta\n\n", [Event("\ta")]),
    "a colon in the value": (b'data: {"a": ": "}\n\n', [Event('{"a": ": "}')]),
    "several data fields are lines": (b"data: a\ndata: b\ndata\ndata: c\n\n", [Event("a\nb\n\nc")]),
    "empty data is an event": (b"data\n\ndata:\n\ndata: \n\n", [Event(""), Event(""), Event("")]),
    "two empty data fields are a newline": (b"data\ndata\n\n", [Event("\n")]),
    "two events": (b"data: a\n\ndata: b\n\n", [Event("a"), Event("b")]),
    "an empty line more": (b"\n\ndata: a\n\n\n\ndata: b\n\n", [Event("a"), Event("b")]),
    "CR": (b"data: a\rdata: b\r\rdata: c\r\r", [Event("a\nb"), Event("c")]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [Event("a\nb"), Event("c")]),
    "mixed terminators": (b"data: a\rdata: b\r\n\ndata: c\n\r\n", [Event("a\nb"), Event("c")]),
    "LF CR is two": (b"data: a\n\rdata: b\n\r", [Event("a"), Event("b")]),
    "no other terminator": ("data: a\x0b\x0c\x1c\x85\u2028b\n\n".encode(), [Event("a\x0b\x0c\x1c\x85\u2028b")]),
    "BOM": (BOM + b"data: a\n\n", [Event("a")]),
    "BOM before a comment": (BOM + b":data: a\n\n", []),
    "only one BOM": (BOM + BOM + b"data: a\ndata: b\n\n", [Event("b")]),
    "a BOM later is part of a name": (b"data: a\n\n" + BOM + b"data: b\n\n", [Event("a")]),
    "a BOM in a value": (b"data: " + BOM + b"a\n\n", [Event("\ufeffa")]),
    "half a BOM": (BOM[:2] + b"data: a\n\ndata: b\n\n", [Event("b")]),
    "comments": (b": a\n:\n:data: b\ndata: c\n:d\n\n:\n\n", [Event("c")]),
    "unknown fields": (b"dat: a\ndata : b\n data: c\nDATA: d\n\n", []),
    "type": (b"event: add\ndata: a\n\n", [Event("a", "add")]),
    "the last type counts": (b"event: a\ndata: b\nevent: c\n\n", [Event("b", "c")]),
    "an empty type is none": (b"event: a\nevent:\ndata: b\n\n", [Event("b")]),
    "a type is for one event": (b"event: a\ndata: b\n\ndata: c\n\n", [Event("b", "a"), Event("c")]),
    "a type without data is dropped": (b"event: a\n\ndata: b\n\n", [Event("b")]),
    "id": (b"id: 1\ndata: a\n\n", [Event("a", id="1")]),
    "an id persists": (b"data: a\nid: 1\n\ndata: b\n\n", [Event("a", id="1"), Event("b", id="1")]),
    "an id without data persists": (b"id: 1\n\ndata: a\n\n", [Event("a", id="1")]),
    "an empty id takes it back": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [Event("a", id="1"), Event("b")]),
    "an id with NUL is ignored": (b"id: 1\nid: 2\0\ndata: a\n\n", [Event("a", id="1")]),
    "NUL elsewhere": (b"event: \0\ndata: \0\n\n", [Event("\0", "\0")]),
    "retry": (b"retry: 1500\ndata: a\n\n", [Event("a", retry=1500)]),
    "retry persists": (b"retry: 1\n\ndata: a\n\ndata: b\n\n", [Event("a", retry=1), Event("b", retry=1)]),
    "retry is decimal": (b"retry: 010\ndata: a\n\n", [Event("a", retry=10)]),
    "retry is ASCII digits": (
        "retry: 5\nretry: \u0665\nretry\nretry: -1\nretry: 1.5\nretry: 0x1\nretry:  6\ndata\n\n".encode(),
        [Event("", retry=5)],
    ),
    "retry without end": (b"retry: 5\nretry: " + b"9" * 5000 + b"\ndata\n\n", [Event("", retry=5)]),
    "UTF-8": ("event: \u00e4\nid: \u20ac\ndata: \U0001f600\n\n".encode(), [Event("\U0001f600", "\u00e4", "\u20ac")]),
    # One U+FFFD for each maximal part of a character; a newline ends any.
    "broken UTF-8": (
        b"event: \xff\ndata: \xf0\x9f\x98\ndata: \xff\xc3(\xed\xa0\x80\nid: \x80\n\n",
        [Event("\ufffd\n\ufffd\ufffd(\ufffd\ufffd\ufffd", "\ufffd", "\ufffd")],
    ),
}


@dataclass
class Result:
    """What a consumer gets: the events, and whether an error came after them; what the parser then knows."""

    events: list[ServerSentEvent] = field(default_factory=list)
    failed: bool = False
    last_event_id: str = ""
    retry: int | None = None


def parser_of(max_size: int) -> EventParser[ServerSentEvent]:
    return EventParser(max_size, ServerSentEvent)


def consume(pieces: Iterable[bytes], max_size: int = 10000) -> Result:
    parser = parser_of(max_size)
    result = Result()
    try:
        for piece in pieces:
            result.events.extend(parser.feed(piece))  # those before one that is too large as well
        parser.finish()
    except MessageTooLargeError:
        result.failed = True
    result.last_event_id = parser.last_event_id
    result.retry = parser.retry
    return result


def expected(stream: bytes, max_size: int) -> Result:
    """The same by the standard's text, from the whole stream: decode, split into lines, interpret."""
    result = Result()
    stream = stream.removeprefix(BOM)
    lines = re.split("\r\n|\r|\n", stream.decode("utf-8", "replace"))
    sizes = [len(line) for line in re.split(rb"\r\n|\r|\n", stream)]
    data = event_type = event_id = ""
    event_size = 0
    for index, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        is_comment = line.startswith(":")
        event_size = event_size + size if line and not is_comment else event_size
        if max(size, event_size if line and not is_comment else 0) > max_size:
            result.failed = True
            break
        if index == len(lines) - 1:
            # Not a line, as nothing has ended it.
            break
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            result.last_event_id = event_id
            if data:
                result.events.append(Event(data[:-1], event_type or "message", event_id, result.retry))
            data = event_type = ""
            event_size = 0
        elif name == "event":
            event_type = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            event_id = value
        elif name == "retry" and re.fullmatch("[0-9]{1,18}", value):
            result.retry = int(value)
    return result


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_a_stream_gives_the_events_of_the_standard(stream: bytes, events: list[ServerSentEvent]) -> None:
    assert consume([stream]).events == events


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_a_stream_that_comes_byte_by_byte_gives_the_same(stream: bytes, events: list[ServerSentEvent]) -> None:
    assert consume(one_by_one(stream)).events == events
    with_empty_pieces = [piece for byte in one_by_one(stream) for piece in (b"", byte)]
    assert consume(with_empty_pieces).events == events


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_bytes_behind_an_event_remain_for_the_next(stream: bytes, events: list[ServerSentEvent]) -> None:
    parser = parser_of(10000)
    assert list(parser.feed(stream + b"event: e\ndata: ta")) == events
    assert list(parser.feed(b"il\n")) == []
    assert list(parser.feed(b"\n")) == [Event("tail", "e", parser.last_event_id, parser.retry)]


BITS = [
    b"\n",
    b"\r",
    b"\r\n",
    b"data",
    b"data: x\n",
    b"data: a\n\n",
    b"id",
    b"event",
    b"retry",
    b":",
    b": ",
    b"1",
    b"\0",
]
BITS += [BOM, b"\xc3", b"\xa9", b"\xf0\x9f\x98", b"\x80", b"\xed\xa0", b"longer than usual"]


@settings(max_examples=by_tier(400, nightly=20000))
@given(
    stream=st.lists(
        st.sampled_from(BITS),
        max_size=40,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 150), max_size=8),
    # From the size of a BOM: less of one is not judged.
    max_size=st.integers(3, 60),
    with_bom=st.booleans(),
)
def test_cutting_the_stream_anywhere_changes_nothing(
    stream: bytes, cuts: list[int], max_size: int, with_bom: bool
) -> None:
    stream = BOM + stream if with_bom else stream
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert consume(pieces, max_size) == expected(stream, max_size)
    assert consume(one_by_one(stream), max_size) == expected(stream, max_size)


def test_an_event_comes_with_its_last_byte_whatever_its_terminators() -> None:
    for end in (b"\n", b"\r", b"\r\n"):
        parser = parser_of(100)
        *before, last = one_by_one(b"data: a" + end + end[:1])
        assert [list(parser.feed(piece)) for piece in before] == [[]] * len(before), end
        assert list(parser.feed(last)) == [Event("a")], end
        # The rest of a \r\n is no second empty line, and ends no other line either.
        assert list(parser.feed(end[1:] + b"data: b")) == [], end
        assert list(parser.feed(end + end)) == [Event("b")], end


@pytest.mark.parametrize("stream", [b"data: b", b"data: b\n", b"data: b\r", b"id: 2\ndata: b\r\n"])
def test_an_event_that_the_stream_breaks_off_is_dropped_and_so_is_its_id(stream: bytes) -> None:
    parser = parser_of(100)
    assert list(parser.feed(b"id: 1\ndata: a\n\n" + stream)) == [Event("a", id="1")]
    parser.finish()
    assert parser.last_event_id == "1"


def test_the_stream_of_the_next_connection_begins_anew_but_for_the_id_and_the_retry() -> None:
    for broken_off in (b"id: 2\nevent: e\n", b"data: b\nda", b"data: b\r", BOM[:2]):
        parser = parser_of(20)
        list(parser.feed(b"retry: 5\nid: 1\n\n"))
        parser.finish()
        list(parser.feed(broken_off))
        parser.finish()
        assert list(parser.feed(BOM + b"data: twenty bytes..\n\n")) == [Event("twenty bytes..", id="1", retry=5)]


def test_the_id_counts_from_the_empty_line_on_and_the_retry_at_once() -> None:
    parser = parser_of(100)
    list(parser.feed(b"id: 1\nretry: 5\n"))
    assert (parser.last_event_id, parser.retry) == ("", 5)
    list(parser.feed(b"\n"))
    assert parser.last_event_id == "1"


# Each of twenty bytes; terminators and comments do not count.
TWENTY = {
    "one line": b"data: twenty bytes..\n\n",
    "CRLF": b"data: twenty bytes..\r\n\r\n",
    "two lines": b"data: sev\ndata: elev.\n\n",
    "other fields": b"id: 1\nfoo\nevent: e\ndata\n\n",
    "comments": b": twenty bytes too..\ndata: twenty b\n:\ndata:6\n\n",
    "BOM": BOM + b"data: twenty bytes..\n\n",
}
CUTS = pytest.mark.parametrize("cut", [lambda stream: [stream], one_by_one], ids=["whole", "byte by byte"])


@CUTS
@pytest.mark.parametrize("stream", TWENTY.values(), ids=TWENTY)
def test_an_event_may_be_as_large_as_the_limit_and_no_larger(stream: bytes, cut: Any) -> None:
    again = stream.removeprefix(BOM)
    result = consume(cut(stream + again), max_size=20)
    assert len(result.events) == 2 and not result.failed
    result = consume(cut(stream + again), max_size=19)
    assert result.events == [] and result.failed


@CUTS
def test_comments_may_keep_a_stream_alive_for_ever_but_none_is_larger_than_the_limit(cut: Any) -> None:
    alive = b"data: a\n" + b": ping\n" * 1000 + b"\n"
    assert consume(cut(alive), max_size=10).events == [Event("a")]
    comment = b":" + b"x" * 9
    assert not consume(cut(comment + b"\n"), max_size=10).failed
    assert consume(cut(comment + b"x"), max_size=10).failed


def test_an_event_larger_than_the_limit_is_refused_before_its_end_comes() -> None:
    parser = parser_of(20)
    assert list(parser.feed(b"data: aaaa\n")) == []
    assert list(parser.feed(b"data: bbbb")) == []
    with pytest.raises(MessageTooLargeError, match="event of at least 21 bytes exceeds max_line_size=20") as raised:
        list(parser.feed(b"b"))
    assert raised.value.details == {"limit": 20}


@pytest.mark.parametrize("bad", [b"data: xxxxx", b"data: xxxxx\n\ndata: c\n\n", b"data: \ndata: \n\n"])
def test_events_before_one_that_is_too_large_come_first(bad: bytes) -> None:
    parser = parser_of(10)
    events = parser.feed(b"data: a\n\nid: 1\ndata\n\n" + bad)
    assert [next(events), next(events)] == [Event("a"), Event("", id="1")]
    for call in (lambda: next(events), lambda: list(parser.feed(b"data: d\n\n")), parser.finish):
        with pytest.raises(MessageTooLargeError, match=r"at least 1[12] bytes"):
            call()
    assert parser.last_event_id == "1"


def test_an_event_far_larger_than_64_kib_arrives() -> None:
    text = '{"text": "' + "\u00e4bc" * MIB + '"}'
    stream = f"data: first\n\ndata: {text}\n\ndata: last\n\n".encode()
    pieces = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    result = consume(pieces, max_size=len(stream))
    # Not compared as lists: pytest would print them.
    assert [len(event.data) for event in result.events] == [5, len(text), 4]
    assert result.events[1].data == text
    assert consume(pieces, max_size=4 * MIB) == Result([Event("first")], failed=True)


@pytest.mark.parametrize("line", [b"data: " + b"x" * 65530, b"data\n" * 13107, b"data: xy\n" * 8192], ids=len)
def test_an_endless_event_is_not_held_beyond_the_limit(line: bytes) -> None:
    parser = parser_of(MIB)
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLargeError):
            for _ in range(30):
                list(parser.feed(line))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A growing bytearray moves, and has an eighth to spare; the lines of one piece come on top.
    assert peak < 3.5 * MIB
    assert held < 65536, "what cannot become an event is dropped"


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_a_piece_of_nothing_but_ends_of_lines_is_searched_once(end: bytes) -> None:
    # To look for the other end of a line behind each one would look at 2 TiB.
    assert consume([end * (2 * MIB) + b"data: a" + end + end]).events == [Event("a")]


@pytest.mark.slow
def test_a_mebibyte_that_drips_in_is_one_event() -> None:
    # To copy the event for each byte would copy 512 GiB.
    result = consume(one_by_one(b"data: " + b"x" * MIB + b"\n\n"), max_size=2 * MIB)
    assert len(result.events) == 1 and result.events[0].data == "x" * MIB


@pytest.mark.parametrize("max_size", [0, -1])
def test_a_limit_below_one_byte_is_refused(max_size: int) -> None:
    with pytest.raises(ValueError, match=f"max_size must be 1 or more, not {max_size}"):
        parser_of(max_size)
