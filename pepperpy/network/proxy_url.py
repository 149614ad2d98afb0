"""Reads and checks the URL of a proxy. `tcp/tunnel.py` connects through it."""

from __future__ import annotations

import importlib
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pepperpy.network.errors import not_installed
from pepperpy.network.hosts import plain_host

# The ports that a URL may leave out (RFC 9110, section 4.2).
HTTP_PORTS = {"http": 80, "https": 443}


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
        if re.search(r"[\x00-\x20\x7f]", url):
            raise ValueError("urlsplit() leaves some of them out")
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("proxy must have the form scheme://user:password@host:port, percent-encoded") from None
    if parts.scheme not in ("socks5", "socks5h", "socks4", "socks4a", "http", "https"):
        # The message leaves the scheme out: without "://" it may be a user's name.
        raise ValueError(
            "proxy must start with socks5h://, socks5://, socks4a://, socks4://, http:// or https://, as in http://host:port"
        )
    if port is None:
        port = HTTP_PORTS.get(parts.scheme)
    if not host or not port or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"proxy must have the form {parts.scheme}://user:password@host:port, percent-encoded")
    try:
        user = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("proxy must have a user and a password in UTF-8, percent-encoded") from None
    for text in (user or "", password or ""):
        # RFC 7617, section 2.
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError("proxy must have a user and a password without control characters")
        # RFC 1929 stores each length in one byte. Passwords of HTTP proxies may be tokens of any length.
        if parts.scheme.startswith("socks") and len(text.encode()) > 255:
            raise ValueError("proxy must have a user and a password of at most 255 bytes: SOCKS has no room for more")
    if parts.scheme.startswith("http") and ":" in (user or ""):
        raise ValueError("proxy must have a user without colon (RFC 7617)")
    if parts.scheme.startswith("socks") and not f"{user}{password}".isascii():
        raise ValueError("proxy must have a user and a password of ASCII: SOCKS has no word for another encoding")
    if parts.scheme.startswith("socks5") and (user is None) != (password is None):
        raise ValueError("proxy must have both user and password, or neither (RFC 1929)")
    return ProxyURL(parts.scheme, plain_host(host), port, user, password)


def without_path(url: str) -> str:
    """The URL without a path, which says nothing to a proxy. One with an "@" is part of a password, and stays."""
    scheme, separator, rest = url.partition("://")
    place, _, path = rest.partition("/")
    return url if "@" in path else f"{scheme}{separator}{place}"


def require_socks() -> None:
    """Raises: UsageError, a `ModuleNotFoundError` as well: python-socks is not installed."""
    try:
        importlib.import_module("python_socks.async_.asyncio")
    except ImportError as error:
        raise not_installed("a SOCKS proxy", "python-socks", "proxy") from error
