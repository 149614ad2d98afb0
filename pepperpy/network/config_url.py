"""Reads configurations from text: a URL (`from_url()`), or variables of the environment (`from_env()`)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from pepperpy.network.hosts import plain_host
from pepperpy.network.keepalive import Keepalive
from pepperpy.network.settings import Settings
from pepperpy.network.tcp_settings import BufferLimits, Reconnect
from pepperpy.network.tls_config import TLSConfig


def read_url(url: str, types: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a `NetworkConfig` that `url` sets. Raises what its `from_url()` documents; shows no password.

    Args:
        types: The type of each field, as it is written in the class.
    """
    parts = _split(url, "tcp://host:port")
    if "@" in parts.netloc:
        raise ValueError("url must hold no user name or password: TCP has no place for them")
    if (read_place := _SCHEMES.get(parts.scheme)) is None:
        raise ValueError(f"url must start with tcp://, tls:// or unix://{_not(url)}")
    fields = _Fields(types, leaves_out=_ELSEWHERE, tls=parts.scheme == "tls")
    fields.values |= read_place(url, parts)
    fields.add_query(url, parts)
    return fields.result()


def read_http_url(url: str, types: Mapping[str, str]) -> dict[str, Any]:
    """The same of an `HTTPConfig`."""
    parts = _split(url, "https://user:password@host/path")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"url must start with http:// or https://{_not(url)}")
    fields = _Fields(types, leaves_out=("base_url", "unix_path", "proxy"), tls=parts.scheme == "https")
    place = parts.netloc.rpartition("@")[2]
    fields.values["base_url"] = urlunsplit((parts.scheme, place, parts.path, "", parts.fragment))
    if parts.username is not None:
        fields.values["auth"] = unquote(parts.username), unquote(parts.password or "")
    fields.add_query(url, parts)
    return fields.result()


