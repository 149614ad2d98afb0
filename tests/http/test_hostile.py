"""What a server says reaches people bounded and printable, costs no time, and is never the end of a call by itself."""

from __future__ import annotations

import encodings
import logging
import time
import traceback
from typing import Any

import msgspec
import pytest
from support.http_faults import answering, chunked_response, closing_after, response
from support.http_peer import http_peer

from pepperpy.network import (
    DecodeError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    InvalidRequestError,
    NetworkError,
    ProtocolError,
    RedirectError,
    ResponseLimits,
)
from pepperpy.network.http.content import content_length, encoding_of, parse_content_type
from pepperpy.network.json_codec import builtin_codec
from pepperpy.network.json_types import decode_as
from pepperpy.network.printable import printable, printable_bytes

# A terminal's orders (ESC, and CSI of C1), what is no UTF-8, a character that turns the text around.
DIRTY = b"\x1b[31m\x9b2J\xe1 \xe2\x80\xae"
HEAD = b"HTTP/1.1 200 OK\r\n"

HOSTILE = {
    "status": b"HTTP/1.1 2" + DIRTY + b" OK\r\n\r\n",
    "version": b"HTTP/9" + DIRTY + b" 200 OK\r\n\r\n",
    "no http": DIRTY * 100 + b"\r\n\r\n",
    "reason": b"HTTP/1.1 404 " + DIRTY * 500 + b"\r\nContent-Length: 0\r\n\r\n",
    "header name": HEAD + DIRTY + b": x\r\n\r\n",
    "header value": b"HTTP/1.1 500 x\r\nX-A: " + DIRTY + b"\r\nContent-Length: 0\r\n\r\n",
    "length": HEAD + b"Content-Length: 1" + DIRTY + b"\r\n\r\n",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n" + DIRTY + b"\r\n",
    "compression": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 30\r\n\r\n" + (DIRTY * 3)[:30],
    "location": b"HTTP/1.1 302 x\r\nLocation: http://" + DIRTY + b"/\r\nContent-Length: 0\r\n\r\n",
    "text": HEAD + b"Content-Type: text/html; charset=" + DIRTY + b"\r\nContent-Length: 2\r\n\r\n\xe1b",
    "retry after": b"HTTP/1.1 503 x\r\nRetry-After: "
    + DIRTY
    + b"\r\nDate: "
    + DIRTY
    + b"\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("place", HOSTILE)
async def test_what_a_server_sent_is_printable_in_every_text(place: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    peer_of = http_peer(closing_after(HOSTILE[place]))
    async with peer_of as peer, HTTPClient(HTTPConfig(retries=1, retry_delay=0)) as client:
        for ask in (client.get, client.get_json):
            with pytest.raises(NetworkError) as caught:
                await ask(peer.url)
            error = caught.value
            texts = [str(error), repr(error), str(error.details), *traceback.format_exception(error), caplog.text]
            if isinstance(error, HTTPStatusError):
                texts += [error.reason, *error.headers.values()]
            for line in "\n".join(texts).splitlines():
                assert line.isprintable(), ascii(line)
            assert len(str(error)) < 1000


@pytest.mark.parametrize("location", ["http://]x[@", "//]x[@", "http://][@h/", "http://[x]y[@z", "http://a:b:c/"])
async def test_what_a_parser_trips_over_is_an_error_of_the_servers_or_of_the_url(location: str) -> None:
    moved = response(b"", f"Location: {location}", status="302 x")
    config = HTTPConfig(retries=0, timeout=5, max_connections=1)
    async with http_peer(answering(moved)) as peer, HTTPClient(config) as client:
        for _ in range(2):  # no connection is lost to it
            with pytest.raises((ProtocolError, RedirectError)):
                await client.get(peer.url)
        with pytest.raises(InvalidRequestError):
            await client.get(location)
    with pytest.raises(ValueError, match="proxy"):
        HTTPConfig(proxy=location)


async def test_a_reason_and_headers_in_latin_1_can_be_read_and_printed() -> None:
    answer = (
        b"HTTP/1.1 404 P\xe1gina no encontrada\r\nX-Owner: caf\xe9\r\nX-New: \xe2\x82\xac\r\nContent-Length: 0\r\n\r\n"
    )
    async with http_peer(answering(answer)) as peer, HTTPClient() as client:
        with pytest.raises(HTTPStatusError, match="404 Página no encontrada") as caught:
            await client.get(peer.url)
        assert caught.value.reason == "Página no encontrada"
        answered = await client.request("GET", peer.url, raise_for_status=False)
        async with client.stream("GET", peer.url, raise_for_status=False) as stream:
            for seen in (caught.value, answered, stream):
                assert (seen.headers["x-owner"], seen.headers["X-New"]) == ("café", "€")


TYPES = {
    "parentheses": "text/plain; " + "(" * 4000,
    "semicolons": "text/plain" + ";" * 8000,
    "parameters": "text/plain" + ";a=b" * 2000,
    "comments": "text/plain; charset*0*=" + "(\\" * 3500,
    "quotes": 'text/plain; charset="' + '\\"' * 3500,
    "charset": "text/plain; charset=" + "x" * 7000,
    "no type": "/" * 7000,
}


@pytest.mark.parametrize("name", TYPES)
async def test_no_content_type_costs_time_or_ends_a_call(name: str) -> None:
    async with (
        http_peer(answering(response(b'{"a": 1}', f"Content-Type: {TYPES[name]}"))) as peer,
        HTTPClient() as client,
    ):
        began = time.process_time()
        for _ in range(5):
            answered = await client.request("GET", peer.url)
            assert (answered.text, answered.encoding, answered.json()) == ('{"a": 1}', "utf-8", {"a": 1})
        # Not a measurement: what this was about took half a second each.
        assert time.process_time() - began < 1


def test_a_type_and_its_parameters() -> None:
    assert parse_content_type('Text/HTML ; Charset="ISO-8859-1"; charset=x;; a') == (
        "text/html",
        {"charset": "ISO-8859-1"},
    )
    assert parse_content_type("") == ("", {})
    assert content_length("12") == 12
    for value in ("", "-1", "1.5", "\u0665", "9" * 5000):
        assert content_length(value) is None


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        *[("utf-8", "utf-8"), ("UTF-8", "utf-8"), ("Utf-8", "utf-8"), ("UTF-8; charset=latin1", "utf-8")],
        *[("ISO_8859-1:1987", "cp1252"), ("windows-1252", "cp1252"), ("Shift_JIS", "cp932"), ("us-ascii", "cp1252")],
        *[("koi8-u", "koi8-u"), ("utf-16", "utf-16"), ("'latin1'", "cp1252"), ("gb2312", "gb18030")],
        *[("GBK", "gb18030"), ("ks_c_5601-1987", "cp949"), ("big5", "big5hkscs"), ("iso-8859-9", "cp1254")],
        *[("x-sjis", "cp932"), ("tis-620", "cp874"), ("unicode-1-1-utf-8", "utf-8"), ("cp850", "cp850")],
        *[(name, None) for name in ("replacement", "iso-2022-cn", "x-user-defined")],
        *[(name, None) for name in ("idna", "punycode", "unicode_escape", "zlib", "undefined", "charmap", "")],
    ],
)
def test_encodings_of_text_are_known_by_their_names(charset: str, encoding: str | None) -> None:
    assert encoding_of(f"text/plain; charset={charset}") == encoding


