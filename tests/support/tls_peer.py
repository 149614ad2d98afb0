"""The server's end of a TLS connection, driven by the test: OpenSSL between two memory buffers and a plain socket.

So a test decides what of TLS is said and what is left out: a stream that ends without close_notify, say.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import inspect
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiofastnet
import pytest

from pepperpy.network import NetworkClient, TLSConfig
from pepperpy.network.tcp import handshake
from support.certificates import ca_file, server_cert, server_context
from support.servers import client_of

# Both TLS implementations that a client may get; see `use_transport`.
TRANSPORTS = ("the loop's", "aiofastnet's")


def excuse_failures_within_tls() -> None:
    """Before CPython 3.11.8 and 3.12.2, asyncio reports its own stumbling over these as well (cpython#113214)."""
    if len(inspect.signature(asyncio.sslproto.SSLProtocol._abort).parameters) == 1:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


# As after STARTTLS: over a plain transport of the loop.
UPGRADED = "aiofastnet's, over the loop's"


def use_transport(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let clients use that implementation of TLS."""
    if name == "the loop's":
        monkeypatch.setattr(handshake, "fast_transports", lambda context: None)
    elif name == UPGRADED:
        monkeypatch.setattr(aiofastnet, "create_connection", _plain_first)


async def _plain_first(
    loop: asyncio.AbstractEventLoop, factory: Any, *, sock: socket.socket, ssl: ssl.SSLContext, **options: Any
) -> None:
    _, protocol = await loop.create_connection(factory, sock=sock)
    plain = protocol.start_tls()
    protocol.tls_started(await aiofastnet.start_tls(loop, plain, protocol, ssl, **options))


class TLSPeer:
    """`sock` is the plain socket; nothing is read from or written to it unless the test asks for it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        await self._do(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        await self._send_raw(self.encrypted(data))

    def encrypted(self, data: bytes) -> bytes:
        """What would be sent for `data`, with whatever else is due."""
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    async def receive(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end of the stream."""
        pieces = []
        while size and (piece := await self._do(self.tls.read, size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def close_notify(self) -> bytes:
        """The bytes that end the TLS stream in order."""
        # unwrap() waits for the other side's, too.
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    async def _do(self, step: Any, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                await self._send_raw(self._outgoing.read())
                data = await loop.sock_recv(self.sock, 65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._send_raw(self._outgoing.read())
                return result

    async def _send_raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)


def tls_client_of(port: int, **settings: Any) -> NetworkClient:
    """A client that trusts the tests' authority; fields of `TLSConfig` may be given as settings."""
    fields = {name: settings.pop(name) for name in TLSConfig.__dataclass_fields__ if name in settings}
    return client_of(port, **{"tls": TLSConfig(**{"ca_file": ca_file()} | fields)} | settings)


@contextlib.asynccontextmanager
async def accepted(client: NetworkClient, listener: socket.socket, context: ssl.SSLContext) -> AsyncIterator[TLSPeer]:
    """Connect `client` to `listener` and give the server's end; both are closed at the end."""
    connecting = asyncio.create_task(client.connect())
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    sock.setblocking(False)
    peer = TLSPeer(sock, context)
    try:
        await peer.handshake()
        await connecting
        yield peer
    finally:
        client.abort()
        peer.close()
        await asyncio.wait([connecting])
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def tls_peer_and_client(
    context: ssl.SSLContext | None = None, **settings: object
) -> AsyncIterator[tuple[TLSPeer, NetworkClient]]:
    """A client connected over TLS and the server's end of its connection; both are closed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = tls_client_of(listener.getsockname()[1], **settings)
        async with accepted(client, listener, context or server_context(server_cert())) as peer:
            yield peer, client
