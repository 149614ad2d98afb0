"""`get` as a program, against nginx and scripted servers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.certificates import ca_file, server_cert
from support.command import SECONDS, on_terminal, run, run_inside
from support.processes import reserved_ports

from pepperpy.network import NetworkClient, serve
from pepperpy.network.tcp.serve import Handler

if TYPE_CHECKING:
    from support.nginx import Nginx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 10)]


@pytest.fixture
def serving() -> Iterator[Callable[..., int]]:
    """Starts servers in a thread of their own, and returns their ports."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = []

    def start(handler: Handler, **settings: object) -> int:
        async def listen() -> int:
            server = serve(handler, stop_timeout=0, **settings)  # type: ignore[arg-type]
            servers.append(server)
            return (await server.__aenter__()).port

        return asyncio.run_coroutine_threadsafe(listen(), loop).result()

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def say_what_was_asked(client: NetworkClient) -> None:
    head = await client.receive_until(b"\r\n\r\n")
    size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    body = head + await client.receive_exactly(size)
    await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def test_the_request_has_the_method_headers_and_body_that_were_given(serving: Callable[..., int]) -> None:
    url = f"http://127.0.0.1:{serving(say_what_was_asked)}/path?q=1"
    asked = run("get", url, "-H", "X-One: 1", "-H", "Accept: a/b")[0]
    assert asked.startswith(b"GET /path?q=1 HTTP/1.1\r\n") and b"X-One: 1\r\n" in asked and b"Accept: a/b\r\n" in asked
    assert b"\r\nX: 1, 2\r\n" in run_inside("get", url, "-H", "X: 1", "-H", "X:2")[0]
    asked = run_inside("get", url, "--json", '{"a": [1]}')[0]
    assert asked.startswith(b"POST ") and json.loads(asked.partition(b"\r\n\r\n")[2]) == {"a": [1]}
    asked = run_inside("get", url, "-X", "put", "--data", "x=1")[0]
    assert asked.startswith(b"PUT ") and asked.endswith(b"\r\n\r\nx=1")
    assert "--json is no JSON" in run_inside("get", url, "--json", "{", code=2)[1]
    assert "--header must be NAME:VALUE" in run_inside("get", url, "-H", "x", code=2)[1]


def test_the_body_goes_raw_into_a_pipe_and_escaped_to_a_terminal(serving: Callable[..., int]) -> None:
    async def answer(client: NetworkClient) -> None:
        await client.receive_until(b"\r\n\r\n")
        await client.send(
            b"HTTP/1.1 200 \xc3\xa4\r\nX-Evil: a\xc2\x9b1m\r\nContent-Length: 9\r\n\r\n\x1b[2J\xff\xc3\xa4\r\n"
        )

    url = f"http://127.0.0.1:{serving(answer)}/"
    assert run("get", url)[0] == b"\x1b[2J\xff\xc3\xa4\r\n"
    assert on_terminal("get", url) == "\\x1b[2J\\xffä\n"
    shown = on_terminal("get", url, "-i")
    assert "\x9b" not in shown and "\x1b" not in shown and "X-Evil: " in shown and "Content-Length: 9" in shown


def test_a_status_redirects_and_failures_have_codes_of_their_own(web: Nginx, serving: Callable[..., int]) -> None:
    out, complaints = run("get", web.url("/status/404"), code=9)
    assert out and complaints == "pepperpy-network: status 404 Not Found\n"

    async def lead_on(client: NetworkClient) -> None:
        await client.receive_until(b"\r\n\r\n")
        target = web.url("/text").encode()
        await client.send(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 4\r\n\r\nhere" % target)

    url = f"http://127.0.0.1:{serving(lead_on)}/"
    assert run_inside("get", url)[0] == b"here"
    assert len(run_inside("get", url, "-L")[0]) == 18

    async def nonsense(client: NetworkClient) -> None:
        await client.send(b"\x1b]0;title\x07 this is no HTTP\r\n\r\n")
        await client.receive()

    complaints = run_inside("get", f"http://127.0.0.1:{serving(nonsense)}/", "--retries", 0, code=8)[1]
    assert "\x1b" not in complaints
    with reserved_ports(1) as (port,):
        assert "cannot connect" in run_inside("get", f"http://127.0.0.1:{port}/", "--retries", 0, code=3)[1]
    run_inside("get", "nonsense://", code=2)


def test_tls_is_checked_unless_told(serving: Callable[..., int]) -> None:
    url = f"https://127.0.0.1:{serving(say_what_was_asked, tls=server_cert())}/"
    assert "certificate" in run("get", url, code=4)[1]
    assert run_inside("get", url, "--ca-file", ca_file())[0].startswith(b"GET / ")
    assert run_inside("get", url, "-k")[0].startswith(b"GET / ")


def test_a_download_resumes_and_appears_when_it_is_complete(serving: Callable[..., int], tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    starts: list[int] = []

    async def cut_off_twice(client: NetworkClient) -> None:
        head = (await client.receive_until(b"\r\n\r\n")).lower()
        start = int(head.partition(b"range: bytes=")[2].partition(b"-")[0] or 0)
        starts.append(start)
        rest = content[start:]
        await client.send(
            b'HTTP/1.1 %s\r\nETag: "v1"\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n'
            % (b"206 Partial" if start else b"200 OK", len(rest), start, len(content) - 1, len(content))
        )
        await client.send(rest[:1_000_000] if len(starts) < 3 else rest)

    url = f"http://127.0.0.1:{serving(cut_off_twice)}/file"
    target = tmp_path / "file"
    digest = hashlib.sha256(content).hexdigest()
    out = run("get", url, "-o", target, "--checksum", f"sha256:{digest}")[0].decode()
    assert "2,560,000 bytes, resumed 2 times" in out and target.read_bytes() == content
    assert len(starts) == 3 and starts[0] == 0 and starts[1] > 0

    starts.clear()
    run_inside("get", url, "-o", target, "--resume", "--retries", 0, code=7)
    run_inside("get", url, "-o", target, "--resume")
    assert starts[0] == 0 and starts[1] > 0

    other = tmp_path / "other"
    run_inside("get", url, "-o", other, "--checksum", f"sha256:{'0' * 64}", code=8)
    run_inside("get", url, "-o", tmp_path / "no" / "folder", code=10)
    run_inside("get", url, "-o", other, "-X", "POST", code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_terminal_shows_a_progress_bar(serving: Callable[..., int], tmp_path: Path) -> None:
    async def slowly(client: NetworkClient) -> None:
        await client.receive_until(b"\r\n\r\n")
        await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(10):
            await client.send(b"x" * 10)
            await asyncio.sleep(0.1)  # the bar is for what takes more than half a second

    shown = on_terminal("get", f"http://127.0.0.1:{serving(slowly)}/", "-o", tmp_path / "file")
    assert "##" in shown and " %" in shown
    assert shown.rstrip("\n").rpartition("\r")[2] == f"{tmp_path / 'file'}: 100 bytes"
