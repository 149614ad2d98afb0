"""Whichever JSON library is installed, the same values are written and read, and the same ones are refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import annotated_types
import msgspec
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.tiers import by_tier

from pepperpy.network import HTTPConfig
from pepperpy.network import json_codec as codec_module
from pepperpy.network.json_codec import JSONCodec, builtin_codec, decode_as, default_codec

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
        with pytest.raises(TypeError, match=rf"\b{kind}$"):
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


# ---- Which library ----


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes libraries look as if they were not installed."""

    def forget() -> None:
        for cached in (default_codec, builtin_codec, codec_module._cached_reader):
            cached.cache_clear()

    def hide_all(*names: str) -> None:
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
            monkeypatch.setitem(sys.modules, f"{name}.json", None)
        forget()

    yield hide_all
    forget()


def test_the_fastest_library_that_is_installed_is_the_default(hide: Callable[..., None]) -> None:
    assert default_codec().name == "msgspec"
    hide("msgspec")
    assert default_codec().name == "orjson"
    hide("msgspec", "orjson")
    assert default_codec().name == "stdlib"
    assert default_codec().loads(default_codec().dumps({"a": [1]})) == {"a": [1]}


def test_no_library_is_imported_before_it_is_needed() -> None:
    code = "import sys, pepperpy.network; print({'msgspec', 'orjson', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- Reading as a type ----


@dataclasses.dataclass
class Item:
    number: int
    name: str = "none"


class ItemDict(TypedDict):
    number: int


class ItemStruct(msgspec.Struct):
    number: int


class ItemModel(pydantic.BaseModel):
    number: int
    ratio: float = 0.0


@dataclasses.dataclass
class Box:
    item: ItemModel


class Pair(NamedTuple):
    first: int
    second: ItemModel


class Tagged(msgspec.Struct, tag="one"):
    number: int


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


TYPED = [
    (Item, b'{"number": 1}', Item(1)),
    (list[Item], b'[{"number": 1, "name": "a"}]', [Item(1, "a")]),
    (ItemDict, b'{"number": 1}', {"number": 1}),
    (ItemStruct, b'{"number": 1}', ItemStruct(1)),
    (list[ItemStruct], b'[{"number": 1}]', [ItemStruct(1)]),
    (ItemModel, b'{"number": 1}', ItemModel(number=1)),
    (dict[str, list[ItemModel]], b'{"a": [{"number": 1}]}', {"a": [ItemModel(number=1)]}),
    (Box, b'{"item": {"number": 1}}', Box(ItemModel(number=1))),
    (Pair, b'[1, {"number": 2}]', Pair(1, ItemModel(number=2))),
    (set[int], b"[1, 2]", {1, 2}),
    (Colour, b'"red"', Colour.RED),
    (datetime.date, b'"2024-02-29"', datetime.date(2024, 2, 29)),
    (bytes, b'"aGk="', b"hi"),
    (float, b"1", 1.0),
    (int | None, b"null", None),
    (Annotated[int, [1]], b"1", 1),  # cannot be hashed
    (Any, b"[1, {}]", [1, {}]),
]
own_codec = JSONCodec("msgspec", lambda value: b"", lambda content: json.loads(content))


@pytest.mark.parametrize(("type_", "content", "value"), TYPED, ids=lambda part: str(part)[:40])
@pytest.mark.parametrize("codec", [*CODECS, own_codec], ids=[*(codec.name for codec in CODECS), "own"])
def test_json_is_read_as_a_type(codec: JSONCodec, type_: Any, content: bytes, value: Any) -> None:
    for _ in range(2):
        result = decode_as(content, type_, codec)
        assert result == value
        assert type(result) is type(value)


@pytest.mark.parametrize("own", [False, True])
def test_without_msgspec_pydantic_reads_the_same_types_as_strictly(own: bool, hide: Callable[..., None]) -> None:
    hide("msgspec")
    codec = own_codec if own else default_codec()
    for type_, content, value in TYPED:
        # pydantic wants typing_extensions' TypedDict before Python 3.12, and knows nothing of msgspec's classes.
        if type_ not in (ItemDict, ItemStruct, list[ItemStruct], bytes):
            assert decode_as(content, type_, codec) == value
    for type_, content in ((Item, b'{"number": "1"}'), (int, b"1.0"), (str, b"1"), (bool, b"1")):
        with pytest.raises(ValueError, match=r"- at `\$"):
            decode_as(content, type_, codec)


def test_without_both_the_error_says_what_to_install(hide: Callable[..., None]) -> None:
    hide("msgspec", "pydantic")
    with pytest.raises(ModuleNotFoundError, match=r"reading JSON as .*Item.*: pip install msgspec") as caught:
        decode_as(b"{}", Item, default_codec())
    assert caught.value.name == "msgspec"


def test_what_else_a_type_needs_is_not_mistaken_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "email_validator", None)
    with pytest.raises(ImportError, match="email-validator") as caught:
        decode_as(b'"a@b.example"', pydantic.EmailStr, default_codec())
    assert caught.value.name != "msgspec"


