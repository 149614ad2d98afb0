"""Reads and checks the URL of a proxy. `tcp/tunnel.py` connects through it."""

from __future__ import annotations

import importlib
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pepperpy.network.errors import not_installed
from pepperpy.network.hosts import plain_host


class ProxyURL(NamedTuple):
    """The parts of a proxy's URL, decoded."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None

    @property
    def shown(self) -> str:
        """The URL without its secrets."""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return f"{self.scheme}://{'' if self.user is None else '***@'}{host}:{self.port}"


def read_proxy(url: object) -> ProxyURL:
    """The parts of a proxy's URL.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not such a URL. No message shows what may be a password.
    """
    if not isinstance(url, str):
        raise TypeError(f"proxy must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("proxy must have the form scheme://user:password@host:port, percent-encoded") from None
    if parts.scheme not in ("socks5", "socks5h", "socks4", "socks4a", "http", "https"):
        # The message leaves the scheme out: without "://" it may be a user's name.
        raise ValueError("proxy must start with socks5h://, socks5://, socks4a://, socks4://, http:// or https://")
    if not host or not port or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"proxy must have the form {parts.scheme}://user:password@host:port, percent-encoded")
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    for text in (user or "", password or ""):
        # RFC 1929 stores each length in one byte; RFC 7617 allows no control characters.
        if len(text.encode()) > 255 or re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError("proxy must have a user and a password of at most 255 bytes, without control characters")
    if parts.scheme.startswith("http") and ":" in (user or ""):
        raise ValueError("proxy must have a user without colon (RFC 7617)")
    if parts.scheme.startswith("socks") and not f"{user}{password}".isascii():
        raise ValueError("proxy must have a user and a password of ASCII: SOCKS has no word for another encoding")
    if parts.scheme.startswith("socks5") and (user is None) != (password is None):
        raise ValueError("proxy must have both user and password, or neither (RFC 1929)")
    return ProxyURL(parts.scheme, plain_host(host), port, user, password)


def require_socks() -> None:
    """Raises: UsageError, a `ModuleNotFoundError` as well: python-socks is not installed."""
    try:
        importlib.import_module("python_socks.async_.asyncio")
    except ImportError as error:
        raise not_installed("a SOCKS proxy", "python-socks", "proxy") from error
