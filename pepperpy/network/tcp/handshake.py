"""From a connected socket to a connection, with or without TLS. Chooses the transport, and cleans up after failures."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import socket
import ssl
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from pepperpy.network import tls
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import Timeout
from pepperpy.network.config import NetworkConfig
from pepperpy.network.detached import detached
from pepperpy.network.errors import ClosedError, NetworkError, NetworkTimeoutError, TLSError, UsageError, also_as
from pepperpy.network.tcp.decoded_once import decode_once
from pepperpy.network.tcp.steady_loop import QuietLoop, steady
from pepperpy.network.tls_config import TLSConfig, is_for_servers, tls_settings
from pepperpy.network.watchdog import time_limit
from pepperpy.network.wire_log import tap

if TYPE_CHECKING:
    from pepperpy.network.events import Observer
    from pepperpy.network.tcp.client_link import ClientLink
    from pepperpy.network.tcp.tls_tunnel import TLSTunnel

T = TypeVar("T")

# Seconds. The loops end a handshake after 60 seconds by default; here the caller has the time limit.
_NO_LIMIT = 365 * 86400.0


def connect_transport(
    config: NetworkConfig,
    sock: socket.socket | TLSTunnel,
    context: ssl.SSLContext | None,
    observer: Observer | None = None,
) -> Awaitable[StreamProtocol]:
    """Make a connection of `sock`, which is connected, or of a tunnel in its place.

    With a context, do the handshake, check the pin, and tell the observer.
    A context for servers makes this side the server of the handshake.

    Raises:
        TLSError: As `start_tls()`.

    Failure and cancellation: `sock` is closed.
    """
    making = _connect_transport(config, sock, context)
    return making if context is None else _told(making, observer)


def _told(handshake: Awaitable[StreamProtocol], observer: Observer | None) -> Awaitable[StreamProtocol]:
    if observer is None:
        return handshake
    from pepperpy.network.events import TLSDone

    return observer.timed(handshake, TLSDone, _version_of)


def _version_of(protocol: StreamProtocol) -> dict[str, str]:
    connection = protocol.extra_info("ssl_object")
    return {} if connection is None else {"version": connection.version() or ""}  # None: it is lost already


async def _connect_transport(
    config: NetworkConfig, sock: socket.socket | TLSTunnel, context: ssl.SSLContext | None
) -> StreamProtocol:
    loop = asyncio.get_running_loop()
    protocol = StreamProtocol(config)
    if config.wire_log is not None:
        tap(protocol, config.wire_log)
    try:
        if not isinstance(sock, socket.socket):
            sock.hand_over(protocol)
            if context is not None:
                await start_tls(protocol, config, config.tls_settings, context)
        elif context is not None and (fast := fast_transports(context)) is not None:
            limits = {"ssl_handshake_timeout": _NO_LIMIT, "ssl_shutdown_timeout": _shutdown_timeout(config)}
            with as_tls_error(name := _expected_name(config, config.tls_settings, context)):
                if name is None:
                    connecting = fast.connect_accepted_socket(
                        steady(loop), lambda: protocol, sock, ssl=context, **limits
                    )
                else:
                    connecting = fast.create_connection(
                        steady(loop),
                        lambda: protocol,
                        sock=sock,
                        ssl=context,
                        server_hostname=name,
                        **limits,
                    )
                await detached(connecting)
                _check_peer(protocol, config.tls_settings)
        else:
            await detached(loop.create_connection(lambda: protocol, sock=sock))
            if context is not None:
                await start_tls(protocol, config, config.tls_settings, context)
        # All transports set TCP_NODELAY. A transport that is lost already has no socket.
        own = None if config.nodelay else protocol.extra_info("socket")
        if own is not None and own.family in (socket.AF_INET, socket.AF_INET6):
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    except BaseException:
        protocol.abort()
        sock.close()
        raise
    return protocol


async def make_client_transport(
    config: NetworkConfig,
    protocol: asyncio.Protocol,
    sock: socket.socket,
    context: ssl.SSLContext,
    name: str,
    within: ssl.SSLContext | None,
) -> asyncio.Transport:
    """A TLS transport over `sock`, by the implementation that TLS within it will have. Raises what the loop raises.

    Args: within: The context of that TLS, if it is known already.
    """
    loop: Any = asyncio.get_running_loop()
    fast = fast_transports(context) if within is None else fast_transports(within) and fast_transports(context)
    create = loop.create_connection if fast is None else functools.partial(fast.create_connection, steady(loop))
    transport, _ = await create(
        lambda: protocol,
        sock=sock,
        ssl=context,
        server_hostname=name,
        ssl_handshake_timeout=_NO_LIMIT,
        ssl_shutdown_timeout=_shutdown_timeout(config),
    )
    made: asyncio.Transport = transport
    return made


async def upgrade(
    link: ClientLink,
    given: TLSConfig | ssl.SSLContext | None,
    timeout: Timeout,
) -> None:
    """`NetworkClient.start_tls()`, which documents it."""
    protocol, config = link.protocol, link.config
    seconds = link.seconds(timeout)
    if given is not None and not isinstance(given, (TLSConfig, ssl.SSLContext)):
        raise TypeError(f"tls must be a TLSConfig, an ssl.SSLContext or None, not {type(given).__name__}")
    settings = config.tls_settings if given is None else tls_settings(given)
    if settings.checks_name and not config.tls_name_of(settings):
        raise ValueError("server_hostname must name whom the certificate is for, unless none is checked")
    context = tls.client_context(settings)

    def start_flush() -> Awaitable[None] | None:
        # Raises ClosedError or ConnectionLostError if the connection is gone.
        waiter = protocol.sender.start_flush(None)
        if protocol.is_tls and not protocol.tls_of_proxy:
            raise link.error(UsageError, "TLS is in use already, or has begun", "start_tls")
        if link.protocol is not protocol:
            # A pool had lent the connection, and it belongs to somebody else by now.
            raise link.error(ClosedError, "TLS was not begun: the connection was given back", "start_tls")
        return waiter

    waiter = start_flush()
    try:
        with time_limit(seconds):
            try:
                while waiter is not None:
                    # Other tasks may have sent more meanwhile, or have begun TLS.
                    await waiter
                    waiter = start_flush()
                await start_tls(protocol, config, settings, context, link.observer())
            except asyncio.CancelledError as error:
                # The time limit cancels too. A connection that is being closed in order goes on closing.
                if protocol.state == "open" and link.protocol is protocol:
                    _give_up(protocol, error)
                raise
    except TLSError as error:
        what, cause = f"{error}; the connection was closed", error.__cause__
        raise link.error(type(error), what, "start_tls", cause, **error.details) from cause
    except TimeoutError as error:
        what = f"TLS did not start within {seconds} s; the connection was closed"
        raise link.error(NetworkTimeoutError, what, "start_tls", error, elapsed=seconds) from error


async def start_tls(
    protocol: StreamProtocol,
    config: NetworkConfig,
    settings: TLSConfig,
    context: ssl.SSLContext,
    observer: Observer | None = None,
) -> None:
    """Begin TLS on a plain connection, without a time limit. With a context for servers this side is the server.

    Raises:
        TLSError: The peer sent plain bytes first, the handshake failed, or the certificate was refused.
        ClosedError, ConnectionLostError: This side closed the connection, or gave it up, meanwhile.

    Failure and cancellation: The connection is aborted.
    """
    try:
        await _told(_shake_hands(protocol, config, settings, context), observer)
    except BaseException as error:
        # Did this side end the connection? The error alone does not tell. aiofastnet calls connection_lost() with the
        # peer's OSError.
        ours = protocol.state in ("closing", "closed") or isinstance(protocol.loss, NetworkError)
        _give_up(protocol, error)
        if ours and isinstance(error, Exception):
            # Raises ClosedError or ConnectionLostError.
            protocol.sender.start_flush(None)
        raise


async def _shake_hands(
    protocol: StreamProtocol, config: NetworkConfig, settings: TLSConfig, context: ssl.SSLContext
) -> StreamProtocol:
    loop = asyncio.get_running_loop()
    name = _expected_name(config, settings, context)
    early = protocol.receiver.bytes_buffered
    if early and name is not None:
        # Somebody on the way may have inserted them, so that they count as received over TLS (CVE-2021-23222).
        cause = ssl.SSLError(ssl.SSL_ERROR_SSL, "plain bytes before the handshake")
        what = f"the peer sent {early} plain bytes before TLS began"
        raise also_as(TLSError, cause)(what, {"received": early}, cause)
    # A client speaks first, so its side of the handshake may be here already. What else came fails there.
    hello = protocol.receiver.take(early) if early else None
    # Without a socket (memory_pair()), loop.start_tls() raises a clear error.
    fast = fast_transports(context) if hello is None and protocol.extra_info("socket") is not None else None
    over = loop.start_tls if fast is None else functools.partial(fast.start_tls, QuietLoop(loop))
    within = protocol.tls_of_proxy
    plain = protocol.start_tls()
    if within:
        # The loop's own limits again. At 0, the outer TLS pauses and resumes the inner one while that writes, which
        # fails asyncio's and uvloop's assertions.
        plain.set_write_buffer_limits()
    starting: Coroutine[Any, Any, asyncio.Transport | None] = over(
        plain,
        protocol,
        context,
        server_side=name is None,
        server_hostname=name,
        ssl_handshake_timeout=_NO_LIMIT,
        ssl_shutdown_timeout=_shutdown_timeout(config),
    )
    if hello:
        # typeshed takes what `types.coroutine` returns for an awaitable only.
        starting = _after_first_step(starting, lambda: loop.call_soon(feed, plain, hello))  # pyright: ignore[reportAssignmentType]
    with as_tls_error(name), _within_tls() if within else contextlib.nullcontext():
        transport = await detached(starting)
        if transport is None or plain.is_closing():
            # asyncio returns normally when the transport is aborted meanwhile.
            raise ConnectionAbortedError("closed during the handshake")
        protocol.tls_started(transport)
        _check_peer(protocol, settings)
    return protocol


def _expected_name(config: NetworkConfig, settings: TLSConfig, context: ssl.SSLContext) -> str | None:
    """The name that the peer's certificate must have; None if this side is the server, and the peer has no name."""
    return None if is_for_servers(context) else config.tls_name_of(settings)


