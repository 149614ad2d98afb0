"""A transport for httpx: `httpx.AsyncClient(transport=AsyncHTTPTransport())` sends by this package's HTTP.

    import httpx
    from pepperpy.network.httpx import AsyncHTTPTransport

    async with httpx.AsyncClient(transport=AsyncHTTPTransport()) as client:
        response = await client.get("https://example.com/")

httpx keeps what it decides: redirects, cookies, authentication, decompression, event hooks. A connection and what goes
over it are this package's: its pool, its parser, its TLS. It is for asyncio only, and speaks HTTP/1.1.
"""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import httpx

from pepperpy.network.http.for_httpx import Exchanges
from pepperpy.network.http.for_httpx_response import Body, Content, Whole

__all__ = ["AsyncHTTPTransport"]


class _Body(Body, httpx.AsyncByteStream):
    pass


class _Content(Content, httpx.AsyncByteStream):
    pass


class _Response(httpx.Response):
    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            # The stream that httpx 0.28 has put around the transport's refers to the response: both, and the body,
            # would stay in memory until garbage is collected.
            self.stream = _NOTHING


class _Whole(Whole, _Response):
    pass


_NOTHING = _Content(b"")


class AsyncHTTPTransport(Exchanges, httpx.AsyncBaseTransport):
    """Takes the arguments of `httpx.AsyncHTTPTransport`, and `config=`.

    Time limits are those of httpx (`timeout=`), for each request. Errors are those of httpx, in this package's words;
    `__cause__` is the system's error. A request that meets a connection which the server just closed is sent again,
    once, if its method is idempotent and its body is bytes.

    Args:
        retries: How often a failed attempt to connect is repeated.
        limits: `max_connections` and `keepalive_expiry` hold. `max_keepalive_connections` does not: an idle connection
            is kept until it expires, or until its place is needed.
        http1, http2: Must be True and False.
        proxy: Also a `socks5h://` one, with the extra `proxy`.
        config: An `HTTPConfig` for connections, in place of the other arguments but `proxy` and `retries`: its `tls`,
            `keepalive`, `limits`, `max_connections` and the like. Its policy (redirects, retries, headers) does not
            count, for httpx has its own.

    Raises:
        ValueError, TypeError: An argument cannot be used.
        UsageError: A request comes from another event loop than the first one.

    A cancelled request closes its connection. `aclose()`, or the end of the client's block, closes all.
    """

    library: ClassVar[ModuleType] = httpx
    body_class: ClassVar[type[Body]] = _Body
    content_class: ClassVar[type[Content]] = _Content
    response_class: ClassVar[type[httpx.Response]] = _Response
    whole_class: ClassVar[type[httpx.Response]] = _Whole
