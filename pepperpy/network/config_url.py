"""`NetworkConfig.from_url()`: reads a URL into the fields of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pepperpy.network.hosts import plain_host
from pepperpy.network.keepalive import Keepalive
from pepperpy.network.settings import Settings
from pepperpy.network.tcp_settings import BufferLimits, Reconnect
from pepperpy.network.tls_config import TLSConfig


def read_url(url: str, types: Mapping[str, str]) -> dict[str, Any]:
    """The fields that `url` sets. Raises what `NetworkConfig.from_url()` documents; no error shows a password.

    Args:
        types: The type of each field, as it is written in the class.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # urllib's message may contain a password.
        raise ValueError("url must have the form tcp://host:port?field=value, with a port up to 65535") from None
    if "@" in parts.netloc:
        raise ValueError("url must hold no user name or password: TCP has no place for them")
    if (read_place := _SCHEMES.get(parts.scheme)) is None:
        raise ValueError(f"url must start with tcp://, tls:// or unix://{_not(url)}")
    fields = read_place(url, parts)
    readers = {name: _READERS[kind] for name, kind in types.items() if kind in _READERS and name not in _ELSEWHERE}
    for name, (field, _, _, read) in _OF_PARTS.items():
        if field != "tls" or parts.scheme == "tls":
            readers[name] = read
    optional = _OPTIONAL_OF_PARTS | {name for name, kind in types.items() if "None" in kind}
    inner: dict[str, dict[str, Any]] = {}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("url must have a query of the form field=value&field=value") from None
    for name, text in pairs:
        if name not in readers:
            shown = repr(name) if "@" not in url or name in _ELSEWHERE else "***"
            raise ValueError(f"url has an unknown field {shown}; known are {', '.join(readers)}")
        value = _from_text(name, text, readers[name], name in optional)
        field, _, attribute, _ = _OF_PARTS.get(name, (name, None, name, None))
        target = inner.setdefault(field, {}) if name in _OF_PARTS else fields
        if attribute in target:
            raise ValueError(f"url has the field {name!r} twice")
        target[attribute] = value
    return fields | _parts(fields, inner)


def _parts(fields: dict[str, Any], inner: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kinds = {field: kind for field, kind, _, _ in _OF_PARTS.values()}
    for field in inner:
        if fields.get(field) is False:
            raise ValueError(f"url has {field}=false, and says how all the same")
    return {field: kinds[field](**values) for field, values in inner.items()}


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

# Fields inside of the parts of a configuration, by their name in a URL: the part, its class, its field, the reader.
_OF_PARTS: dict[str, tuple[str, type[Settings], str, Callable[[str], Any]]] = {
    "server_hostname": ("tls", TLSConfig, "server_hostname", str),
    "ca_file": ("tls", TLSConfig, "ca_file", str),
    "client_cert": ("tls", TLSConfig, "client_cert", str),
    "certificate_pin": ("tls", TLSConfig, "certificate_pin", str),
    "system_trust": ("tls", TLSConfig, "system_trust", _bool),
    "ignore_unexpected_eof": ("tls", TLSConfig, "ignore_unexpected_eof", _bool),
    "keepalive_idle": ("keepalive", Keepalive, "idle", int),
    "keepalive_interval": ("keepalive", Keepalive, "interval", int),
    "keepalive_count": ("keepalive", Keepalive, "count", int),
    "user_timeout": ("keepalive", Keepalive, "user_timeout", float),
    "reconnect_attempts": ("reconnect", Reconnect, "attempts", int),
    "receive_high_water": ("buffers", BufferLimits, "receive_high", int),
    "receive_low_water": ("buffers", BufferLimits, "receive_low", int),
    "send_high_water": ("buffers", BufferLimits, "send_high", int),
    "send_low_water": ("buffers", BufferLimits, "send_low", int),
}

# Those that may be None.
_OPTIONAL_OF_PARTS = {
    name for name, (_, part, attribute, _) in _OF_PARTS.items() if "None" in part.__annotations__[attribute]
}

# The reader of a field's text, by the type of the field. A URL cannot set fields of other types.
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "int | None": int,
    "bool": _bool,
    "bool | Keepalive": _bool,
    "bool | Reconnect": _bool,
    "float": float,
    "float | None": float,
    "float | Default | None": float,
    "str | None": str,
}
# The place stands before the query. A proxy may have a password, and no URL here may contain one.
_ELSEWHERE = ("host", "port", "unix_path", "proxy")


def _from_text(name: str, text: str, read: Callable[[str], Any], optional: bool) -> Any:
    if optional and text.lower() == "none":
        return None
    try:
        return read(text)
    except (ValueError, KeyError):
        shown = "***" if "@" in text else repr(text)
        raise ValueError(f"url has {name}={shown}, which cannot be read") from None
