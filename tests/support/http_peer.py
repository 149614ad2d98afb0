"""An HTTP server that does what its handler says, byte by byte, on the test's own loop.

A handler is a coroutine function, called with the `Connection` for each client that connects; when it returns, the
connection is closed. That the client has left (EOFError, ConnectionError) ends it silently. Ready-made handlers and
broken responses are in support/http_faults.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from multidict import CIMultiDict

from pepperpy.network.testing.tcp_reset import before_reset
from support.certificates import server_context


@dataclass
class Request:
    """As the server has read it; `body` stays empty until `Connection.read_body()`."""

    connection: int
    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes = b""


class Connection:
    """The server's end of one connection; `number` is 1 for the first of the server."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[Request]
    ) -> None:
        self.number = number
        self.bytes_sent = 0
        self._reader = reader
        self._writer = writer
        self._requests = requests
        self._request: Request | None = None
        # send() returns when the kernel has everything, so that what a client leaves unread holds the handler up.
        # Not 0 over TLS: asyncio's sslproto.py then pauses an empty transport, and resumes it with the next write only.
        writer.transport.set_write_buffer_limits(high=0 if writer.get_extra_info("sslcontext") is None else 1, low=0)

    async def read_head(self) -> Request:
        """The next request up to its blank line; EOFError if the client sends no more."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        fields = (line.partition(":") for line in lines)
        headers = CIMultiDict((name, value.strip()) for name, _, value in fields)
        self._request = Request(self.number, method, target, headers)
        self._requests.append(self._request)
        return self._request

    async def read_body(self) -> bytes:
        """The body that belongs to the last head, b"" if none does."""
        request = self._request
        assert request is not None, "read_body() comes after read_head()"
        if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(await self._reader.readuntil(b"\n"), 16):
                request.body += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            while await self._reader.readline() != b"\r\n":
                pass
        else:
            request.body = await self._reader.readexactly(int(request.headers.get("Content-Length", 0)))
        return request.body

    async def read_request(self) -> Request:
        """The next request with its body."""
        request = await self.read_head()
        await self.read_body()
        return request

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on everything in both directions until both have ended: a proxy's tunnel."""

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while (data := await source.read(65536)) and not target.transport.is_closing():
                    target.write(data)
                    await target.drain()
            target.close()

        try:
            await asyncio.gather(copy(self._reader, writer), copy(reader, self._writer))
        except BaseException:
            # The test is over, and nobody else knows this connection.
            writer.transport.abort()
            raise

    async def wait_closed(self) -> None:
        """Read and drop until the client has closed its end."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    async def send(self, data: bytes) -> None:
        """Returns when the kernel has `data` (over TLS: when nothing waits in front of the encryption)."""
        if self._writer.transport.is_closing():
            # asyncio would ignore the data; uvloop raises a RuntimeError once the socket is closed.
            raise ConnectionResetError("the client has left")
        self._writer.write(data)
        await self._writer.drain()
        self.bytes_sent += len(data)
        # drain() alone need not let others run: a handler that sends without end would be all that runs.
        await asyncio.sleep(0)

    def send_eof(self) -> None:
        """End this direction only. Not over TLS."""
        self._writer.write_eof()

    def close(self) -> None:
        """Close when what was sent has left."""
        self._writer.close()

    async def close_and_wait(self) -> None:
        """Close in order, and wait until that is done: the client's kernel knows of it then."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await asyncio.sleep(0)  # both loops close the socket right behind connection_lost()

    def reset(self) -> None:
        """Close with a RST; what the client has not read yet is lost."""
        # A descriptor of our own: uvloop's transports show a socket that takes no options.
        with socket.socket(fileno=socket.dup(self._writer.get_extra_info("socket").fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._writer.transport.abort()

    async def reset_and_wait(self) -> None:
        """The same when all that was sent has left, and wait until the client's kernel knows of it."""
        with socket.socket(fileno=socket.dup(self._writer.get_extra_info("socket").fileno())) as sock:
            await before_reset(sock)
        self.reset()
        await self.abort()
        await asyncio.sleep(0)

    async def abort(self) -> None:
        """Close at once and wait until that is done."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


Handler = Callable[[Connection], Awaitable[None]]


class HTTPPeer:
    """A running server; its `connections` and `requests` are in the order of their arrival."""

    def __init__(self, handler: Handler) -> None:
        self.url = ""
        self.port = 0
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        self.errors: list[Exception] = []
        self._handler = handler
        self.handlers: list[asyncio.Task[None]] = []
        self._is_over = False

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:
            # The loop had accepted it before the server was closed: its client left in the same turns.
            writer.transport.abort()
            return
        connection = Connection(len(self.connections) + 1, reader, writer, self.requests)
        self.connections.append(connection)
        self.handlers.append(asyncio.create_task(self._handle(connection)))

    async def stop(self) -> None:
        self._is_over = True
        for task in self.handlers:
            task.cancel()
        await asyncio.gather(*self.handlers, return_exceptions=True)
        for connection in self.connections:
            await connection.abort()

    async def _handle(self, connection: Connection) -> None:
        try:
            await self._handler(connection)
        except (EOFError, ConnectionError):
            pass  # the client has left
        except Exception as error:
            # Shown with a test that fails first for want of an answer.
            traceback.print_exc()
            self.errors.append(error)
        connection.close()


@contextlib.asynccontextmanager
async def http_peer(handler: Handler, *, certificate: Path | None = None) -> AsyncIterator[HTTPPeer]:
    """A server on a free port of 127.0.0.1, over TLS with a `certificate`; a handler's error is raised at the end."""
    peer = HTTPPeer(handler)
    context = None if certificate is None else server_context(certificate)
    server = await asyncio.start_server(peer.connected, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    peer.port = server.sockets[0].getsockname()[1]
    peer.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{peer.port}"
    try:
        yield peer
    finally:
        server.close()
        await peer.stop()
    if peer.errors:
        raise peer.errors[0]
