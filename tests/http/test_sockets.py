"""HTTP over a Unix socket, from an address of one's own, with options of one's own: the settings of TCP's sockets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.certificates import ca_file
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.http_sockets import socket_of
from support.nginx import TEXT, Nginx
from support.proxies import microsocks

from pepperpy.network import (
    ConnectError,
    HTTPClient,
    HTTPConfig,
    InvalidRequestError,
    NetworkTimeoutError,
    TLSConfig,
    TLSError,
)

TRUSTING = TLSConfig(ca_file=ca_file())


Make = Callable[..., HTTPConfig]


@pytest.fixture(params=["aiohttp", "auto"])
def config(request: pytest.FixtureRequest) -> Make:
    """Makes a configuration for each of the transports."""
    return functools.partial(HTTPConfig, transport=request.param, retries=0)


# ---- Unix sockets ----


async def test_requests_go_to_a_unix_socket_and_its_connection_is_kept(web: Nginx) -> None:
    web.forget_requests()
    async with HTTPClient(HTTPConfig("http://localhost", unix_path=web.unix_path)) as client:
        for _ in range(3):
            assert await client.get("/text") == TEXT
        assert client.stats.open_connections == 1
        assert socket_of(client).family == socket.AF_UNIX
    assert [request.number for request in web.requests()] == [1, 2, 3]


async def test_tls_over_a_unix_socket_checks_the_name_of_the_url(web: Nginx, config: Make) -> None:
    async with HTTPClient(config(unix_path=web.unix_path + "s", tls=TRUSTING)) as client:
        assert await client.get("https://localhost/text") == TEXT
        with pytest.raises(TLSError, match=r"not for 'elsewhere\.example'"):
            await client.get("https://elsewhere.example/text")
        assert await client.get("https://elsewhere.example/text", verify_ssl=False) == TEXT


async def test_no_name_is_looked_up_and_a_redirect_stays_on_the_socket(tmp_path: Path, config: Make) -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append([head.split()[1], *(line for line in head.split(b"\r\n") if line.startswith(b"Host"))])
        there = response(b"", "Location: http://other.invalid/there", status="302 Found")
        writer.write(there if len(asked) == 1 else response())
        await reader.read()
        writer.close()

    path = str(tmp_path / "http.sock")
    async with await asyncio.start_unix_server(serve, path):
        async with HTTPClient(config(unix_path=path)) as client:
            assert await client.get("http://one.invalid/here") == "ok"
        await until(lambda: not others(), "the server has seen the ends")
    assert asked == [[b"/here", b"Host: one.invalid"], [b"/there", b"Host: other.invalid"]]


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_a_socket_that_is_not_there_is_named_and_tried_again_as_its_server_may_be_starting(config: Make) -> None:
    async with HTTPClient(config(unix_path="/nonexistent/http.sock", retries=2, retry_delay=0)) as client:
        with pytest.raises(ConnectError, match=r"No such file or directory: unix_path '/nonexistent/http.sock'"):
            await client.get("http://localhost/")
        assert client.stats.attempts == 3


async def test_the_time_to_connect_to_a_full_socket_is_limited(tmp_path: Path, config: Make) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as clients:
        server.bind(path)
        server.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler = clients.enter_context(socket.socket(socket.AF_UNIX))
                filler.setblocking(False)
                filler.connect(path)
        async with HTTPClient(config(unix_path=path, retries=0, connect_timeout=0.05)) as client:
            with pytest.raises((NetworkTimeoutError, ConnectError)) as caught:
                await client.get("http://localhost/")
            if isinstance(caught.value, NetworkTimeoutError):
                assert caught.value.details["limit"] == "connect_timeout"


async def test_a_proxy_beside_a_unix_socket_is_refused_and_nothing_is_sent(web: Nginx, config: Make) -> None:
    async with HTTPClient(config(unix_path=web.unix_path)) as client:
        with pytest.raises(InvalidRequestError, match="proxy must be left out"):
            await client.get("http://localhost/text", proxy="http://localhost:3128")
        assert client.stats.attempts == 0


# ---- Addresses and options ----


@contextlib.asynccontextmanager
async def seen_from() -> AsyncIterator[tuple[str, list[tuple[str, int]]]]:
    """The URL of a server, and where its connections come from."""
    addresses: list[tuple[str, int]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        addresses.append(writer.get_extra_info("peername"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response())
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", addresses
        await until(lambda: not others(), "the server has seen the ends")
    finally:
        server.close()


async def test_connections_come_from_the_address_and_port_that_are_set(config: Make) -> None:
    async with seen_from() as (url, addresses):
        async with HTTPClient(config(local_address=("127.0.0.5", 0))) as client:
            assert await client.get(url) == "ok"
        assert addresses.pop()[0] == "127.0.0.5"
        with socket.create_server(("127.0.0.6", 0)) as probe:
            port = probe.getsockname()[1]
        for _ in range(2):
            # At once after a connection that the server has closed too.
            async with HTTPClient(config(local_address=("127.0.0.6", port))) as client:
                assert await client.get(url) == "ok"
            await until(lambda: not others(), "the server has seen the end")
        assert addresses == [("127.0.0.6", port)] * 2


async def test_a_socks_proxy_is_reached_from_there_too(web: Nginx) -> None:
    with microsocks() as port:
        config = HTTPConfig(proxy=f"socks5://127.0.0.1:{port}", tls=TRUSTING, local_address=("127.0.0.7", 0))
        async with HTTPClient(config) as client:
            assert await client.get(web.https_url("/text", "localhost")) == TEXT
            assert socket_of(client).getsockname()[0] == "127.0.0.7"


async def test_an_address_of_somebody_else_or_another_family_is_named(config: Make) -> None:
    async with http_peer(answering(response())) as peer:
        for address, words in (("192.0.2.1", "local_address"), ("::1", "local_address is of another family")):
            async with HTTPClient(config(local_address=(address, 0))) as client:
                with pytest.raises(ConnectError, match=words):
                    await client.get(peer.url)


async def test_options_are_set_on_every_kind_of_socket(web: Nginx) -> None:
    linger = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
    options = (linger, (socket.IPPROTO_IP, socket.IP_TOS, 0x10), (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
    for settings in ({}, {"unix_path": web.unix_path}):
        async with HTTPClient(HTTPConfig(socket_options=options, **settings)) as client:
            assert await client.get(web.url("/text")) == TEXT
            sock = socket_of(client)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger[2]
            if sock.family == socket.AF_INET:
                assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x10


async def test_an_option_that_the_system_refuses_is_named(web: Nginx, config: Make) -> None:
    async with HTTPClient(config(socket_options=((socket.SOL_SOCKET, 9999, 1),))) as client:
        with pytest.raises(ConnectError, match=r"socket_options \(1, 9999, 1\)"):
            await client.get(web.url("/text"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"unix_path": b"/x"}, "unix_path must be a str"),
        ({"unix_path": ""}, "unix_path must be a path"),
        ({"unix_path": "/x", "proxy": "http://p:1"}, "proxy must be left out with unix_path='/x'"),
        ({"unix_path": "/x", "trust_env": True}, "trust_env must be left out"),
        ({"unix_path": "/x", "local_address": ("::1", 0)}, "local_address must be left out"),
        ({"local_address": "::1"}, "local_address must be a tuple"),
        ({"socket_options": [(1, 2, 3)]}, "socket_options must be a tuple"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        HTTPConfig(**settings)
