"""Control characters, and headers that are not the caller's, are refused before a byte leaves, without secrets."""

from __future__ import annotations

import pytest
from support.http_recorder import CANARY, QUICK, check_refused, echo, recorder
from yarl import URL

from pepperpy.network import HTTPClient

# RFC 9110, section 5.5, and RFC 9112, section 2.2: all control characters but the tab.
FORBIDDEN = [chr(code) for code in (*range(9), *range(10, 32), 127)]
SURROGATES = ["\ud800", "\udfff"]


def everywhere(character: str, text: str = "value") -> list[str]:
    """`character` at the start, inside and at the end."""
    return [character + text, text[:2] + character + text[2:], text + character]


# ---- Control characters ----


async def test_a_method_with_a_control_character_is_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for character in [*FORBIDDEN, *SURROGATES, "\t", " ", "\xe9", ":", "/"]:
            for method in everywhere(character, "GET"):
                await check_refused(client, "method", method, f"{peer.url}/?key={CANARY}")
        await check_refused(client, "method", "", peer.url)
        assert peer.connections == 0


async def test_a_url_with_a_control_character_is_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        authority = f"127.0.0.1:{peer.port}"
        for character in [*FORBIDDEN, *SURROGATES, "\t"]:
            for part in everywhere(character):
                for url in (
                    f"http://{authority}/{part}?key={CANARY}",
                    f"http://{authority}/?{part}={CANARY}",
                    f"http://{authority}/?key={CANARY}{part}",
                    f"http://{authority}/#{CANARY}{part}",
                    f"http://{part}.{authority}/",
                    f"http://{part}{CANARY}@{authority}/",
                    f"http://user:{CANARY}{part}@{authority}/",
                ):
                    await check_refused(client, "url", "GET", url)
            await check_refused(client, "url", "GET", f"{character}http://{authority}/")
            await check_refused(client, "url", "GET", f"http://{authority}{character}/")
        assert peer.connections == 0


async def test_an_encoded_url_with_what_had_to_be_encoded_is_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        right = {"scheme": "http", "host": "127.0.0.1", "port": peer.port, "encoded": True}
        for character in [*FORBIDDEN, *SURROGATES, "\t", " "]:
            for part in everywhere(character):
                for wrong in (
                    {"path": f"/{part}"},
                    {"path": "/", "query_string": f"key={CANARY}{part}"},
                    {"path": "/", "query_string": part},
                    {"path": "/", "fragment": f"{CANARY}{part}"},
                    {"path": "/", "user": f"{CANARY}{part}"},
                    {"path": "/", "user": "user", "password": f"{CANARY}{part}"},
                    {"path": "/", "host": part},
                ):
                    await check_refused(client, "url", "GET", URL.build(**(right | wrong)))
        # The request line would be whole before its end.
        await check_refused(client, "url", "GET", URL(f"{peer.url}/ HTTP/1.1", encoded=True))
        assert peer.connections == 0


@pytest.mark.parametrize("name", ["X-Test", "Host", "User-Agent", "Cookie", "Authorization", "Content-Type"])
async def test_a_header_with_a_control_character_is_refused(name: str) -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for character in [*FORBIDDEN, *SURROGATES]:
            for value in everywhere(character, CANARY):
                await check_refused(
                    client, f"headers has the character {character!r}", "GET", peer.url, headers={name: value}
                )
        assert peer.connections == 0


async def test_a_header_name_that_is_no_token_is_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for character in [*FORBIDDEN, *SURROGATES, *'\t "(),/:;<=>?@[\\]{}\xe9']:
            for name in everywhere(character, "X-Test"):
                await check_refused(client, "not a token", "GET", peer.url, headers={name: CANARY})
                await check_refused(client, "not a token", "GET", peer.url, headers={name: None})
        await check_refused(client, "not a token", "GET", peer.url, headers={"": CANARY})
        assert peer.connections == 0


async def test_a_cookie_with_a_control_character_or_of_no_name_is_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for character in [*FORBIDDEN, *SURROGATES, "\t"]:
            for value in everywhere(character, CANARY):
                await check_refused(client, "cookies has", "GET", peer.url, cookies={"name": value})
            for name in everywhere(character, "name"):
                await check_refused(client, "cookies has", "GET", peer.url, cookies={name: CANARY})
        for name in ("", "a b", "a=b", "a;b", "a,b", "path", "Expires", "\xe9"):
            await check_refused(client, "cookies has", "GET", peer.url, cookies={name: CANARY})
        assert peer.connections == 0


