"""The seam to aiohttp: one session for each open client. Its pool is in `connector.py`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiohttp

from pepperpy.network import tls
from pepperpy.network.http.aiohttp_transport.connector import ALPN, GuardedConnector, switch_off_own_retry
from pepperpy.network.http.aiohttp_transport.session_cookies import SessionCookieJar
from pepperpy.network.http.aiohttp_transport.translate import UNEXPECTED, unreadable
from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookies import CookieJar
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.tls_config import TLSConfig, tls_settings
from pepperpy.network.units import MIB


class Wire(Protocol):
    """What carries the attempts of a client's calls: aiohttp, or a stand-in of `pepperpy.network.testing`."""

    session: aiohttp.ClientSession | None

    @property
    def open_connections(self) -> int: ...

    @property
    def discarded(self) -> int:
        """Pooled connections that were not fit for use."""

    def send(self, call: Call) -> Awaitable[Any]:
        """Send `call.hop`: the response, its head read, its body not. What it raises `translate()` understands."""

    async def close(self, timeout: float) -> None:
        """End all connections, in order for `timeout` seconds, then at once."""

    def abandon(self) -> None:
        """End all connections without a turn of the loop."""


# aiohttp declares a body of these as application/octet-stream where nobody has declared it; and one that is not there.
_WITH_DEFAULT_TYPE = frozenset({"POST", "PUT", "PATCH"})


class AiohttpWire:
    """One `aiohttp.ClientSession`. Made and used inside one running loop."""

    def __init__(self, config: HTTPConfig, jar: CookieJar) -> None:
        _raise_malloc_threshold()
        self.connector = GuardedConnector(
            config,
            ssl=verified(config),
            limit=config.max_connections,
            limit_per_host=config.max_connections_per_host or 0,
            keepalive_timeout=config.keepalive_timeout,
        )
        self.session = aiohttp.ClientSession(
            connector=self.connector,
            headers=config.headers,
            cookie_jar=SessionCookieJar(jar, config.base_url),
            timeout=config.client_timeout(config.timeout),
            trust_env=config.trust_env,
        )
        switch_off_own_retry(self.session)

    @property
    def open_connections(self) -> int:
        return sum(not transport.is_closing() for transport in self.connector.open_transports())

    @property
    def discarded(self) -> int:
        return self.connector.discarded

    async def send(self, call: Call) -> aiohttp.ClientResponse:
        hop = call.hop
        data = None
        if hop.body is not None:
            try:
                data = hop.body.payload()
            except OSError as error:
                raise BodyFailed(f"the body's file cannot be opened: {error.strerror}") from error
        options = call.options
        if hop.method in _WITH_DEFAULT_TYPE and (hop.body is None or hop.leaves_out("content-type")):
            options = {**options, "skip_auto_headers": ("Content-Type",)}
        try:
            return await self.session.request(
                hop.method,
                hop.url,
                headers=hop.headers,
                data=data,
                timeout=call.timeout if call.ends_at is None else call.time_left_of_stream(call.ends_at),
                allow_redirects=False,
                **options,
            )
        except UNEXPECTED as error:
            if not call.connected:
                raise
            failure = unreadable(error, call)
        # Raised outside of the except block: inside, its __context__ would hold what its __cause__ was cleaned of.
        raise failure

    async def close(self, timeout: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.session.close()
                    await self.connector.all_closed()
        finally:
            for transport in self.connector.open_transports():
                transport.abort()
        # What was aborted ends within the next turns of the loop. Not without bound: a handshake may be under way that
        # takes a connection from its handler, which then is never told of the end.
        for _ in range(10):
            if not self.connector.open_transports():
                break
            await asyncio.sleep(0)

    def abandon(self) -> None:
        for transport in self.connector.open_transports():
            with contextlib.suppress(RuntimeError):  # its loop is closed: the collector ends what is left
                transport.abort()
        # Otherwise session and connector each complain once more.
        self.session.detach()
        if close := getattr(self.connector, "_close", None):
            close()


# What opens the wire of a client; `pepperpy.network.testing` puts its own here.
make_wire: Callable[[HTTPConfig, CookieJar], Wire] = AiohttpWire


def verified(config: HTTPConfig) -> Any:
    """What aiohttp is to use as `ssl` for a connection whose peer is checked as configured.

    True: the default, for which `GuardedConnector` has its context; False: aiohttp's own, which checks nothing.
    """
    return _for_aiohttp(tls_settings(config.tls, config.verify_ssl))


def unverified(config: HTTPConfig) -> Any:
    """The same for `verify_ssl=False`; the object is part of the pool's key, so connections of the two never mix."""
    settings = tls_settings(config.tls)
    return False if settings.context is not None else _for_aiohttp(settings.replace(verify=False))


def _for_aiohttp(settings: TLSConfig) -> Any:
    if settings in (_CHECKED, _UNCHECKED):
        return settings.verify
    return tls.client_context(settings, ALPN)


_CHECKED, _UNCHECKED = TLSConfig(), TLSConfig(verify=False)


@functools.cache
def _raise_malloc_threshold() -> None:
    """Let glibc serve asyncio's receive buffers from the heap.

    asyncio allocates 256 KiB for every recv of a plain Protocol such as aiohttp's. glibc maps and unmaps fresh pages
    for each of them, 15 to 40 us, until a larger block has been freed once (mallopt(3), M_MMAP_THRESHOLD).
    """
    bytes(MIB)