def test_a_charset_that_nobody_knows_is_not_kept() -> None:
    kept: dict[str, Any] = encodings._cache  # type: ignore[attr-defined]
    encoding_of("text/plain; charset=latin-1")
    before = len(kept)
    for number in range(100):
        for name in (f"nobody-{number}", f"utf-8-{number}", f"iso-8859-1{'-' * number}x", f"utf{'-' * number}8"):
            encoding_of(f"text/plain; charset={name}")
    assert len(kept) <= before + 1


# ---- JSON ----


CHARSETS = ["ISO-8859-1", "windows-1252", "Shift_JIS", "ISO-2022-JP", "UTF-16", "utf-8", "x-unknown"]


@pytest.mark.parametrize("charset", CHARSETS)
async def test_json_is_read_in_the_declared_charset(charset: str) -> None:
    value = {"name": "ソ表" if "JI" in charset or "JP" in charset else "José Müller"}
    text = f'{{"name": "{value["name"]}"}}'
    body = text.encode("utf-8" if charset == "x-unknown" else charset)
    kind = f"Content-Type: application/json; charset={charset}"
    async with http_peer(answering(response(body, kind))) as peer, HTTPClient() as client:
        assert await client.get_json(peer.url) == value
        assert await client.get_json(peer.url, type=dict[str, str]) == value
        if charset not in ("UTF-16", "Shift_JIS"):
            async with client.stream("GET", peer.url) as stream:
                assert [line async for line in stream.json_lines()] == [value]


