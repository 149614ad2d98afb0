"""A server that sends each line back, and can be told to misbehave; and a pool of connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from pepperpy.network import NetworkClient, NetworkConfig, NetworkPool
from support.processes import reserved_ports


class LineServer:
    """Echoes lines. `open` holds the writers of its connections in the order in which they were accepted."""

    def __init__(self, port: int = 0) -> None:
        self.open: list[asyncio.StreamWriter] = []
        self.accepted = 0
        self.greeting = b""
        self.hangs_up = False
        self.port = port
        self._server: asyncio.Server | None = None
        self._is_stopped = False

    async def start(self) -> None:
        """Listen before the loop runs again; on the same port as before, if it was stopped."""
        self._is_stopped = False
        listener = socket.create_server(("127.0.0.1", self.port))
        self._server = await asyncio.start_server(self._serve, sock=listener)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and reset all connections."""
        assert self._server is not None
        self._is_stopped = True
        self._server.close()
        self.drop_all()
        for _ in range(3):
            await asyncio.sleep(0)

    def drop_all(self) -> None:
        for writer in list(self.open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._is_stopped:
            # The loop had accepted it before.
            writer.transport.abort()
            return
        self.open.append(writer)
        writer.write(self.greeting)
        try:
            # Writing to a closed transport is a RuntimeError on uvloop.
            while not self.hangs_up and (line := await reader.readline()) and not writer.transport.is_closing():
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open.remove(writer)
            writer.close()


@contextlib.asynccontextmanager
async def line_server() -> AsyncIterator[LineServer]:
    # Nobody else gets the port while the server is stopped.
    with reserved_ports(1) as [port]:
        server = LineServer(port)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


def pool_of(port: int, *sizes: int, config: dict[str, Any] | None = None, **settings: Any) -> NetworkPool:
    """A pool of connections to a local server; `config` are fields of NetworkConfig."""
    fields = {"timeout": 10, "retries": 0, "retry_delay": 0} | (config or {})
    return NetworkPool(NetworkConfig("127.0.0.1", port, **fields), *sizes, **settings)


@contextlib.asynccontextmanager
async def server_and_pool(*sizes: int, **settings: Any) -> AsyncIterator[tuple[LineServer, NetworkPool]]:
    async with line_server() as server, pool_of(server.port, *sizes, **settings) as pool:
        yield server, pool


async def ask(client: NetworkClient, question: bytes = b"ping") -> None:
    """One exchange, whose answer must be its own."""
    await client.send(question + b"\n")
    answer = await client.receive_line()
    assert answer == question + b"\n", f"{question!r} was answered by {answer!r}"


def is_consistent(pool: NetworkPool) -> bool:
    """Whether every connection is in exactly one place, and none too many."""
    stats = pool.stats
    places = stats.in_use + stats.idle + stats.preparing + stats.closing
    return stats.size == places <= pool.max_size
