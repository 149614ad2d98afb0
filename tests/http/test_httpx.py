"""httpx and httpx2 on this package's transport: what their users rely on, against nginx and servers made by hand."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import ca_file, client_context
from support.http_peer import Connection, http_peer
from support.httpx_libraries import Library
from support.nginx import BIG, BIG_SHA256, JSON, TEXT, Nginx
from support.proxies import PROXY_CREDENTIALS, Tinyproxy

from pepperpy.network import HTTPConfig, TLSConfig
from pepperpy.network.testing import MockHTTP

USER, PASSWORD = PROXY_CREDENTIALS


# ---- What is asked and answered ----


async def test_a_response_has_all_that_httpx_gives(library: Library, web: Nginx) -> None:
    async with library.client() as client:
        response = await client.get(web.url("/json"), params={"a": "b c"})
        assert (response.status_code, response.reason_phrase, response.http_version) == (200, "OK", "HTTP/1.1")
        assert response.json() == JSON
        assert response.headers["content-type"] == "application/json"
        assert response.request.url.query == b"a=b+c" or response.request.url.query == b"a=b%20c"
        missing = await client.get(web.url("/status/404"))
        with pytest.raises(library.HTTPStatusError):
            missing.raise_for_status()


async def test_headers_leave_as_httpx_has_made_them(library: Library) -> None:
    async def answer(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")

    async with http_peer(answer) as peer, library.client(headers={"X-Own": "1"}) as client:
        response = await client.get(f"{peer.url}/p%2Fq?x=%20")
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    (request,) = peer.requests
    assert request.target == "/p%2Fq?x=%20"
    sent = [name.lower() for name in request.headers]
    assert sent == ["host", "accept", "accept-encoding", "connection", "user-agent", "x-own"]


@pytest.mark.parametrize(
    ("arguments", "size", "kind"),
    [
        ({"json": {"name": "john"}}, (15, 16), "application/json"),
        ({"data": {"name": "john"}}, (9,), "application/x-www-form-urlencoded"),
        ({"content": b"x" * 300_000}, (300_000,), ""),
        ({"files": {"scan": ("scan.pdf", b"%PDF-", "application/pdf")}}, None, "multipart/form-data"),
    ],
    ids=["json", "form", "bytes", "files"],
)
async def test_bodies_arrive_whole(
    library: Library, web: Nginx, arguments: dict[str, Any], size: tuple[int, ...] | None, kind: str
) -> None:
    async with library.client() as client:
        seen = (await client.post(web.url("/echo"), **arguments)).json()
    assert seen["method"] == "POST" and seen["content_type"].startswith(kind)
    assert size is None or int(seen["size"]) in size


@pytest.mark.parametrize("length", [None, 30], ids=["chunked", "with a length"])
async def test_a_body_is_read_while_it_is_sent(library: Library, web: Nginx, length: int | None) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"0123456789"

    headers = {} if length is None else {"Content-Length": str(length)}
    async with library.client() as client:
        seen = (await client.post(web.url("/echo"), content=pieces(), headers=headers)).json()
    assert int(seen["size"]) == 30
    assert seen["transfer_encoding"] == ("chunked" if length is None else "")


async def test_a_body_that_fails_raises_its_own_error_and_closes_the_connection(library: Library, web: Nginx) -> None:
    class MineError(Exception):
        pass

    async def pieces() -> AsyncIterator[bytes]:
        yield b"0123456789"
        raise MineError

    transport = library.transport()
    async with library.client(transport=transport) as client:
        with pytest.raises(MineError):
            await client.post(web.url("/echo"), content=pieces())
        assert transport.open_connections == 0
        assert (await client.get(web.url("/text"))).text == TEXT


async def test_a_body_that_fails_behind_an_early_answer_raises_its_own_error(library: Library) -> None:
    answered = asyncio.Event()

    async def answer(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        answered.set()
        await connection.wait_closed()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"0123456789"
        await answered.wait()
        raise KeyError("mine")

    async with http_peer(answer) as peer, library.client(timeout=5) as client:
        with pytest.raises(KeyError, match="mine"):
            await client.post(peer.url, content=pieces())


class Numbers:
    """An iterator that is no generator: it has no aclose()."""

    def __init__(self) -> None:
        self._left = [b"012", b"345"]

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


async def test_a_stream_without_headers_about_its_end_is_sent_in_chunks(library: Library, web: Nginx) -> None:
    stream = type("Stream", (library.AsyncByteStream,), {"__aiter__": lambda self: Numbers()})()
    async with library.client() as client:
        request = library.Request("POST", web.url("/echo"), stream=stream, headers={"Host": "localhost"})
        seen = (await client.send(request)).json()
    assert int(seen["size"]) == 6 and seen["transfer_encoding"] == "chunked"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "3"},
        {"Content-Length": "30"},
        {"Content-Length": "abc"},
        {"Transfer-Encoding": "gzip"},
        {"X y": "1"},
        {"X\r\nInjected": "1"},
        {"X": "1\r\nInjected: 1"},
    ],
    ids=["short", "long", "no number", "coding", "name", "name of two lines", "value of two lines"],
)
async def test_headers_that_would_end_a_request_elsewhere_are_refused(
    library: Library, web: Nginx, headers: dict[str, str]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"hello"

    transport = library.transport()
    async with library.client(transport=transport) as client:
        with pytest.raises(library.LocalProtocolError):
            await client.post(web.url("/echo"), content=b"hello", headers=headers)
        if "abc" in headers.values():
            with pytest.raises(library.LocalProtocolError):
                await client.post(web.url("/echo"), content=pieces(), headers=headers)
        with pytest.raises(library.LocalProtocolError, match="token"):
            await client.request("GET /x HTTP/1.1\r\nA: b\r\n\r\n", web.url("/echo"))
        assert transport.open_connections == 0


async def test_bytes_are_sent_in_chunks_if_the_headers_say_so(library: Library, web: Nginx) -> None:
    async with library.client() as client:
        headers = {"Transfer-Encoding": "chunked"}
        seen = (await client.post(web.url("/echo"), content=b"hello", headers=headers)).json()
    assert int(seen["size"]) == 5 and seen["transfer_encoding"] == "chunked"


async def test_httpx_keeps_redirects_cookies_and_decompression(library: Library, web: Nginx) -> None:
    async with library.client(follow_redirects=True) as client:
        response = await client.get(web.url("/redirect/302/same"))
        assert [past.status_code for past in response.history] == [302]
        await client.get(web.url("/cookies/set?name=a&value=b"))
        assert (await client.get(web.url("/echo"))).json()["cookie"] == "a=b"
        response = await client.get(web.url("/gzip/data.json"))
        assert response.headers["content-encoding"] == "gzip" and len(response.json()) > 100


async def test_a_request_that_its_extensions_would_lead_elsewhere_is_not_sent(library: Library, web: Nginx) -> None:
    transport = library.transport(verify=client_context())
    async with library.client(transport=transport) as client:
        for extensions in ({"target": b"*"}, {"sni_hostname": "example.com"}):
            with pytest.raises(library.LocalProtocolError, match=next(iter(extensions))):
                await client.get(web.https_url("/text"), extensions=extensions)
        assert transport.open_connections == 0
        # What changes nothing is accepted.
        for extensions in ({"sni_hostname": "127.0.0.1"}, {"target": None, "trace": print}):
            assert (await client.get(web.https_url("/text"), extensions=extensions)).text == TEXT


async def test_a_response_has_the_extensions_of_its_status_line(library: Library) -> None:
    async def answer(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.0 404 Nicht gefunden \xfc\r\n\r\n")

    async with http_peer(answer) as peer, library.client() as client:
        response = await client.get(peer.url)
        extensions = {"http_version": b"HTTP/1.0", "reason_phrase": b"Nicht gefunden \xfc"}
        assert response.extensions == extensions


# ---- Streams ----


async def test_a_stream_gives_what_comes_when_it_comes(library: Library) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await go_on.wait()
        await connection.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    transport = library.transport()
    async with http_peer(answer) as peer, library.client(transport=transport) as client:
        for _ in range(2):
            go_on.clear()
            async with client.stream("GET", f"{peer.url}/events") as response:
                lines = response.aiter_lines()
                assert await anext(lines) == "data: 1"
                go_on.set()
                assert [line async for line in lines] == ["", "data: 2", ""]
        assert transport.open_connections == 1


async def test_a_stream_that_is_left_closes_its_connection(library: Library, web: Nginx) -> None:
    transport = library.transport()
    async with library.client(transport=transport) as client:
        async with client.stream("GET", web.url("/files/big.bin")) as response:
            assert response.status_code == 200
            async for _ in response.aiter_raw(1000):
                break
        assert transport.open_connections == 0
        large = await client.get(web.url("/files/big.bin"))
        assert large.content == BIG and BIG_SHA256
        assert transport.open_connections == 1


async def test_raw_bytes_are_those_that_came(library: Library, web: Nginx) -> None:
    async with library.client() as client, client.stream("GET", web.url("/gzip/data.json")) as response:
        raw = b"".join([piece async for piece in response.aiter_raw()])
    assert gzip.decompress(raw).startswith(b"[")


# ---- What fails ----


async def test_failures_are_those_of_httpx_and_name_the_request(library: Library) -> None:
    done = asyncio.Event()

    async def answer(connection: Connection) -> None:
        request = await connection.read_head()
        if request.target == "/cut":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            connection.close()
        elif request.target == "/none":
            connection.close()
        elif request.target == "/garbage":
            await connection.send(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        elif request.target == "/stuck":
            await done.wait()  # and reads nothing of the body
        else:
            await connection.wait_closed()

    async with http_peer(answer) as peer, library.client(timeout=5) as client:
        for target, error in (
            ("/cut", library.RemoteProtocolError),
            ("/none", library.RemoteProtocolError),
            ("/garbage", library.RemoteProtocolError),
        ):
            with pytest.raises(error) as caught:
                await client.get(peer.url + target)
            assert str(caught.value) and str(caught.value.request.url).endswith(target)
        with pytest.raises(library.ReadTimeout, match="read_timeout"):
            await client.get(f"{peer.url}/silent", timeout=library.Timeout(5, read=0.05))
        with pytest.raises(library.WriteTimeout, match="write_timeout"):
            content = bytes(16 << 20)  # more than the system's buffers take
            await client.post(f"{peer.url}/stuck", content=content, timeout=library.Timeout(5, write=0.05))
        done.set()
        # The wait for a free connection has its own limit, and making one has another.
        secure = peer.url.replace("http://", "https://")
        with pytest.raises(library.ConnectTimeout, match="connect_timeout"):
            await client.get(secure, timeout=library.Timeout(5, connect=0.2, pool=0.05))
    with pytest.raises(library.ConnectError, match="refused"):
        async with library.client() as client:
            await client.get(peer.url)


async def test_a_url_without_http_is_not_supported(library: Library) -> None:
    async with library.client() as client:
        for url in ("ftp://example.com/", "/relative"):
            with pytest.raises(library.UnsupportedProtocol):
                await client.get(url)


async def test_a_wait_for_a_free_connection_ends_by_the_pool_timeout(library: Library) -> None:
    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.wait_closed()

    transport = library.transport(limits=library.Limits(max_connections=1))
    async with http_peer(answer) as peer, library.client(transport=transport, timeout=None) as client:
        first = asyncio.create_task(client.get(peer.url))
        while not transport.open_connections:
            await asyncio.sleep(0)  # until the connection is made
        with pytest.raises(library.PoolTimeout):
            await client.get(peer.url, timeout=library.Timeout(5, pool=0.05))
        first.cancel()
        await asyncio.wait([first])
        assert transport.open_connections == 0


async def test_a_cancelled_request_closes_its_connection_and_the_next_gets_its_own_answer(library: Library) -> None:
    async def answer(connection: Connection) -> None:
        request = await connection.read_request()
        if request.target == "/slow":
            await connection.wait_closed()
        else:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")

    transport = library.transport()
    async with http_peer(answer) as peer, library.client(transport=transport) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get(f"{peer.url}/slow")
        assert transport.open_connections == 0
        assert (await client.get(peer.url)).text == "mine"


async def test_a_connection_that_the_server_has_just_closed_costs_no_request(library: Library, web: Nginx) -> None:
    async with library.client() as client:
        for _ in range(7):
            assert (await client.get(web.url("/keepalive-3"))).status_code == 200


# ---- TLS, proxies, sockets ----


async def test_certificates_are_checked_as_the_arguments_say(library: Library, web: Nginx) -> None:
    async with library.client() as client:
        with pytest.raises(library.ConnectError, match="certificate"):
            await client.get(web.https_url("/text"))
    for settings in (
        {"verify": client_context()},
        {"verify": False},
        {"config": HTTPConfig(tls=TLSConfig(ca_file=ca_file()))},
    ):
        async with library.client(transport=library.transport(**settings)) as client:
            assert (await client.get(web.https_url("/text"))).text == TEXT


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_requests_go_through_a_proxy_with_its_credentials(
    library: Library, web: Nginx, locked_proxy: Tinyproxy, scheme: str
) -> None:
    proxy = library.Proxy(f"http://127.0.0.1:{locked_proxy.port}", auth=(USER, PASSWORD))
    transport = library.transport(proxy=proxy, verify=client_context())
    url = web.url("/text") if scheme == "http" else web.https_url("/text")
    async with library.client(transport=transport) as client:
        assert (await client.get(url)).text == TEXT
    assert locked_proxy.requests


async def test_requests_go_to_a_unix_socket(library: Library, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    path = str(tmp_path / "socket")
    async with await asyncio.start_unix_server(answer, path):
        async with library.client(transport=library.transport(uds=path)) as client:
            assert (await client.get("http://localhost/info")).text == "ok"


# ---- The transport itself ----


async def test_many_tasks_share_its_connections(library: Library, web: Nginx) -> None:
    transport = library.transport(limits=library.Limits(max_connections=4))
    async with library.client(transport=transport) as client:
        answers = await asyncio.gather(*(client.get(web.url(f"/echo?{number}")) for number in range(40)))
        assert [answer.json()["uri"] for answer in answers] == [f"/echo?{number}" for number in range(40)]
        assert transport.open_connections == 4
    assert transport.open_connections == 0


async def test_it_answers_from_the_routes_of_a_test(library: Library) -> None:
    with MockHTTP("https://api.example.com") as mock:
        mock.get("/users").reply(json=["Ada"])
        async with library.client(transport=library.transport(config=HTTPConfig())) as client:
            assert (await client.get("https://api.example.com/users")).json() == ["Ada"]


def test_arguments_that_cannot_be_kept_are_refused(library: Library) -> None:
    for arguments in ({"http2": True}, {"http1": False}):
        with pytest.raises(ValueError, match=r"HTTP/1\.1"):
            library.transport(**arguments)
    for arguments in ({"verify": False}, {"limits": library.Limits(max_connections=1)}):
        with pytest.raises(TypeError, match="config has the settings"):
            library.transport(config=HTTPConfig(), **arguments)
    for settings in ({"headers": {"X-Own": "1"}}, {"ssl_context": client_context()}):
        with pytest.raises(ValueError, match="proxy must have no headers"):
            library.transport(proxy=library.Proxy("http://127.0.0.1:3128", **settings))
    library.transport(config=HTTPConfig(), proxy="http://127.0.0.1:3128", retries=1)
