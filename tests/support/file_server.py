"""A server that gives out a file and breaks off where it is told, and what is expected of a download from it."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pepperpy.network import HTTPClient, HTTPConfig
from pepperpy.network.http.download import DownloadResult
from support.cancelling import until
from support.http_faults import response
from support.http_peer import Connection, HTTPPeer, http_peer

DATA = random.Random(5).randbytes(5000)
OLD = b"what was there before"
PARTIAL = "206 Partial Content"


def untouched(target: Path) -> bool:
    """Whether the file is as it was, and alone in its folder."""
    return target.read_bytes() == OLD and os.listdir(target.parent) == [target.name]


@dataclass(frozen=True)
class Answer:
    """One response; it breaks off after `cut` bytes of its body, once the client has reported that it has them."""

    sent: bytes
    start: int = 0  # where in the file its body begins
    cut: int | None = None


def answer(body: bytes, *headers: str, status: str = "200 OK", start: int = 0, cut: int | None = None) -> Answer:
    return Answer(response(body, *headers, status=status), start, cut)


def whole(data: bytes = DATA, *, etag: str = '"1"', cut: int | None = None) -> Answer:
    return answer(data, f"ETag: {etag}", cut=cut)


def rest(
    start: int, data: bytes = DATA, *, cut: int | None = None, headers: tuple[str, ...] = ('ETag: "1"',)
) -> Answer:
    content_range = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}"
    return answer(data[start:], content_range, *headers, status=PARTIAL, start=start, cut=cut)


class FileServer:
    """Gives the n-th request the n-th answer, and later ones the last; knows how far the client has got."""

    def __init__(self, *answers: Answer) -> None:
        self.reports: list[tuple[int, int | None]] = []
        self._answers = list(answers)

    def progress(self, size: int, total: int | None) -> None:
        self.reports.append((size, total))

    async def handle(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer.cut is not None:
                await self._break_off(connection, answer, answer.cut)
                return
            await connection.send(answer.sent)

    async def _break_off(self, connection: Connection, answer: Answer, cut: int) -> None:
        self.reports.clear()
        await connection.send(answer.sent[: answer.sent.index(b"\r\n\r\n") + 4 + cut])
        if cut or not answer.start:
            # Or what the client has not yet taken from the connection might be lost with it.
            end = answer.start + cut
            await until(lambda: bool(self.reports) and self.reports[-1][0] >= end, "the client has got all so far")


@dataclass
class Served:
    peer: HTTPPeer
    client: HTTPClient
    server: FileServer

    async def download(self, path: Path, **options: Any) -> DownloadResult:
        return await self.client.download("/file", path, progress=self.server.progress, **options)

    def asked(self, name: str) -> list[str | None]:
        """That header of each request."""
        return [request.headers.get(name) for request in self.peer.requests]


@contextlib.asynccontextmanager
async def served(*answers: Answer, **settings: Any) -> AsyncIterator[Served]:
    server = FileServer(*answers)
    async with http_peer(server.handle) as peer, HTTPClient(HTTPConfig(peer.url, **settings)) as client:
        yield Served(peer, client, server)
        assert client.stats.in_flight == 0
        assert client.stats.calls <= 1
