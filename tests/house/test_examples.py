"""The programs of `examples/` that users start from, each against a real server; more in test_examples_protocols.py."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.examples import EXAMPLES, example, output
from support.processes import reserved_ports

from pepperpy.network import ConnectionLostError, NetworkConfig
from pepperpy.network.testing import Peer, scripted_peer

if TYPE_CHECKING:
    from support.nginx import Nginx

# Whole programs, one of which starts processes of its own: 5 seconds on an idle machine, 22 with 6 other programs for
# its 2 cores (measured). How busy it is must not decide.
whole_program = pytest.mark.timeout(300)


# ---- demo.py ----


class SlowToDie:
    """A server whose listening socket outlives its connection, as that of a killed process does for a moment."""

    def __init__(self, port: int) -> None:
        self.port = port

    def start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.serving = threading.Thread(target=self.echo)
        self.serving.start()

    def echo(self) -> None:
        self.connection, _ = self.listener.accept()
        with self.connection, self.connection.makefile("rwb", buffering=0) as stream:
            assert stream.readline() == b"echo\n"
            while data := stream.read(100):
                stream.write(data)

    def kill(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        with self.listener:
            self.listener.settimeout(0.1)
            with pytest.raises(TimeoutError):
                self.listener.accept()


@pytest.mark.slow
async def test_the_demo_connects_again_to_a_new_server_and_not_to_the_dying_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with reserved_ports(1) as [port]:
        server = SlowToDie(port)
        server.start()
        await example("demo").tour(server)
        server.listener.close()
        server.serving.join()
    again, received, _ = capsys.readouterr().out.splitlines()[-3:]
    assert again.startswith("connected   again, after ") and "after 0" not in again
    assert received == "received    b'Hello again'"


# ---- redis_client.py ----


@whole_program
def test_the_redis_client_as_a_program(redis_port: int) -> None:
    assert output("redis_client.py", "127.0.0.1", str(redis_port)) == [
        "SET b'OK'",
        "GET b'Hello'",
        "1000 INCRBY in one pipeline: 1000 replies",
        "LPUSH WRONGTYPE Operation against a key holding the wrong kind of value",
    ]


async def test_the_redis_client_gets_every_kind_of_reply_and_its_pipelines_whole(redis_port: int) -> None:
    module = example("redis_client")
    async with module.Redis(NetworkConfig("127.0.0.1", redis_port)) as redis:
        await redis.execute("FLUSHALL")
        value = bytes(range(256)) * 10_000
        assert await redis.execute("SET", b"\r\n", value) == b"OK"
        assert await redis.execute("GET", b"\r\n") == value
        assert await redis.execute("GET", "missing") is None
        assert await redis.execute("RPUSH", "list", 1, 2) == 2
        assert await redis.execute("LRANGE", "list", 0, -1) == [b"1", b"2"]
        assert await redis.execute("LRANGE", "none", 0, -1) == []
        first, refused, last = await redis.pipeline([("INCR", "n"), ("INCR", "list"), ("INCR", "n")])
        assert (first, last) == (1, 2) and isinstance(refused, module.RedisError)
        tasks = [redis.pipeline([("ECHO", f"{n}.{part}") for part in range(100)]) for n in range(20)]
        for number, replies in enumerate(await asyncio.gather(*tasks)):
            assert replies == [f"{number}.{part}".encode() for part in range(100)]


async def test_the_redis_client_never_gives_a_late_reply_to_the_next_command() -> None:
    asked = asyncio.Event()

    async def late(peer: Peer) -> None:
        await peer.expect(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
        asked.set()
        await peer.expect_eof()

    async def cut(peer: Peer) -> None:
        await peer.expect(b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n")
        await peer.send(b"$5\r\nva")
        await peer.reset()

    async def whole(peer: Peer) -> None:
        await peer.expect(b"*2\r\n$3\r\nGET\r\n$1\r\nc\r\n")
        await peer.send(b"$5\r\nvalue\r\n")

    async with scripted_peer(late, cut, whole) as server, example("redis_client").Redis(server.config) as redis:
        getting = asyncio.create_task(redis.execute("GET", "a"))
        await asked.wait()
        getting.cancel()
        await asyncio.wait([getting])
        with pytest.raises(ConnectionLostError):
            await redis.execute("GET", "b")
        assert await redis.execute("GET", "c") == b"value"


# ---- scraper.py, distributed_scraper.py ----


def pages(lines: list[str]) -> dict[str, str]:
    """Status, size and what follows, by URL; every URL has one line."""
    found = {}
    for line in lines:
        status, size, url, *rest = line.split()
        assert url not in found
        found[url] = " ".join((status, size, *rest))
    return found


@whole_program
def test_the_scraper_prints_a_line_for_each_page_and_each_failure(web: Nginx, closed_port: int) -> None:
    (web.root / "page.html").write_text("<html><TITLE lang=en>\n Fish &amp;\n chips </TITLE></html>")
    urls = [web.url("/files/page.html"), web.url("/text"), web.url("/status/404"), f"http://127.0.0.1:{closed_port}/"]
    found = pages(output("scraper.py", *urls))
    assert found[urls[0]] == "200 56 Fish & chips"
    assert found[urls[1]] == "200 18"
    assert found[urls[2]].startswith("404 ")
    assert found[urls[3]].startswith("0 0 ") and "cannot connect" in found[urls[3]]
    assert len(found) == 4
    assert pages(output("scraper.py", "-", stdin="\n".join(urls[:2]))) == {url: found[url] for url in urls[:2]}


@pytest.mark.slow
@whole_program
def test_the_scraper_without_arguments_fetches_from_a_server_of_its_own() -> None:
    assert sorted(line.split()[-1] for line in output("scraper.py")) == [f"/page/{number}" for number in range(10)]


@pytest.mark.slow
@whole_program
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_says_how_it_is_called(name: str) -> None:
    assert output(name, "--help", strict=False)[0].startswith(f"usage: {name}")


@pytest.mark.slow
@whole_program
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["line_protocol.py"], 2, "the following arguments are required: host, port, nick, channel"),
        (["starttls.py"], 2, "the following arguments are required: host"),
        (["distributed_scraper.py"], 2, "the following arguments are required: URL"),
        (["redis_client.py", "127.0.0.1", "PORT"], 2, "this example needs a Redis that can be reached: 127.0.0.1:"),
        (["rpc.py", "127.0.0.1"], 2, "HOST, PORT and METHOD go together"),
        (["rpc.py", "127.0.0.1", "PORT", "double", "1"], 1, "cannot connect"),
        (["starttls.py", "127.0.0.1", "PORT"], 1, "cannot connect"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_example_that_lacks_something_says_what_in_one_sentence(
    arguments: list[str], code: int, words: str, closed_port: int
) -> None:
    name, *rest = (str(closed_port) if word == "PORT" else word for word in arguments)
    command = [sys.executable, str(EXAMPLES / name), *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == code and words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@whole_program
def test_the_distributed_scraper_gets_every_page_once_from_its_worker_processes(web: Nginx, closed_port: int) -> None:
    urls = [web.url(f"/text?{number}") for number in range(300)]
    failing = [web.url("/status/404"), f"http://127.0.0.1:{closed_port}/"]
    # Not strict: what Dask's own processes warn of is theirs.
    found = pages(output("distributed_scraper.py", *urls, *failing, strict=False))
    assert all(found[url] == "200 18" for url in urls)
    assert found[failing[0]].startswith("404 ") and "cannot connect" in found[failing[1]]
    assert len(found) == 302
    # Connections are shared by the tasks of a worker: far fewer than pages.
    requests = [request for request in web.requests() if request.uri.startswith("/text")]
    assert len(requests) == 300
    assert len({request.connection for request in requests}) <= 2 * 20


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses."""
    with reserved_ports(1) as (port,):
        yield port
