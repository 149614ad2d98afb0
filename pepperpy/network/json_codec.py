"""Writes and reads JSON with the fastest library that is installed, with the same result whichever that is.

msgspec and orjson do what all three libraries do alike, which is nearly everything. The standard library decides about
the rest: integers beyond 64 bits, NaN, UTF-16, types that JSON does not have. `json_types.py` reads JSON into a type.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias, Union

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


class BuiltinCodec(JSONCodec):
    """A codec of this module. With it, `json_types.decode_as()` reads a type directly from the bytes."""


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
        return BuiltinCodec(name, functools.partial(_dumps, fast.encode), functools.partial(_loads, fast.decode))
    if name == "orjson":
        fast = importlib.import_module("orjson")
        return BuiltinCodec(name, functools.partial(_dumps, fast.dumps), functools.partial(_loads_exact, fast.loads))
    return BuiltinCodec(name, stdlib_dumps, stdlib_loads)


# ---- Writing ----

_SIMPLE = frozenset({str, int, bool, NoneType})


def _dumps(encode: Callable[[Any], bytes], value: Any) -> bytes:
    # The check is for correctness too: both libraries write NaN as null, and msgspec writes bytes as base64.
    try:
        if _is_plain(value):
            return encode(value)
    except (TypeError, ValueError, RecursionError):
        pass  # an integer beyond 64 bits, a lone surrogate, a circle
    return stdlib_dumps(value)


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


def stdlib_dumps(value: Any) -> bytes:
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
        return stdlib_loads(content)


def _loads_exact(decode: Callable[[bytes], Any], content: bytes) -> Any:
    # orjson reads an integer beyond 64 bits as a float. This check costs less than a third of orjson's time.
    if _LONG_INTEGER in content.translate(_AS_ZERO):
        return stdlib_loads(content)
    return _loads(decode, content)


def stdlib_loads(content: bytes) -> Any:
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
