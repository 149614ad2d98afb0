"""What the reader makes of a response: where it ends, what it says, what is refused; however it is cut into pieces."""

from __future__ import annotations

import pytest
from support.http_responses import LENIENT, STRICT, Read, each_cut, read

from pepperpy.network._core.http_head import MalformedResponse, ResponseRules
from pepperpy.network._core.http_reader import ResponseReader, TruncatedResponse

OK = b"HTTP/1.1 200 OK\r\n"


def agreed(data: bytes, *, rules: ResponseRules = STRICT, head_only: bool = False, ends: bool = False) -> Read:
    """What comes of it, which is the same wherever it is cut."""
    first = read([data], rules=rules, head_only=head_only, ends=ends)
    for pieces in each_cut(data):
        assert read(pieces, rules=rules, head_only=head_only, ends=ends) == first, pieces
    return first


def refused(data: bytes, *, rules: ResponseRules = STRICT) -> str:
    """Why it is refused, wherever it is cut; the words show nothing of what came."""
    with pytest.raises(MalformedResponse) as caught:
        read([data], rules=rules)
    for pieces in each_cut(data):
        with pytest.raises(MalformedResponse):
            read(pieces, rules=rules)
    assert "secret" not in str(caught.value)
    return str(caught.value)


# ---- Where a response ends ----


def test_a_body_of_known_length_ends_there_and_the_rest_is_left() -> None:
    got = agreed(OK + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 ")
    assert (got.status, got.body, got.whole, got.reusable, got.left) == (200, b"hello", True, True, b"HTTP/1.1 ")
    assert got.headers == [("Content-Length", "5")]


def test_a_chunked_body_ends_with_its_trailers_and_the_rest_is_left() -> None:
    got = agreed(
        OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n6;a=b;c\r\n world\r\n0\r\nDigest: x\r\nB: 2 \r\n\r\n\r\n"
    )
    assert (got.body, got.whole, got.reusable, got.left) == (b"hello world", True, True, b"\r\n")
    assert got.headers == [("Transfer-Encoding", "Chunked")]
    assert got.trailers == [("Digest", "x"), ("B", "2")]


def test_a_body_without_a_length_ends_with_the_stream() -> None:
    got = agreed(OK + b"A: b\r\n\r\nhello", ends=True)
    assert (got.body, got.whole, got.reusable) == (b"hello", True, False)
    assert not read([OK + b"\r\nhello"]).whole


@pytest.mark.parametrize("head_only", [True, False])
@pytest.mark.parametrize("field", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize("status", [200, 204, 304])
def test_an_answer_to_head_and_a_204_and_a_304_have_no_body(status: int, field: bytes, head_only: bool) -> None:
    if status == 200 and not head_only:
        return
    got = agreed(b"HTTP/1.1 %d X\r\n%s\r\nhello" % (status, field), head_only=head_only)
    assert (got.status, got.body, got.whole, got.left) == (status, b"", True, b"hello")
    # A 204 or 304 that announces a body may be followed by it.
    assert got.reusable == (head_only or not field)


def test_an_empty_body_of_known_length_is_whole_with_the_head() -> None:
    got = agreed(OK + b"Content-Length: 0\r\n\r\n")
    assert (got.body, got.whole, got.reusable) == (b"", True, True)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "head"),
        (OK, "head"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "head"),
        (OK + b"Content-Length: 5\r\n\r\nhell", "1 bytes before"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "last chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "last chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n", "last chunk"),
    ],
)
def test_a_stream_that_ends_in_the_middle_is_an_error(data: bytes, what: str) -> None:
    with pytest.raises(TruncatedResponse, match=what):
        read([data], ends=True)


# ---- Whether its connection can carry another ----