@pytest.mark.parametrize(
    ("constrained", "good", "bad"),
    [
        (Annotated[int, msgspec.Meta(ge=10)], b"10", b"9"),
        (Annotated[int, annotated_types.Ge(10)], b"10", b"9"),
        (Annotated[int, pydantic.Field(ge=10)], b"10", b"9"),
        (list[Annotated[str, annotated_types.MaxLen(2)]], b'["ab"]', b'["abc"]'),
        (Annotated[list[int], msgspec.Meta(min_length=1)], b"[1]", b"[]"),
    ],
)
def test_constraints_of_any_library_hold(constrained: Any, good: bytes, bad: bytes) -> None:
    for codec in (default_codec(), own_codec):
        assert decode_as(good, constrained, codec) == json.loads(good)
        with pytest.raises(ValueError):
            decode_as(bad, constrained, codec)


@pytest.mark.parametrize("type_", [ItemModel, float, Any, list[float], dict[str, float]])
@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e400"])
def test_no_library_takes_what_is_no_number(type_: Any, number: bytes) -> None:
    content = {ItemModel: b'{"number": 1, "ratio": %b}', list[float]: b"[%b]", dict[str, float]: b'{"a": %b}'}
    for codec in CODECS:
        with pytest.raises(ValueError, match=r"not a JSON number|out of range"):
            decode_as(content.get(type_, b"%b") % number, type_, codec)


@pytest.mark.parametrize(
    ("type_", "content", "said"),
    [
        (list[Item], b'[{"number": 1}, {"number": "s3cr3t"}]', "$[1].number"),
        (list[ItemModel], b'[{"number": 1}, {"number": "s3cr3t"}]', "$[1].number"),
        (list[int], b'[1, "s3cr3t"]', "$[1]"),
        (dict[str, Colour], b'{"a": "s3cr3t"}', "$[...]"),
        (list[Literal["a", 1]], b'["s3cr3t"]', "$[0]"),
        (list[Colour], b'["s3cr3t - at `$.s3cr3t`"]', "$[0]"),
        (list[Tagged | None], b'[{"type": "s3cr3t", "number": 1}]', "$[0].type"),
        (list[Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]], b'[{"kind": "s3cr3t"}]', "$[0]"),
        (Annotated[str, msgspec.Meta(pattern="^a")], b'"s3cr3t"', "'^a'"),
        (Colour, b'"s3cr3t"', "Invalid enum value"),
        (Colour, b'"s3cr3t - at `$.s3cr3t`"', "Invalid enum value"),
        (list[datetime.date], b'["s3cr3t"]', "$[0]"),
        (list[pydantic.HttpUrl], b'["s3cr3t"]', "$[0]"),
    ],
)
def test_an_error_names_the_place_and_repeats_no_value(type_: Any, content: bytes, said: str) -> None:
    for codec in (*CODECS, own_codec):
        with pytest.raises(ValueError, match=re.escape(said)) as caught:
            decode_as(content, type_, codec)
        error: BaseException | None = caught.value
        while error is not None:  # as a traceback shows them
            assert SECRET not in repr(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_key_of_any_length_makes_no_message_of_that_length() -> None:
    class Closed(msgspec.Struct, forbid_unknown_fields=True):
        pass

    for type_ in (Closed, dict[str, ItemModel]):
        with pytest.raises(ValueError) as caught:
            decode_as(b'{"%b": 1}' % (b"k" * 100_000), type_, default_codec())
        assert len(str(caught.value)) <= 500


class Plain:
    pass


class HalfKnown(msgspec.Struct):
    item: ItemModel


@pytest.mark.parametrize("type_", [Plain, list[Plain], HalfKnown, 42, "Item", list["Nowhere"], type])  # type: ignore[name-defined]  # noqa: F821
def test_a_type_that_no_library_reads_is_a_type_error(type_: Any) -> None:
    for codec in (default_codec(), own_codec):
        with pytest.raises(TypeError, match="cannot be read as"):
            decode_as(b'[{"item": {}}]' if str(type_).startswith("list") else b'{"item": {}}', type_, codec)


def test_a_codec_of_the_users_own_reads_first_whatever_its_name() -> None:
    read: list[bytes] = []

    def loads(content: bytes) -> Any:
        read.append(content)
        return {"number": int(content), "made": Plain()}

    @dataclasses.dataclass
    class Made:
        number: int
        made: Plain

    codec = HTTPConfig(json_codec=JSONCodec("msgspec", repr, loads)).json_codec  # type: ignore[arg-type]
    assert codec is not None
    assert decode_as(b"7", Item, codec) == Item(7)
    assert decode_as(b"7", ItemModel, codec) == ItemModel(number=7)
    assert type(decode_as(b"7", Made, codec).made) is Plain  # one that msgspec does not know
    assert read == [b"7", b"7", b"7"]


def test_a_name_of_a_builtin_codec_does_not_make_one(hide: Callable[..., None]) -> None:
    hide("msgspec")
    assert decode_as(b"1", int, own_codec) == 1
