"""A stream gives the same lines however it is cut, and no line is lost, joined or held beyond the limit."""

from __future__ import annotations

import itertools
import random
import sys
import tracemalloc
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiers import by_tier

from pepperpy.network import MessageTooLargeError
from pepperpy.network.http.lines import LineSplitter

MIB = 1024 * 1024
ANY_BYTE = bytes(byte for byte in range(256) if byte != 10)

STREAMS = {
    "no line": (b"", []),
    "one line": (b"abc\n", [b"abc"]),
    "several lines": (b"a\nbc\nd\n", [b"a", b"bc", b"d"]),
    "empty lines": (b"\n\na\n\n", [b"", b"", b"a", b""]),
    "CRLF": (b"a\r\n\r\nb\r\n", [b"a", b"", b"b"]),
    "mixed terminators": (b"a\r\nb\nc\r\n\n", [b"a", b"b", b"c", b""]),
    "a lone CR is content": (b"a\rb\n\rc\n", [b"a\rb", b"\rc"]),
    "one CR belongs to the terminator": (b"a\r\r\n", [b"a\r"]),
    "only LF of what str.splitlines() knows": (b"a\x0bb\x0cc\x1cd\xc2\x85e\n", [b"a\x0bb\x0cc\x1cd\xc2\x85e"]),
    "any other byte": (ANY_BYTE + b"\n", [ANY_BYTE]),
}


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def consume(pieces: Iterable[bytes], max_size: int = 1000) -> tuple[list[bytes], bool]:
    """What a consumer gets: the lines, and whether an error came after them."""
    splitter = LineSplitter(max_size)
    lines: list[bytes] = []
    try:
        for piece in pieces:
            lines += splitter.feed(piece)
        lines += splitter.finish()
    except MessageTooLargeError:
        return lines, True
    return lines, False


def expected(stream: bytes, max_size: int) -> tuple[list[bytes], bool]:
    """The same byte by byte, in the plainest way."""
    lines = []
    line = b""
    for byte in one_by_one(stream):
        if byte != b"\n":
            line += byte
            continue
        lines.append(line[:-1] if line[-1:] == b"\r" else line)
        line = b""
    if line:
        lines.append(line)
    for index, line in enumerate(lines):
        if len(line) > max_size:
            return lines[:index], True
    return lines, False


@pytest.mark.parametrize(("stream", "lines"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_split_at_its_terminators(stream: bytes, lines: list[bytes]) -> None:
    assert consume([stream]) == (lines, False)


@pytest.mark.parametrize(("stream", "lines"), STREAMS.values(), ids=STREAMS)
def test_a_stream_that_comes_byte_by_byte_is_split_alike(stream: bytes, lines: list[bytes]) -> None:
    assert consume(one_by_one(stream)) == (lines, False)


@pytest.mark.parametrize(("stream", "lines"), STREAMS.values(), ids=STREAMS)
def test_bytes_behind_the_last_terminator_remain(stream: bytes, lines: list[bytes]) -> None:
    splitter = LineSplitter(1000)
    assert splitter.feed(stream + b"ta") == lines
    assert splitter.feed(b"i") == []
    assert splitter.feed(b"l\r\nend") == [b"tail"]
    assert splitter.finish() == [b"end"]


@pytest.mark.parametrize("tail", [b"x", b"\r", b"x\r", b"\rx"])
def test_the_end_of_the_stream_completes_the_last_line_as_it_is(tail: bytes) -> None:
    assert consume([b"a\n" + tail]) == ([b"a", tail], False)
    assert consume(one_by_one(b"a\n" + tail)) == ([b"a", tail], False)


def test_the_last_line_is_given_once() -> None:
    splitter = LineSplitter(10)
    splitter.feed(b"a")
    assert splitter.finish() == [b"a"]
    assert splitter.finish() == []


BITS = [b"\n", b"\r", b"\r\n", b"a", b"bc", b"\0", b"\xff" * 5]


@settings(max_examples=by_tier(300, nightly=15000))
@given(
    stream=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"\0", b"\xff" * 5]), max_size=40).map(
        b"".join
    ),
    cuts=st.lists(st.integers(0, 100), max_size=8),
    max_size=st.integers(1, 12),
)
def test_cutting_the_stream_anywhere_changes_nothing(stream: bytes, cuts: list[int], max_size: int) -> None:
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert consume(pieces, max_size) == expected(stream, max_size)
    assert consume(one_by_one(stream), max_size) == expected(stream, max_size)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("cut", [lambda stream: [stream], one_by_one], ids=["whole", "byte by byte"])
