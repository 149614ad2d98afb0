"""The main job of HTTPClient in a few seconds: part of `make demo`, or `python examples/http_demo.py`.

It starts a server that is busy, answers slowly and cuts downloads off, and shows what the client makes of that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import http.server
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from pepperpy.network import HTTPClient, HTTPConfig, HTTPStatusError, NetworkTimeoutError

FILE = bytes(range(256)) * 40_000  # 10 MB
REQUESTS = 2000


# ---- The server ----


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise each small answer waits 40 ms for the acknowledgement of its head.
    disable_nagle_algorithm = True
    asked: dict[str, int] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        times = self.asked[path] = self.asked.get(path, 0) + 1
        if path == "/busy" and times < 3:
            self.answer(503, b"busy", {"Retry-After": "0"})
        elif path == "/silent":
            time.sleep(1)
            with contextlib.suppress(ConnectionError):
                self.answer(200, b"late")
        elif path == "/events":
            self.answer(200, b"".join(b"id: %d\ndata: event %d\n\n" % (n, n) for n in range(3)))
        elif path == "/file":
            self.send_file(cut=times < 3)
        elif path == "/missing":
            self.answer(404, b'{"error": "no such thing"}')
        else:
            self.answer(200, self.path.encode())

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, *, cut: bool) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(FILE) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(FILE) - 1}/{len(FILE)}")
        self.end_headers()
        self.wfile.write(FILE[start : start + 3_000_000] if cut else FILE[start:])
        self.close_connection = cut

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


@contextlib.contextmanager
def server_process() -> Iterator[str]:
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


# ---- The tour ----


async def tour(base_url: str, folder: Path) -> None:
    async with HTTPClient(HTTPConfig(base_url, retry_delay=0.1)) as client:
        print(f"get         {await client.get('/hello', params={'q': 'test'})!r}")
        answer = await client.request("GET", "/busy")
        print(f"busy        {answer.status} after {answer.attempts} attempts, {answer.elapsed:.2f} s")
        try:
            await client.get("/missing?token=secret")
        except HTTPStatusError as error:
            print(f"error       {error}")
        try:
            await client.get("/silent", timeout=0.2)
        except NetworkTimeoutError as error:
            print(f"timeout     {error}")
        async with client.stream("GET", "/events") as stream:
            print(f"events      {[event.data async for event in stream.events()]}")
        digest = hashlib.sha256(FILE).hexdigest()
        result = await client.download("/file", folder / "file", checksum=f"sha256:{digest}")
        print(f"download    {result.size:,} bytes, cut off {result.resumed} times and resumed, checksum right")
        urls = (f"/item/{number}" for number in range(REQUESTS))
        started = time.perf_counter()
        good = 0
        async for item in client.map(urls, concurrency=20):
            good += item.unwrap().text == item.url
        print(f"map         {good} of {REQUESTS} answers, each its own, in {time.perf_counter() - started:.2f} s")
        print(f"stats       {client.stats}")


async def overhead(base_url: str) -> None:
    async def ours(client: HTTPClient) -> str:
        return await client.get(f"{base_url}/x")

    async def theirs(session: aiohttp.ClientSession) -> str:
        async with session.get(f"{base_url}/x") as answer:
            return await answer.text()

    async with HTTPClient() as client, aiohttp.ClientSession() as session:
        seconds = {ours: 0.0, theirs: 0.0}
        for _ in range(10):
            for function, argument in ((ours, client), (theirs, session)):
                started = time.process_time()
                for _ in range(REQUESTS // 10):
                    assert await function(argument) == "/x"  # type: ignore[arg-type]
                seconds[function] += time.process_time() - started
    per_request = [1e6 * value / REQUESTS for value in seconds.values()]
    print(
        f"CPU/request HTTPClient {per_request[0]:.0f} us, bare aiohttp {per_request[1]:.0f} us "
        f"({per_request[0] / per_request[1]:.2f}x)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="be the server, in a process of its own")
    if parser.parse_args().serve:
        serve()
        return
    with server_process() as base_url, tempfile.TemporaryDirectory() as folder:
        asyncio.run(tour(base_url, Path(folder)))
        asyncio.run(overhead(base_url))


if __name__ == "__main__":
    main()
