"""A proxy that is busy for a moment is asked again, by both clients; one that refuses is not. Nothing was sent yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from support.certificates import ca_file, server_cert
from support.http_faults import answering, response
from support.http_peer import Connection, HTTPPeer, http_peer
from support.servers import echo_server

from pepperpy.network import HTTPClient, HTTPConfig, NetworkClient, NetworkConfig, ProxyError, TLSConfig
from pepperpy.network.backoff import no_retry_waits

SSH = b"SSH-2.0-OpenSSH\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

BUSY, FINAL = [502, 503, 504], [400, 403, 407, 429, 500]


@contextlib.asynccontextmanager
async def proxy_answering(*statuses: int) -> AsyncIterator[HTTPPeer]:
    """A proxy whose first answers are these, 0 for none; then it is one."""
    left = list(statuses)

    async def handler(connection: Connection) -> None:
        request = await connection.read_head()
        if left and not left[0]:
            left.pop(0)
            return
        if left:
            await connection.send(response(b"", "Connection: close", status=f"{left.pop(0)} Status"))
            return
        host, _, port = request.target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
            await connection.relay(reader, writer)
        finally:
            writer.transport.abort()

    async with http_peer(handler) as peer:
        yield peer


async def once(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.slow
@pytest.mark.parametrize("status", [*BUSY, 0])
async def test_http_asks_a_busy_proxy_again_whatever_the_method_and_the_body(status: int) -> None:
    async with http_peer(answering(response()), certificate=server_cert()) as server:
        for method, body in (("GET", None), ("POST", b"ab"), ("PATCH", once(b"a", b"b"))):
            async with proxy_answering(status, status) as proxy:
                config = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), proxy=proxy.url, retries=2)
                async with HTTPClient(config) as client:
                    with no_retry_waits():
                        answer = await client.request(method, server.url, data=body)
                    assert (answer.text, answer.attempts) == ("ok", 3)
            assert len(proxy.requests) == 3
        assert [request.body for request in server.requests] == [b"", b"ab", b"ab"]


@pytest.mark.parametrize("status", FINAL)
async def test_http_takes_another_refusal_for_final(status: int) -> None:
    async with proxy_answering(status) as proxy, HTTPClient(HTTPConfig(proxy=proxy.url)) as client:
        with pytest.raises(ProxyError, match=f"the proxy answered {status}") as caught:
            await client.get("https://host.example/")
        assert (caught.value.details["status"], caught.value.details["attempt"]) == (status, 1)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_a_proxy_that_hangs_up_is_an_error_of_the_proxys(transport: Literal["auto", "aiohttp"]) -> None:
    async with proxy_answering(0, 0) as proxy:
        config = HTTPConfig(proxy=proxy.url, retries=1, transport=transport)
        async with HTTPClient(config) as client:
            with no_retry_waits(), pytest.raises(ProxyError, match="closed the connection instead of answ") as caught:
                await client.post("https://host.example/", data=b"x")
            assert caught.value.details["attempt"] == 2


@pytest.mark.parametrize(
    ("transport", "answer", "text"),
    [
        ("auto", SSH, "it does not answer as an HTTP proxy: 'SSH-2.0-OpenSSH'"),
        ("aiohttp", SSH, "the proxy's answer is not HTTP"),
        ("auto", UPGRADE, "the proxy answered 101"),
        ("aiohttp", UPGRADE, "the proxy's answer cannot be"),
    ],
)
async def test_a_proxy_that_does_not_answer_as_one_is_no_fault_of_the_server(
    transport: Literal["auto", "aiohttp"], answer: bytes, text: str
) -> None:
    async with http_peer(answering(answer)) as proxy:
        async with HTTPClient(HTTPConfig(proxy=proxy.url, transport=transport)) as client:
            with pytest.raises(ProxyError, match=text) as caught:
                await client.get("https://host.example/")
            assert caught.value.details["attempt"] == 1


async def test_a_proxy_that_stays_busy_is_an_error_with_its_status() -> None:
    async with proxy_answering(503, 503, 503) as proxy, HTTPClient(HTTPConfig(proxy=proxy.url)) as client:
        with no_retry_waits(), pytest.raises(ProxyError, match="the proxy answered 503") as caught:
            await client.get("https://host.example/")
        assert (caught.value.details["status"], caught.value.details["attempt"]) == (503, 3)


async def test_tcp_asks_a_busy_proxy_again_and_takes_another_refusal_for_final() -> None:
    async with echo_server() as port:
        for status in BUSY + FINAL:
            async with proxy_answering(status) as proxy:
                config = NetworkConfig("127.0.0.1", port, proxy=proxy.url, retries=1, retry_delay=0)
                client = NetworkClient(config)
                if status in BUSY:
                    async with client:
                        await client.send(b"x")
                        assert await client.receive_exactly(1) == b"x"
                else:
                    with pytest.raises(ProxyError, match=f"{status} Status"):
                        await client.connect()
                assert len(proxy.requests) == (2 if status in BUSY else 1)


@pytest.mark.parametrize(("code", "attempts"), [(1, 2), (2, 1), (3, 2), (4, 2), (5, 2), (8, 1), (None, 2)])
async def test_both_clients_go_by_the_codes_of_a_socks_proxy_alike(code: int | None, attempts: int) -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readexactly(3)
        writer.write(b"\x05\0")
        if code is not None:
            await reader.readexactly(4 + 4 + 2)
            writer.write(b"\x05%c\0\x01\0\0\0\0\0\0" % code)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"socks5h://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ProxyError) as tcp:
            await NetworkClient(NetworkConfig("127.0.0.1", 1, proxy=url, retries=1, retry_delay=0)).connect()
        assert asked == attempts
        async with HTTPClient(HTTPConfig(proxy=url, retries=1)) as client:
            with no_retry_waits(), pytest.raises(ProxyError) as http:
                await client.post("http://127.0.0.1:1/", data=b"x")
        assert asked == 2 * attempts
        assert tcp.value.details.get("status") == http.value.details.get("status") == code
