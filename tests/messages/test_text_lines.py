"""TextLines: lines of text, with the encoding, error handler and newline of the text layer of `open()`."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.framing import encoded, three_ways
from support.servers import peer_and_client

from pepperpy.network import DecodeError, Delimited, TextLines


async def test_lines_of_unix_and_of_windows_come_without_their_newline() -> None:
    lines = ["one", "", "grün", "a\rb"]
    await three_ways(TextLines(), "one\n\r\ngrün\r\na\rb\n".encode(), lines, b"rest")


async def test_a_newline_of_your_own_is_sent_and_received() -> None:
    codec = TextLines("latin-1", newline="\r\n")
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await framed.send("grün\nblau")
        assert await peer.receive(11) == b"gr\xfcn\nblau\r\n"
        await peer.send(b"gr\xfcn\nblau\r\n")
        assert await framed.receive() == "grün\nblau"


async def test_a_newline_outside_of_ascii_is_one_of_the_encoding() -> None:
    codec = TextLines("latin-1", newline="\u00b6")
    assert encoded(codec, ["one"]) == b"one\xb6"
    await three_ways(codec, b"one\xb6two\xb6", ["one", "two"], b"rest")


async def test_lines_of_any_kind() -> None:
    await three_ways(TextLines(newline=("\n", "\r\n", "\r")), b"a\rb\r\nc\n", ["a", "b", "c"], b"d")


async def test_a_line_that_is_no_text_is_consumed_and_the_next_one_is_good() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(TextLines())
        await peer.send(b"\xff\xfe\ngood\n")
        with pytest.raises(DecodeError, match="cannot be decoded") as caught:
            await framed.receive()
        assert caught.value.content == b"\xff\xfe"
        assert await framed.receive() == "good"


async def test_the_error_handler_decides_in_both_directions() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(TextLines("ascii", errors="backslashreplace"))
        await peer.send(b"a\xff\n")
        assert await framed.receive() == "a\\xff"
        await framed.send("ü")
        assert await peer.receive(5) == b"\\xfc\n"
        with pytest.raises(UnicodeEncodeError):
            await client.framed(TextLines("ascii")).send("ü")


@given(st.text(), st.sampled_from(["utf-8", "utf-7", "iso2022_jp", "gb18030", "shift_jis", "latin-1", "cp1252"]))
def test_a_line_that_is_accepted_comes_back_as_it_was(text: str, encoding: str) -> None:
    codec = TextLines(encoding)
    try:
        wire = encoded(codec, [text])
    except ValueError:
        return
    # Python's iso2022_jp writes an escape (1B) as it is, and cannot read that.
    assume(text.encode(encoding).decode(encoding, "replace") == text)
    assert codec.decode(wire) == (text, len(wire))


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\r", "\n"])
def test_a_line_with_a_newline_in_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="separator"):
        TextLines().encode(text)


def test_a_message_that_would_end_with_a_longer_separator_is_refused() -> None:
    codec = Delimited((b"\n", b"\r\n"))
    with pytest.raises(ValueError, match=r"would end with the separator b'\\r\\n'"):
        codec.encode(b"a\r")
    assert Delimited((b"\r\n", b"\n")).encode(b"a\r") == [b"a\r\r\n"]


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"encoding": "utf-16"}, ValueError, "as ASCII does, not 'utf-16'"),
        ({"encoding": "cp500"}, ValueError, "as ASCII does"),
        ({"encoding": "utf-8-sig"}, ValueError, "as ASCII does"),
        ({"encoding": "nonsense"}, ValueError, "unknown encoding"),
        ({"encoding": "base64"}, ValueError, "not a text encoding"),
        ({"encoding": 8}, TypeError, "encoding must be a str"),
        ({"errors": "nonsense"}, ValueError, "errors must be"),
        ({"newline": ""}, ValueError, "1 byte or more"),
        ({"newline": ()}, ValueError, "1 separator or more"),
        ({"newline": b"\n"}, TypeError, "newline must be a str"),
        ({"newline": ("\r", "\r\n")}, ValueError, "would never be found"),
        ({"max_size": 0}, ValueError, "max_size"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        TextLines(**settings)


def test_only_text_is_sent() -> None:
    with pytest.raises(TypeError, match="must be a str, not bytes"):
        TextLines().encode(b"bytes")  # type: ignore[arg-type]


def test_it_is_a_frozen_value() -> None:
    codec = TextLines("latin-1", newline="\r\n")
    assert codec == pickle.loads(pickle.dumps(codec)) != TextLines()
