"""HTTP servers that count and keep what arrives, and how a request is refused before anything does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pepperpy.network import HTTPClient, HTTPConfig, InvalidRequestError
from support.http_faults import answering, response
from support.http_peer import HTTPPeer, http_peer

CANARY = "s3cr3t"
QUICK = HTTPConfig(retries=0, timeout=10)


class Recorder:
    """A server that counts connections and keeps all bytes, and answers each request with `ok`."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.received = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.received += data
                if self.received.endswith(b"\r\n\r\n"):
                    writer.write(response())
        writer.close()


@contextlib.asynccontextmanager
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        server.close()


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[HTTPPeer]:
    async with http_peer(answering(response())) as peer:
        yield peer


async def check_refused(client: HTTPClient, named: str, method: str, url: Any, **arguments: Any) -> InvalidRequestError:
    attempts = client.stats.attempts
    with pytest.raises(InvalidRequestError) as caught:
        await client.request(method, url, **arguments)
    with pytest.raises(InvalidRequestError):
        async with client.stream(method, url, **arguments):
            pass
    error = caught.value
    assert named in error.message
    assert error.message.isprintable()
    assert error.details["method"] == method
    assert error.details["phase"] == "prepare"
    assert error.details["url"] in error.message
    shown = f"{error!r} {error.details} {error.__cause__!r}"
    assert CANARY not in shown
    assert error.__suppress_context__ or error.__context__ is None
    assert client.stats.attempts == attempts
    assert client.stats.in_flight == 0
    return error
