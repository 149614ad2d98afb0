"""Reads JSON into a type: a dataclass, a TypedDict, a model, `list[int]`. msgspec or pydantic does it.

`json_codec.py` reads and writes JSON without a type.
"""

from __future__ import annotations

import functools
import importlib
import json
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from pepperpy.network.errors import not_installed
from pepperpy.network.json_codec import BuiltinCodec, JSONCodec, default_codec, stdlib_dumps, stdlib_loads
from pepperpy.network.printable import printable


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
        if isinstance(codec, BuiltinCodec):
            return reader.from_json(content)
        return reader.from_value(codec.loads(content))
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


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
            return from_value(stdlib_loads(content))

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
    return _Reader(read_json, lambda value: from_json(stdlib_dumps(value)))


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
