"""`NetworkConfig.from_url()`: what a URL says, as the fields of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pepperpy.network.hosts import plain_host


def read_url(url: str, types: Mapping[str, str]) -> dict[str, Any]:
    """The fields that `url` sets. Raises what `NetworkConfig.from_url()` documents, and never shows a password.

    Args:
        types: Of each field of the configuration, its type as it is written in the class.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # urllib's own words repeat what may be a password.
        raise ValueError("url must have the form tcp://host:port?field=value, with a port up to 65535") from None
    if "@" in parts.netloc:
        raise ValueError("url must hold no user name or password: TCP has no place for them")
    if (read_place := _SCHEMES.get(parts.scheme)) is None:
        raise ValueError(f"url must start with tcp://, tls:// or unix://{_not(url)}")
    fields = read_place(url, parts)
    readers = {name: _READERS[kind] for name, kind in types.items() if kind in _READERS and name not in _ELSEWHERE}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("url must have a query of the form field=value&field=value") from None
    for name, text in pairs:
        if name not in readers:
            shown = repr(name) if "@" not in url or name in _ELSEWHERE else "***"
            raise ValueError(f"url has an unknown field {shown}; known are {', '.join(readers)}")
        if name in fields:
            raise ValueError(f"url has the field {name!r} twice")
        fields[name] = _from_text(name, text, readers[name])
    return fields


def _not(url: str) -> str:
    # The query may hold a proxy with its password; and where an "@" is, a password with a "/", "?" or "#" may be.
    return "" if "@" in url else f", not {re.split('[?#]', url)[0]!r}"


def _tcp(url: str, parts: SplitResult) -> dict[str, Any]:
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError(f"url must have the form {parts.scheme}://host:port?field=value{_not(url)}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"url must name a host and a port{_not(url)}")
    return {"host": plain_host(parts.hostname), "port": parts.port}


def _tls(url: str, parts: SplitResult) -> dict[str, Any]:
    return _tcp(url, parts) | {"tls": True}


def _unix(url: str, parts: SplitResult) -> dict[str, Any]:
    if parts.netloc or parts.fragment or not parts.path:
        raise ValueError(f"url must have the form unix:///path?field=value{_not(url)}")
    return {"unix_path": unquote(parts.path)}


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_SCHEMES: dict[str, Callable[[str, SplitResult], dict[str, Any]]] = {"tcp": _tcp, "tls": _tls, "unix": _unix}

# By the type of a field, the reader of its text; fields of other types cannot be set by a URL.
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "int | None": int,
    "bool": _bool,
    "float": float,
    "float | None": float,
    "float | Default | None": float,
    "str | None": str,
}
# The place is what stands before the query, and a proxy may have a password, which no URL here may show.
_ELSEWHERE = ("host", "port", "unix_path", "proxy")


def _from_text(name: str, text: str, read: Callable[[str], Any]) -> Any:
    if text.lower() == "none":
        return None
    try:
        return read(text)
    except (ValueError, KeyError):
        shown = "***" if "@" in text else repr(text)
        raise ValueError(f"url has {name}={shown}, which cannot be read") from None
