"""Which proxy a connection goes through: what the environment says, and what goes without one. For TCP and HTTP alike.

The rules are those of curl (its manual, "--noproxy" and "Environment"). docs/environment.md tells them.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pepperpy.network.address_policy import literal_of
from pepperpy.network.proxy_url import HTTP_PORTS, read_proxy, without_path

# The ports that a variable may leave out. Many write host:port alone, for an HTTP proxy.
_PORTS = HTTP_PORTS | {"socks5h": 1080, "socks5": 1080, "socks4a": 1080, "socks4": 1080}


class EnvironmentProxy(str):
    """The URL of a proxy that the environment names. Unlike one set in code, `address_policy` is asked about it."""

    __slots__ = ()


class NoProxy:
    """Hosts that are connected to without a proxy, as NO_PROXY lists them, separated by commas or blanks.

    - `*`: all hosts.
    - `example.com` and `.example.com`: this name and all below it; `*.example.com`: those below it only.
    - `10.1.2.3`, `fd00::1`, `[fd00::1]`: this address; `10.0.0.0/8`, `fd00::/8`: those of the network. They match hosts
      that are written as addresses. No name is looked up for it.
    - `example.com:8080`, `10.1.2.3:8080`, `[fd00::1]:8080`, `10.0.0.0/8:8080`: only this port.
    """

    def __init__(self, text: str) -> None:
        """An entry that is none of these matches nothing; the variable is made for many programs."""
        self._all = False
        self._names: set[tuple[str, bool, int | None]] = set()  # without dots around it; whether it counts itself; port
        self._networks: list[tuple[Any, int | None]] = []
        for entry in re.split(r"[,\s]+", text.lower()):
            if entry:
                self._add(entry)

    def _add(self, entry: str) -> None:
        if entry == "*":
            self._all = True
            return
        found = re.fullmatch(r"\[([^\]]*)\](?::(\d{1,5}))?|([^:]*):(\d{1,5})|(.*)", entry)
        assert found is not None  # the last form takes any text
        address, port_1, host, port_2, rest = found.groups()
        text = address if address is not None else host if host is not None else rest
        port = int(port_1 or port_2) if port_1 or port_2 else None
        try:
            # Also of a host within it: 10.1.2.3/8.
            self._networks.append((ipaddress.ip_network(text, strict=False), port))
        except ValueError:
            below_only = text.startswith("*.")
            if name := text.removeprefix("*").strip("."):
                self._names.add((_in_ascii(name), not below_only, port))

    def covers(self, host: str, port: int) -> bool:
        """Whether a connection to this host goes without a proxy."""
        if self._all:
            return True
        if not self._names and not self._networks:
            return False
        literal = literal_of(host)
        if literal is not None:
            address = ipaddress.ip_address(literal)
            return any(address in network and only in (None, port) for network, only in self._networks)
        return any(only in (None, port) and _matches(host, name, itself) for name, itself, only in self._names)


def _matches(host: str, name: str, itself: bool) -> bool:
    host = _in_ascii(host.lower().rstrip("."))
    return host.endswith(f".{name}") or (itself and host == name)


def _in_ascii(name: str) -> str:
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


@functools.lru_cache(maxsize=64)  # configurations; arbitrary
def no_proxy_of(text: str) -> NoProxy:
    """The rules of this text, which are read once."""
    return NoProxy(text)


class EnvironmentProxies(NamedTuple):
    """The proxies that the environment names: by scheme, "all" among them, with the name of the variable."""

    proxies: dict[str, tuple[str, str]]
    no_proxy: NoProxy

    def proxy_for(
        self, scheme: str, host: str, port: int, check: Callable[[str], object] = read_proxy
    ) -> EnvironmentProxy | None:
        """The proxy for a connection to `host`; None: it goes directly.

        Args:
            scheme: "http" or "https"; "all" for one that is not of HTTP.
            check: Raises `ValueError` for what is no proxy.

        Raises:
            ValueError: The variable names no proxy that can be used. The message shows its name, and no secret.
        """
        found = self.proxies.get(scheme) or self.proxies.get("all")
        if found is None or self.no_proxy.covers(host, port):
            return None
        return _usable(*found, check)


def read_environment() -> EnvironmentProxies:
    """What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say now, in lower case first; an empty one says nothing.

    HTTP_PROXY in upper case is not read in a CGI program: there a header `Proxy` of a request sets it (CVE-2016-5385).
    Nor in lower case on Windows, whose variables are the same in both.
    """
    proxies = {}
    cgi = "REQUEST_METHOD" in os.environ
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            if cgi and (name == "HTTP_PROXY" or (scheme == "http" and os.name == "nt")):
                continue
            if value := _value_of(name):
                proxies[scheme] = name, value
                break
    return EnvironmentProxies(proxies, no_proxy_of(_value_of("no_proxy") or _value_of("NO_PROXY")))


def _value_of(name: str) -> str:
    return os.environ.get(name, "").strip()


@functools.lru_cache(maxsize=64)  # values of variables; arbitrary
def _usable(name: str, value: str, check: Callable[[str], object]) -> EnvironmentProxy:
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    # GNOME says "socks", and means one that looks up names.
    scheme = "socks5h" if scheme.lower() == "socks" else scheme.lower()
    if scheme not in _PORTS:
        known = ", ".join(f"{known}://" for known in _PORTS)
        raise ValueError(f"the variable {name} must name a proxy that starts with {known}")
    url = without_path(f"{scheme}://{rest}")
    if not re.search(r":\d+\Z", url):
        url = f"{url.removesuffix(':')}:{_PORTS[scheme]}"
    proxy = EnvironmentProxy(url)
    try:
        check(proxy)
    except ValueError as error:
        raise ValueError(f"the variable {name} names no proxy that can be used: {error}") from None
    return proxy
