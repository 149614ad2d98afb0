"""A server that dies and comes back on its port, and a client that is to bear it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from pepperpy.network import ConnectionLostError, NetworkClient, NetworkConfig
from support.cancelling import until
from support.processes import reserved_ports

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (data := await reader.read(65536)) and not writer.transport.is_closing():
        writer.write(data)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing until the connection ends, and then do not mind how."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await writer.wait_closed()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept and close at once."""


class Mortal:
    """One server on one port, started and killed as often as the test likes."""

    def __init__(self, port: int, handler: Handler = echo, context: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.handler = handler
        self.context = context
        self.accepted = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._is_killed = False

    async def start(self) -> None:
        self._is_killed = False
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.context)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._is_killed:
            # The loop had accepted it before.
            writer.transport.abort()
            return
        self.writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                await self.handler(reader, writer)
        finally:
            self.writers.discard(writer)
            writer.close()

    def drop(self, *, reset: bool = False) -> None:
        """End all connections; the server goes on."""
        for writer in self.writers:
            if reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()

    async def kill(self) -> None:
        """End all connections and stop listening."""
        self._is_killed = True
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        for _ in range(3):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def mortal_server(handler: Handler = echo, context: ssl.SSLContext | None = None) -> AsyncIterator[Mortal]:
    with reserved_ports(1) as [port]:
        server = Mortal(port, handler, context)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()


def reconnecting(port: int, host: str = "127.0.0.1", **settings: object) -> NetworkClient:
    """A reconnecting client that does not wait long."""
    defaults = {"timeout": 10, "retries": 0, "retry_delay": 0.01, "max_retry_delay": 0.02, "reconnect": True}
    return NetworkClient(NetworkConfig(host, port, **defaults | settings))


@contextlib.asynccontextmanager
async def mortal_and_client(
    handler: Handler = echo, server_tls: ssl.SSLContext | None = None, **settings: object
) -> AsyncIterator[tuple[Mortal, NetworkClient]]:
    """Both, connected."""
    async with mortal_server(handler, server_tls) as server:
        client = reconnecting(server.port, **settings)
        await client.connect()
        try:
            yield server, client
        finally:
            client.abort()
            for _ in range(3):
                await asyncio.sleep(0)


# ---- What a client sees of it ----

# Each call that may wait.
CALLS = {
    "receive": lambda c, **t: c.receive(**t),
    "receive_into": lambda c, **t: c.receive_into(bytearray(1), **t),
    "receive_exactly": lambda c, **t: c.receive_exactly(1, **t),
    "receive_large": lambda c, **t: c.receive_exactly(1 << 18, **t),
    "receive_until": lambda c, **t: c.receive_until(b"x", **t),
    "receive_line": lambda c, **t: c.receive_line(**t),
    "receive_lines": lambda c, **t: c.receive_lines(**t),
    "send": lambda c, **t: c.send(b"x", **t),
    "send_many": lambda c, **t: c.send_many([b"x", b"y"], **t),
    "flush": lambda c, **t: c.flush(**t),
}


async def ask(client: NetworkClient, question: bytes = b"ping\n") -> None:
    """The server that the client is connected to echoes."""
    await client.send(question)
    assert await client.receive_exactly(len(question)) == question


async def lost(client: NetworkClient) -> None:
    await until(lambda: not client.is_connected, "the client has noticed the loss")


async def told(client: NetworkClient) -> None:
    """Take the news of a loss, which comes once in each direction."""
    await lost(client)
    with pytest.raises(ConnectionLostError):
        await client.receive()
    with pytest.raises(ConnectionLostError):
        await client.send(b"lost")
