"""What opens the transports of a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.h1.transport import H1Transport
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Answer, Transport, Trip

if TYPE_CHECKING:
    from pepperpy.network.http.aiohttp_transport.wire import AiohttpTransport


class Transports:
    """Our own core carries all exchanges. aiohttp, made when somebody asks for it, has connections of its own.

    Its import is left until then: it takes longer than all of a first request.
    """

    def __init__(self, config: HTTPConfig, jar: CookieJar) -> None:
        self._config = config
        self._jar = jar
        self.core: H1Transport = H1Transport(config)
        self.default_headers: Mapping[str, str] = self.core.default_headers
        self._aiohttp: AiohttpTransport | None = None

    @property
    def session(self) -> Any:
        if self._aiohttp is None:
            self._aiohttp = _by_aiohttp(self._config, self._jar)
        return self._aiohttp.session

    @property
    def open_connections(self) -> int:
        return self.core.open_connections + (0 if self._aiohttp is None else self._aiohttp.open_connections)

    @property
    def discarded(self) -> int:
        return self.core.discarded + (0 if self._aiohttp is None else self._aiohttp.discarded)

    def exchange(self, request: Request, trip: Trip) -> Awaitable[Answer]:
        return self.core.exchange(request, trip)

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


def _by_aiohttp(config: HTTPConfig, jar: CookieJar) -> AiohttpTransport:
    from pepperpy.network.http.aiohttp_transport.wire import AiohttpTransport

    return AiohttpTransport(config, jar)


def _open(config: HTTPConfig, jar: CookieJar) -> Transport:
    if config.transport == "aiohttp":
        return _by_aiohttp(config, jar)
    return Transports(config, jar)


# What opens the transport of a client; `pepperpy.network.testing` puts its own here.
make_transport: Callable[[HTTPConfig, CookieJar], Transport] = _open
