"""JSON both ways: the fastest library that is installed, and the same answers whichever that is.

The standard library is the judge. msgspec and orjson do what all three do alike, which is nearly everything; the rest
(integers beyond 64 bits, NaN, UTF-16, types that JSON does not have) is the standard library's to accept or to refuse.
"""

from __future__ import annotations

import functools
import importlib
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

from pepperpy.network.errors import not_installed
from pepperpy.network.printable import printable

if TYPE_CHECKING:
    JSONValue: TypeAlias = Union[str, int, float, bool, Sequence["JSONValue"], Mapping[str, "JSONValue"], None]  # noqa: UP007
else:
    # typing.get_type_hints() of a function that names the recursive type would fail outside of this module.
    JSONValue = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None

RequestData: TypeAlias = JSONValue
"""What can be sent as `json=`: any JSON value, most often a mapping."""


@dataclass(frozen=True)
class JSONCodec:
    """How JSON is written and read; give your own to `HTTPConfig.json_codec`.

    Attributes:
        name: For people; not heeded.
        dumps: From a value to UTF-8. Raises `TypeError` for what JSON has no form for, `ValueError` for NaN, infinity
            (RFC 8259, section 6), lone surrogates and circular references.
        loads: From a body to a value. Raises `ValueError`, with the position where it can, for what is no JSON.
    """

    name: str
    # A partial shows its arguments, and one may be a key.
    dumps: Callable[[Any], bytes] = field(repr=False)
    loads: Callable[[bytes], Any] = field(repr=False)


class _BuiltinCodec(JSONCodec):
    """One of this module's: a type is decoded from the bytes at once."""


@functools.cache
def default_codec() -> JSONCodec:
    """The codec of msgspec if it is installed, else of orjson, else of the standard library.

    `loads` also accepts a byte order mark, UTF-16 and UTF-32; the last of several equal keys wins. `dumps` also accepts
    other mappings and sequences than dict and list. Neither imports anything before the first call of this function.
    """
    for name in ("msgspec", "orjson"):
        try:
            return builtin_codec(name)
        except ImportError:
            continue
    return builtin_codec("stdlib")


@functools.cache
def builtin_codec(name: str) -> JSONCodec:
    """The codec on `name`: msgspec, orjson or stdlib. Raises `ImportError` if that is not installed."""
    if name == "msgspec":
        fast = importlib.import_module("msgspec.json")
        return _BuiltinCodec(name, functools.partial(_dumps, fast.encode), functools.partial(_loads, fast.decode))
    if name == "orjson":
        fast = importlib.import_module("orjson")
        return _BuiltinCodec(name, functools.partial(_dumps, fast.dumps), functools.partial(_loads_exact, fast.loads))
    return _BuiltinCodec(name, _stdlib_dumps, _stdlib_loads)


def decode_as(content: bytes, type: Any, codec: JSONCodec) -> Any:
    """`content`, which is JSON, as a `type`.

    A type of pydantic's, or one that has such a part, is pydantic's work; any other is msgspec's where that is
    installed, and pydantic's, strictly, where it is not. A codec of the user's own reads the bytes first.

    Raises:
        ValueError: Not JSON, or not of this type; the message says where. It may name keys of the body, but repeats
            nothing that was read as a str or number.
        TypeError: No library can read this type.
        UsageError: Neither library is installed; a `ModuleNotFoundError` as well, with the command that installs one.
        ImportError: The type itself needs something that is not installed, as pydantic's EmailStr does.
    """
    try:
        hash(type)
    except TypeError:  # Annotated with something unhashable
        reader = _make_reader(type)
    else:
        reader = _cached_reader(type)
    try:
        if isinstance(codec, _BuiltinCodec):
            return reader.from_json(content)
        return reader.from_value(codec.loads(content))
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


# ---- Writing ----

_SIMPLE = frozenset({str, int, bool, NoneType})


