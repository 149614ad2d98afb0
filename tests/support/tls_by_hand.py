"""HTTPS servers that do their own TLS, and how a request is refused that meets one."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pepperpy.network import ConnectError, HTTPClient, HTTPConfig, NetworkError, TLSConfig
from support.certificates import ca_file
from support.http_faults import response

TRUSTING = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), retries=2, retry_delay=0)


class TLSByHand:
    """A server that shows what it read in clear text, and sends its alerts, which asyncio's own TLS does not.

    `requests` holds the number of the connection of each request that it has answered.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.connections = 0
        self.received = b""
        self.requests: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)
        with contextlib.suppress(ssl.SSLError, EOFError, ConnectionError):
            await self._exchange(tls.do_handshake, reader, writer, incoming, outgoing)
            while data := await self._exchange(tls.read, reader, writer, incoming, outgoing):
                self.received += data
                if self.received.endswith(b"\r\n\r\n"):
                    self.requests.append(number)
                    tls.write(response())
        if not writer.is_closing():  # uvloop refuses to write where the peer is gone
            writer.write(outgoing.read())
        writer.close()

    async def _exchange(
        self,
        step: Callable[[], Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await reader.read(65536)
                if not data:
                    raise EOFError from None
                incoming.write(data)


@contextlib.asynccontextmanager
async def listening(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """The URL of a server on 127.0.0.1 that is named localhost."""
    tasks: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/path"
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def refusal(url: str, config: HTTPConfig = TRUSTING, attempts: int = 1, **arguments: Any) -> NetworkError:
    """The error of a request that fails while connecting."""
    async with HTTPClient(config) as client:
        with pytest.raises(ConnectError) as caught:
            await client.get(url, **arguments)
        assert client.stats.attempts == attempts
        assert client.stats.open_connections == 0
    details = dict(caught.value.details)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.details) == (str(caught.value), details)
    assert type(again.__cause__) is type(caught.value.__cause__)
    assert details.pop("elapsed") > 0
    host, _, port = url.removeprefix("https://").partition("/")[0].partition(":")
    assert details == {
        "method": "GET",
        "url": url,
        "host": host,
        "port": int(port),
        "phase": "connect",
        "attempt": attempts,
    }
    return caught.value
