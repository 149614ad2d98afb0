"""A tunnel through a proxy that speaks TLS itself (`https://`): TLS to the proxy, then CONNECT inside of it.

OpenSSL may have decrypted more than the proxy's answer by the time it is whole: the server's greeting, say. So there is
no socket to hand on, but a transport, and what it has received beyond the answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.detached import detached
from pepperpy.network.proxy_url import ProxyURL
from pepperpy.network.tcp.handshake import as_tls_error, feed, make_client_transport
from pepperpy.network.tcp.http_connect import (
    END_OF_ANSWER,
    MAX_ANSWER,
    check_answer,
    connect_request,
    hung_up,
    lost,
    too_long,
)
from pepperpy.network.tls import client_context, is_for_servers
from pepperpy.network.tls_config import TLSConfig

if TYPE_CHECKING:
    from pepperpy.network.config import NetworkConfig


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
    config: NetworkConfig, sock: socket.socket, proxy: ProxyURL, host: str, port: int
) -> TLSTunnel:
    """Do the handshake with the proxy over `sock`, which is connected to it, and ask for a tunnel to `host`.

    The proxy's certificate must be for the host of its URL. The rest is checked as the server's: see `_settings_of()`.

    Raises:
        TLSError: The handshake failed, or the certificate was refused.
        ProxyError: The proxy refuses, or does not answer as one.
        ValueError: A file of `config.tls` cannot be used.

    Failure and cancellation: The transport is aborted; the caller closes `sock`.
    """
    dialogue = _Dialogue(proxy)
    context = client_context(_settings_of(config))
    name = proxy.host.partition("%")[0].rstrip(".")
    try:
        with as_tls_error(name, f"TLS to the proxy {proxy.shown}: "):
            transport = await detached(make_client_transport(config, dialogue, sock, context, name))
        check_answer(proxy, await dialogue.ask(transport, connect_request(proxy, host, port)))
    except BaseException:
        dialogue.abort()
        raise
    return TLSTunnel(proxy, transport, dialogue)


def _settings_of(config: NetworkConfig) -> TLSConfig:
    """Those of `config.tls`, without the protocols to offer. Nobody looks at name and pin, which are the server's."""
    settings = config.tls_settings
    if settings.context is None:
        return settings.replace(alpn=())
    # A context for servers says how this side answers a handshake, and here it begins one.
    return TLSConfig() if is_for_servers(settings.context) else settings


class _Dialogue(asyncio.Protocol):
    """Asks the proxy, and stops reading when it has answered.

    Attributes:
        rest: What came behind the answer.
        is_over: Whether the connection has ended.
    """

    def __init__(self, proxy: ProxyURL) -> None:
        self.rest = b""
        self.is_over = False
        self._proxy = proxy
        self._transport: Any = None
        self._answer: asyncio.Future[bytes] | None = None  # None: nothing was asked yet

    async def ask(self, transport: asyncio.Transport, request: bytes) -> bytes:
        """Send a request. Returns the head of the answer.

        Raises:
            ProxyError: The connection ended first, or the head is too long.
        """
        if self.is_over:
            raise hung_up(self._proxy)
        self._answer = asyncio.get_running_loop().create_future()
        transport.write(request)
        return await self._answer

    def abort(self) -> None:
        # Connecting may be cancelled between connection_made() and the return of the transport.
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.rest += data
        if self._answer is None or self._answer.done():
            return
        head, end, rest = self.rest.partition(END_OF_ANSWER)
        if len(head) > MAX_ANSWER:
            self._answer.set_exception(too_long(self._proxy))
        elif end:
            self._transport.pause_reading()
            self.rest = rest
            self._answer.set_result(head)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(hung_up(self._proxy) if exc is None else lost(self._proxy, exc))