def _dumps(encode: Callable[[Any], bytes], value: Any) -> bytes:
    # Not only for speed: both libraries write NaN as null, and msgspec bytes as base64.
    try:
        if _is_plain(value):
            return encode(value)
    except (TypeError, ValueError, RecursionError):
        pass  # an integer beyond 64 bits, a lone surrogate, a circle
    return _stdlib_dumps(value)


def _is_plain(value: Any) -> bool:
    """Whether all libraries write this alike: built-in types exactly, str keys, finite numbers."""
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not (type(item) in _SIMPLE or _is_plain(item)):
                return False
        return True
    if kind is list or kind is tuple:
        return all(type(item) in _SIMPLE or _is_plain(item) for item in value)
    return kind is float and isfinite(value)


def _stdlib_dumps(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value).encode()
    except RecursionError:
        raise ValueError("the value is nested too deeply for JSON") from None


def _as_builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"JSON has no form for {type(value).__module__}.{type(value).__qualname__}")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_builtin)


# ---- Reading ----

_AS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_INTEGER = b"0" * 19  # 2**63 has 19 digits


def _loads(decode: Callable[[bytes], Any], content: bytes) -> Any:
    try:
        return decode(content)
    except (ValueError, RecursionError):
        return _stdlib_loads(content)


def _loads_exact(decode: Callable[[bytes], Any], content: bytes) -> Any:
    # orjson reads an integer beyond 64 bits as a float. This look costs less than a third of its time.
    if _LONG_INTEGER in content.translate(_AS_ZERO):
        return _stdlib_loads(content)
    return _loads(decode, content)


def _stdlib_loads(content: bytes) -> Any:
    text = content.decode(json.detect_encoding(content))
    try:
        return _DECODER.decode(text)
    except _NotJSON as error:
        word = str(error)
        what = f"{word} is not a JSON number" if word.lstrip("-").isalpha() else "Number out of range"
        # A number may be as long as the body; the start of it is enough to find it.
        position = _position(word[:100], text[:_SEARCHED])
        if position is None:
            raise ValueError(f"{what} (behind the first {_SEARCHED} characters)") from None
        raise json.JSONDecodeError(what, text, position) from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


# Characters of a body that are searched for a wrong number: mostly 1 ms, and 0.1 s if they are all empty strings.
_SEARCHED = 1 << 18


class _NotJSON(Exception):
    """A word that Python would read as a number and JSON does not have; the hooks are not told its position."""


def _refuse(word: str) -> float:
    raise _NotJSON(word)


def _finite(word: str) -> float:
    value = float(word)
    return value if isfinite(value) else _refuse(word)


def _position(word: str, text: str) -> int | None:
    """Where `word` stands in `text` outside of strings, or None; up to there, `text` is valid JSON."""
    start = 0
    while (quote := text.find('"', start)) >= 0:
        found = text.find(word, start, quote)
        if found >= 0:
            return found
        try:
            # The C function that reads strings for json.loads().
            start = scanstring(text, quote + 1)[1]
        except ValueError:
            return None  # `text` was cut inside this string
    found = text.find(word, start)
    return found if found >= 0 else None


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


# ---- Reading as a type ----


class _Reader(NamedTuple):
    from_json: Callable[[bytes], Any]
    from_value: Callable[[Any], Any]


def _make_reader(type: Any) -> _Reader:
    for_pydantic = _has_pydantic_part(type, set())
    reason: Exception | None = None
    for make in (_pydantic_reader,) if for_pydantic else (_msgspec_reader, _pydantic_reader):
        try:
            return make(type, for_pydantic)
        except ImportError as error:
            if error.name not in ("msgspec", "pydantic"):
                raise
        except (TypeError, NameError, RuntimeError) as error:  # RuntimeError: pydantic's complaints about types
            reason = error
    if reason is None:
        raise not_installed(f"reading JSON as {type!r}", "msgspec")
    raise _unreadable(type, reason) from reason


# Arbitrary: more types than a program names in its calls, few enough to keep alive.
_cached_reader = functools.lru_cache(maxsize=128)(_make_reader)


