"""aiohttp's connection pool, and what this package adds to it.

What leans on names that aiohttp does not document is here. Where one of them is gone, aiohttp does as it does by
itself, and a test fails (tests/http/test_gaps.py):

    TCPConnector._factory               counts interim responses and open connections, and sees unasked bytes
    ResponseHandler._read_timeout, ...  a read timeout without a timer for each request
    ResponseHandler._payload            who waits for the rest of a body is told when the connection is closed, or when
                                        a later piece of it cannot be read; a reset is no end of a body
    HttpResponseParser.feed_eof         half a head behind a response is noticed
    ResponseHandler._upgraded, _parser  a 101 that nobody asked for does not keep its connection for ever
    ClientRequest._continue             a body that waits for 100 (Continue) does not wait for ever
    ClientSession._retry_connection     aiohttp's own retry is off: it would be one that nobody counts or limits
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
import math
import select
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError, TransferEncodingError

from pepperpy.network import tls
from pepperpy.network.http.aiohttp_transport.resolver import Resolver
from pepperpy.network.http.aiohttp_transport.socks import connect_through, connect_unix, is_socks
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.content import has_token
from pepperpy.network.http.dates import keep_alive_seconds
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip
from pepperpy.network.last_turns import after_last_turns
from pepperpy.network.lookup import AddressInfo
from pepperpy.network.tcp.connect import look_up_local, new_socket
from pepperpy.network.timers import Timer
from pepperpy.network.tls_config import TLSConfig, tls_settings
from pepperpy.network.watchdog import time_limit

# What all contexts of HTTP offer: gateways refuse or misroute a client that offers nothing (aiohttp#10152).
ALPN = ("http/1.1",)
# Interim (1xx) responses before the final one. RFC 9110 sets no limit; aiohttp 3.14 reads 200,000 of them.
MAX_INTERIM_RESPONSES = 8
# Seconds that a body waits for 100 (Continue). RFC 9110, section 10.1.1: not without end; curl's figure.
CONTINUE_WAIT = 1.0


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
        self._tls = tls_settings(config.tls, config.verify_ssl)
        self._local: list[AddressInfo] | None = None  # where to connect from
        self._names = Resolver()
        super().__init__(
            **options,
            # Not aiohttp's default, which is aiodns where that is installed: it knows no mDNS (aiodns#127).
            resolver=self._names,
            # Which would be a second memory behind that of lookup.py.
            use_dns_cache=False,
            socket_factory=self._new_socket,
        )
        self._open: dict[GuardedHandler, asyncio.Transport] = {}
        self.discarded = 0  # pooled connections that were not fit for use
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
        for name in request.left_out:
            if name not in request.headers:
                req.headers.popall(name, None)  # a default, or from ~/.netrc
                if name.lower() == "expect":
                    req._continue = None  # aiohttp has made it of this header; the body would wait for it
        trip.phase = "queue"
        connection = await super().connect(req, [], timeout)
        while (used := _was_used(connection)) and _has_unasked_bytes(connection):
            self.discarded += 1
            connection.close()
            connection = await super().connect(req, [], timeout)
        trip.reused = used
        if isinstance(protocol := connection.protocol, GuardedHandler):
            protocol.may_upgrade = False  # nobody could use the connection then
            if "Connection" in req.headers or "Expect" in req.headers:
                protocol.begin(req)
        _speak_to_server(req)
        trip.request_left = True
        trip.connected_at = monotonic()
        trip.phase = "response"
        return connection

    def _exchange_of(self, req: aiohttp.ClientRequest) -> tuple[Request, Trip] | None:
        # The source of a body runs in the context of its exchange, and may use the user's session.
        return present_exchange.get() if req.session is self.policy_session else None

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
            with time_limit(seconds):
                protocol = await self._connected(req, traces)
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
            return await connect_through(self, self._config, req, timeout)
        return await super()._create_proxy_connection(req, traces, timeout)

    async def _connected(self, req: aiohttp.ClientRequest, traces: list[Any]) -> ResponseHandler:
        if self._config.unix_path is not None and req.proxy is None:
            return await connect_unix(self, self._config, self._config.unix_path, req)
        try:
            self._local = await look_up_local(self._config)
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
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
        return new_socket(self._config, address, self._local)

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
    # A SOCKS proxy passes bytes on, so the request is one to the server, who is not to see what aiohttp has for a proxy
    # of HTTP: its password. The pool has its key by now.
    if is_socks(request.proxy):
        request.proxy = None
        request.headers.popall("Proxy-Authorization", None)


_feed_data: Any = ResponseHandler.feed_data


class GuardedHandler(ResponseHandler):
    """aiohttp's protocol of one connection; ends it when the server only sends interim responses.

    Its read timeout has one timer, which moves itself (timers.py); aiohttp sets one anew for each request and each
    piece of a response (3 us each).
    """

    def __init__(self, connector: GuardedConnector, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._connector = connector
        self.used = False  # whether a response has come on it
        self.may_upgrade = False  # whether the present request asks for another protocol, for its caller to speak
        self._interim_count = 0
        self._head: Any = None  # of the last response
        self._poll: Any = None
        self._silent_since: float | None = None  # None: nobody waits for the server
        self._silence_timer = Timer(loop, self._look_at_silence)
        self._idle_until = math.inf  # when the server may close it
        self._continue: asyncio.Future[bool] | None = None  # done when the body may be sent
        self._continue_timer = Timer(loop, self._go_on)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connector.opened(self, cast(asyncio.Transport, transport))
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self._ends_with_connection():
            # aiohttp would take a reset for the end of the body.
            self._break_body(TransferEncodingError("the connection was reset"))
        super().connection_lost(exc)
        self._poll = None
        self._silence_timer.end()
        self._continue_timer.end()
        self._connector.lost(self)

    def begin(self, request: aiohttp.ClientRequest) -> None:
        """A request that may have `Connection` or `Expect` is about to be sent."""
        if has_token(request.headers.getall("Connection", ()), "close"):
            self.force_close()
        self._continue = getattr(request, "_continue", None)
        if self._continue is not None:
            self._continue_timer.look_by(self._loop.time() + CONTINUE_WAIT)

    def _go_on(self, now: float) -> float:
        if self._continue is not None and not self._continue.done():
            self._continue.set_result(True)
        return math.inf

    def close(self) -> None:
        payload = getattr(self, "_payload", None)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            # aiohttp forgets it here, and who waits for the rest of a body would wait for ever.
            payload.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        # Nobody waits for what is still to be sent, and a peer that reads no more would hold the connection for ever.
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()

    def feed_data(self, data: Any, *args: Any) -> Any:
        self.used = True
        self._head = data[0]
        code = data[0].code
        if code == 101 and not self.may_upgrade:
            return self._refuse("the server switched to another protocol (101); use client.session for WebSockets")
        if (code >= 200 or code == 101) and self._interim_count <= MAX_INTERIM_RESPONSES:
            self._interim_count = 0
        else:
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                return self._refuse(f"more than {MAX_INTERIM_RESPONSES} interim (1xx) responses")
        self._idle_until = math.inf
        if code >= 200 and (self._continue is not None or "Keep-Alive" in data[0].headers):
            self._answered(data[0].headers, data[1])
        return _feed_data(self, data, *args)

    def _answered(self, headers: Mapping[str, str], body: aiohttp.StreamReader) -> None:
        if (seconds := keep_alive_seconds(headers)) is not None:
            # The server's clock began when it had sent the last byte, and its end is on its way as long.
            margin = min(1.0, seconds / 2)
            body.on_eof(functools.partial(self._begin_idle, seconds - margin))
        if self._continue is not None:
            # A server that answers without a 100 does not want the body: aiohttp gives it up when the answer is whole.
            self._continue = None
            self._continue_timer.end()

    def _begin_idle(self, seconds: float) -> None:
        self._idle_until = self._loop.time() + seconds

    def set_exception(self, exc: Any, *cause: Any) -> None:
        if isinstance(exc, HttpProcessingError):
            # aiohttp tells who waits for a head. Who waits for the rest of a body would wait for ever.
            self._break_body(cause[0] if cause and isinstance(cause[0], ContentEncodingError) else exc)
        super().set_exception(exc, *cause)

    def _break_body(self, why: BaseException) -> None:
        body = getattr(self, "_payload", None)
        if body is not None and not body.is_eof() and body.exception() is None:
            error = aiohttp.ClientPayloadError("the body broke off")
            error.__cause__ = why
            body.set_exception(error)

    def _ends_with_connection(self) -> bool:
        head = self._head
        return head is not None and not head.chunked and "Content-Length" not in head.headers

    def _refuse(self, what: str) -> bool:
        """End the connection; the response before this one, if it is whole, can be read all the same."""
        self.set_exception(aiohttp.ClientPayloadError(what))
        # aiohttp never gives back an upgraded connection.
        self._upgraded = False
        # What follows in the same piece is dropped as well.
        self._parser = None
        if self.transport is not None:
            self.transport.close()
        return False

    def has_unasked_bytes(self) -> bool:
        """Whether something waits on this idle connection: bytes nobody asked for, or its end, or may do so by now."""
        if self.should_close or self._idle_until <= self._loop.time() or self._has_half_a_head():
            return True
        # What the kernel has and the loop has not read yet. 1 us; urllib3 and httpx ask the same question.
        return self._poll is not None and bool(self._poll.poll(0))

    def _has_half_a_head(self) -> bool:
        # The parser of the last response keeps what may become another one, and tells only when it is to end. The next
        # request gets a parser of its own.
        parser = getattr(self, "_parser", None)
        try:
            return parser is not None and self.used and parser.feed_eof() is not None
        except Exception:
            return True

    # ---- The read timeout ----

    def _reschedule_timeout(self) -> None:
        timeout = self._read_timeout
        if not timeout:
            self._silent_since = None
            return
        now = self._silent_since = self._loop.time()
        if now + timeout < self._silence_timer.at:  # less than the call
            self._silence_timer.look_by(now + timeout)

    def _drop_timeout(self) -> None:
        self._silent_since = None

    def _look_at_silence(self, now: float) -> float:
        since = self._silent_since
        if since is None or not self._read_timeout:
            return math.inf
        ends_at = since + self._read_timeout
        if ends_at > now:
            return ends_at
        after_last_turns(self._loop, lambda: self._silent_since != since, self._on_read_timeout)
        return math.inf


def _serves(transport: asyncio.Transport, handler: GuardedHandler) -> bool:
    try:
        # uvloop tells a handler of the beginning of a connection, and not of its end, if connecting is cancelled then.
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() < 0:
            return False
        # TLS through a proxy gives the socket to another handler, and the first one never hears of its end.
        return transport.get_protocol() is handler
    except AttributeError:
        # asyncio's TLS transport, when it is closed for the second time, has forgotten its protocol.
        return True


def _was_used(connection: aiohttp.connector.Connection) -> bool:
    return isinstance(connection.protocol, GuardedHandler) and connection.protocol.used


def _has_unasked_bytes(connection: aiohttp.connector.Connection) -> bool:
    protocol = connection.protocol
    return isinstance(protocol, GuardedHandler) and protocol.has_unasked_bytes()
