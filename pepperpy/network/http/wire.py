"""The seam to aiohttp: one session, its connection pool, and what this package adds to them.

Everything that touches aiohttp's connections is here. Two things have no public name and are used only while they are
there: `TCPConnector._factory`, to count interim responses and open connections, and `Connection.protocol.should_close`,
to see what a pooled connection received while nobody had asked (tests/test_http_gaps.py fails without them).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from pepperpy.network import tls
from pepperpy.network.config import MIB
from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig

# Interim (1xx) responses before the final one. RFC 9110 sets no limit; aiohttp 3.14 reads 200,000 of them.
MAX_INTERIM_RESPONSES = 8

_current: ContextVar[Call | None] = ContextVar("pepperpy.network.http.call", default=None)


class Wire(Protocol):
    """What carries the attempts of a client's calls: aiohttp, or a stand-in of `pepperpy.network.testing`."""

    session: aiohttp.ClientSession | None

    @property
    def open_connections(self) -> int: ...

    @property
    def discarded(self) -> int:
        """Pooled connections that were not fit for use."""

    async def send(self, call: Call) -> Any:
        """One attempt: the response, its head read, its body not. What it raises `translate()` understands."""

    async def close(self, timeout: float) -> None:
        """End all connections, in order for `timeout` seconds, then at once."""

    def abandon(self) -> None:
        """End all connections without a turn of the loop."""


class AttemptFailed(aiohttp.ClientError):
    """A connection broke; `__cause__` says how. aiohttp would send the request again by itself for its own classes."""


class AiohttpWire:
    """One `aiohttp.ClientSession`. Made and used inside one running loop."""

    def __init__(self, config: HTTPConfig, timeout: aiohttp.ClientTimeout) -> None:
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
            timeout=timeout,
            trust_env=config.trust_env,
            middlewares=(_each_hop,),
        )

    @property
    def open_connections(self) -> int:
        return len(self.connector.open_transports)

    @property
    def discarded(self) -> int:
        return self.connector.discarded

    async def send(self, call: Call) -> aiohttp.ClientResponse:
        before = _current.set(call)
        try:
            if call.headers is None and call.body is None:
                return await self.session.request(call.method, call.url, timeout=call.attempt_timeout, **call.options)
            return await self.session.request(
                call.method,
                call.url,
                headers=call.headers,
                data=None if call.body is None else call.body.payload(),
                timeout=call.attempt_timeout,
                **call.options,
            )
        finally:
            _current.reset(before)

    async def close(self, timeout: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.session.close()
                    await self.connector.all_closed()
        finally:
            for transport in self.connector.open_transports:
                transport.abort()
        await self.connector.all_closed()

    def abandon(self) -> None:
        for transport in self.connector.open_transports:
            transport.abort()
        # Otherwise session and connector each complain once more.
        self.session.detach()
        if close := getattr(self.connector, "_close", None):
            close()


# What opens the wire of a client; `pepperpy.network.testing` puts its own here.
make_wire: Callable[[HTTPConfig, aiohttp.ClientTimeout], Wire] = AiohttpWire


def verified(config: HTTPConfig) -> Any:
    """What aiohttp is to use as `ssl` for a connection whose peer is checked as configured."""
    if config.ca_file is None and config.client_cert is None:
        return config.verify_ssl
    return tls.client_context(verify=config.verify_ssl, ca_file=config.ca_file, client_cert=config.client_cert)


def unverified(config: HTTPConfig) -> Any:
    """The same for `verify_ssl=False`; the object is part of the pool's key, so connections of the two never mix."""
    return False if config.client_cert is None else tls.client_context(verify=False, client_cert=config.client_cert)


async def _each_hop(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    call = _current.get()
    if call is None:  # the session is used by itself
        return await send(request)
    call.check_hop(request)
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise AttemptFailed from error


class GuardedConnector(aiohttp.TCPConnector):
    """A pool that never hands out a connection on which something arrived that nobody had asked for.

    Such bytes would answer the *next* request (aiohttp#13656); httpx and urllib3 drop the connection as well. A
    connection that the server has closed meanwhile is found the same way.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.open_transports: set[asyncio.Transport] = set()
        self.discarded = 0  # pooled connections that were not fit for use
        self._all_closed: asyncio.Future[None] | None = None
        if hasattr(self, "_factory"):
            make: Any = functools.partial(CountingHandler, self, asyncio.get_running_loop())
            self._factory = make

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        call = _current.get()
        if call is not None:
            call.phase = "queue"
            traces = [call]
        while True:
            connection = await super().connect(req, traces, timeout)
            if call is not None and not call.reused:
                break
            if not _has_unasked_bytes(connection):
                break
            self.discarded += 1
            if call is not None:
                call.reused = False
            connection.close()
        if call is not None:
            call.connected = True
            call.connected_at = call.clock()
            call.phase = "response"
        return connection

    async def all_closed(self) -> None:
        """Wait until the last connection's file descriptor is given back."""
        while self.open_transports:
            self._all_closed = asyncio.get_running_loop().create_future()
            await self._all_closed
        # Both loops close the socket right after connection_lost, in the same turn or the next.
        await asyncio.sleep(0)

    def opened(self, transport: asyncio.Transport) -> None:
        self.open_transports.add(transport)

    def lost(self, transport: asyncio.Transport) -> None:
        self.open_transports.discard(transport)
        if not self.open_transports and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)


class CountingHandler(ResponseHandler):
    """aiohttp's protocol of one connection; ends it when the server only sends interim responses."""

    def __init__(self, connector: GuardedConnector, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._connector = connector
        self._opened: asyncio.Transport | None = None
        self._interim_count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened = cast(asyncio.Transport, transport)
        self._connector.opened(self._opened)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._opened is not None:
            self._connector.lost(self._opened)
            self._opened = None

    def feed_data(self, data: Any, *args: Any) -> Any:
        if 100 <= data[0].code < 200 and data[0].code != 101:
            self._interim_count += 1
            if self._interim_count > MAX_INTERIM_RESPONSES:
                error = aiohttp.ClientPayloadError(f"more than {MAX_INTERIM_RESPONSES} interim (1xx) responses")
                self.set_exception(error)
                if self.transport is not None:
                    self.transport.close()
                return False
        else:
            self._interim_count = 0
        return super().feed_data(data, *args)


def _has_unasked_bytes(connection: aiohttp.connector.Connection) -> bool:
    """Whether something waits on this idle connection: bytes nobody asked for, or its end."""
    protocol = connection.protocol
    if protocol is None or protocol.should_close:
        return True
    transport = connection.transport
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    # What the kernel has and the loop has not read yet. 1.5 us; urllib3 and httpx ask the same question.
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


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
