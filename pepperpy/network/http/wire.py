"""The seam to aiohttp: one session, its connection pool, and what this package adds to them.

Everything that touches aiohttp's connections is here. These things have no public name; each is used only while it is
there, and a test fails without it (tests/test_http_gaps.py):

    TCPConnector._factory               counts interim responses and open connections, and sees unasked bytes
    ResponseHandler._read_timeout, ...  a read timeout without a timer for each request
    ClientSession._retry_connection     aiohttp's own retry is off: it would be one that nobody counts or limits
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from pepperpy.network import tls
from pepperpy.network.config import MIB
from pepperpy.network.http.call import Call, current_call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.upload import BodyFailed

# Interim (1xx) responses before the final one. RFC 9110 sets no limit; aiohttp 3.14 reads 200,000 of them.
MAX_INTERIM_RESPONSES = 8


class Wire(Protocol):
    """What carries the attempts of a client's calls: aiohttp, or a stand-in of `pepperpy.network.testing`."""

    session: aiohttp.ClientSession | None

    @property
    def open_connections(self) -> int: ...

    @property
    def discarded(self) -> int:
        """Pooled connections that were not fit for use."""

    def send(self, call: Call) -> Awaitable[Any]:
        """One attempt: the response, its head read, its body not. What it raises `translate()` understands."""

    async def close(self, timeout: float) -> None:
        """End all connections, in order for `timeout` seconds, then at once."""

    def abandon(self) -> None:
        """End all connections without a turn of the loop."""


class AiohttpWire:
    """One `aiohttp.ClientSession`. Made and used inside one running loop."""

    def __init__(self, config: HTTPConfig) -> None:
        _raise_malloc_threshold()
        self.connector = GuardedConnector(
            ssl=verified(config),
            limit=config.max_connections,
            limit_per_host=config.max_connections_per_host or 0,
            keepalive_timeout=config.keepalive_timeout,
            # Not aiohttp's default, which is aiodns where that is installed: it knows no mDNS (aiodns#127).
            resolver=TimedResolver(config.connect_timeout),
        )
        self.session = aiohttp.ClientSession(
            connector=self.connector,
            headers=config.headers,
            cookies=config.cookies,
            timeout=config.client_timeout(config.timeout),
            trust_env=config.trust_env,
        )
        self.session._retry_connection = False

    @property
    def open_connections(self) -> int:
        return sum(not transport.is_closing() for transport in self.connector.open_transports())

    @property
    def discarded(self) -> int:
        return self.connector.discarded

    def send(self, call: Call) -> Awaitable[aiohttp.ClientResponse]:
        if call.headers is None and call.body is None:
            return self.session.request(call.method, call.url, timeout=call.timeout, **call.options)
        data = None
        if call.body is not None:
            try:
                data = call.body.payload()
            except OSError as error:
                raise BodyFailed(f"the body's file cannot be opened: {error.strerror}") from error
        return self.session.request(
            call.method, call.url, headers=call.headers, data=data, timeout=call.timeout, **call.options
        )

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
            transport.abort()
        # Otherwise session and connector each complain once more.
        self.session.detach()
        if close := getattr(self.connector, "_close", None):
            close()


# What opens the wire of a client; `pepperpy.network.testing` puts its own here.
make_wire: Callable[[HTTPConfig], Wire] = AiohttpWire


def verified(config: HTTPConfig) -> Any:
    """What aiohttp is to use as `ssl` for a connection whose peer is checked as configured."""
    if config.ca_file is None and config.client_cert is None:
        return config.verify_ssl
    return tls.client_context(verify=config.verify_ssl, ca_file=config.ca_file, client_cert=config.client_cert)


def unverified(config: HTTPConfig) -> Any:
    """The same for `verify_ssl=False`; the object is part of the pool's key, so connections of the two never mix."""
    return False if config.client_cert is None else tls.client_context(verify=False, client_cert=config.client_cert)