def read_variables(
    prefix: str, types: Mapping[str, str], read: Callable[[str, Mapping[str, str]], dict[str, Any]]
) -> dict[str, Any]:
    """The fields of a configuration that variables of the environment set: `{prefix}URL`, then `{prefix}FIELD`.

    Raises:
        TypeError: `prefix` is not a string.
        ValueError: It is empty; or a variable cannot be read, or is named almost like a field.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    if not prefix:
        raise ValueError("prefix must not be empty: variables of the system would be taken for settings")
    found = {name.removeprefix(prefix): text for name, text in os.environ.items() if name.startswith(prefix)}
    fields = _Fields(types, source=prefix, tls=True)
    if (url := found.pop("URL", None)) is not None:
        try:
            fields.values |= read(url, types)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the variable {prefix}URL: {error}") from None
    import difflib  # here, because few programs read their environment

    for name, text in found.items():
        if name.lower() in fields.readers:
            fields.add(name.lower(), text, replace=True)
        elif name.lower() in types:
            raise ValueError(
                f"the variable {prefix}{name} cannot be read: {name.lower()} is no number, text, true or false"
            )
        elif close := difflib.get_close_matches(name.lower(), fields.readers, n=1, cutoff=0.85):
            # Others may be of the program itself.
            raise ValueError(f"the variable {prefix}{name} sets no field; did you mean {prefix}{close[0].upper()}?")
    return fields.result()


class _Fields:
    """The values of a configuration's fields, read from text one by one.

    Attributes:
        readers: What reads a field's text, for each field that can be set.
        values: What was read.
    """

    def __init__(
        self, types: Mapping[str, str], *, source: str = "", leaves_out: Iterable[str] = (), tls: bool
    ) -> None:
        """Args: source: The prefix of variables; empty for a URL."""
        kinds = {name: kind for name, kind in types.items() if kind in _READERS and name not in leaves_out}
        self.readers: dict[str, Callable[[str], Any]] = {name: _READERS[kind] for name, kind in kinds.items()}
        if not source:
            self.readers.pop("tls", None)  # the scheme of the URL says that
        for name, (field, _, _, read) in _OF_PARTS.items():
            if field in types and (field != "tls" or tls):
                self.readers[name] = read
        self.values: dict[str, Any] = {}
        self._source = source
        self._optional = _OPTIONAL_OF_PARTS | {name for name, kind in types.items() if "None" in kind}
        self._inner: dict[str, dict[str, Any]] = {}

    def add_query(self, url: str, parts: SplitResult) -> None:
        try:
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError("url must have a query of the form field=value&field=value") from None
        for name, text in pairs:
            if name not in self.readers:
                shown = repr(name) if "@" not in url or name in _ELSEWHERE else "***"
                raise ValueError(f"url has an unknown field {shown}; known are {', '.join(self.readers)}")
            self.add(name, text)

    def add(self, name: str, text: str, *, replace: bool = False) -> None:
        """Raises: ValueError: It cannot be read; or is there already, unless it may `replace` that."""
        field, _, attribute, _ = _OF_PARTS.get(name, (name, None, name, None))
        target = self._inner.setdefault(field, {}) if name in _OF_PARTS else self.values
        if attribute in target and not replace:
            raise ValueError(f"url has the field {name!r} twice")
        target[attribute] = self._read(name, text)

    def _read(self, name: str, text: str) -> Any:
        if name in self._optional and text.lower() == "none":
            return None
        try:
            return self.readers[name](text)
        except (ValueError, KeyError):
            shown = "***" if "@" in text else repr(text)
            what = (
                f"the variable {self._source}{name.upper()} is {shown}" if self._source else f"url has {name}={shown}"
            )
            raise ValueError(f"{what}, which cannot be read") from None

    def result(self) -> dict[str, Any]:
        """All fields, those of parts as their parts."""
        kinds = {field: kind for field, kind, _, _ in _OF_PARTS.values()}
        parts: dict[str, Any] = {}
        for field, values in self._inner.items():
            present = self.values.get(field)
            if present is False:
                where = f"the variables {self._source}* have" if self._source else "url has"
                raise ValueError(f"{where} {field}=false, and says how all the same")
            # A part that the URL among the variables has set.
            parts[field] = present.replace(**values) if isinstance(present, Settings) else kinds[field](**values)
        return self.values | parts


def _split(url: object, form: str) -> SplitResult:
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # urllib's message may contain a password.
        raise ValueError(f"url must have the form {form}?field=value, with a port up to 65535") from None
    return parts


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


_BOOLS = {"true": True, "false": False}


def _bool(text: str) -> bool:
    return _BOOLS[text.lower()]


def _bool_or_text(text: str) -> bool | str:
    return _BOOLS.get(text.lower(), text)


def _statuses(text: str) -> tuple[int, ...]:
    return tuple(int(status) for status in text.split(",") if status)


_SCHEMES: dict[str, Callable[[str, SplitResult], dict[str, Any]]] = {"tcp": _tcp, "tls": _tls, "unix": _unix}

# Fields inside of the parts of a configuration, by their name in a text: the part, its class, its field, the reader.
_OF_PARTS: dict[str, tuple[str, type[Settings], str, Callable[[str], Any]]] = {
    "server_hostname": ("tls", TLSConfig, "server_hostname", str),
    "ca_file": ("tls", TLSConfig, "ca_file", str),
    "client_cert": ("tls", TLSConfig, "client_cert", str),
    "certificate_pin": ("tls", TLSConfig, "certificate_pin", str),
    "system_trust": ("tls", TLSConfig, "system_trust", _bool),
    "ignore_unexpected_eof": ("tls", TLSConfig, "ignore_unexpected_eof", _bool),
    "proxy_ca_file": ("proxy_tls", TLSConfig, "ca_file", str),
    "proxy_client_cert": ("proxy_tls", TLSConfig, "client_cert", str),
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

# The reader of a field's text, by the type of the field. A text cannot set fields of other types.
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "int | None": int,
    "bool": _bool,
    "bool | Keepalive": _bool,
    "bool | str": _bool_or_text,
    "bool | Reconnect": _bool,
    "bool | ssl.SSLContext | TLSConfig": _bool,
    "float": float,
    "float | None": float,
    "float | Default | None": float,
    "float | aiohttp.ClientTimeout | None": float,
    "float | RateLimit | Mapping[str, float | RateLimit] | None": float,
    "str": str,
    "str | None": str,
    "str | os.PathLike[str] | None": str,
    "Literal['auto', 'aiohttp']": str,
    "Iterable[int]": _statuses,
    "Literal['return', 'raise']": str,
}
# The place stands before the query. A proxy may have a password, and no URL of TCP may contain one.
_ELSEWHERE = ("host", "port", "unix_path", "proxy")
