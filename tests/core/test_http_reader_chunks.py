"""The chunks of a body: what they give, what is refused, what is counted; against httptools as a second opinion."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_responses import LENIENT, STRICT, each_cut, read

from pepperpy.network._core.http_head import MalformedResponse, ResponseRules
from pepperpy.network._core.http_reader import ResponseReader

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"2\r\nokx\r\n",
        b"2\r\no\r\nx\r\n",
        b"2\r\nok3\r\nabc\r\n",
        b"2\r\nok\rx",
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b" 1\r\nx\r\n",
        b"1_0\r\n",
        b"1 1\r\nx\r\n",
        b"1,\r\nx\r\n",
        b"8000000000000000\r\n",
        b"10000000000000001\r\nx\r\n",
        b"1;a=\x00\r\nx\r\n",
        b"1;a=\x7f\r\nx\r\n",
        b"1;a\rb\r\nx\r\n",
        b"0\r\nContent-Length: 3\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n: b\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\n\n",
        b"0\n\r\n",
        b"2\nok\r\n",
        b"2\r\nok\n0\r\n",
        b"2\t\r\nok\r\n",
    ],
)
@pytest.mark.parametrize("rules", [STRICT, LENIENT], ids=["strict", "lenient"])
def test_faulty_chunks_are_refused(body: bytes, rules: ResponseRules) -> None:
    for pieces in each_cut(body):
        with pytest.raises(MalformedResponse):
            read([HEAD, *pieces], rules=rules)


def test_blanks_behind_a_size_are_all_that_lenient_reading_allows() -> None:
    body = b"2  \r\nok\r\n0 \r\n\r\n"
    assert read([HEAD, body], rules=LENIENT).whole
    with pytest.raises(MalformedResponse):
        read([HEAD, body], rules=STRICT)


def test_data_before_a_fault_is_given_and_the_fault_comes_next() -> None:
    reader = ResponseReader(STRICT)
    reader.read_head(HEAD)
    data = b"5\r\nhello\r\nxyz\r\n"
    piece, used = reader.read_body(data)
    assert (piece, data[used:]) == (b"hello", b"xyz\r\n")
    for _ in range(2):
        with pytest.raises(MalformedResponse):
            reader.read_body(data[used:])
    assert not reader.is_whole


def test_all_data_on_hand_comes_in_one_piece() -> None:
    reader = ResponseReader(STRICT)
    reader.read_head(HEAD)
    assert reader.read_body(b"1\r\na\r\n2\r\nbc\r\n3\r\nd") == (b"abcd", 17)
    assert reader.read_body(b"ef\r") == (b"ef", 2)
    assert reader.read_body(b"\r\n0\r\n\r\nrest") == (b"", 7)
    assert reader.is_whole
    assert reader.body_bytes == 6


@pytest.mark.parametrize(
    "line", [b"1;" + b"x" * 5000, b"0" * 5000 + b"1\r\n", b"1" + b" " * 5000, b"1;a=" + b"x" * 5000 + b"\r\nx\r\n"]
)
def test_a_line_with_a_size_has_a_limit(line: bytes) -> None:
    for size in (1, 100, 10_000):
        with pytest.raises(MalformedResponse):
            read([HEAD, *(line[at : at + size] for at in range(0, len(line), size))])


def test_framing_has_a_limit_in_relation_to_its_data() -> None:
    endless = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    assert read([HEAD, endless * 10]).body == b"a" * 10
    with pytest.raises(MalformedResponse, match="too much chunked framing"):
        read([HEAD] + [endless] * 20)
    # Small chunks without anything are in order, as many as there are.
    assert len(read([HEAD, b"1\r\na\r\n" * 20_000, b"0\r\n\r\n"]).body) == 20_000
    # So are long extensions of chunks that hold as much.
    assert read([HEAD, (b"400;" + b"x" * 1000 + b"\r\n" + bytes(1024) + b"\r\n") * 100, b"0\r\n\r\n"]).whole


class Judge:
    """What httptools alone makes of it."""

    def __init__(self) -> None:
        self.body = b""
        self.whole = False

    def on_body(self, data: bytes) -> None:
        if not self.whole:
            self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


def judged(body: bytes) -> tuple[bytes, bool] | None:
    judge = Judge()
    parser = httptools.HttpResponseParser(judge)
    try:
        parser.feed_data(HEAD + body)
    except httptools.HttpParserError:
        if not judge.whole:  # what follows a whole answer is judged by nobody here
            return None
    return judge.body, judge.whole


PARTS = st.sampled_from(
    [
        b"0",
        b"1",
        b"2",
        b"a",
        b"F",
        b"0\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b";",
        b";a=b",
        b" ",
        b"ok",
        b"x",
        b"A: b\r\n",
        b"\t",
    ]
)


@given(st.lists(PARTS, max_size=12).map(b"".join))
def test_strict_chunks_are_what_llhttp_takes_them_for(body: bytes) -> None:
    expected = judged(body)
    try:
        got = read([HEAD, body], rules=STRICT)
    except MalformedResponse:
        assert expected is None or not expected[1], "refused here, and whole for llhttp"
        return
    if expected is not None:
        assert (got.body, got.whole) == expected
    else:
        # Refused by llhttp in a line, or in trailers, whose end has not come: they are looked at when it has.
        assert not got.whole
