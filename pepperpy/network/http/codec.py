"""JSON both ways: msgspec where it is installed, else orjson, else the standard library; the same results from each."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

JSONValue: TypeAlias = Union[str, int, float, bool, None, Sequence["JSONValue"], Mapping[str, "JSONValue"]]

# What a request's `json` is: an object as a rule, but any JSON value is taken.
RequestData: TypeAlias = JSONValue


@dataclass(frozen=True)
class JSONCodec:
    """How JSON is written and read.

    Attributes:
        name: For people.
        dumps: A value to UTF-8 bytes; raises TypeError or ValueError for what JSON cannot hold.
        loads: Bytes to a value; raises ValueError for what is not JSON.
    """

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON (RFC 8259, section 6)")


def _stdlib_dumps(value: Any) -> bytes:
    # Raises for NaN and infinity, which JSON does not have.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _stdlib_loads(content: bytes) -> Any:
    return json.loads(content.decode(json.detect_encoding(content)), parse_constant=_reject_constant)


STDLIB = JSONCodec("json", _stdlib_dumps, _stdlib_loads)


def _through(name: str, fast_loads: Callable[[bytes], Any]) -> JSONCodec:
    """Reads with `fast_loads`, and asks the standard library about what that refuses.

    The standard library also reads integers of any size and UTF-16 and -32, and its errors say where.
    Writing stays with the standard library: msgspec and orjson write NaN as null, and take datetimes and
    dataclasses each in its own way, so that what is sent would depend on what happens to be installed.
    """

    def loads(content: bytes) -> Any:
        try:
            return fast_loads(content)
        except ValueError:
            return _stdlib_loads(content)

    return JSONCodec(name, _stdlib_dumps, loads)


@functools.cache
def default_codec() -> JSONCodec:
    """The fastest codec that is installed."""
    if importlib.util.find_spec("msgspec") is not None:
        import msgspec

        return _through("msgspec", msgspec.json.Decoder().decode)
    if importlib.util.find_spec("orjson") is not None:
        import orjson

        return _through("orjson", orjson.loads)
    return STDLIB


def decode_as(content: bytes, type: Any, codec: JSONCodec) -> Any:
    """JSON decoded into `type`: a msgspec or pydantic class, a dataclass, a TypedDict, or `list[...]` of these.

    Raises:
        ValueError: It is no JSON, or does not fit; the message says where.
        ModuleNotFoundError: No installed library knows `type`.
    """
    result = _decoder(type)(content)
    return result


@functools.lru_cache(maxsize=256)
def _decoder(type: Any) -> Callable[[bytes], Any]:
    if hasattr(type, "model_validate_json"):
        validate: Callable[[bytes], Any] = type.model_validate_json
        return validate
    has_msgspec = importlib.util.find_spec("msgspec") is not None
    if has_msgspec and not _mentions_pydantic(type):
        import msgspec

        return msgspec.json.Decoder(type).decode
    if importlib.util.find_spec("pydantic") is not None:
        import pydantic

        return pydantic.TypeAdapter(type).validate_json
    kind = "a dataclass" if dataclasses.is_dataclass(type) else repr(type)
    raise ModuleNotFoundError(
        f"decoding JSON into {kind} needs msgspec or pydantic: pip install msgspec", name="msgspec"
    )


def _mentions_pydantic(type: Any) -> bool:
    if hasattr(type, "model_validate_json"):
        return True
    return any(_mentions_pydantic(argument) for argument in getattr(type, "__args__", ()))
