"""JSON is read into a type by whichever library is installed, as strictly; which one it is, and what to install."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import annotated_types
import msgspec
import pydantic
import pytest

from pepperpy.network import HTTPConfig, json_types
from pepperpy.network.json_codec import JSONCodec, builtin_codec, default_codec
from pepperpy.network.json_types import decode_as

CODECS = [builtin_codec(name) for name in ("msgspec", "orjson", "stdlib")]
SECRET = "s3cr3t"

# ---- Writing ----


class Colour(enum.Enum):
    RED = "red"


# ---- Which library ----


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes libraries look as if they were not installed."""

    def forget() -> None:
        for cached in (default_codec, builtin_codec, json_types._cached_reader):
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


@pytest.mark.slow
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