@types.coroutine
def _after_first_step(coroutine: Coroutine[Any, Any, T], call: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await a coroutine; `call()` runs when it waits for the first time."""
    steps = coroutine.__await__()
    future = next(steps)
    call()
    try:
        yield future
    except BaseException as error:
        yield steps.throw(error)
    return (yield from steps)


def feed(plain: asyncio.Transport, data: bytes) -> None:
    """Let the protocol of a transport receive `data`, ahead of what is read next."""
    # In the loop's queue behind the start of TLS, and before anything else is read.
    # uvloop's is a BufferedProtocol by its methods alone.
    tls_protocol: Any = plain.get_protocol()
    rest = memoryview(data)
    while rest and not plain.is_closing():
        buffer = memoryview(tls_protocol.get_buffer(len(rest)))
        size = min(len(buffer), len(rest))
        buffer[:size] = rest[:size]
        tls_protocol.buffer_updated(size)
        rest = rest[size:]


def _give_up(protocol: StreamProtocol, error: BaseException) -> None:
    reason = ConnectionAbortedError(f"TLS did not start: {str(error) or 'it was cancelled, or took too long'}")
    if protocol.state != "open":
        protocol.abort()
    elif protocol.loss is None:
        # A loss, so that a client with `reconnect` connects again.
        protocol.drop(reason)
    else:
        protocol.lose(reason)
    # The TLS of neither loop reports the end of a connection that ends in its handshake.
    protocol.connection_lost(reason)


def fast_transports(context: ssl.SSLContext) -> ModuleType | None:
    """The module aiofastnet, if it can be used: TLS in C. A round trip on the socket takes 9.4 us, with asyncio 15.1.

    Over a plain transport of the loop, after STARTTLS, it still saves 25 % of the CPU time on asyncio, 8 % on uvloop.

    It reaches into the context's OpenSSL structure. A subclass of `SSLContext`, such as truststore's, has another one.
    """
    return _aiofastnet() if type(context) is ssl.SSLContext else None


@functools.cache
def _aiofastnet() -> ModuleType | None:
    # Kept, because an import that finds nothing looks through all of sys.path each time: 50 us a connection.
    try:
        module = importlib.import_module("aiofastnet")
    except ImportError:
        return None
    decode_once(module)
    return module


def _check_peer(protocol: StreamProtocol, settings: TLSConfig) -> None:
    if settings.pins:
        tls.check_pin(settings.pins, protocol.extra_info("ssl_object"))


def _shutdown_timeout(config: NetworkConfig) -> float:
    # disconnect() aborts after close_timeout, and reports what was lost. The transport must not abort before that.
    return config.close_timeout + 1.0


@contextlib.contextmanager
def _within_tls() -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        if isinstance(error.__context__, OSError):
            # Before CPython 3.11.8 and 3.12.2, asyncio stumbles where TLS within TLS fails (cpython#113214).
            raise error.__context__ from None
        raise UsageError(f"this event loop cannot do TLS within the TLS to the proxy: {error}") from error


@contextlib.contextmanager
def as_tls_error(name: str | None) -> Iterator[None]:
    """Raise a `TLSError` for each `OSError` of a handshake. `name` is the peer's; None if it is a client."""
    try:
        yield
    except OSError as error:
        raise tls_error(error, name) from error


def tls_error(error: OSError, name: str | None, proxy: str | None = None) -> TLSError:
    """What a failed handshake is raised as. `proxy`: the URL without secrets, if the peer is a proxy."""
    if isinstance(error, ssl.SSLError) and error.errno is None:
        # Errors of aiofastnet have no errno.
        error.errno = ssl.SSL_ERROR_SSL
    what = tls.describe_failure_of_client(error) if name is None else tls.describe_failure(error, name)
    if proxy is None:
        return also_as(TLSError, error)(what, None, error)
    return also_as(TLSError, error)(f"TLS to the proxy {proxy}: {what}", {"proxy": proxy}, error)
