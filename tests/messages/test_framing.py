"""What each codec makes of bytes, and of messages."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cancelling import arrived
from support.framing import three_ways
from support.servers import peer_and_client
from support.tiers import by_tier

from pepperpy.network import (
    COBS,
    SLIP,
    Codec,
    DecodeError,
    Delimited,
    Fixed,
    JSONCodec,
    JSONLines,
    LengthPrefixed,
    Mapped,
    MsgPack,
    Netstring,
)

LINES = (b"\n", b"\r\n")


class Point(msgspec.Struct):
    x: int
    y: int


# The bytes are written by hand, from what defines each format; the last column is the beginning of another message.
CASES: dict[str, tuple[Codec[Any], bytes, list[Any], bytes]] = {
    "1 byte": (LengthPrefixed(1), b"\x00\x03abc\x01d", [b"", b"abc", b"d"], b"\x02x"),
    "2 bytes": (LengthPrefixed(2), b"\x00\x03abc\x00\x00", [b"abc", b""], b"\x00"),
    "2 bytes, little": (LengthPrefixed(2, byteorder="little"), b"\x03\x00abc\x00\x00", [b"abc", b""], b"\x01\x00"),
    "3 bytes": (LengthPrefixed(3), b"\x00\x01\x00" + b"x" * 256 + b"\0\0\1y", [b"x" * 256, b"y"], b"\0\0\1"),
    "4 bytes": (LengthPrefixed(4), b"\0\0\0\3abc\0\0\0\0\0\0\0\1d", [b"abc", b"", b"d"], b"\0\0\0\1"),
    "4 bytes, little": (LengthPrefixed(byteorder="little"), b"\3\0\0\0abc", [b"abc"], b"\4\0\0\0abc"),
    "8 bytes": (LengthPrefixed(8), b"\0\0\0\0\0\0\0\3abc", [b"abc"], b"\0\0\0\0\0\0\0"),
    "8 bytes, little": (LengthPrefixed(8, byteorder="little"), b"\1\0\0\0\0\0\0\0a", [b"a"], b"\0"),
    # protobuf's own example of a varint: 150 is 96 01. The last one has a group more than it needs, as it may.
    "varint": (
        LengthPrefixed("varint"),
        b"\x00\x96\x01" + b"x" * 150 + b"\x81\x00y",
        [b"", b"x" * 150, b"y"],
        b"\x96",
    ),
    # PostgreSQL: a byte, then a length that counts itself.
    "postgres": (LengthPrefixed(4, offset=1, adjust=-4), b"Z\0\0\0\5IQ\0\0\0\4", [b"ZI", b"Q"], b"C\0\0\0\5"),
    # HTTP/2: 3 bytes that count the payload only, then type, flags and stream: SETTINGS, its acknowledgement.
    "http2": (
        LengthPrefixed(3, adjust=6),
        b"\0\0\6\4\0\0\0\0\0\0\1\0\0\0\1\0\0\0\4\1\0\0\0\0",
        [b"\4\0\0\0\0\0\0\1\0\0\0\1", b"\4\1\0\0\0\0"],
        b"\0\0\0\4\1\0\0\0",
    ),
    # MQTT: PINGREQ and a PUBLISH.
    "mqtt": (
        LengthPrefixed("varint", offset=1),
        b"\xc0\0\x30\x05\0\1ahi",
        [b"\xc0", b"\x30\0\1ahi"],
        b"\x30\x05\0",
    ),
    "lines": (Delimited(), b"one\n\ntwo\r\n", [b"one", b"", b"two\r"], b"thr"),
    "crlf": (Delimited(b"\r\n"), b"a\nb\r\n\r\r\n\r\n", [b"a\nb", b"\r", b""], b"c\r"),
    "kept": (Delimited(b"\r\n", keep=True), b"a\r\n\r\n", [b"a\r\n", b"\r\n"], b"\r"),
    "lines of two kinds": (Delimited(LINES), b"a\r\nb\n\r\nc\rd\n", [b"a", b"b", b"", b"c\rd"], b"e\r"),
    "kept, of two kinds": (Delimited(LINES, keep=True), b"a\r\nb\n", [b"a\r\n", b"b\n"], b"c"),
    "any of three": (Delimited((b";", b"END", b"\0")), b"a;ENEND\0b\0", [b"a", b"EN", b"", b"b"], b"EN"),
    "overlapping itself": (Delimited(b"aab"), b"aaabaaab", [b"a", b"a"], b"aa"),
    "fixed": (Fixed(3), b"abcdef", [b"abc", b"def"], b"gh"),
    "netstring": (Netstring(), b"12:hello world!,0:,1:,,", [b"hello world!", b"", b","], b"5:hello"),
    "slip": (SLIP(), b"\xc0ab\xc0\xc0\xdb\xdc\xdb\xdd\xdd\xc0", [b"ab", b"\xc0\xdb\xdd"], b"c\xdb"),
    # The examples of Wikipedia's article on COBS, and frames of nothing between them.
    "cobs": (
        COBS(),
        b"\x01\x01\x00\x00\x03\x11\x22\x02\x33\x00\x01\x00\x02\x11\x01\x01\x01\x00",
        [b"\x00", b"\x11\x22\x00\x33", b"", b"\x11\x00\x00\x00"],
        b"\x05\x11",
    ),
    "cobs, full blocks": (
        COBS(),
        b"\xff" + b"x" * 254 + b"\0\xff" + b"x" * 254 + b"\x01\x01\0",
        [b"x" * 254, b"x" * 254 + b"\0"],
        b"\xff",
    ),
    "json": (JSONLines(), b'{"a": [1, null]}\r\n\n \t\r\nnull\n"\\n"\n', [{"a": [1, None]}, None, "\n"], b'{"a": '),
    "json, typed": (JSONLines(Point), b'{"x":1,"y":2}\n', [Point(1, 2)], b"{"),
    # The format's specification: fixmap, fixstr, nil, false, array 16.
    "msgpack": (
        MsgPack(),
        b"\0\0\0\4\x81\xa1a\xc0\0\0\0\1\xc0\0\0\0\5\xdc\0\2\xc2\7",
        [{"a": None}, None, [False, 7]],
        b"\0\0\0\1",
    ),
    "mapped": (Mapped(Netstring(), lambda n: b"%d" % n, int), b"2:42,1:7,", [42, 7], b"1:8"),
}


@pytest.mark.parametrize("name", CASES)
async def test_messages_are_found_whole_byte_by_byte_and_leave_what_follows(name: str) -> None:
    await three_ways(*CASES[name])


@pytest.mark.parametrize("name", CASES)
async def test_what_was_sent_is_what_the_other_side_decodes(name: str) -> None:
    codec, _, messages, _ = CASES[name]
    if name.startswith("kept"):
        messages = [message.rstrip(b"\r\n") for message in messages]
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        for message in messages:
            await framed.send(message)
        await framed.send_many(messages)
        wire = await peer.receive(client.stats.bytes_sent)
        await peer.send(wire)
        await arrived(client, len(wire))
        received = await client.framed(
            Delimited(codec.separator) if isinstance(codec, Delimited) else codec
        ).receive_batch()
        assert received == messages * 2


@pytest.mark.parametrize("name", CASES)
def test_a_codec_decodes_without_a_connection(name: str) -> None:
    codec, wire, messages, rest = CASES[name]
    data = b"skipped" + wire + rest
    at, found = 7, []
    while isinstance(answer := codec.decode(data, at), tuple):
        message, at = answer
        found.append(message)
    assert found == messages
    assert at == len(data) - len(rest)
    assert answer > len(rest)


def test_a_full_cobs_block_at_the_end_may_have_an_empty_one_behind_it() -> None:
    assert COBS().decode(b"\xff" + b"x" * 254 + b"\x01\0") == (b"x" * 254, 257)


BINARY = {
    "length": LengthPrefixed(2),
    "length, little": LengthPrefixed(4, byteorder="little"),
    "varint": LengthPrefixed("varint"),
    "netstring": Netstring(),
    "slip": SLIP(),
    "cobs": COBS(),
}
# Bytes that mean something to one of them come often, and so do sizes around the borders of their headers.
messages_of_any_kind = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=20),
        st.lists(st.sampled_from([b"\0", b"\xc0", b"\xdb", b"\xdc", b"x", b",", b"1:"]), min_size=1).map(b"".join),
        st.builds(
            lambda n, end: b"x" * n + end,
            st.sampled_from([126, 127, 128, 253, 254, 255, 256, 508, 16383]),
            st.binary(max_size=2),
        ),
    ),
    max_size=5,
)


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=by_tier(25, nightly=1250))
@given(messages=messages_of_any_kind)
def test_any_messages_come_back_as_they_were(name: str, messages: list[bytes]) -> None:
    codec = BINARY[name]
    data = b"".join(b"".join(codec.encode(message)) for message in messages)
    at, found = 0, []
    while isinstance(answer := codec.decode(data, at), tuple):
        message, at = answer
        found.append(message)
    assert found == messages
    assert at == len(data)
    # One byte less is one message less, and says that at least one byte is missing.
    for number in range(min(len(data), 40)):
        answer = codec.decode(data[: len(data) - number - 1])
        if not isinstance(answer, tuple):
            assert len(data) - number - 1 < answer <= len(data) + 1


@settings(max_examples=by_tier(80, nightly=4000))
@given(st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n", b";"]), max_size=30).map(b"".join), st.data())
def test_separators_are_found_where_a_plain_search_finds_them(data: bytes, draw: st.DataObject) -> None:
    separators = draw.draw(st.sampled_from([(b"\n", b"\r\n"), (b"ab", b";"), (b"b", b"aab", b"\n"), (b"aba",)]))
    codec, at = Delimited(separators), 0
    while isinstance(answer := codec.decode(data, at), tuple):
        ends = [end for end in range(at + 1, len(data) + 1) if data[at:end].endswith(separators)]
        longest = max(len(s) for s in separators if data[at : ends[0]].endswith(s))
        assert answer == (data[at : ends[0] - longest], ends[0])
        at = answer[1]
    assert not any(data[at:end].endswith(separators) for end in range(at + 1, len(data) + 1))


@pytest.mark.parametrize(
    ("codec", "message", "words"),
    [
        (LengthPrefixed(1), b"x" * 256, "message of 256 bytes exceeds the 255 that size=1 can say"),
        (LengthPrefixed(2), b"x" * 65536, "65536 bytes exceeds the 65535"),
        (LengthPrefixed(1, adjust=4), b"xyz", "message of 3 bytes is too short for adjust=4"),
        (LengthPrefixed(1, adjust=-4), b"x" * 252, "message of 252 bytes exceeds the 251"),
        (LengthPrefixed(offset=2), b"x", "offset=2 bytes or more, not 1"),
        (LengthPrefixed(max_size=3), b"four", "message of 4 bytes exceeds max_size=3"),
        (Delimited(), b"a\nb", r"message of 3 bytes contains the separator b'\\n'"),
        (Delimited((b"\n", b"END")), b"aENDb", "contains the separator b'END'"),
        (Delimited(b"aa"), b"xa", "contains the separator b'aa'"),
        (Delimited(max_size=3), b"four", "exceeds max_size=3"),
        (Fixed(3), b"four", "exceeds max_size=3"),
        (Fixed(3), b"tw", "message must have size=3 bytes, not 2"),
        (Netstring(3), b"four", "exceeds max_size=3"),
        (SLIP(), b"", "1 byte or more"),
        (COBS(3), b"four", "exceeds max_size=3"),
        (JSONLines(max_size=3), "four", "message of 6 bytes exceeds max_size=3"),
        (JSONLines(), float("nan"), "."),
        (
            JSONLines(codec=JSONCodec("pretty", lambda v: json.dumps(v, indent=1).encode(), json.loads)),
            [1],
            "separator",
        ),
    ],
)
async def test_a_message_that_has_no_frame_is_refused_and_nothing_is_queued(
    codec: Any, message: Any, words: str
) -> None:
    async with peer_and_client() as (_, client):
        framed = client.framed(codec)
        with pytest.raises(ValueError, match=words):
            await framed.send(message)
        with pytest.raises(ValueError, match=words):
            await framed.send_many([message])
        assert client.stats.bytes_sent == 0


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("text", r"bytes, not str: send message.encode\(\), or .* Mapped\(codec, str.encode, bytes.decode\)"),
        (5, "bytes, not int: JSONLines, MsgPack and Mapped send values"),
        (None, "bytes, not NoneType"),
        ([b"x"], "bytes, not list"),
    ],
)
@pytest.mark.parametrize("name", BINARY)
def test_what_is_not_bytes_is_refused_with_what_to_write_instead(name: str, message: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"message must be {words}"):
        BINARY[name].encode(message)


def test_text_where_a_function_of_a_codec_must_give_bytes_is_named() -> None:
    with pytest.raises(TypeError, match="dumps must return bytes, not str: encode the text"):
        Mapped(LengthPrefixed(), json.dumps, json.loads).encode({})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytearray, memoryview], ids=["bytearray", "memoryview"])
@pytest.mark.parametrize("name", BINARY)
def test_any_bytes_like_object_is_a_message(name: str, kind: Any) -> None:
    assert BINARY[name].encode(kind(b"abc")) == BINARY[name].encode(b"abc")


def test_a_large_message_is_not_joined_with_its_header() -> None:
    message = bytes(1 << 20)
    assert LengthPrefixed().encode(message)[1] is message
    assert Netstring().encode(message)[1] is message


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LengthPrefixed(5), ValueError, "size"),  # type: ignore[arg-type]
        (lambda: LengthPrefixed(True), ValueError, "size"),
        (lambda: LengthPrefixed(byteorder="middle"), ValueError, "byteorder"),  # type: ignore[arg-type]
        (lambda: LengthPrefixed(offset=-1), ValueError, "offset"),
        (lambda: LengthPrefixed(offset=65536), ValueError, "offset"),
        (lambda: LengthPrefixed(adjust=1 << 29), ValueError, "adjust"),
        (lambda: LengthPrefixed(max_size=0), ValueError, "max_size"),
        (lambda: LengthPrefixed(max_size="1"), TypeError, "max_size"),  # type: ignore[arg-type]
        (lambda: Delimited(b""), ValueError, "separator"),
        (lambda: Delimited(()), ValueError, "separator"),
        (lambda: Delimited("\n"), TypeError, "separator"),  # type: ignore[arg-type]
        (lambda: Delimited((b"\r", b"\r\n")), ValueError, "would never be found"),
        (lambda: Delimited(keep=1), TypeError, "keep"),  # type: ignore[arg-type]
        (lambda: Fixed(0), ValueError, "size"),
        (lambda: Fixed(1.5), TypeError, "size"),  # type: ignore[arg-type]
        (lambda: Netstring(-1), ValueError, "max_size"),
        (lambda: SLIP(True), TypeError, "max_size"),
        (lambda: COBS(1 << 70), ValueError, "max_size"),
        (lambda: JSONLines(max_size=0), ValueError, "max_size"),
    ],
)
def test_bad_settings_are_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("name", [name for name in CASES if name != "mapped"])
def test_codecs_are_values(name: str) -> None:
    codec = CASES[name][0]
    assert pickle.loads(pickle.dumps(codec)) == copy.deepcopy(codec) == codec
    assert hash(codec) == hash(copy.copy(codec))
    assert type(codec).__name__ in repr(codec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(codec, dataclasses.fields(codec)[0].name, 1)  # type: ignore[arg-type]


def test_json_sends_what_msgspec_can_read_back() -> None:
    assert b"".join(JSONLines(Point).encode(Point(1, 2))) == b'{"x":1,"y":2}\n'
    with pytest.raises(TypeError):
        JSONLines().encode(object())


def test_msgpack_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "msgspec.msgpack", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install msgspec"):
        MsgPack()


@pytest.mark.parametrize(
    ("codec", "bad", "good"),
    [
        (JSONLines(), b"{oops\n", b"1\n"),
        (JSONLines(Point), b'{"x":"no"}\n', b'{"x":1,"y":2}\n'),
        (MsgPack(), b"\0\0\0\1\xc1", b"\0\0\0\1\1"),
        (Mapped(Fixed(1), str.encode, int), b"x", b"1"),
    ],
    ids=["json", "json, typed", "msgpack", "mapped"],
)
async def test_a_message_that_cannot_be_decoded_is_one_error_and_the_next_one_is_good(
    codec: Any, bad: bytes, good: bytes
) -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(good + good + bad + good)
        await arrived(client, len(bad) + 3 * len(good))
        first = await framed.receive()
        assert await framed.receive_batch() == [first]
        with pytest.raises(DecodeError, match=r"127\.0\.0\.1:\d+: message cannot be decoded: .") as caught:
            await framed.receive_batch()
        assert caught.value.content
        assert caught.value.content in bad
        assert isinstance(caught.value.__cause__, ValueError)
        assert await framed.receive() == first
        await peer.send(bad + good)
        with pytest.raises(DecodeError):
            await framed.receive()
        assert await framed.receive_batch() == [first]


def test_a_codec_shows_no_argument_of_its_functions() -> None:
    codec = Mapped(Fixed(2), functools.partial(print, "canary"), functools.partial(print, "canary"))  # type: ignore[arg-type]
    assert repr(codec) == "Mapped(frames=Fixed(size=2))"
    lines = JSONLines(codec=JSONCodec("mine", codec.dumps, codec.loads))
    assert "mine" in repr(lines) and "canary" not in repr(lines)
