"""`Origin`: whom a connection leads to, and how; what all connections of one kind share."""

from __future__ import annotations

import re
import socket
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.http_exchange import HTTPOrigin
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import ForbiddenAddressError, ProxyError, TLSError
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.h1.heads import forwarder_of
from pepperpy.network.http.request import Request
from pepperpy.network.http.system_text import text_of
from pepperpy.network.http.transport import Kind, Trip, WireError
from pepperpy.network.lookup import forget
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.tcp.attempt import open_connection
from pepperpy.network.tcp.connect import Tried, addresses_of
from pepperpy.network.tls import client_context
from pepperpy.network.tls_config import TLSConfig, proxy_tls_settings, tls_settings
from pepperpy.network.watchdog import time_limit

if TYPE_CHECKING:
    from pepperpy.network.http.h1.connection import Connection
    from pepperpy.network.http.h1.queue import Place

# What all contexts of HTTP offer: gateways refuse or misroute a client that offers nothing (aiohttp#10152).
ALPN = ("http/1.1",)
# Hosts whose failed addresses are remembered. Arbitrary; an entry goes when a connection to its host is made.
MAX_FAILED = 1024

# (scheme, host and port, proxy, whether the certificate is checked). The rest is the client's, and the same for all.
Key = tuple[str, str | None, str | None, bool]
# By host and port, and proxy: addresses that have accepted, and then failed.
Failed = dict[tuple[str | None, str | None], Tried]


class Origin(HTTPOrigin):
    """Connects, and keeps what is idle.

    Attributes:
        key: Its own; see `key_of()`.
        idle: Connections that wait for a request, the one used last at the end. Of the base.
        count: How many connections it has: idle ones, busy ones, and those that are being made.
        places: The places of its exchanges in the queue, in the order of their arrival.
    """

    idle: list[Connection]

    def __init__(self, key: Key, request: Request, config: HTTPConfig, failed: Failed) -> None:
        """Args: failed: Shared by all origins of the client, and outlives this one.

        Raises: `WireError`: The host cannot be connected to (`bad_url`), or the proxy (`unsendable`).
        """
        self.key = key
        self.count = 0
        self.places: OrderedDict[Place, None] = OrderedDict()
        self._failed = failed
        self._config = _network_config(request, config)
        self._forwards = forwarder_of(request) is not None

    @property
    def first_number(self) -> int:
        """The number of the first of `places`; 0 if nobody waits."""
        return next(iter(self.places)).number if self.places else 0

    async def connect(self, limit: float | None, trip: Trip) -> StreamProtocol:
        """A new connection, made within so many seconds.

        Raises:
            WireError: There is none.

        Cancellation: No socket is left open.
        """
        trip.connect_at = monotonic()
        config = self._config
        addresses = None
        if len(self._failed) > MAX_FAILED:
            self._failed.clear()
        # Of this connection alone: what others are making now has not failed.
        tried = {place: set(failed) for place, failed in self._failed.get(self.key[1:3], {}).items()}
        try:
            with time_limit(limit):
                if config.proxy is None and config.unix_path is None:
                    trip.phase = "dns"
                    addresses = await addresses_of(config, config.host, config.port, trip.observer)
                    trip.dns_s = monotonic() - trip.connect_at
                trip.phase = "connect"
                protocol = await open_connection(config, tried, addresses, trip.observer, forwards=self._forwards)
                self._remember(tried, protocol.extra_info("peername"))
                return protocol
        except (OSError, ValueError) as error:
            failure = self._failure(error, trip)
            forget(config.host)
            self._remember(tried, None)
        # Outside of the except block: its __context__ would be shown as well.
        raise failure

    def _remember(self, tried: Tried, proved: Any) -> None:
        """Remember which addresses have accepted and then failed: the next connection tries the others first."""
        for addresses in tried.values():
            addresses.discard(proved)
        route = self.key[1:3]
        if any(tried.values()):
            self._failed[route] = tried
        else:
            self._failed.pop(route, None)

    def _failure(self, error: OSError | ValueError, trip: Trip) -> WireError:
        cause = error.__cause__
        if isinstance(error, TLSError):
            if isinstance(cause, ConnectionError):
                # The peer hung up, rather than to say what it did not like.
                kind: Kind = "proxy" if "proxy" in error.details else "refused"
                return WireError(kind, f"cannot connect: {error}", cause, **error.details)
            return WireError("tls", str(error), cause, **error.details)
        if isinstance(error, ProxyError):
            text = f"cannot connect: {error}"
            if "status" in error.details and (self._config.proxy or "").startswith("http"):
                text = f"the proxy answered {error.details['status']}"
            return WireError("proxy", text, cause, **error.details)
        if isinstance(error, ForbiddenAddressError):
            return WireError("forbidden", str(error), cause, **error.details)
        if isinstance(error, TimeoutError) and not error.args:
            proxy = self._config.proxy
            way = "" if proxy is None else f" through the proxy {read_proxy(proxy).shown}"
            return WireError("connect_timeout", f"timed out (connect_timeout){way}", error)
        if trip.phase == "dns" or isinstance(error, socket.gaierror):
            # Such as a name that a SOCKS proxy is not asked for.
            return WireError("dns", f"cannot look up {self._config.host!r}: {text_of(error)}", error)
        where = "" if self._config.unix_path is None else f": unix_path {self._config.unix_path!r}"
        return WireError("refused", f"cannot connect: {text_of(error)}{where}", error)


