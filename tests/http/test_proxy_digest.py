"""Proxies that want a digest: plain requests and tunnels, by both transports and TCP; by hand, and the real squid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from support.certificates import ca_file, server_cert, server_context
from support.digest_proxy import PASSWORD, DigestProxy, digest_proxy
from support.http_faults import answering, response
from support.http_peer import HTTPPeer, http_peer
from support.nginx import TEXT, Nginx
from support.proxies import Squid, squid
from support.servers import echo_server

from pepperpy.network import (
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    NetworkClient,
    NetworkConfig,
    ProxyError,
    TLSConfig,
    proxy_auth,
)

TRUSTING = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), retries=0)
WAYS = [
    (target, proxy, transport)
    for target in ("http", "https")
    for proxy in ("http", "https")
    for transport in ("auto", "aiohttp")
]


@pytest.fixture(autouse=True)
def _knows_no_proxy() -> Iterator[None]:
    proxy_auth._known.clear()
    yield
    proxy_auth._known.clear()


@contextlib.asynccontextmanager
async def site(target: str, proxy: str) -> AsyncIterator[tuple[HTTPPeer, DigestProxy]]:
    certificate = server_cert() if target == "https" else None
    async with http_peer(answering(response(b"ok")), certificate=certificate) as peer:
        async with digest_proxy(server_context(server_cert()) if proxy == "https" else None) as asked:
            yield peer, asked


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_the_credentials_of_the_url_answer_what_the_proxy_asks_for(
    target: str, proxy: str, transport: Any
) -> None:
    async with site(target, proxy) as (peer, asked):
        config = TRUSTING.replace(proxy=asked.url, transport=transport)
        for first in (True, False):
            async with HTTPClient(config) as client:
                for _ in range(2):
                    assert await client.post(f"{peer.url}/a?b=c%20d", json=[1]) == "ok"
                assert client.stats.attempts == (3 if first and target == "http" else 2)
        # What it asked for is known from then on, in the next client too.
        assert [scheme for _, scheme, _ in asked.seen] == ["Basic"] + ["Digest"] * (4 if target == "http" else 2)
        assert [status for *_, status in asked.seen].count(407) == 1
        assert not any("Proxy-Authorization" in request.headers for request in peer.requests)


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_a_nonce_that_the_proxy_has_forgotten_is_replaced(target: str, proxy: str, transport: Any) -> None:
    async with site(target, proxy) as (peer, asked):
        asked.uses = 1
        for _ in range(3):
            async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
                assert await client.get(peer.url) == "ok"
        assert [status for *_, status in asked.seen] == [407, 200, 407, 200, 407, 200]


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_a_wrong_password_is_tried_once_by_each_scheme(target: str, proxy: str, transport: Any) -> None:
    async with site(target, proxy) as (peer, asked):
        config = TRUSTING.replace(proxy=asked.url.replace("proxy%3Asecret", "canary"), transport=transport, retries=2)
        async with HTTPClient(config) as client:
            with pytest.raises((ProxyError, HTTPStatusError), match="407") as caught:
                await client.get(peer.url)
            assert "canary" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"
        assert [scheme for _, scheme, _ in asked.seen] == ["Basic", "Digest"] and not peer.requests


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_many_at_once_do_not_get_in_each_others_way(target: str, proxy: str, transport: Any) -> None:
    """A proxy that counts the uses of a nonce takes no smaller count after a larger one."""
    async with site(target, proxy) as (peer, asked):
        async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
            for _ in range(2):
                assert await asyncio.gather(*[client.get(peer.url) for _ in range(10)]) == ["ok"] * 10


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_a_scheme_that_is_not_known_ends_as_before(target: str, proxy: str, transport: Any) -> None:
    async with site(target, proxy) as (peer, asked):
        asked.asks_for = "Negotiate"
        async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
            with pytest.raises((ProxyError, HTTPStatusError), match="407"):
                await client.get(peer.url)
        assert len(asked.seen) == 1


async def rows() -> AsyncIterator[bytes]:
    yield b"a"


async def test_a_body_that_can_be_read_once_is_not_sent_again() -> None:
    async with site("http", "http") as (peer, asked), HTTPClient(TRUSTING.replace(proxy=asked.url)) as client:
        with pytest.raises(HTTPStatusError, match="407"):
            await client.post(peer.url, data=rows(), headers={"Content-Length": "1"})
        # What the proxy asks for is known all the same.
        assert await client.post(peer.url, data=rows(), headers={"Content-Length": "1"}) == "ok"


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_where_each_nonce_counts_once_calls_answer_each_its_own(target: str, proxy: str, transport: Any) -> None:
    async with site(target, proxy) as (peer, asked):
        asked.uses, asked.together = 1, asyncio.Barrier(10)
        async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
            for _ in range(2):
                assert await asyncio.gather(*[client.get(peer.url) for _ in range(10)]) == ["ok"] * 10


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_one_nonce_serves_all_who_were_refused_at_once(target: str, proxy: str, transport: Any) -> None:
    async with site(target, proxy) as (peer, asked):
        asked.nonce, asked.together = "n0", asyncio.Barrier(3)
        async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
            assert await asyncio.gather(*[client.get(peer.url) for _ in range(3)]) == ["ok"] * 3


@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_a_proxy_that_wants_basic_again_gets_it(target: str, proxy: str, transport: Any) -> None:
    async with site(target, proxy) as (peer, asked):
        for asked.asks_for in ("Digest", "Basic", "Basic"):
            async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
                assert await client.get(peer.url) == "ok"
        assert [scheme for _, scheme, _ in asked.seen] == ["Basic", "Digest", "Digest", "Basic", "Basic"]
        async with HTTPClient(TRUSTING.replace(proxy=asked.url.replace("secret", "canary"))) as client:
            with pytest.raises((ProxyError, HTTPStatusError), match="407"):
                await client.get(peer.url)
        assert len(asked.seen) == 6


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_a_407_of_a_server_cuts_nobody_off_from_the_proxy(transport: Any) -> None:
    """A proxy may pass on what a server says, who is a stranger."""
    no = response(b"", 'Proxy-Authenticate: Digest realm="r", nonce="evil", qop="auth"', status="407 x")
    async with site("http", "http") as (peer, asked), http_peer(answering(no)) as stranger:
        asked.asks_for = "Basic"
        async with HTTPClient(TRUSTING.replace(proxy=asked.url, transport=transport)) as client:
            with pytest.raises(HTTPStatusError, match="407"):
                await client.get(stranger.url)
            assert await client.get(peer.url) == "ok"
            with pytest.raises(HTTPStatusError, match="407"):
                await client.post(stranger.url, data=rows(), headers={"Content-Length": "1"})
            assert await client.get(peer.url) == "ok"


async def test_a_407_of_the_server_behind_a_tunnel_is_not_the_proxys() -> None:
    no = response(b"", 'Proxy-Authenticate: Digest realm="r", nonce="evil", qop="auth"', status="407 x")
    async with http_peer(answering(no), certificate=server_cert()) as peer, digest_proxy() as asked:
        async with HTTPClient(TRUSTING.replace(proxy=asked.url)) as client:
            for _ in range(2):
                with pytest.raises(HTTPStatusError, match="407"):
                    await client.get(peer.url)
        assert len(peer.requests) == 2 and asked.statuses("CONNECT") == [407, 200]
        assert "evil" not in str(proxy_auth._known)


async def test_what_the_proxy_asks_for_begins_no_header_of_the_next_request() -> None:
    seen: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm="a\nX-Evil: 1", nonce="n"\r\n\r\n')
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        proxy = f"http://u:p@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ProxyError, match="407"):
            await NetworkClient(NetworkConfig("127.0.0.1", 9, proxy=proxy, retries=0)).connect()
    assert len(seen) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_tcp_goes_through_as_well(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file()))
    async with (
        echo_server() as port,
        digest_proxy(server_context(server_cert()) if scheme == "https" else None) as asked,
    ):
        for _ in range(2):
            async with NetworkClient(NetworkConfig("127.0.0.1", port, proxy=asked.url, retries=0)) as client:
                await client.send(b"hello")
                assert await client.receive_exactly(5) == b"hello"
        assert asked.statuses("CONNECT") == [407, 200, 200]
        with pytest.raises(ProxyError, match="407 Who are you") as caught:
            wrong = asked.url.replace("proxy%3Asecret", "canary")
            await NetworkClient(NetworkConfig("127.0.0.1", port, proxy=wrong, retries=0)).connect()
        assert type(caught.value) is ProxyError and caught.value.details["status"] == 407
        assert PASSWORD not in str(caught.value)


# ---- Other alphabets ----


# The user and the password of a proxy, each of which Latin-1 has or has not.
NAMES = [("J\xe4s\xf8n", "gr\xfcn"), ("\u0141ukasz", "\u043f\u0430\u0440\u043e\u043b\u044c \U0001f511")]


def as_named(asked: DigestProxy, name: tuple[str, str]) -> str:
    """The URL of a proxy that accepts Basic, by this name."""
    asked.asks_for = "Basic"
    asked.user, asked.password = name
    return asked.url.replace("proxy-user:proxy%3Asecret", ":".join(map(quote, name)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("target", "proxy", "transport"), WAYS)
async def test_names_and_passwords_go_out_in_utf_8(
    target: str, proxy: str, transport: Any, name: tuple[str, str]
) -> None:
    async with site(target, proxy) as (peer, asked):
        async with HTTPClient(TRUSTING.replace(proxy=as_named(asked, name), transport=transport)) as client:
            assert await client.post(f"{peer.url}/a", json=[1]) == "ok"
        assert [(scheme, status) for _, scheme, status in asked.seen] == [("Basic", 200)]
        assert not any("Proxy-Authorization" in request.headers for request in peer.requests)


@pytest.mark.parametrize("name", NAMES)
async def test_those_of_tcp_do_so_too(name: tuple[str, str]) -> None:
    async with echo_server() as port, digest_proxy() as asked:
        async with NetworkClient(NetworkConfig("127.0.0.1", port, proxy=as_named(asked, name))) as client:
            await client.send(b"hello")
            assert await client.receive_exactly(5) == b"hello"


@pytest.mark.parametrize("userinfo", ["us%E4r:p", "u:secr%FFt"])
def test_bytes_that_are_no_utf_8_are_refused_not_changed(userinfo: str) -> None:
    for make in (HTTPConfig, partial(NetworkConfig, "h", 1)):
        with pytest.raises(ValueError, match="proxy must have a user and a password in UTF-8") as caught:
            make(proxy=f"http://{userinfo}@p:1")
        assert userinfo not in str(caught.value)


# ---- The real one ----


@pytest.fixture(scope="module")
def real() -> Iterator[Squid]:
    with squid() as proxy:
        yield proxy


@pytest.mark.needs_server
@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_squid_accepts_what_is_sent(web: Nginx, real: Squid, transport: Any) -> None:
    async with HTTPClient(TRUSTING.replace(proxy=real.url, transport=transport)) as client:
        for url in (web.url("/text"), web.https_url("/text"), web.url("/text?a=b")):
            assert await asyncio.gather(*[client.get(url) for _ in range(5)]) == [TEXT] * 5
        with pytest.raises(HTTPStatusError, match="407"):
            await client.get(web.url("/text"), proxy=real.url.replace(":proxy-secret@", ":wrong@"))
        with pytest.raises(ProxyError, match="407"):
            await client.get(web.https_url("/text"), proxy=real.url.replace(":proxy-secret@", ":wrong@"))


@pytest.mark.needs_server
async def test_squid_lets_tcp_through(web: Nginx, real: Squid) -> None:
    for _ in range(3):
        async with NetworkClient(
            NetworkConfig("127.0.0.1", web.https_port, proxy=real.url, tls=TRUSTING.tls)
        ) as client:
            await client.send(b"GET /text HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await client.receive_line()).startswith(b"HTTP/1.1 200")
