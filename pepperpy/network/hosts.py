"""Checks what is given as a host, and says what to write instead of a URL, a path or a host with a port."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from pepperpy.network.checks import shown


def check_host(name: str, value: object) -> None:
    """Accept a host name or an address. An error begins with `name`, and shows nothing that may be a secret.

    Raises:
        TypeError: The value is not a string.
        ValueError: The value is a URL, a path, a host with its port, an address in brackets, or has other characters
            that no host has. The message says what to write.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    if "@" in value:
        raise ValueError(f"{name} must be a host name or address, without user name and password")
    if not value:
        raise ValueError(f"{name} must not be empty: NetworkConfig('localhost', 6379), or NetworkConfig(unix_path=...)")
    if ("/" in value or ":" in value or "[" in value) and (instead := _instead_of(value)) is not None:
        # Without the query, which may hold a secret.
        raise ValueError(f"{name} must be a host name or address, not {re.split('[?#]', value)[0]!r}; {instead}")
    if re.search(r"[\x00-\x20\x7f/\[\]]", value):
        raise ValueError(
            f"{name} must be a host name or address without spaces, slashes or brackets, not {shown(value)}"
        )


def _instead_of(value: str) -> str | None:
    scheme, separator, _ = value.partition("://")
    if separator:
        if scheme in ("tcp", "tls", "unix"):
            return "a URL of this kind is read by NetworkConfig.from_url()"
        if scheme in ("http", "https"):
            return "HTTPClient is for URLs of this kind"
        return "host and port are two fields: NetworkConfig('localhost', 6379)"
    if value.startswith("/"):
        return f"a Unix socket is NetworkConfig(unix_path={value!r})"
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(\d+))?", value)
    host, port = bracketed.groups() if bracketed else (value, None)
    if ":" in host and _is_ipv6(host):
        if not bracketed:
            return None
        return f"write NetworkConfig({host!r}, {port or 'port'}), without the brackets that a URL has"
    host, _, port = value.rpartition(":")
    if host and port.isdecimal():
        return f"the port is a field of its own: NetworkConfig({host!r}, {port})"
    return "it is no IPv6 address" if ":" in value else None


def _is_ipv6(host: str) -> bool:
    try:
        # Without the zone, whose name may have any characters.
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def plain_host(host: str) -> str:
    """The host of a URL without the escapes of an IPv6 zone: there `fe80::1%eth0` is `[fe80::1%25eth0]` (RFC 6874)."""
    address, percent, zone = host.partition("%25")
    # An unescaped "%" is accepted too, as that RFC advises.
    return f"{address}%{unquote(zone)}" if percent and zone and ":" in address else host
