"""A server that keeps the bodies it gets, and what a test sends there: one body of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from pepperpy.network.http.aiohttp_transport.payload import data_of
from pepperpy.network.http.body import Body, make_body
from pepperpy.network.http.sources import CHUNK
from pepperpy.network.json_codec import default_codec

OCTETS = "application/octet-stream"
FORM = "application/x-www-form-urlencoded"
# No byte repeats at the distance of a chunk, so none could be exchanged unseen.
BIG = b"".join(b"%07d " % number for number in range(3 * CHUNK // 8 + 3))


class Got:
    """A request as it arrived."""

    def __init__(self, headers: Any, content: bytes) -> None:
        self.headers = headers
        self.content = content

    @property
    def content_type(self) -> str:
        return str(self.headers["Content-Type"])

    @property
    def length(self) -> int | None:
        """The announced size, None for a chunked body."""
        if "Content-Length" in self.headers:
            return int(self.headers["Content-Length"])
        assert self.headers["Transfer-Encoding"] == "chunked"
        return None


class Site:
    """A server that keeps what it gets at /, and redirects there from /redirect, and from /early before reading."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.broken: list[BaseException] = []
        self.url = ""
        self.session: aiohttp.ClientSession

    async def keep(self, request: web.Request) -> web.Response:
        try:
            self.got.append(Got(request.headers, await request.read()))
        except Exception as error:
            self.broken.append(error)
            raise
        return web.Response(text="kept")

    async def redirect(self, request: web.Request) -> web.Response:
        await self.keep(request)
        return web.Response(status=307, headers={"Location": "/"})

    async def redirect_early(self, request: web.Request) -> web.Response:
        await request.content.readany()
        return web.Response(status=307, headers={"Location": "/"})

    async def answer_early(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        with contextlib.suppress(Exception):
            await request.read()
        return response

    async def post(self, body: Body | None, path: str = "/", **options: Any) -> Got | None:
        assert body is not None
        try:
            headers = {**body.headers, **options.pop("headers", {})}
            async with self.session.post(
                self.url + path, data=data_of(body.payload(), body), headers=headers, **options
            ) as response:
                assert await response.text() == "kept"
        finally:
            await body.close()
        return self.got[-1]


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    it = Site()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", it.keep)
    app.router.add_post("/redirect", it.redirect)
    app.router.add_post("/early", it.redirect_early)
    app.router.add_post("/answer", it.answer_early)
    before = asyncio.all_tasks()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        it.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        # A lost exception would be a request that waits for ever.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as it.session:
            yield it
    finally:
        await runner.cleanup()
        # Those whose client left in the middle of a body linger for 10 s.
        lingering = asyncio.all_tasks() - before
        for task in lingering:
            task.cancel()
        await asyncio.gather(*lingering, return_exceptions=True)


def make(data: Any = None, *, json: Any = None, files: Any = None, progress: Any = None) -> Body:
    body = make_body(data, json, files, default_codec(), progress)
    assert body is not None
    return body


async def once(*chunks: Any) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


class Again:
    """An async iterable that can be iterated over again."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 10_000):
            yield BIG[start : start + 10_000]


# Each makes something from the path of a file that holds BIG, which it then gives, too.
REPLAYABLE: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: BIG,
    "bytes too large for one piece": lambda path: BIG * 4,
    "a path": lambda path: path,
    "a file": lambda path: path.open("rb"),
    "a file without buffer": lambda path: path.open("rb", buffering=0),
    "a file open for writing too": lambda path: path.open("r+b"),
    "a file in memory": lambda path: io.BytesIO(BIG),
    "a temporary file": lambda path: filled(tempfile.NamedTemporaryFile()),  # noqa: SIM115
    "a spooled file": lambda path: filled(tempfile.SpooledTemporaryFile(1 << 30)),  # noqa: SIM115
    "a compressed file": lambda path: gzip.open(compressed(path), "rb"),  # noqa: SIM115
    "an async iterable": lambda path: Again(),
}


def filled(file: Any) -> Any:
    file.write(BIG)
    file.seek(0)
    return file


def compressed(path: Path) -> Path:
    path.with_suffix(".gz").write_bytes(gzip.compress(BIG))
    return path.with_suffix(".gz")
