"""Writes and reads JSON with the fastest library that is installed, with the same result whichever that is.

msgspec and orjson do what all three libraries do alike, which is nearly everything. The standard library decides about
the rest: integers beyond 64 bits, NaN, UTF-16, types that JSON does not have.
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
    # Not recursive: typing.get_type_hints() of a function outside of this module could not resolve it.
    JSONValue = str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None

RequestData: TypeAlias = JSONValue
"""What can be sent as `json=`: any JSON value, most often a mapping."""


@dataclass(frozen=True)
class JSONCodec:
    """How JSON is written and read; give your own to `HTTPConfig.json_codec`.

    Attributes:
        name: For people; the package does not use it.
        dumps: From a value to UTF-8. Raises `TypeError` for a type that JSON does not have; `ValueError` for NaN,
            infinity (RFC 8259, section 6), lone surrogates and circular references.
        loads: From a body to a value. Raises `ValueError` for what is not JSON, with the position if it is known.
    """

    name: str
    # repr=False: the repr of a partial shows its arguments, and one may be a key.
    dumps: Callable[[Any], bytes] = field(repr=False)
    loads: Callable[[bytes], Any] = field(repr=False)


class _BuiltinCodec(JSONCodec):
    """A codec of this module. With it, a typed value is decoded directly from the bytes."""


@functools.cache
def default_codec() -> JSONCodec:
    """The codec of msgspec if it is installed, else of orjson, else of the standard library.

    `loads` also accepts a byte order mark, UTF-16 and UTF-32; the last of several equal keys wins. `dumps` also accepts
    other mappings and sequences than dict and list. The libraries are imported by the first call of this function.
    """
    for name in ("msgspec", "orjson"):
        try:
            return builtin_codec(name)
        except ImportError:
            continue
    return builtin_codec("stdlib")


@functools.cache
def builtin_codec(name: str) -> JSONCodec:
    """The codec that uses `name`: msgspec, orjson or stdlib. Raises `ImportError` if that is not installed."""
    if name == "msgspec":
        fast = importlib.import_module("msgspec.json")
        return _BuiltinCodec(name, functools.partial(_dumps, fast.encode), functools.partial(_loads, fast.decode))
    if name == "orjson":
        fast = importlib.import_module("orjson")
        return _BuiltinCodec(name, functools.partial(_dumps, fast.dumps), functools.partial(_loads_exact, fast.loads))
    return _BuiltinCodec(name, _stdlib_dumps, _stdlib_loads)


def decode_as(content: bytes, type: Any, codec: JSONCodec) -> Any:
    """Decode JSON into a `type`.

    pydantic reads its own types, and types that contain one. msgspec reads any other type if it is installed, else
    pydantic does, in strict mode. A codec of the user's own decodes the bytes first.

    Raises:
        ValueError: The content is not JSON, or not of this type; the message says where. It may name keys of the body,
            but shows no value that was read.
        TypeError: No library can read this type.
        UsageError: Neither library is installed; a `ModuleNotFoundError` as well, with the command that installs one.
        ImportError: The type itself needs a package that is not installed, as pydantic's EmailStr does.
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
    # The check is for correctness too: both libraries write NaN as null, and msgspec writes bytes as base64.
    try:
        if _is_plain(value):
            return encode(value)
    except (TypeError, ValueError, RecursionError):
        pass  # an integer beyond 64 bits, a lone surrogate, a circle
    return _stdlib_dumps(value)


def _is_plain(value: Any) -> bool:
    """Whether all libraries write this value alike: built-in types but no subclasses, str keys, finite numbers."""
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not (type(item) in _SIMPLE or _is_plain(item)):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:  # noqa: SIM110 - the generator of all() costs a small value a quarter more
            if not (type(item) in _SIMPLE or _is_plain(item)):
                return False
        return True
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
    # orjson reads an integer beyond 64 bits as a float. This check costs less than a third of orjson's time.
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
        # A number may be as long as the body. Its start is enough to find it.
        position = _position(word[:100], text[:_SEARCHED])
        if position is None:
            raise ValueError(f"{what} (behind the first {_SEARCHED} characters)") from None
        raise json.JSONDecodeError(what, text, position) from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


# Characters of a body to search for a wrong number: this takes 1 ms, or 0.1 s if the body is all empty strings.
_SEARCHED = 1 << 18


class _NotJSON(Exception):
    """A word that Python reads as a number and JSON does not have. The decoder's hooks do not know its position."""


def _refuse(word: str) -> float:
    raise _NotJSON(word)


def _finite(word: str) -> float:
    value = float(word)
    return value if isfinite(value) else _refuse(word)


def _position(word: str, text: str) -> int | None:
    """The index of `word` in `text`, outside of strings; None if it is not there. `text` is valid JSON up to `word`."""
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
        raise not_installed(f"reading JSON as {type!r}", "msgspec", "json")
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
                # Two of its messages contain the value that was read.
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
            # UTF-16, a byte order mark or a lone surrogate. Or it is no JSON, and the standard library says where.
            return from_value(_stdlib_loads(content))

    from_value = translated(lambda value: msgspec.convert(value, type, dec_hook=_as_custom))
    return _Reader(translated(read_json), from_value)


def _without_read_value(message: str) -> str:
    for start in ("Invalid value ", "Invalid enum value "):
        if message.startswith(start):
            # If the value itself contains " - at `", the message ends with a quotation mark.
            place = message.rfind(" - at `") if message.endswith("`") else -1
            return start.rstrip() + (message[place:] if place >= 0 else "")
    return message


class _CustomType(Exception):
    """A class that msgspec leaves to its hook. msgspec accepts any class, and calls the hook once there is a value."""


def _as_custom(type: Any, value: Any) -> Any:
    if isinstance(value, typing.get_origin(type) or type):
        return value  # a codec of the user's own has made it
    raise _CustomType(repr(type))


def _pydantic_reader(type: Any, for_pydantic: bool) -> _Reader:
    pydantic = importlib.import_module("pydantic")
    adapter = pydantic.TypeAdapter(type)
    if not adapter.pydantic_complete:
        adapter.rebuild()  # raises now for a name that is not defined
    # Strict, as msgspec is. A model of pydantic's decides for itself how strict it is.
    strict = None if for_pydantic else True

    def translated(read: Callable[..., Any]) -> Callable[[Any], Any]:
        def call(data: Any) -> Any:
            try:
                return read(data, strict=strict)
            except pydantic.ValidationError as error:
                # Its text repeats the input, which may be secret. So would a traceback with this error as the cause.
                problems = error.errors(include_url=False, include_context=False, include_input=False)
            raise _misfit(_first_problem(problems))

        return call

    from_json = translated(adapter.validate_json)

    def read_json(content: bytes) -> Any:
        # Check the JSON first: pydantic accepts NaN and 1e400 as numbers.
        default_codec().loads(content)
        return from_json(content.decode(json.detect_encoding(content)))

    if for_pydantic:
        return _Reader(read_json, translated(adapter.validate_python))
    # In strict mode pydantic makes sets of lists, and dates of text, only when it knows that they come from JSON.
    return _Reader(read_json, lambda value: from_json(_stdlib_dumps(value)))


def _first_problem(problems: list[dict[str, Any]]) -> str:
    first = problems[0]
    # This is the one message of pydantic's that contains what was read.
    text = "Input tag is none of the expected ones" if first["type"] == "union_tag_invalid" else first["msg"]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{text} - at `${path}`{more}"


def _misfit(problem: str) -> ValueError:
    # Bounded, because it may name keys of the body.
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
