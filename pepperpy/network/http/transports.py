"""Which transport carries an exchange, and what opens the transports of a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

from pepperpy.network.http.aiohttp_transport.wire import AiohttpTransport
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookies import CookieJar
from pepperpy.network.http.h1.transport import H1Transport
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Answer, Transport, Trip
from pepperpy.network.proxy_url import read_proxy

Carrier = Literal["core", "aiohttp"]


def carrier_of(config: HTTPConfig, scheme: str, proxy: str | None) -> Carrier:
    """Who carries a request to a URL of this scheme: our own core, or aiohttp.

    aiohttp does what the core does not: proxies that are asked for each URL (`http://`) or over TLS, and URLs of
    proxies that a tunnel of TCP does not take.
    """
    if config.transport == "aiohttp":
        return "aiohttp"
    if proxy is None or proxy.startswith("socks") or (scheme == "https" and _is_for_tunnels(proxy)):
        return "core"
    return "aiohttp"


@lru_cache(maxsize=64)
def _is_for_tunnels(proxy: str) -> bool:
    # Without a port, say, it is one for HTTP (80) only.
    try:
        parts = read_proxy(proxy)
    except ValueError:
        return False
    # aiohttp sends credentials in Latin-1, and a tunnel of TCP in UTF-8: a proxy would know one of them.
    return parts.scheme == "http" and f"{parts.user}{parts.password}".isascii()


class Transports:
    """A `Transport` of both. Each has connections of its own; aiohttp's is made when something needs it."""

    def __init__(self, config: HTTPConfig, jar: CookieJar) -> None:
        self.default_headers: Mapping[str, str] = AiohttpTransport.default_headers
        self._config = config
        self._jar = jar
        self.core: H1Transport = H1Transport(config)
        self._aiohttp: AiohttpTransport | None = None

    @property
    def _by_aiohttp(self) -> AiohttpTransport:
        if self._aiohttp is None:
            self._aiohttp = AiohttpTransport(self._config, self._jar)
        return self._aiohttp

    @property
    def session(self) -> Any:
        return self._by_aiohttp.session

    @property
    def open_connections(self) -> int:
        return self.core.open_connections + (0 if self._aiohttp is None else self._aiohttp.open_connections)

    @property
    def discarded(self) -> int:
        return self.core.discarded + (0 if self._aiohttp is None else self._aiohttp.discarded)

    def exchange(self, request: Request, trip: Trip) -> Awaitable[Answer]:
        # Without a proxy, which nearly all have not, it is the core: _open() has seen to the rest.
        if request.proxy is None or carrier_of(self._config, request.url.scheme, request.proxy) == "core":
            return self.core.exchange(request, trip)
        return self._by_aiohttp.exchange(request, trip)

    async def close(self, seconds: float) -> None:
        try:
            await self.core.close(seconds)
        finally:
            if self._aiohttp is not None:
                await self._aiohttp.close(seconds)

    def abandon(self) -> None:
        self.core.abandon()
        if self._aiohttp is not None:
            self._aiohttp.abandon()


def _open(config: HTTPConfig, jar: CookieJar) -> Transport:
    if config.transport == "aiohttp":
        return AiohttpTransport(config, jar)
    return Transports(config, jar)


# What opens the transport of a client; `pepperpy.network.testing` puts its own here.
make_transport: Callable[[HTTPConfig, CookieJar], Transport] = _open