def test_a_line_may_be_as_large_as_the_limit_and_no_larger(end: bytes, cut: Any) -> None:
    assert consume(cut(b"a\n" + b"x" * 10 + end), max_size=10) == ([b"a", b"x" * 10], False)
    assert consume(cut(b"a\n" + b"x" * 11 + end), max_size=10) == ([b"a"], True)


def test_a_line_larger_than_the_limit_is_refused_before_its_end_comes() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"x" * 10) == []
    # Half a terminator, or one byte too many: the next byte tells.
    assert splitter.feed(b"\r") == []
    with pytest.raises(MessageTooLargeError, match="line of at least 12 bytes exceeds max_line_size=10") as raised:
        splitter.feed(b"x")
    assert raised.value.details == {"limit": 10}
    with pytest.raises(MessageTooLargeError, match="at least 11 bytes"):
        LineSplitter(10).feed(b"x" * 11)


def test_a_cr_that_ends_the_stream_counts_as_content() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"x" * 10 + b"\r") == []
    for call in (splitter.finish, splitter.finish, lambda: splitter.feed(b"\n")):
        with pytest.raises(MessageTooLargeError, match="at least 11 bytes"):
            call()


@pytest.mark.parametrize("bad", [b"x" * 11, b"x" * 11 + b"\nc\n", b"x" * 11 + b"\r\nc"])
def test_lines_before_one_that_is_too_large_come_first(bad: bytes) -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"a\r\nb\n" + bad) == [b"a", b"b"]
    for call in (lambda: splitter.feed(b""), lambda: splitter.feed(b"d\n"), splitter.finish):
        with pytest.raises(MessageTooLargeError, match="at least 11 bytes"):
            call()


def test_a_line_far_larger_than_64_kib_arrives() -> None:
    line = random.Random(1).randbytes(3 * MIB).replace(b"\n", b" ")
    stream = b"{}\n" + line + b"\n{}"
    pieces = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    lines, failed = consume(pieces, max_size=3 * MIB)
    # Not compared as lists: pytest would print them.
    assert not failed and len(lines) == 3 and lines[1] == line
    assert consume(pieces, max_size=3 * MIB - 1) == ([b"{}"], True)


def test_an_endless_line_is_not_held_beyond_the_limit() -> None:
    splitter = LineSplitter(MIB)
    piece = b"x" * 65536
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLargeError):
            for _ in range(17):
                splitter.feed(piece)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A growing bytearray moves, and has an eighth to spare.
    assert peak < 2.5 * MIB
    assert held < 65536, "what cannot become a line is dropped"


def test_each_byte_is_searched_once_however_slowly_a_line_grows() -> None:
    stream = b"x" * 16384 + b"\r\n"
    searched = bytes_searched(lambda: consume(one_by_one(stream), max_size=2 * len(stream)))
    # Once for \n, once for \r\n; quadratic cost would be 8,000 times as much.
    assert len(stream) <= searched <= 3 * len(stream)


@pytest.mark.slow
def test_a_mebibyte_that_drips_in_is_one_line() -> None:
    # To copy the line for each byte would copy 512 GiB.
    lines, failed = consume(one_by_one(b"x" * MIB), max_size=MIB)
    assert not failed and lines == [b"x" * MIB]


@pytest.mark.parametrize("max_size", [0, -1])
def test_a_limit_below_one_byte_is_refused(max_size: int) -> None:
    with pytest.raises(ValueError, match=f"max_size must be 1 or more, not {max_size}"):
        LineSplitter(max_size)


def test_text_is_refused() -> None:
    with pytest.raises(TypeError):
        LineSplitter(10).feed("a\n")  # type: ignore[arg-type]


def bytes_searched(function: Any) -> int:
    """The bytes of each bytes-like object of which a method was called that looks at all of it."""
    count = 0

    def on_call(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        owner = getattr(argument, "__self__", None) if event == "c_call" else None
        if isinstance(owner, (bytes, bytearray)) and argument.__name__ not in ("startswith", "endswith", "clear"):
            count += len(owner)

    sys.setprofile(on_call)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
