"""HTTP through a real SOCKS proxy, microsocks; the server is nginx."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import pytest
from support.certificates import ca_file
from support.nginx import TEXT, Nginx
from support.proxies import PROXY_CREDENTIALS

from pepperpy.network import ConnectError, HTTPClient, HTTPConfig, NetworkTimeoutError, ProxyError, TLSConfig, TLSError

TRUSTING = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), retries=0)
USER, PASSWORD = PROXY_CREDENTIALS


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_plain_and_tls_go_through_and_connections_are_reused(web: Nginx, locked_socks: int, scheme: str) -> None:
    proxy = f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}"
    async with HTTPClient(TRUSTING.replace(proxy=proxy)) as client:
        for url in (web.url("/text"), web.https_url("/text")):
            for _ in range(3):
                assert await client.get(url) == TEXT
        assert client.stats.open_connections == 2


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_proxy_of_the_environment_is_heeded_with_its_credentials(
    web: Nginx, locked_socks: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with HTTPClient(TRUSTING.replace(trust_env=True, transport="aiohttp")) as client:
        for url in (web.url("/text"), web.https_url("/text")):
            assert await client.get(url) == TEXT
            assert await client.get(url.replace("127.0.0.1", "localhost")) == TEXT
        # What goes through the proxy comes from it: no connection of ours leads to the server.
        direct = [transport.get_extra_info("peername")[1] for transport in client.session.connector.open_transports()]
        assert sorted(direct) == sorted([web.http_port, web.https_port, locked_socks, locked_socks])
    monkeypatch.setenv("http_proxy", f"{scheme}://{USER}:canary@127.0.0.1:{locked_socks}")
    monkeypatch.delenv("no_proxy")
    async with HTTPClient(TRUSTING.replace(trust_env=True, transport="aiohttp")) as client:
        with pytest.raises(ProxyError, match="authentication failure") as caught:
            await client.get(web.url("/text"))
        assert "canary" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"


async def test_the_server_gets_an_ordinary_request_and_no_credentials(web: Nginx, locked_socks: int) -> None:
    seen, answering = [], []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.append(task)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://localhost:{server.sockets[0].getsockname()[1]}/path"
    async with HTTPClient() as client:
        for _ in range(2):
            assert await client.get(url, proxy=f"socks5h://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}") == "ok"
        # Another way to the same server is another connection.
        assert await client.get(url) == "ok"
        assert client.stats.open_connections == 2
    server.close()
    await asyncio.gather(*answering)
    for request in seen:
        assert request.startswith(b"GET /path HTTP/1.1\r\n")
        assert b"proxy" not in request.lower()


async def test_failures_are_those_of_a_proxy_and_show_no_secret(web: Nginx, locked_socks: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with HTTPClient(TRUSTING) as client:
            for proxy, words in (
                (f"socks5h://{USER}:secret@127.0.0.1:{locked_socks}", "authentication failure"),
                (f"socks5h://{USER}:secret@127.0.0.1:{port}", "cannot connect to it"),
            ):
                with pytest.raises(ProxyError, match=words) as caught:
                    await client.get(web.url("/text"), proxy=proxy)
                assert "secret" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"
            good = f"socks5h://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}"
            with pytest.raises(ProxyError) as refused:
                await client.get(f"http://127.0.0.1:{port}/", proxy=good)
            assert refused.value.details["status"] in (1, 4, 5)
    async with HTTPClient(HTTPConfig(retries=0)) as untrusting:
        with pytest.raises(TLSError):
            await untrusting.get(web.https_url("/text"), proxy=good)


async def test_a_name_that_the_proxy_is_not_asked_for_and_nobody_knows_is_named(locked_socks: int) -> None:
    proxy = f"socks5://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}"
    async with HTTPClient(TRUSTING.replace(proxy=proxy)) as client:
        with pytest.raises(ConnectError, match=r"cannot look up 'no-such-host\.invalid': "):
            await client.get("https://no-such-host.invalid/")


async def test_a_proxy_that_says_nothing_is_ended_by_connect_timeout(web: Nginx) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"socks5h://127.0.0.1:{silent.getsockname()[1]}"
        async with HTTPClient(TRUSTING.replace(connect_timeout=0.05)) as client:
            with pytest.raises(NetworkTimeoutError, match="connect_timeout"):
                await client.get(web.url("/text"), proxy=proxy)


def test_socks_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks.async_.asyncio", None)
    with pytest.raises(ImportError, match=r"pip install python-socks"):
        HTTPConfig(proxy="socks5h://127.0.0.1:1")


def test_the_scheme_may_be_in_upper_case() -> None:
    assert HTTPConfig(proxy="SOCKS5H://user:PASS@p:1").proxy == "socks5h://user:PASS@p:1"


def test_the_configuration_shows_no_secret() -> None:
    config = HTTPConfig(proxy="socks5h://user:s3cret@p:1")
    assert repr(config) == "HTTPConfig(proxy='socks5h://***@p:1')"
