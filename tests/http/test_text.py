"""The text of a response: what a charset means on the web, and what becomes of bytes that are no character."""

from __future__ import annotations

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import DecodeError, HTTPClient, HTTPConfig

PAGES = [
    ("gb2312", "\u6731\u9555\u57fa", "gbk"),  # U+9555 is in GBK only
    ("iso-8859-1", "\u201cquoted\u201d \u20ac", "cp1252"),
    ("us-ascii", "caf\u00e9", "cp1252"),
    ("iso-8859-9", "\u0130stanbul \u20ac", "cp1254"),
    ("shift_jis", "\u2460\u9ad9", "cp932"),
    ("euc-kr", "\ub620\ub625", "cp949"),
    ("utf-16", "caf\u00e9", "utf-16"),
]


@pytest.mark.parametrize(("charset", "text", "codec"), PAGES)
async def test_a_charset_means_what_it_means_in_browsers(charset: str, text: str, codec: str) -> None:
    page = response(text.encode(codec), f"Content-Type: text/html; charset={charset}")
    async with http_peer(answering(page)) as peer, HTTPClient(HTTPConfig(text_errors="strict")) as client:
        assert await client.get(peer.url) == text


async def test_each_byte_of_iso_8859_1_can_be_read_as_before_windows_1252() -> None:
    page = response(bytes(range(256)), "Content-Type: text/html; charset=iso-8859-1")
    async with http_peer(answering(page)) as peer, HTTPClient(HTTPConfig(text_errors="strict")) as client:
        text = await client.get(peer.url)
    assert (len(text), text[0x81], text[0x93], text[0xFF]) == (256, "\x81", "\u201c", "\xff")


CUT = "caf\u00e9 ".encode() + b"\xe2\x82"


async def test_what_is_no_character_is_replaced_and_its_bytes_stay() -> None:
    async with http_peer(answering(response(CUT, "Content-Type: text/html; charset=utf-8"))) as peer:
        async with HTTPClient() as client:
            answer = await client.request("GET", peer.url)
            assert (answer.text, answer.content) == ("caf\u00e9 \ufffd", CUT)
            assert await client.get(peer.url) == "caf\u00e9 \ufffd"
        async with HTTPClient(HTTPConfig(text_errors="ignore")) as client:
            assert await client.get(peer.url) == "caf\u00e9 "
        async with HTTPClient(HTTPConfig(text_errors="strict")) as client:
            with pytest.raises(DecodeError, match="not text in utf-8") as caught:
                await client.get(peer.url)
            assert caught.value.content == CUT


async def test_a_hole_in_a_windows_code_page_is_replaced_too() -> None:
    page = response(b"a\xffb", "Content-Type: text/html; charset=windows-1253")
    async with http_peer(answering(page)) as peer, HTTPClient() as client:
        assert await client.get(peer.url) == "a\ufffdb"


@pytest.mark.parametrize(
    ("charset", "content", "value"),
    [
        ("iso-8859-1", b'["\x93\x81\xff"]', ["\u201c\x81\xff"]),
        # Every reader of JSON would take it for UTF-8, and no other encoding has ASCII's characters alone.
        ("us-ascii", '["caf\xe9"]'.encode(), ["caf\xe9"]),
        ("ascii", b'["caf"]', ["caf"]),
    ],
)
async def test_json_is_read_in_the_encoding_that_it_has(charset: str, content: bytes, value: list[str]) -> None:
    page = response(content, f"Content-Type: application/json; charset={charset}")
    async with http_peer(answering(page)) as peer, HTTPClient() as client:
        assert await client.get_json(peer.url) == value
        async with client.stream("GET", peer.url) as stream:
            assert [line async for line in stream.json_lines()] == [value]


async def test_json_is_never_replaced() -> None:
    page = response(b'["\xff"]', "Content-Type: application/json")
    async with http_peer(answering(page)) as peer, HTTPClient() as client:
        with pytest.raises(DecodeError, match="not JSON"):
            await client.get_json(peer.url)
