"""Clients over TCP, Unix sockets and in memory whose peer ends its stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pepperpy.network import NetworkClient, NetworkConfig, TLSConfig
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.mortal import Handler


@contextlib.asynccontextmanager
async def client_over(over: str, folder: Path, handler: Handler, **settings: object) -> AsyncIterator[NetworkClient]:
    """A connected client of a server that runs `handler` for each connection, and closes it then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await handler(reader, writer)
        finally:
            writer.close()

    where: dict[str, Any] = {"timeout": 10, "retries": 0}
    if over == "unix":
        server = await asyncio.start_unix_server(serve, folder / "socket")
        where["unix_path"] = str(folder / "socket")
    else:
        context = None if over == "tcp" else server_context(server_cert())
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        where |= {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
        if context is not None:
            where |= {"tls": TLSConfig(ca_file=ca_file())}
    client = NetworkClient(NetworkConfig(**where | settings))
    try:
        await client.connect()
        yield client
    finally:
        client.abort()
        server.close()
        for _ in range(5):
            await asyncio.sleep(0)


def last_words(data: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handler


async def ended(client: NetworkClient) -> None:
    """Until the client knows that the peer has ended its stream."""
    await until(lambda: client._link.protocol.peer_ended, "the end of the stream has come")
