"""The way through a proxy that speaks TLS itself (`https://`): TLS to the proxy, and CONNECT inside of it for a tunnel.

OpenSSL may have decrypted more than the proxy's answer by the time it is whole: the server's greeting, say. So there is
no socket to hand on, but a transport, and what it has received beyond the answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import ssl
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.handover import Handover
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.detached import detached
from pepperpy.network.proxy_url import ProxyURL
from pepperpy.network.tcp.handshake import feed, make_client_transport, tls_error
from pepperpy.network.tcp.http_connect import (
    END_OF_ANSWER,
    MAX_ANSWER,
    Tunnelling,
    check_answer,
    hung_up,
    lost,
    too_long,
)
from pepperpy.network.tls import check_pin, client_context
from pepperpy.network.tls_config import proxy_tls_settings

if TYPE_CHECKING:
    from pepperpy.network.config import NetworkConfig


# The protocol (ALPN) that a proxy is offered if the settings name none. CONNECT is spoken in HTTP/1.1. curl offers the
# same.
ALPN = ("http/1.1",)


class TLSTunnel:
    """A transport that leads to the server, until a `StreamProtocol` takes it over; in place of a connected socket."""

    def __init__(self, proxy: ProxyURL, transport: asyncio.Transport, dialogue: _Dialogue) -> None:
        self._proxy = proxy
        self._transport = transport
        self._dialogue = dialogue

    def hand_over(self, protocol: StreamProtocol) -> None:
        """Connect `protocol`, which also gets what has come behind the proxy's answer.

        Raises:
            ProxyError: The connection ended meanwhile.
        """
        # In nobody's context: see detached.py.
        contextvars.Context().run(self._hand_over, protocol)

    def _hand_over(self, protocol: StreamProtocol) -> None:
        if self._dialogue.is_over:
            raise hung_up(self._proxy)
        protocol.tls_of_proxy = True
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        # It reads in a later turn of the loop, so the rest comes first.
        self._transport.resume_reading()
        feed(self._transport, self._dialogue.rest)

    def close(self) -> None:
        """Close at once; without effect once that is done."""
        self._transport.abort()


async def connect_over_tls(
    config: NetworkConfig, sock: socket.socket, proxy: ProxyURL, tunnelling: Tunnelling | None
) -> TLSTunnel:
    """Do the handshake with the proxy over `sock`, which is connected to it, and ask for a tunnel.

    Its settings are those of `proxy_tls_settings()`. Without a name in them, the certificate must be for the host of
    the proxy's URL.

    Args: tunnelling: None: ask for no tunnel; see `forwards` of `open_tunnel()`.

    Raises:
        TLSError: The handshake failed, or the certificate was refused. `details` has the `proxy`.
        ProxyError: The proxy refuses, or does not answer as one; `Challenged`, if it may not refuse the next time.
        ValueError: A file of the settings cannot be used.

    Failure and cancellation: The transport is aborted; the caller closes `sock`.
    """
    settings = proxy_tls_settings(config.proxy_tls, config.tls_settings)
    context = client_context(settings, ALPN)
    within = client_context(config.tls_settings) if config.tls else None
    name = settings.server_hostname or proxy.host.partition("%")[0].rstrip(".")
    dialogue = _Dialogue(proxy, name)
    try:
        try:
            transport = await detached(make_client_transport(config, dialogue, sock, context, name, within))
            check_pin(settings.pins, transport.get_extra_info("ssl_object"))
        except OSError as error:
            raise tls_error(error, name, proxy.shown) from error
        if tunnelling is None:
            transport.pause_reading()
        else:
            check_answer(proxy, await dialogue.ask(transport, tunnelling.request()), tunnelling.auth)
    except BaseException:
        dialogue.abort()
        raise
    return TLSTunnel(proxy, transport, dialogue)


class _Dialogue(asyncio.Protocol):
    """Asks the proxy, and stops reading when it has answered.

    Attributes:
        rest: What came behind the answer.
        is_over: Whether the connection has ended.
    """

    def __init__(self, proxy: ProxyURL, name: str) -> None:
        """Args: name: Whom the proxy's certificate is for."""
        self.rest = b""
        self.is_over = False
        self._proxy = proxy
        self._name = name
        self._transport: Any = None
        self._answer: Handover | None = None  # for the head or an error; None: nothing was asked yet

    async def ask(self, transport: asyncio.Transport, request: bytes) -> bytes:
        """Send a request. Returns the head of the answer.

        Raises:
            TLSError: The proxy refused the handshake after its end, as it may in TLS 1.3 (RFC 8446, section 4.6.2).
            ProxyError: The connection ended first, or the head is too long.
        """
        if self.is_over:
            raise hung_up(self._proxy)
        self._answer = answer = Handover(asyncio.get_running_loop())
        transport.write(request)
        await answer
        if isinstance(answer.outcome, Exception):
            raise answer.outcome
        head: bytes = answer.outcome
        return head

    def abort(self) -> None:
        # Connecting may be cancelled between connection_made() and the return of the transport.
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.rest += data
        if self._answer is None or self._answer.is_over:
            return
        head, end, rest = self.rest.partition(END_OF_ANSWER)
        if len(head) > MAX_ANSWER:
            _tell(self._answer, too_long(self._proxy))
        elif end:
            self._transport.pause_reading()
            _tell(self._answer, head)
            self.rest = rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if self._answer is not None and not self._answer.is_over:
            try:
                failure = self._failure(exc)
            except MemoryError as error:
                failure = error
            _tell(self._answer, failure)

    def _failure(self, exc: Exception | None) -> Exception:
        if exc is None:
            return hung_up(self._proxy)
        if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError):
            return tls_error(exc, self._name, self._proxy.shown)
        return lost(self._proxy, exc)


def _tell(answer: Handover, outcome: bytes | Exception) -> None:
    try:
        answer.give(outcome)
    except MemoryError:
        # Tried once more, because nobody else tells who waits.
        answer.give(outcome)