async def test_a_proxy_with_a_control_character_or_of_no_host_is_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for character in [*FORBIDDEN, *SURROGATES, "\t"]:
            for proxy in (
                f"{peer.url}{character}",
                f"http://user:{CANARY}{character}@127.0.0.1:{peer.port}",
                f"http://{character}127.0.0.1:{peer.port}",
            ):
                await check_refused(client, "proxy has", "GET", peer.url, proxy=proxy)
        for proxy in ("http://", "http:///", f"http://u:{CANARY}@h:99999", "http://h:0", "http://h h", "http://[::1"):
            await check_refused(client, "proxy has", "GET", peer.url, proxy=proxy)
        for user in (f"%E4:{CANARY}", f"{CANARY}:%E4", f"a%3Ab:{CANARY}", f"a%0D:{CANARY}", f"{CANARY}%7F"):
            await check_refused(client, "proxy must have", "GET", peer.url, proxy=f"http://{user}@127.0.0.1:1")
        for proxy in ("", "127.0.0.1:1", f"ftp://u:{CANARY}@127.0.0.1", "ftp://127.0.0.1", "httpx://127.0.0.1"):
            await check_refused(client, "proxy must start with", "GET", peer.url, proxy=proxy)
        proxy = f"socks5://u:{CANARY}@127.0.0.1"
        await check_refused(client, "proxy must have the form", "GET", peer.url, proxy=proxy)
        assert peer.connections == 0


async def test_a_control_character_in_a_parameter_arrives_encoded() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for character in [*FORBIDDEN, "\t", "#", "&", "=", "+", " ", "\xe9"]:
            peer.received = b""
            await client.get(peer.url, params={f"a{character}b": f"c{character}d"})
            line = peer.received.partition(b"\r\n")[0].decode("ascii")
            assert line.startswith("GET /?a") and line.endswith("d HTTP/1.1") and line.isprintable()
            assert dict(URL(line.split()[1]).query) == {f"a{character}b": f"c{character}d"}
        for params in ({"a": "\ud800"}, {"\udfff": "a"}, {"\udfff": 1}, {"a": ["b", "\ud800"]}):
            await check_refused(client, "params has a lone surrogate", "GET", peer.url, params=params)
        assert peer.connections == 1


# ---- Headers that are not the caller's ----


async def test_no_header_may_say_where_the_request_ends_but_the_true_one() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        for name, value, body in (
            ("Content-Length", "5", None),
            ("content-length", "5", b"abc"),
            ("Content-Length", "3, 3", b"abc"),
            ("Content-Length", "+3", b"abc"),
            ("Content-Length", "\u0663", b"abc"),
            ("Content-Length", "x", b"abc"),
            ("Content-Length", "", b"abc"),
            ("Content-Length", "3" + "0" * 50, b"abc"),
            ("Content-Length", "0" * 18 + "30", b"abc"),
            ("Transfer-Encoding", "chunked", None),
            ("transfer-encoding", "chunked", b"abc"),
            ("Transfer-Encoding", "gzip", b"abc"),
        ):
            await check_refused(client, "headers", "POST", peer.url, headers={name: value}, data=body)
        await check_refused(client, "twice", "GET", peer.url, headers={"X-A": CANARY, "x-a": CANARY})
        assert peer.connections == 0
    async with echo() as peer, HTTPClient(QUICK) as client:
        await client.post(peer.url, headers={"Content-Length": "3"}, data=b"abc")
        await client.get(peer.url, headers={"Content-Length": "0"})
        assert [request.body for request in peer.requests] == [b"abc", b""]


async def test_a_header_beyond_latin_1_is_sent_as_utf_8() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        await client.get(peer.url, headers={"X-Test": "\t\xe9 \u20ac \U0001f600", "X-Empty": ""})
        assert "X-Test: \t\xe9 \u20ac \U0001f600\r\n".encode() in peer.received
        assert b"X-Empty: \r\n" in peer.received


async def test_a_request_replaces_and_removes_headers_of_the_client() -> None:
    config = QUICK.replace(headers={"X-One": "1", "X-Two": "2", "User-Agent": "client"})
    async with echo() as peer, HTTPClient(config) as client:
        await client.get(peer.url)
        await client.get(peer.url, headers={"x-one": "other", "X-Three": "3"})
        await client.get(peer.url, headers={"x-ONE": None, "user-agent": None, "accept": None, "X-None": None})
        await client.get(peer.url)
    first, second, third, fourth = (request.headers for request in peer.requests)
    assert (first["X-One"], first["X-Two"], first["User-Agent"]) == ("1", "2", "client")
    assert (second.getall("X-One"), second["X-Two"], second["X-Three"]) == (["other"], "2", "3")
    assert third["X-Two"] == "2"
    assert not third.keys() & {"X-One", "User-Agent", "Accept", "X-None"}
    assert fourth == first