def _msgspec_reader(type: Any, for_pydantic: bool) -> _Reader:
    msgspec = importlib.import_module("msgspec")
    decode = msgspec.json.Decoder(type, dec_hook=_as_custom).decode

    def translated(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(data: Any) -> Any:
            try:
                return read(data)
            except msgspec.ValidationError as error:
                # In two of its messages is what was read.
                problem = _without_read_value(str(error))
            except _CustomType as error:
                raise _unreadable(type, f"msgspec does not know {error}") from None
            raise _misfit(problem)

        return call

    def read_json(content: bytes) -> Any:
        try:
            return decode(content)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # UTF-16, a byte order mark, a lone surrogate; or no JSON, and the standard library says where.
            return from_value(_stdlib_loads(content))

    from_value = translated(lambda value: msgspec.convert(value, type, dec_hook=_as_custom))
    return _Reader(translated(read_json), from_value)


def _without_read_value(message: str) -> str:
    for start in ("Invalid value ", "Invalid enum value "):
        if message.startswith(start):
            # The value can contain " - at `" as well, but then the message ends with a quotation mark.
            place = message.rfind(" - at `") if message.endswith("`") else -1
            return start.rstrip() + (message[place:] if place >= 0 else "")
    return message


class _CustomType(Exception):
    """msgspec takes any class for one that its user's hook reads, and asks for that only when there is a value."""


def _as_custom(type: Any, value: Any) -> Any:
    if isinstance(value, typing.get_origin(type) or type):
        return value  # made by a codec of the user's own
    raise _CustomType(repr(type))


def _pydantic_reader(type: Any, for_pydantic: bool) -> _Reader:
    pydantic = importlib.import_module("pydantic")
    adapter = pydantic.TypeAdapter(type)
    if not adapter.pydantic_complete:
        adapter.rebuild()  # a name that stands for nothing is told now
    # Strict like msgspec; a model says for itself how strict it is.
    strict = None if for_pydantic else True

    def translated(read: Callable[..., Any]) -> Callable[[Any], Any]:
        def call(data: Any) -> Any:
            try:
                return read(data, strict=strict)
            except pydantic.ValidationError as error:
                # Its own text repeats the input, which may be secret; so would a traceback with it as the cause.
                problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise _misfit(_in_words(problems))

        return call

    from_json = translated(adapter.validate_json)

    def read_json(content: bytes) -> Any:
        # The judge first: pydantic takes NaN and 1e400 for numbers.
        default_codec().loads(content)
        return from_json(content.decode(json.detect_encoding(content)))

    if for_pydantic:
        return _Reader(read_json, translated(adapter.validate_python))
    # Strict pydantic makes sets of lists, or dates of text, only where it knows that they come from JSON.
    return _Reader(read_json, lambda value: from_json(_stdlib_dumps(value)))


def _in_words(problems: list[dict[str, Any]]) -> str:
    first = problems[0]
    # The one message of pydantic's that repeats what was read.
    text = "Input tag is none of the expected ones" if first["type"] == "union_tag_invalid" else first["msg"]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{text} - at `${path}`{more}"


def _misfit(problem: str) -> ValueError:
    # It may name keys of the body.
    return ValueError(printable(problem, 500))


def _unreadable(type: Any, reason: object) -> TypeError:
    return TypeError(f"JSON cannot be read as {type!r}: {reason}")


def _has_pydantic_part(type_: Any, seen: set[int]) -> bool:
    """Whether pydantic is needed: msgspec would ignore its constraints and does not know its models."""
    if id(type_) in seen:
        return False
    seen.add(id(type_))
    if hasattr(type_, "__pydantic_core_schema__") or hasattr(type_, "__get_pydantic_core_schema__"):
        return True
    if type(type_).__module__.partition(".")[0] in ("pydantic", "annotated_types"):
        return True
    parts = [*typing.get_args(type_), getattr(type_, "__value__", None)]  # __value__: of a `type` statement
    if isinstance(type_, type) and hasattr(type_, "__annotations__"):
        try:
            parts += typing.get_type_hints(type_, include_extras=True).values()
        except NameError:
            return False  # the libraries will say which name it is
    return any(_has_pydantic_part(part, seen) for part in parts)