def _network_config(request: Request, config: HTTPConfig) -> NetworkConfig:
    url = request.url
    host = url.raw_host or ""
    if _NUMBERS.fullmatch(host) and not _IPV4.fullmatch(host):
        # The system would take 127.1 for 127.0.0.1, past all that only looks at the name.
        raise WireError("bad_url", "the URL cannot be used: its host is not a canonical IPv4 address")
    secure = url.scheme == "https"
    # For a proxy as well, which may speak TLS itself.
    tls = _tls(config, request.verify, host) if secure or request.proxy is not None else TLSConfig()
    try:
        return NetworkConfig(
            host if config.unix_path is None else "",
            (url.port or 0) if config.unix_path is None else 0,
            timeout=None,
            proxy=request.proxy,
            proxy_tls=None if request.proxy is None else proxy_tls_settings(config.proxy_tls, tls),
            resolver=config.resolver,
            address_policy=config.address_policy,
            socket_factory=config.socket_factory,
            tls=secure and tls,
            unix_path=config.unix_path,
            local_address=config.local_address,
            socket_options=config.socket_options,
            close_timeout=config.close_timeout,
            keepalive=config.keepalive,
        )
    except ValueError as error:
        raise WireError("bad_url", "the URL cannot be used: its host or its port is none", error) from error


def _tls(config: HTTPConfig, verify: bool, host: str) -> TLSConfig:
    settings = tls_settings(config.tls, config.verify_ssl)
    if settings.context is None:
        settings = settings.replace(verify=settings.verify and verify, alpn=ALPN)
    elif not verify:
        # Of a context of the user's nothing is used then; the pin holds all the same.
        name, pin = settings.server_hostname, settings.certificate_pin
        settings = TLSConfig(verify=False, server_hostname=name, certificate_pin=pin, alpn=ALPN)
    if config.unix_path is not None and settings.server_hostname is None:
        settings = settings.replace(server_hostname=host)
    return settings


def check_tls_of(config: HTTPConfig) -> None:
    """Raises what `client_context()` raises for these settings. Defaults are left out: their files take 20 ms."""
    for settings in (tls_settings(config.tls, config.verify_ssl), tls_settings(config.proxy_tls or True)):
        if settings not in (TLSConfig(), TLSConfig(verify=False)):
            client_context(settings, ALPN)


_NUMBERS = re.compile(r"[0-9.]+|0[xX].*")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
