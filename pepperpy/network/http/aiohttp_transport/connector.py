"""aiohttp's connection pool, and what this package adds to it.

What leans on names that aiohttp does not document is here and in `handler.py`. Where one of them is gone, aiohttp does
as it does by itself, and a test fails (tests/http/test_gaps.py):

    TCPConnector._factory               counts interim responses and open connections, and sees unasked bytes
    ResponseHandler._read_timeout, ...  a read timeout without a timer for each request
    ResponseHandler._payload            who waits for the rest of a body is told when the connection is closed, or when
                                        a later piece of it cannot be read; a reset is no end of a body
    HttpResponseParser.feed_eof         half a head behind a response is noticed
    ResponseHandler._upgraded, _parser  a 101 that nobody asked for does not keep its connection for ever
    ClientRequest._continue             a body that waits for 100 (Continue) does not wait for ever
    ClientSession._retry_connection     aiohttp's own retry is off: it would be one that nobody counts or limits
    TCPConnector._wait_for_available_connection, _release_waiter
                                        a free place is not lost with a task that is cancelled as it gets it
    TCPConnector._get                   a request that has found a stale connection is sent on a new one
    TCPConnector._create_connection     one time limit for all of connecting; a failure forgets what was looked up
    TCPConnector._create_proxy_connection, _get_ssl_context, _wrap_existing_connection, ClientRequest.proxy
                                        SOCKS proxies, which aiohttp has not (socks.py)
    TCPConnector._get_ssl_context, aiohttp.connector._SSL_CONTEXT_VERIFIED
                                        certificates by their common name are refused by default, too
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl
from collections.abc import Awaitable
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from pepperpy.network import tls
from pepperpy.network.http.aiohttp_transport.guard import check_address, guarded
from pepperpy.network.http.aiohttp_transport.handler import GuardedHandler, expect_nothing
from pepperpy.network.http.aiohttp_transport.proxies import connect_auth, showing
from pepperpy.network.http.aiohttp_transport.resolver import Resolver
from pepperpy.network.http.aiohttp_transport.socks import connect_through, connect_unix, is_socks
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip, WireError
from pepperpy.network.lookup import AddressInfo
from pepperpy.network.proxy_rules import EnvironmentProxy
from pepperpy.network.tcp.connect import look_up_local, new_socket, prepare
from pepperpy.network.tcp.made_socket import unconnected_socket_from
from pepperpy.network.tls_config import TLSConfig, tls_settings
from pepperpy.network.watchdog import time_limit

if TYPE_CHECKING:
    from pepperpy.network.events import Observer

# What all contexts of HTTP offer: gateways refuse or misroute a client that offers nothing (aiohttp#10152).
ALPN = ("http/1.1",)


def switch_off_own_retry(session: aiohttp.ClientSession) -> None:
    """Let a request on a connection that turns out to be closed fail, for the engine to see."""
    if hasattr(session, "_retry_connection"):
        session._retry_connection = False


# The exchange that the running task has begun: aiohttp hands nothing of it to its connector.
present_exchange: ContextVar[tuple[Request, Trip] | None] = ContextVar("pepperpy.network.http.exchange", default=None)


class GuardedConnector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which something arrived that nobody had asked for.

    Such bytes would answer the *next* request (aiohttp#13656); httpx and urllib3 drop the connection as well. A
    connection that the server has closed meanwhile is found the same way.
    """

    def __init__(self, config: HTTPConfig, **options: Any) -> None:
        self._config = config
        self.max_interim: int = config.limits.max_interim
        self._tls = tls_settings(config.tls, config.verify_ssl)
        self._local: list[AddressInfo] | None = None  # where to connect from
        self._names = Resolver(config.resolver)
        super().__init__(
            **options,
            # In place of aiohttp's default, which is aiodns where that is installed: aiodns knows no mDNS (aiodns#127).
            resolver=self._names,
            # lookup.py remembers answers already.
            use_dns_cache=False,
            socket_factory=self._new_socket,
        )
        self._open: dict[GuardedHandler, asyncio.Transport] = {}
        self.discarded: int = 0  # pooled connections that were not fit for use
        self._all_closed: asyncio.Future[None] | None = None
        self.policy_session: aiohttp.ClientSession | None = None  # whose requests are exchanges
        if hasattr(self, "_factory"):
            make: Any = functools.partial(GuardedHandler, self, asyncio.get_running_loop())
            self._factory = make

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        exchange = self._exchange_of(req)
        if exchange is None:
            return await self._connect_for_user(req, traces, timeout)
        request, trip = exchange
        for name in (*request.left_out, *request.taken_out):
            if name not in request.headers:
                req.headers.popall(name, None)  # a default, or from ~/.netrc
                if name.lower() == "expect":
                    expect_nothing(req)
        trip.phase = "queue"
        while True:
            connection = await super().connect(req, [], timeout)
            protocol = connection.protocol
            if not isinstance(protocol, GuardedHandler):
                break
            trip.reused = protocol.used
            if not trip.reused or not protocol.has_unasked_bytes():
                protocol.may_upgrade = False  # nobody could use the connection then
                protocol.trip = trip
                if "Connection" in req.headers or "Expect" in req.headers:
                    protocol.begin(req)
                if request.payload is not None:
                    protocol.watch_body(request.limits)
                break
            self.discarded += 1
            connection.close()
        if req.proxy is not None:
            _speak_to_server(req)
        trip.request_left = True
        trip.connected_at = monotonic()
        trip.phase = "response"
        return connection

    def _exchange_of(self, req: aiohttp.ClientRequest) -> tuple[Request, Trip] | None:
        # The source of a body runs in the context of its exchange, and may use the user's session.
        return present_exchange.get() if req.session is self.policy_session else None

    def _is_of_environment(self, req: aiohttp.ClientRequest) -> bool:
        """Whether the proxy of this request, if it has one, may come from the environment."""
        exchange = self._exchange_of(req)
        # The user's own session reads the environment by itself.
        return self._config.trust_env if exchange is None else isinstance(exchange[0].proxy, EnvironmentProxy)

    async def _connect_for_user(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        while _was_used(connection) and _has_unasked_bytes(connection):
            self.discarded += 1
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if isinstance(connection.protocol, GuardedHandler):
            connection.protocol.may_upgrade = "Upgrade" in req.headers  # a WebSocket's
            connection.protocol.begin(req)
        _speak_to_server(req)
        return connection

    async def _get(self, key: Any, traces: list[Any]) -> aiohttp.connector.Connection | None:
        connection = await super()._get(key, traces)
        exchange = present_exchange.get()
        if connection is not None and exchange is not None and exchange[1].fresh:
            # The new one takes its place.
            connection.close()
            return None
        return connection

    async def _wait_for_available_connection(self, key: Any, traces: list[Any]) -> None:
        exchange = present_exchange.get()
        try:
            waiting = super()._wait_for_available_connection(key, traces)
            if exchange is not None and (observer := exchange[1].observer) is not None:
                from pepperpy.network.events import PoolWaitDone

                waiting = observer.timed(waiting, PoolWaitDone)
            with time_limit(None if exchange is None else exchange[0].limits.pool):
                await waiting
        except BaseException as error:
            # It may have been woken already. Cancelled in that turn, it passes the free place on to the next one.
            if hasattr(self, "_release_waiter"):
                self._release_waiter()
            if isinstance(error, TimeoutError):
                raise WireError("queue_timeout", cause=error, limit="pool_timeout") from None
            raise

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        # One limit for the lookup, all addresses, the proxy's answer and TLS. aiohttp gives it to each address anew,
        # and none to the lookup and to the proxy's answer. 0 is its other word for no limit.
        seconds = timeout.sock_connect or None
        host = (req.url if req.proxy is None else req.proxy).raw_host or ""
        if (exchange := self._exchange_of(req)) is not None:
            _, trip = exchange
            trip.phase = "connect"
            trip.connect_at = monotonic()
            traces = [_LookupTrace(trip)]
        if self._tls.server_hostname is not None:
            req.server_hostname = self._tls.server_hostname
        try:
            connecting = self._connected(req, traces)
            if exchange is not None and (observer := exchange[1].observer) is not None:
                connecting = _observed(connecting, observer)
            with time_limit(seconds):
                protocol = await connecting
            if self._tls.pins and req.is_ssl():
                self._check_pin(req, protocol)
            return protocol
        except BaseException:
            self._names.failed(host)
            raise

    async def _create_proxy_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Any:
        if is_socks(req.proxy):
            return await connect_through(self, self._config, req, timeout, of_environment=self._is_of_environment(req))
        auth = connect_auth(req)
        while True:
            try:
                with showing(req, auth):
                    made = await super()._create_proxy_connection(req, traces, timeout)
            except aiohttp.ClientHttpProxyError as error:
                challenges = () if error.headers is None else error.headers.getall("Proxy-Authenticate", ())
                if auth is None or error.status != 407 or not auth.refused(challenges):
                    raise
            else:
                if auth is not None:
                    auth.accepted()
                return made

    async def _connected(self, req: aiohttp.ClientRequest, traces: list[Any]) -> ResponseHandler:
        if self._config.unix_path is not None and req.proxy is None:
            return await connect_unix(self, self._config, os.fspath(self._config.unix_path), req)
        try:
            self._local = await look_up_local(self._config)
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        if is_socks(req.proxy):
            return await super()._create_connection(req, traces, aiohttp.ClientTimeout())
        with guarded(self._config.address_policy, req, checks_proxy=self._is_of_environment(req)):
            return await super()._create_connection(req, traces, aiohttp.ClientTimeout())

    def _check_pin(self, req: aiohttp.ClientRequest, protocol: ResponseHandler) -> None:
        transport = protocol.transport
        if transport is None:  # lost meanwhile
            raise aiohttp.ClientConnectorError(req.connection_key, ConnectionResetError(errno.ECONNRESET, "lost"))
        try:
            tls.check_pin(self._tls.pins, transport.get_extra_info("ssl_object"))
        except ssl.SSLCertVerificationError as error:
            transport.abort()
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error

    def _new_socket(self, address: AddressInfo) -> socket.socket:
        check_address(address)
        if (factory := self._config.socket_factory) is None:
            return new_socket(self._config, address, self._local)
        sock = unconnected_socket_from(factory, address)
        return prepare(sock, sock.family, self._config, self._local)

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        context = super()._get_ssl_context(req)
        if context is not None and context is getattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", None):
            # Not when a client opens: 20 ms, which one that uses plain HTTP only need not wait for.
            return tls.client_context(TLSConfig(), ALPN)
        return context

    async def all_closed(self) -> None:
        """Wait until the last connection's file descriptor is given back."""
        while self.open_transports():
            self._all_closed = asyncio.get_running_loop().create_future()
            await self._all_closed
        # Both loops close the socket right after connection_lost, in the same turn or the next.
        await asyncio.sleep(0)

    def open_transports(self) -> list[asyncio.Transport]:
        self._open = {handler: transport for handler, transport in self._open.items() if _serves(transport, handler)}
        return list(self._open.values())

    def opened(self, handler: GuardedHandler, transport: asyncio.Transport) -> None:
        self._open[handler] = transport

    def lost(self, handler: GuardedHandler) -> None:
        self._open.pop(handler, None)
        if self._all_closed is not None and not self._all_closed.done() and not self.open_transports():
            self._all_closed.set_result(None)


async def _observed(connecting: Awaitable[ResponseHandler], observer: Observer) -> ResponseHandler:
    from pepperpy.network.events import ConnectDone

    began = monotonic()
    error: BaseException | None = None
    try:
        return await connecting
    except BaseException as failure:
        # The errors of aiohttp show the URL of the proxy, password included.
        if isinstance(failure, aiohttp.ClientConnectorError):
            error = failure.os_error
        else:
            error = aiohttp.ClientError(type(failure).__name__) if isinstance(failure, aiohttp.ClientError) else failure
        raise
    finally:
        observer.tell_done(ConnectDone, began, error=error, address="")


class _LookupTrace:
    """Notes when a name is looked up: what aiohttp calls of its `Trace` while it connects."""

    def __init__(self, trip: Trip) -> None:
        self._trip = trip
        self._began_at = 0.0

    async def send_dns_resolvehost_start(self, host: str) -> None:
        self._trip.phase = "dns"
        self._began_at = monotonic()

    async def send_dns_resolvehost_end(self, host: str) -> None:
        self._trip.phase = "connect"
        self._trip.dns_s = monotonic() - self._began_at


def _speak_to_server(request: aiohttp.ClientRequest) -> None:
    # A SOCKS proxy only passes bytes on, so the server reads this request. aiohttp writes it as for a proxy of HTTP,
    # with the proxy's password: the server must not see that. The pool has made its key from the proxy by now.
    if is_socks(request.proxy):
        request.proxy = None
        request.headers.popall("Proxy-Authorization", None)


def _serves(transport: asyncio.Transport, handler: GuardedHandler) -> bool:
    try:
        # If connecting is cancelled at that moment, uvloop calls connection_made() of a handler, and never
        # connection_lost().
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() < 0:
            return False
        # TLS through a proxy gives the socket to another handler. The first one never learns of its end.
        return transport.get_protocol() is handler
    except AttributeError:
        # A TLS transport of asyncio that was closed twice has no protocol any more.
        return True


def _was_used(connection: aiohttp.connector.Connection) -> bool:
    return isinstance(connection.protocol, GuardedHandler) and connection.protocol.used


def _has_unasked_bytes(connection: aiohttp.connector.Connection) -> bool:
    protocol = connection.protocol
    return isinstance(protocol, GuardedHandler) and protocol.has_unasked_bytes()