class GuardedConnector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which something arrived that nobody had asked for.

    Such bytes would answer the *next* request (aiohttp#13656); httpx and urllib3 drop the connection as well. A
    connection that the server has closed meanwhile is found the same way.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._open: dict[GuardedHandler, asyncio.Transport] = {}
        self.discarded = 0  # pooled connections that were not fit for use
        self._all_closed: asyncio.Future[None] | None = None
        if hasattr(self, "_factory"):
            make: Any = functools.partial(GuardedHandler, self, asyncio.get_running_loop())
            self._factory = make

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        call = current_call.get()
        if call is None:  # the session is used by itself
            connection = await super().connect(req, traces, timeout)
            while _has_unasked_bytes(connection):
                self.discarded += 1
                connection.close()
                connection = await super().connect(req, traces, timeout)
            return connection
        call.check_hop(req)
        call.phase = "queue"
        while True:
            call.reused = False
            connection = await super().connect(req, [call], timeout)  # type: ignore[list-item]
            if not call.reused or not _has_unasked_bytes(connection):
                break
            self.discarded += 1
            connection.close()
        call.connected = True
        call.connected_at = monotonic()
        call.phase = "response"
        return connection

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


_feed_data: Any = ResponseHandler.feed_data


class GuardedHandler(ResponseHandler):
    """aiohttp's protocol of one connection; ends it when the server only sends interim responses.

    Its read timeout has one timer, which moves itself when it fires too early; aiohttp sets one anew for each request
    and each piece of a response (3 us each).
    """

    def __init__(self, connector: GuardedConnector, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._connector = connector
        self._interim_count = 0
        self._poll: Any = None
        self._silent_since: float | None = None  # None: nobody waits for the server
        self._silence_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connector.opened(self, cast(asyncio.Transport, transport))
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._poll = None
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        self._connector.lost(self)

    def close(self) -> None:
        # Nobody waits for what is still to be sent, and a peer that reads no more would hold the connection for ever.
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()

    def feed_data(self, data: Any, *args: Any) -> Any:
        code = data[0].code
        if (code >= 200 or code == 101) and self._interim_count <= MAX_INTERIM_RESPONSES:
            self._interim_count = 0
        else:
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                # What follows in the same piece is dropped as well.
                error = aiohttp.ClientPayloadError(f"more than {MAX_INTERIM_RESPONSES} interim (1xx) responses")
                self.set_exception(error)
                if self.transport is not None:
                    self.transport.close()
                return False
        return _feed_data(self, data, *args)

    def has_unasked_bytes(self) -> bool:
        """Whether something waits on this idle connection: bytes nobody asked for, or its end."""
        if self.should_close:
            return True
        # What the kernel has and the loop has not read yet. 1 us; urllib3 and httpx ask the same question.
        return self._poll is not None and bool(self._poll.poll(0))

    # ---- The read timeout ----

    def _reschedule_timeout(self) -> None:
        timeout = self._read_timeout
        if not timeout:
            self._silent_since = None
            return
        now = self._silent_since = self._loop.time()
        timer = self._silence_timer
        if timer is None or timer.when() > now + timeout:
            if timer is not None:
                timer.cancel()
            self._silence_timer = self._loop.call_at(now + timeout, self._look_at_silence)

    def _drop_timeout(self) -> None:
        self._silent_since = None

    def _look_at_silence(self) -> None:
        self._silence_timer = None
        if self._silent_since is None or not self._read_timeout:
            return
        ends_at = self._silent_since + self._read_timeout
        # A timer may fire a little early, by the clock's resolution.
        if ends_at <= self._loop.time() + 0.001:
            self._silent_since = None
            self._on_read_timeout()
        else:
            self._silence_timer = self._loop.call_at(ends_at, self._look_at_silence)


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


def _has_unasked_bytes(connection: aiohttp.connector.Connection) -> bool:
    protocol = connection.protocol
    return isinstance(protocol, GuardedHandler) and protocol.has_unasked_bytes()


class TimedResolver(aiohttp.ThreadedResolver):
    """getaddrinfo in a thread, under the limit for connecting: the system's own limit may be half a minute."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__()
        self._timeout = timeout

    async def resolve(self, *args: Any, **options: Any) -> Any:
        async with asyncio.timeout(self._timeout):
            return await super().resolve(*args, **options)


@functools.cache
def _raise_malloc_threshold() -> None:
    """Let glibc serve asyncio's receive buffers from the heap.

    asyncio allocates 256 KiB for every recv of a plain Protocol such as aiohttp's. glibc maps and unmaps fresh pages
    for each of them, 15 to 40 us, until a larger block has been freed once (mallopt(3), M_MMAP_THRESHOLD).
    """
    bytes(MIB)