async def test_a_byte_order_mark_says_more_than_the_charset_and_wrong_bytes_are_an_error() -> None:
    head = "Content-Type: application/json; charset=ISO-8859-1"
    async with http_peer(answering(response('["ü"]'.encode("utf-8-sig"), head))) as peer, HTTPClient() as client:
        assert await client.get_json(peer.url) == ["ü"]
    # 0xFF is no character of windows-1253, neither in Python nor on the web.
    head = "Content-Type: application/json; charset=windows-1253"
    async with http_peer(answering(response(b'["\xff"]', head))) as peer, HTTPClient() as client:
        with pytest.raises(DecodeError, match=r"not JSON: 'charmap' codec") as caught:
            await client.get_json(peer.url)
        assert caught.value.content == b'["\xff"]'


@pytest.mark.parametrize("name", ["stdlib", "msgspec", "orjson"])
def test_where_a_word_is_that_is_no_number(name: str) -> None:
    loads = builtin_codec(name).loads
    cases = {
        b"NaN": 0,
        b'["NaN", NaN]': 8,
        b'["\\"NaN", "\\\\", -Infinity]': 16,
        b'["a", 1e999, "NaN"]': 6,
        b"[" + b"9" * 1000 + b".5]": 1,
    }
    for body, position in cases.items():
        with pytest.raises(ValueError, match=rf"(JSON number|out of range): line 1 column {position + 1} "):
            loads(body)
    for long in (b'["' + b"a" * (1 << 18) + b'", NaN]', b"[" + b'"",' * (1 << 17) + b"NaN]"):
        with pytest.raises(ValueError, match=r"^NaN is not a JSON number \(behind the first 262144 characters\)$"):
            loads(long)


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


def test_a_key_of_the_body_is_printable_in_a_message() -> None:
    with pytest.raises(ValueError) as caught:
        decode_as(b'{"\\u001b[2J\\ud800": 1}', _Strict, builtin_codec("stdlib"))
    assert str(caught.value).isprintable()


# ---- What is no event stream ----


async def test_an_error_instead_of_events_is_an_error_with_the_start_of_it() -> None:
    body = b'{"error": "busy \x1b[2J' + b"x" * 1000
    head = f"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON;a=b\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with (
        http_peer(answering(head + body)) as peer,
        HTTPClient(HTTPConfig(limits=ResponseLimits(max_error_body=600))) as client,
    ):
        async with client.stream("POST", peer.url) as stream:
            with pytest.raises(DecodeError, match="declared as 'application/json', not as text/event-stream") as caught:
                await anext(stream.events())
        assert caught.value.content == body[:600]
        assert '{"error": "busy \\x1b[2Jxxx' in str(caught.value)
        assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


@pytest.mark.slow
async def test_a_stream_without_an_end_that_is_none_of_events_is_told_at_once() -> None:
    async def endless(connection: Any) -> None:
        await connection.read_request()
        await connection.send(HEAD + b"Content-Type: text/plain\r\n\r\nwait\n")
        await connection.wait_closed()

    async with http_peer(endless) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            with pytest.raises(DecodeError) as caught:
                await anext(stream.events())
        assert caught.value.content == b"wait\n"


async def test_events_have_parameters_or_no_type() -> None:
    for head in ("Content-Type: Text/Event-Stream;charset=UTF-8", "Content-Type: text/event-stream", "X-A: b"):
        async with http_peer(answering(chunked_response([b"data: 1\n\n"], head))) as peer, HTTPClient() as client:
            async with client.stream("GET", peer.url) as stream:
                assert [event.data async for event in stream.events()] == ["1"]


# ---- Text ----


def test_printable_is_bounded_and_on_one_line() -> None:
    assert printable("Página \u202e\n\x1b\udce1") == "Página \\u202e\\n\\x1b\\udce1"
    assert printable("a" * 200) == "a" * 200
    assert printable("a" * 10**7) == "a" * 197 + "..."
    assert len(printable("\0" * 10**7)) == 200
    assert printable_bytes("€\x1b".encode() + b"\xff") == "€\\x1b\\xff"
    assert printable_bytes(b"a" * 10**7, 10) == "aaaaaaa..."


async def test_a_line_that_is_no_json_is_shown_as_it_came() -> None:
    head = "Content-Type: application/x-ndjson; charset=ISO-8859-1"
    async with http_peer(answering(response(b'"\xfc"\n"\xfc\n', head))) as peer, HTTPClient() as client:
        async with client.stream("GET", peer.url) as stream:
            lines = stream.json_lines()
            assert await anext(lines) == "ü"
            with pytest.raises(DecodeError, match="line 2") as caught:
                await anext(lines)
        assert caught.value.content == b'"\xfc'
