"""One exchange over our own transport for HTTP, without the policy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network import HTTPConfig
from pepperpy.network.http.h1.answer import H1Answer
from pepperpy.network.http.h1.transport import H1Transport
from pepperpy.network.http.request import Defaults, Limits, Request
from pepperpy.network.http.transport import Trip

DEFAULTS = Defaults({}, {"Accept": "*/*", "Accept-Encoding": "gzip, deflate"})


class Exchanges:
    """A transport, and short ways to use it; `trip` is that of the last exchange."""

    def __init__(self, config: HTTPConfig) -> None:
        self.transport = H1Transport(config)
        self.pool = self.transport.pool
        self.trip = Trip()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        payload: Any = None,
        limits: Limits | None = None,
        proxy: str | None = None,
        verify: bool = True,
    ) -> Request:
        own = None if headers is None else CIMultiDict(headers)
        request = Request(
            method, URL(url, encoded=True), own, None, DEFAULTS, limits or Limits(connect=30.0, read=30.0)
        )
        request.payload = payload
        request.proxy = proxy
        request.verify = verify
        return request

    async def ask(self, method: str, url: str, **options: Any) -> H1Answer:
        """The answer, its head read."""
        self.trip = Trip()
        return await self.transport.exchange(self.request(method, url, **options), self.trip)

    async def get(self, url: str, **options: Any) -> tuple[int, bytes]:
        """Status and body."""
        answer = await self.ask("GET", url, **options)
        return answer.status, await answer.read()


@contextlib.asynccontextmanager
async def exchanges(**config: Any) -> AsyncIterator[Exchanges]:
    """Closed at the end; then nothing is left of it."""
    one = Exchanges(HTTPConfig(**config))
    try:
        yield one
    finally:
        await one.transport.close(1.0)
        assert (one.pool.open_connections, one.pool.slots_taken, one.pool.waiting) == (0, 0, 0)
