"""What of a URL goes out as it was given, what is encoded, and where a reference leads."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support.http_faults import answering, response
from support.http_peer import HTTPPeer, http_peer
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig, InvalidRequestError
from pepperpy.network.http import urls
from pepperpy.network.http.urls import join, parse
from pepperpy.network.httpx import AsyncHTTPTransport
from pepperpy.network.testing import MockHTTP

AS_GIVEN = [
    "/a%2Fb",
    "/a%2fb",
    "/%7Euser/%41",
    "/me%40example.com",
    "/q?sig=aZ%2F0%2B9%3D%7E&x=%41+%20",
    "/list[]?a[]=1&b=2;c=3",
    "/x?url=http://other/?a=b",
    "/a//b/",
    "/!$&'()*+,;=:@",
    "/%E4%BD%A0",
    "/%FF",
]
ENCODED = [
    ("/a b", "/a%20b"),
    ("/caf\u00e9?q=\u4e2d", "/caf%C3%A9?q=%E4%B8%AD"),
    ("/100%", "/100%25"),
    ("/%zz%4", "/%25zz%254"),
    ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ("/a%2Fb c%7E", "/a%2Fb%20c%7E"),
    ("", "/"),
    ("?q=1", "/?q=1"),
    ("/a/./b/../c", "/a/c"),
    ("/../../c/..", "/"),
    ("/a/%2E%2E/b", "/a/%2E%2E/b"),
]


@pytest.mark.parametrize("target", AS_GIVEN)
def test_what_is_encoded_properly_stays_as_it_is(target: str) -> None:
    assert parse(f"http://host{target}").raw_path_qs == target
    assert join(URL("http://host/x"), target).raw_path_qs == target


@pytest.mark.parametrize(("given", "sent"), ENCODED)
def test_what_cannot_be_sent_is_encoded(given: str, sent: str) -> None:
    assert parse(f"http://host{given}").raw_path_qs == sent


def test_bytes_that_are_no_utf_8_are_encoded_as_they_were() -> None:
    location = b"/caf\xe9".decode("utf-8", "surrogateescape")
    assert join(URL("http://host/"), location).raw_path_qs == "/caf%E9"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("HTTP://EXAMPLE.com:80/", "example.com", 80),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example", 443),
        ("http://[::0001]:8080/", "::1", 8080),
        ("http://user:p%40ss@host:81/", "host", 81),
        ("http://h:/", "h", 80),
    ],
)
def test_the_host_is_read(text: str, host: str, port: int) -> None:
    url = parse(text)
    assert (url.raw_host, url.port, url.scheme) == (host, port, text.partition(":")[0].lower())


def test_user_and_password_are_read() -> None:
    url = parse("http://us%65r:p%40ss@host/")
    assert (url.user, url.password) == ("user", "p@ss")


# RFC 3986, section 5.4, with the base of a server that redirects.
BASE = URL("http://a/b/c/d;p?q")
REFERENCES = {
    "g": "http://a/b/c/g",
    "./g": "http://a/b/c/g",
    "g/": "http://a/b/c/g/",
    "/g": "http://a/g",
    "//g": "http://g",
    "?y": "http://a/b/c/d;p?y",
    "g?y": "http://a/b/c/g?y",
    "": "http://a/b/c/d;p?q",
    ";x": "http://a/b/c/;x",
    "g;x?y#s": "http://a/b/c/g;x?y#s",
    "..": "http://a/b/",
    "../g": "http://a/b/g",
    "../..": "http://a/",
    "../../../g": "http://a/g",
    "/./g": "http://a/g",
    "g..": "http://a/b/c/g..",
    "./../g": "http://a/b/g",
    "g;x=1/../y": "http://a/b/c/y",
    "g?y/../x": "http://a/b/c/g?y/../x",
    "http:g": "http://a/b/c/g",
    "https://g:8443/%2F?%7E": "https://g:8443/%2F?%7E",
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_leads_where_rfc_3986_says(reference: str) -> None:
    assert str(join(BASE, reference)) == REFERENCES[reference]


@pytest.mark.parametrize(
    "text",
    [
        "http://]x[@",
        "http://][@h/",
        "//]x[@",
        "http://[x]y[@z",
        "http://[::1/",
        "http://",
        "http:///path",
        "http://:80/",
        "http://h:99999999999999999999/",
        "http://h:x/",
        "http://" + "a" * 64 + ".com/",
        "http://" + "a." * 127 + "com/",
        "http://" + "\u4e2d" * 254 + "/",
        "http://exa\tmple.com/",
        "http://exa\udce9mple.com/",
        "https:x",
        "mailto:me@example.com",
        "localhost:8080/x",
    ],
)
def test_what_leads_nowhere_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        join(BASE, text)


@pytest.mark.parametrize("host", ["\u4e2d" * 2600, "a." * 127 + "com", "\u4e2d" * 64])
def test_a_host_name_that_is_too_long_is_refused_before_idna(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """IDNA takes seconds for the first one, all of them in one step of the event loop."""
    monkeypatch.setattr(urls, "URL", None)
    with pytest.raises(ValueError, match="the host has more than 253 characters, or 63 between two dots"):
        parse(f"http://{host}/")


SIGNED = "/b%2Fucket/me%40x/%7Efile?sig=aZ%2F0%2B9%3D%7E&x=%41&list[]=1"


@pytest.mark.parametrize("with_base", [False, True])
async def test_a_signed_url_is_sent_byte_for_byte(with_base: bool) -> None:
    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(peer.url + "/api%2F1" if with_base else None)) as client:
            answer = await client.request("GET", SIGNED if with_base else f"{peer.url}/api%2F1{SIGNED}")
            await client.get(answer.url, {"page": 2, "q": "a/b &"})
        sent = [request.target for request in peer.requests]
        assert sent == [f"/api%2F1{SIGNED}", f"/api%2F1{SIGNED}&page=2&q=a/b+%26"]


@pytest.mark.parametrize("host", ["\u4e2d" * 2600, "a" * 64 + ".example"])
async def test_a_host_name_that_is_too_long_cannot_be_asked(host: str) -> None:
    async with HTTPClient() as client:
        with pytest.raises(InvalidRequestError, match="url has a host or a port that cannot be used"):
            await client.get(f"http://{host}/")
    with pytest.raises(ValueError, match="base_url has a host or a port that cannot be used"):
        HTTPConfig(f"http://{host}/")


@pytest.mark.parametrize("pattern", ["path%40x.*sig=%2F", "path@x.*sig=/"])
async def test_a_pattern_of_a_mock_is_searched_for_in_the_url_as_sent_and_in_its_usual_spelling(pattern: str) -> None:
    with MockHTTP() as mock:
        mock.get(re.compile(pattern)).reply(text="ok")
        async with HTTPClient() as client:
            assert await client.get("http://host/path%40x?sig=%2F") == "ok"


@contextlib.asynccontextmanager
async def on_ipv6() -> AsyncIterator[HTTPPeer]:
    """A server on `::1`, whose zone is the loopback."""
    peer = HTTPPeer(answering(response(b"ok")))
    server = await asyncio.start_server(peer.connected, "::1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="zones are numbers there")
async def test_a_zone_is_looked_up_and_not_sent() -> None:
    """RFC 6874: written `%25lo` in a URL; the bare `%` is accepted. The server is not told of it (section 4)."""
    name = "lo" if sys.platform == "linux" else "lo0"
    async with on_ipv6() as peer, HTTPClient(HTTPConfig(retries=0)) as client:
        for zone in (f"%25{name}", f"%{name}", "%251"):
            url = f"http://[::1{zone}]:{peer.port}/"
            assert await client.get(url) == await client.post(URL(url), json=1) == "ok"
        async with httpx.AsyncClient(transport=AsyncHTTPTransport()) as other:
            assert (await other.get(f"http://[::1%25{name}]:{peer.port}/")).text == "ok"
        assert len(peer.requests) == 7
        assert {request.headers["Host"] for request in peer.requests[:6]} == {f"[::1]:{peer.port}"}


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_a_zone_is_that_of_the_url_wherever_it_comes_from(transport: Any) -> None:
    with MockHTTP() as mock:
        mock.get("http://[fe80::1%25eth0]/").reply(302, headers={"Location": "//[fe80::2%25eth1]:81/"})
        mock.get("http://[fe80::2%eth1]:81/").reply(text="ok")
        async with HTTPClient(HTTPConfig("http://[fe80::1%25eth0]", transport=transport)) as client:
            answer = await client.request("GET", "/")
    assert answer.url == "http://[fe80::2%eth1]:81/"
    assert [request.headers["Host"] for request in mock.requests] == ["[fe80::1]", "[fe80::2]:81"]
    for zone in ("%25e%5Dh", "%25e%2Fh", "%25e%0Ah"):
        async with HTTPClient() as client:
            with pytest.raises(InvalidRequestError, match="url has a host or a port that cannot be used"):
                await client.get(f"http://[fe80::1{zone}]/")
