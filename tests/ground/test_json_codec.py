"""Whichever JSON library is installed, the same values are written and read, and the same ones are refused."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.tiers import by_tier

from pepperpy.network.json_codec import JSONCodec, builtin_codec
from pepperpy.network.json_types import decode_as

CODECS = [builtin_codec(name) for name in ("msgspec", "orjson", "stdlib")]
SECRET = "s3cr3t"

every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers() | st.integers(-(10**60), 10**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def outcome(function: Callable[[Any], Any], value: Any) -> str:
    """The result, told apart by type and sign, or the kind of error."""
    try:
        return repr(function(value))
    except (TypeError, ValueError) as error:
        return type(error).__name__


# ---- Both ways ----


@given(values)
@example([-0.0, 0.0, 5e-324, 1.7976931348623157e308, 1e16, 1e22, 2**53 + 1])
@example([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**4299])
@example({"": '\0\x1f\x7f"\\/\u2028\u2029\ufeff\U0010ffff', "é": {}})
def test_each_codec_reads_what_any_of_them_wrote(value: Any) -> None:
    written = [codec.dumps(value) for codec in CODECS]
    for text in written:
        assert {repr(codec.loads(text)) for codec in CODECS} == {repr(value)}


PIECES = re.findall(
    "[^ \n]+",
    """
    { } [ ] , : " \\ null true false 0 -0 1 -1 01 0.5 -0.0 1. .5 + - e E 1e5 1E+5 1e400 -1e400 1e-400 1.0e+400 NaN
    Infinity -Infinity 9223372036854775808 18446744073709551616 99999999999999999999999 "a" "b": "a": "\\u0041"
    "\\ud800" "\\ud83d\\ude00" "\\udc00\\ud800" "\\x" "\\u12" 'a' // /**/ é \x00 \x01 \x0b \xa0 \u2028 \ufeff \t
    """,
)


@given(st.lists(st.sampled_from([*PIECES, " ", "\n"]), max_size=8).map("".join) | texts)
@example('{"a":1,"a":2}')
@example("1" * 4300)
@example("1" * 4301)
@example("1" * 400 + ".0")
@example("0." + "1" * 1000)
@example("[" * 2000 + "]" * 2000)
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("")
def test_all_codecs_read_the_same_out_of_any_text(text: str) -> None:
    content = text.encode()
    assert len({outcome(codec.loads, content) for codec in CODECS}) == 1
    try:
        value = CODECS[0].loads(content)
    except ValueError:
        return
    assert repr(value) == repr(json.loads(content))


@settings(max_examples=by_tier(300, nightly=15000))
@given(st.binary(max_size=12) | st.tuples(values, st.integers(0), st.integers(0, 255)).map(lambda v: damaged(*v)))
@example(b"\xff")
@example(b'"\xff"')
@example(b'"\xed\xa0\x80"')
@example(b'"\xc0\x80"')
def test_all_codecs_read_the_same_out_of_any_bytes(content: bytes) -> None:
    assert len({outcome(codec.loads, content) for codec in CODECS}) == 1


def damaged(value: Any, place: int, byte: int) -> bytes:
    """The JSON of `value` with one byte exchanged."""
    content = bytearray(json.dumps(value).encode())
    content[place % len(content)] = byte
    return bytes(content)


# ---- Reading ----


@every_codec
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_json_is_read_in_every_unicode_encoding(codec: JSONCodec, encoding: str) -> None:
    content = '{"ключ": ["é", "\U0001f600", 1]}'.encode(encoding)
    assert codec.loads(content) == {"ключ": ["é", "\U0001f600", 1]}
    assert decode_as(content, dict[str, list[str | int]], codec) == {"ключ": ["é", "\U0001f600", 1]}


@every_codec
def test_the_last_of_equal_keys_wins(codec: JSONCodec) -> None:
    assert codec.loads(b'{"a": 1, "b": 2, "a": 3}') == {"a": 3, "b": 2}


@every_codec
def test_a_lone_surrogate_is_read_because_json_has_a_form_for_it(codec: JSONCodec) -> None:
    assert codec.loads(b'"\\ud800"') == "\ud800"
    assert decode_as(b'["\\ud800"]', list[str], codec) == ["\ud800"]


@every_codec
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 400 + ".0"])
def test_a_number_that_is_none_is_refused_with_its_position(codec: JSONCodec, number: str) -> None:
    content = f'{{"1e400 NaN Infinity": ["\\"NaN", {number}]}}'.encode()
    with pytest.raises(json.JSONDecodeError) as caught:
        codec.loads(content)
    assert caught.value.pos == content.index(f" {number}]".encode()) + 1
    assert len(str(caught.value)) < 100


@every_codec
@pytest.mark.parametrize(
    ("content", "position"),
    [
        (b"", "line 1 column 1"),
        (b'["a"}', "line 1 column 5"),
        (b'["s3cr3t",\n"s3cr3t" 1]', "line 2 column 10"),
        (b'["s3cr3t", s3cr3t]', "line 1 column 12"),
        (b'["s3cr3t", "s3cr3t', "line 1 column 12"),
        (b'["s3cr3t"] s3cr3t', "line 1 column 12"),
        (b'["s3cr3t", "\xff"]', "position 12"),
        (b'["s3cr3t", "\\s3cr3t"]', "line 1 column 13"),
    ],
)
def test_an_error_of_reading_says_where_and_repeats_nothing(codec: JSONCodec, content: bytes, position: str) -> None:
    for read in (codec.loads, lambda content: decode_as(content, list[str], codec)):
        with pytest.raises(ValueError, match=position) as caught:
            read(content)
        assert SECRET not in str(caught.value)


@every_codec
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_nesting_beyond_the_stack_is_a_value_error(codec: JSONCodec, content: bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        codec.loads(content)
    with pytest.raises(ValueError):
        decode_as(content, Any, codec)


# ---- Writing ----


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


class Table(Mapping[str, Any]):
    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


@every_codec
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, (2,)), b"[1,[2]]"),
        (Point(1, 2), b"[1,2]"),
        (range(3), b"[0,1,2]"),
        (collections.deque(["a"]), b'["a"]'),
        (Table({"a": Table({"b": (1,)})}), b'{"a":{"b":[1]}}'),
        (types.MappingProxyType({"a": 1}), b'{"a":1}'),
        (collections.OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        ({1: 2, None: 3, False: 4}, b'{"1":2,"null":3,"false":4}'),
        ([Number.ONE, True], b"[1,true]"),
        (2**64, b"18446744073709551616"),
        (-0.0, b"-0.0"),
        ("é\u2028", b'"\xc3\xa9\xe2\x80\xa8"'),
    ],
)
def test_other_mappings_and_sequences_than_dict_and_list_are_written(codec: JSONCodec, value: Any, text: bytes) -> None:
    assert codec.dumps(value) == text


@every_codec
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_not_written_in_any_place(codec: JSONCodec, number: float) -> None:
    for value in (number, [1, number], {"a": {"b": (number,)}}, {number: 1}, Table({"a": number})):
        with pytest.raises(ValueError, match="JSON compliant"):
            codec.dumps(value)


@every_codec
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"x", "bytes"),
        (bytearray(b"x"), "bytearray"),
        (memoryview(b"x"), "memoryview"),
        ({1}, "set"),
        (iter([1]), "list_iterator"),
        (decimal.Decimal(1), "Decimal"),
        (datetime.date(2024, 1, 1), "date"),
        (Colour.RED, "Colour"),
        (object(), "object"),
        ({b"a": 1}, "bytes"),
        ({(1, 2): 1}, "tuple"),
    ],
)
def test_what_json_has_no_form_for_is_a_type_error_that_names_it(codec: JSONCodec, value: Any, kind: str) -> None:
    for wrapped in (value, [1, value], {"a": value}):
        with pytest.raises(TypeError, match=rf"(?m)\b{kind}$"):  # 3.14 adds notes
            codec.dumps(wrapped)


@every_codec
def test_what_cannot_be_written_is_a_value_error(codec: JSONCodec) -> None:
    ring: list[Any] = []
    ring.append(ring)
    table: dict[str, Any] = {}
    table["a"] = Table(table)
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    for value, reason in (
        (ring, "Circular"),
        (table, "Circular"),
        (deep, "nested too deeply"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
    ):
        with pytest.raises(ValueError, match=reason):
            codec.dumps(value)