@pytest.mark.parametrize(
    ("start", "field", "reusable"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: x, CLOSE ,y\r\n", False),
        (b"HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: closed\r\n", True),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_version_and_connection_say_whether_another_exchange_may_follow(
    start: bytes, field: bytes, reusable: bool
) -> None:
    got = agreed(start + b" 200 OK\r\nContent-Length: 1\r\n" + field + b"\r\nx")
    assert (got.body, got.reusable) == (b"x", reusable)


def test_chunks_of_http_1_0_are_read_and_the_connection_ends() -> None:
    got = agreed(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert (got.body, got.whole, got.reusable) == (b"ok", True, False)


# ---- What it says ----


def test_what_a_head_says_is_there_as_it_came() -> None:
    reader = ResponseReader(STRICT)
    head = (
        b"HTTP/1.0 404 Nicht  gefunden\r\nSet-Cookie: a=1\r\nset-cookie:b=2\t\r\nX-Empty:\r\nX-Latin: \xe9\r\n"
        b"Content-Encoding: gzip\r\ncontent-encoding: br\r\nKeep-Alive: timeout=5\r\n\r\n"
    )
    assert reader.read_head(head + b"rest") == len(head)
    assert (reader.status, reader.reason, reader.version) == (404, "Nicht  gefunden", "1.0")
    assert reader.headers.getall("SET-COOKIE") == ["a=1", "b=2"]
    assert reader.headers["x-empty"] == ""
    assert reader.headers["X-Latin"] == "\udce9"
    assert (reader.content_encoding, reader.keep_alive) == (b"gzip, br", b"timeout=5")
    assert reader.ends_with_stream


@pytest.mark.parametrize(
    ("line", "reason"), [(b"200 OK", "OK"), (b"200", ""), (b"200 ", ""), (b"200  OK", "OK"), (b"999 X", "X")]
)
def test_the_words_behind_the_status_are_optional(line: bytes, reason: str) -> None:
    reader = ResponseReader(STRICT)
    reader.read_head(b"HTTP/1.1 " + line + b"\r\n\r\n")
    assert (reader.status, reader.reason) == (int(line[:3]), reason)


def test_interim_responses_are_passed_over_with_what_they_say() -> None:
    interim = b"HTTP/1.1 100 Continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 104 X\r\n\r\nHTTP/1.1 199 Y\r\n\r\n"
    got = agreed(interim + early + OK + b"Content-Length: 2\r\n\r\nok")
    assert (got.status, got.headers, got.body, got.reusable) == (200, [("Content-Length", "2")], b"ok", True)


def test_a_100_lets_the_body_go_and_other_interim_responses_do_not() -> None:
    reader = ResponseReader(STRICT)
    reader.read_head(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert not reader.continued
    reader.read_head(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert reader.continued
    assert not reader.has_head


def test_a_few_line_ends_before_a_head_are_skipped() -> None:
    got = agreed(b"\r\nHTTP/1.1 100 Continue\r\n\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n")
    assert (got.status, got.whole, got.reusable) == (200, True, True)
    assert "begin" in refused(b"\r\n" * 5 + OK + b"Content-Length: 0\r\n\r\n")


# ---- What is refused ----


@pytest.mark.parametrize(
    "data",
    [
        # What llhttp accepts, and must not be: see the table of decisions in docs.
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"ICE/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1\t200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, identity\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        OK + b"Transfer-Encoding: xchunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: \r\n\r\n",
        OK + b"Transfer-Encoding: chunked\t\r\n\r\n",
        # What llhttp refuses.
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 2, 2\r\n\r\n",
        OK + b"Content-Length: +2\r\n\r\n",
        OK + b"Content-Length: -2\r\n\r\n",
        OK + b"Content-Length: 0x2\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Content-Length: 9999999999999999999\r\n\r\n",
        OK + b"Content-Length: 9223372036854775808\r\n\r\n",
        OK + b"\r\r\n\r\n",
        b"HTTP/1.1 200 OK\r\r\n\r\n",
        b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"A : secret\r\n\r\n",
        OK + b": secret\r\n\r\n",
        OK + b"secret\r\n\r\n",
        OK + b"A: secret\x00\r\n\r\n",
        OK + b"A: secret\rB: x\r\n\r\n",
        OK + b"A\x7f: secret\r\n\r\n",
        # Other protocols.
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example.org ESMTP secret\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"<html>secret</html>",
        b"hTTP/1.1 200 OK\r\n\r\n",
    ],
)
@pytest.mark.parametrize("rules", [STRICT, LENIENT], ids=["strict", "lenient"])
def test_what_is_no_response_is_refused(data: bytes, rules: ResponseRules) -> None:
    assert refused(data, rules=rules)


def test_what_speaks_another_protocol_is_refused_at_its_first_bytes() -> None:
    for data in (b"S", b"HTTPS", b"HTTP/2"):
        with pytest.raises(MalformedResponse):
            read([data])
    assert read([b"HTTP/1"]).status == 0


# ---- What lenient reading allows ----

LF = b"HTTP/1.1 200 OK\nContent-Length: 2\nServer: GoAhead-Webs\n\nok"
FOLDED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain;\r\n \t charset=utf-8 \r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("data", [LF, FOLDED, b"\n" + LF])
def test_lines_with_lf_alone_and_folded_fields_are_read_unless_the_rules_are_strict(data: bytes) -> None:
    assert agreed(data, rules=LENIENT).body == b"ok"
    assert refused(data, rules=STRICT)


def test_a_folded_field_is_one_with_a_blank_in_place_of_the_fold() -> None:
    got = agreed(FOLDED, rules=LENIENT)
    assert got.headers == [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "2")]


@pytest.mark.parametrize("data", [OK + b" secret: x\r\n\r\n", b"HTTP/1.1 200\r\n OK\r\n\r\n"])
def test_a_fold_behind_the_status_line_is_refused(data: bytes) -> None:
    assert "continues no field" in refused(data, rules=LENIENT)


def test_a_fold_hides_no_second_field_and_no_second_length() -> None:
    refused(OK + b"A: b\r\n Content-Length: 3\r\nContent-Length: 1\r\n, 2\r\n\r\n", rules=LENIENT)
    got = agreed(OK + b"A: b\r\n Content-Length: 3\r\nContent-Length: 1\r\n\r\nx", rules=LENIENT)
    assert got.headers == [("A", "b Content-Length: 3"), ("Content-Length", "1")]


# ---- Limits ----


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (OK + b"A: " + b"x" * 1000, "line"),
        (OK + b"A: " + b" " * 1000, "line"),
        (b"HTTP/1.1 200 " + b"O" * 1000, "line"),
        (OK + b"A: b\r\n" + (b" " + b"c" * 50 + b"\r\n") * 1000, "line"),
        (OK + b"A: b\r\n" * 30, "fields"),
        (OK + b"A: " + b"x" * 90 + b"\r\n" + (b"B: " + b"x" * 90 + b"\r\n") * 20, "head is longer"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, "interim"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"A: " + b"x" * 1000, "line"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 30, "fields"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * 1000, "trailer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + (b"A: " + b"x" * 90 + b"\r\n") * 30, "trailers is longer"),
    ],
)
def test_what_a_server_can_make_endless_has_a_limit(data: bytes, limit: str) -> None:
    rules = ResponseRules(max_head_size=800, max_field_size=200, max_fields=20, max_interim=3)
    # Byte by byte, and never whole: what is on hand then is what the limit lets in.
    for size in (1, 7, len(data)):
        with pytest.raises(MalformedResponse) as caught:
            read([data[at : at + size] for at in range(0, len(data), size)], rules=rules)
        assert limit in str(caught.value)
        assert caught.value.details["limit"]


def test_what_is_at_its_limit_passes() -> None:
    rules = ResponseRules(max_head_size=17 + 6 * 20 + 2, max_field_size=17, max_fields=20)
    got = agreed(OK + b"A: b\r\n" * 20 + b"\r\n", rules=rules, head_only=True)
    assert len(got.headers) == 20
    with pytest.raises(MalformedResponse):
        read([OK + b"A: bc\r\n" + b"A: b\r\n" * 19 + b"\r\n"], rules=rules)


def test_long_heads_of_real_servers_are_within_the_defaults() -> None:
    many = b"".join(b"Set-Cookie: c%d=%d\r\n" % (n, n) for n in range(140))
    for field in (b"Content-Security-Policy: " + b"a" * 12_000 + b"\r\n", many):
        assert read([OK + field + b"Content-Length: 0\r\n\r\n"]).whole
