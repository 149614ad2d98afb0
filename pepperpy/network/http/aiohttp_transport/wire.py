"""`AiohttpTransport`: one pool of connections, and aiohttp's sessions over it. The pool is in `connector.py`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any, cast

import aiohttp
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict
from yarl import URL

from pepperpy.network import tls
from pepperpy.network.errors import NetworkError
from pepperpy.network.http.aiohttp_transport.answer import AiohttpAnswer
from pepperpy.network.http.aiohttp_transport.connector import (
    ALPN,
    GuardedConnector,
    present_exchange,
    switch_off_own_retry,
)
from pepperpy.network.http.aiohttp_transport.payload import data_of
from pepperpy.network.http.aiohttp_transport.session_cookies import SessionCookieJar
from pepperpy.network.http.aiohttp_transport.translate import FAILURES, UNEXPECTED, unreadable, wire_error
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.request import Limits, Request
from pepperpy.network.http.timeouts import limits_of, total_of
from pepperpy.network.http.transport import Trip, WireError
from pepperpy.network.proxy_auth import ProxyAuth, login_of
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.tls_config import TLSConfig, tls_settings
from pepperpy.network.units import MIB

# With these methods, aiohttp adds `Content-Type: application/octet-stream` where the caller gives no type, even to a
# request without a body.
_WITH_DEFAULT_TYPE = frozenset({"POST", "PUT", "PATCH"})
_NO_DEFAULT_TYPE = {"skip_auto_headers": ("Content-Type",)}

# What stands for a byte that is not UTF-8 (PEP 383).
_ESCAPED = re.compile("[\udc80-\udcff]")


class AiohttpTransport:
    """Two `aiohttp.ClientSession` over one pool: one for exchanges, without cookies, and one for the user."""

    default_headers: Mapping[str, str] = {
        # Accept, and Accept-Encoding by what is installed.
        **cast(Mapping[str, str], aiohttp.ClientRequest.DEFAULT_HEADERS),
        "User-Agent": SERVER_SOFTWARE,
    }

    def __init__(self, config: HTTPConfig, jar: CookieJar) -> None:
        _raise_malloc_threshold()
        self._config = config
        self.connector: GuardedConnector = GuardedConnector(
            config,
            ssl=verified(config),
            limit=config.max_connections,
            limit_per_host=config.max_connections_per_host or 0,
            keepalive_timeout=config.keepalive_timeout,
        )
        limits = config.limits
        rules: dict[str, Any] = {
            "max_line_size": limits.max_field_size,
            "max_field_size": limits.max_field_size,
            "max_headers": limits.max_fields,
        }
        # For the user, as `client.session`. It has the client's headers, cookies and limits itself, because no policy
        # adds them to its requests.
        self.session: aiohttp.ClientSession = aiohttp.ClientSession(
            **rules,
            connector=self.connector,
            connector_owner=False,
            headers=config.headers,
            cookie_jar=SessionCookieJar(jar, config.base_url),
            timeout=_session_timeout(config),
            auto_decompress=config.decompress,
            trust_env=config.trust_env,
        )
        self._session = aiohttp.ClientSession(
            **rules,
            connector=self.connector,
            connector_owner=False,
            # A request of nothing but defaults has these and aiohttp's own, which are `default_headers`.
            headers=config.headers,
            cookie_jar=_NoCookies(),
        )
        self.connector.policy_session = self._session
        for session in (self.session, self._session):
            switch_off_own_retry(session)
        self._limits: Limits | None = None
        self._timeout = aiohttp.ClientTimeout()

    @property
    def open_connections(self) -> int:
        return sum(not transport.is_closing() for transport in self.connector.open_transports())

    @property
    def discarded(self) -> int:
        return self.connector.discarded

    async def exchange(self, request: Request, trip: Trip) -> AiohttpAnswer:
        before = present_exchange.set((request, trip))
        try:
            options: dict[str, Any] = {}
            if not request.only_defaults or "%" in (request.url.raw_host or ""):  # aiohttp's Host has the zone
                options = _headers_and_body(request)
            elif request.method in _WITH_DEFAULT_TYPE and "Content-Type" not in request.defaults.headers:
                options = _NO_DEFAULT_TYPE
            if request.proxy is not None or not request.verify:
                options = options | self._way(request, options)
            if not request.decompress:
                options = options | {"auto_decompress": False}
            if request.limits is not self._limits:  # those of the client, nearly always
                self._limits, self._timeout = request.limits, _as_timeout(request.limits)
            response = await self._session.request(
                request.method, request.url, timeout=self._timeout, allow_redirects=False, **options
            )
            return AiohttpAnswer(response, request, trip, self.connector)
        except NetworkError:
            raise
        except FAILURES as error:
            failure = wire_error(error, request, trip, self.connector.closed)
        except UNEXPECTED as error:
            if not trip.request_left:
                raise
            failure = unreadable(error)
        except asyncio.CancelledError as error:
            # aiohttp's pool, when it is closed, cancels the future that a task waits for, and not the task.
            task = asyncio.current_task()
            if not self.connector.closed or task is None or task.cancelling():
                raise
            failure = WireError("closed", cause=error)
        finally:
            present_exchange.reset(before)
        # Not inside of the except block: there its __context__ would hold what its cause was cleaned of.
        raise failure

    def _way(self, request: Request, others: dict[str, Any]) -> dict[str, Any]:
        """Arguments for a request that goes another way than most: through a proxy, or to an unchecked server."""
        options: dict[str, Any] = {}
        if request.proxy is not None:
            options["proxy"] = request.proxy
            if request.url.scheme == "http" and (login := login_of(read_proxy(request.proxy))) is not None:
                auth = ProxyAuth(login, request.method, str(request.url), request.proxy_challenge)
                # aiohttp makes Basic of what is in the URL, in Latin-1.
                options["proxy"] = URL(request.proxy).with_user(None)
                options["headers"] = headers = CIMultiDict(others.get("headers", ()))
                headers.setdefault("Proxy-Authorization", auth.header())
        if not request.verify:
            options["ssl"] = unverified(self._config)
        return options

    async def close(self, seconds: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._session.close()
                    await self.session.close()
                    await self.connector.close()
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
        # Otherwise sessions and connector each complain once more.
        self._session.detach()
        self.session.detach()
        if close := getattr(self.connector, "_close", None):
            close()


class _NoCookies(aiohttp.DummyCookieJar):
    _nothing: SimpleCookie = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> SimpleCookie:
        return self._nothing  # aiohttp adds to it only what it is given as `cookies`


def _headers_and_body(request: Request) -> dict[str, Any]:
    """What aiohttp is given of a request that has more than the defaults."""
    headers = request.headers
    for name, value in headers.items():
        # It would send three bytes of UTF-8 for each surrogate.
        if not value.isascii() and _ESCAPED.search(value):
            raise WireError("unsendable", f"aiohttp cannot send a header that is not UTF-8: {name}")
    options: dict[str, Any] = {"headers": headers, "data": data_of(request.payload, request.body)}
    if "Transfer-Encoding" in headers:
        # aiohttp announces chunks by itself, and accepts no other announcement.
        options["headers"] = headers = headers.copy()
        del headers["Transfer-Encoding"]
    if request.method in _WITH_DEFAULT_TYPE and "Content-Type" not in headers:
        options |= _NO_DEFAULT_TYPE
    return options


def _session_timeout(config: HTTPConfig) -> aiohttp.ClientTimeout:
    given = config.timeout
    limits = limits_of(config, given)
    return aiohttp.ClientTimeout(
        total=total_of(given),
        connect=limits.queue,
        sock_connect=limits.connect,
        sock_read=limits.read,
        # aiohttp rounds limits above this many seconds up to whole ones.
        ceil_threshold=(given if isinstance(given, aiohttp.ClientTimeout) else aiohttp.ClientTimeout()).ceil_threshold,
    )


def _as_timeout(limits: Limits) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=limits.queue, sock_connect=limits.connect, sock_read=limits.read)


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
