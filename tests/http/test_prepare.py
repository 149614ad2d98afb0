"""Where a request goes and with what: its URL, credentials, parameters and options are sent as meant, or refused."""

from __future__ import annotations

import base64
import enum
from typing import Any

import aiohttp
import pytest
from support.http_faults import silent
from support.http_peer import http_peer
from support.http_recorder import CANARY, QUICK, check_refused, echo, recorder
from yarl import URL

from pepperpy.network import HTTPClient, NetworkTimeoutError

# ---- The URL ----


@pytest.mark.parametrize(
    ("base", "url", "target"),
    [
        ("", "/users", "/users"),
        ("", "users", "/users"),
        ("", "", "/"),
        ("", "?q=1", "/?q=1"),
        ("/", "users", "/users"),
        ("/api", "users", "/api/users"),
        ("/api", "/users", "/api/users"),
        ("/api/", "users/1?q=1#part", "/api/users/1?q=1"),
        ("/api/", "/users", "/api/users"),
        ("/api", "", "/api"),
        ("/api/", "", "/api/"),
        ("/api", "?q=1", "/api?q=1"),
        ("/api", "//elsewhere.example/x", "/api/elsewhere.example/x"),
        ("/api", "users:batch", "/api/users:batch"),
        ("/api", "redirect?to=http://elsewhere.example", "/api/redirect?to=http://elsewhere.example"),
        ("/a%2Fb/\xe9", "c d/%2F?e=\xe9 f", "/a%2Fb/%C3%A9/c%20d/%2F?e=%C3%A9%20f"),
        ("/api", URL("users"), "/api/users"),
        ("/api", URL("/users?q=1"), "/api/users?q=1"),
        ("/api", URL("%2f%41?a=%20+", encoded=True), "/api/%2f%41?a=%20+"),
        ("", URL("?q=1"), "/?q=1"),
    ],
)
async def test_a_relative_url_is_appended_to_the_base_url(base: str, url: Any, target: str) -> None:
    async with echo() as peer, HTTPClient(QUICK.replace(base_url=peer.url + base)) as client:
        assert await client.get(url) == "ok"
        assert [request.target for request in peer.requests] == [target]


async def test_an_absolute_url_stands_for_itself_and_an_encoded_one_is_sent_as_it_is() -> None:
    async with echo() as base, echo() as peer:
        for config in (QUICK, QUICK.replace(base_url=f"{base.url}/api")):
            async with HTTPClient(config) as client:
                for url, target in (
                    (peer.url, "/"),
                    (f"{peer.url}/a/../b/./c", "/b/c"),
                    (peer.url.replace("http", "HTTP") + "/x#part", "/x"),
                    (URL(f"{peer.url}/%2f%41/../?a=%20+b&a=%41", encoded=True), "/%2f%41/../?a=%20+b&a=%41"),
                    (URL(f"{peer.url}/\xe9", encoded=True), "/\xc3\xa9"),
                ):
                    peer.requests.clear()
                    assert await client.get(url) == "ok"
                    assert [request.target for request in peer.requests] == [target]
        assert base.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "ws://127.0.0.1/",
        "HTTPX://127.0.0.1/",
        "http:/127.0.0.1/",
        "http:",
        "https:127.0.0.1",
        "http://",
        "http:///path",
        "http://:80/",
        "http://user:s3cr3t@",
        "http://user:s3cr3t@/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:8o/",
        "http://user:s3cr3t@127.0.0.1:x/",
        "http://user:s3cr3t\u2100@127.0.0.1/",
        "http://[::1/",
        "http://[::zz]/",
        "http://a b/",
        "http://a%20b/",
        "http://a\\b/",
        'http://a"b/',
        "http://a<b>/",
        URL("ftp://127.0.0.1/"),
        URL("//127.0.0.1/"),
        URL.build(scheme="http", host="b\xfccher.example", path="/", encoded=True),
    ],
)
async def test_a_url_that_names_no_http_server_is_refused(url: Any) -> None:
    async with recorder() as peer:
        for config in (QUICK, QUICK.replace(base_url=peer.url)):
            async with HTTPClient(config) as client:
                await check_refused(client, "url ", "GET", url)
        assert peer.connections == 0


@pytest.mark.parametrize("url", ["", "/", "/users", "users", "?q=1", "127.0.0.1/", "//127.0.0.1/", URL("/users")])
async def test_a_relative_url_needs_a_base_url(url: Any) -> None:
    async with HTTPClient(QUICK) as client:
        await check_refused(client, "url must start with http:// or https://", "GET", url)


# ---- Credentials ----


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_credentials_in_a_url_are_sent_as_basic_auth_and_never_shown() -> None:
    async with echo() as peer, HTTPClient(QUICK.replace(auth=("client", "auth"))) as client:
        for given, sent in (
            (f"user:{CANARY}", basic("user", CANARY)),
            ("user", basic("user", "")),
            (f":{CANARY}", basic("", CANARY)),
            ("us%40er:p%3Aa%2Fs%25s", basic("us@er", "p:a/s%s")),
            ("\xfc:\u20ac", basic("\xfc", "\u20ac")),
        ):
            peer.requests.clear()
            url = peer.url.replace("http://", f"http://{given}@")
            for form in (url, URL(url), URL(url, encoded=True) if given.isascii() else url):
                answer = await client.request("GET", form)
                assert CANARY not in answer.url
                assert "@" not in answer.url
            assert [request.headers.getall("Authorization") for request in peer.requests] == [[sent]] * 3
        async with HTTPClient(QUICK.replace(base_url=peer.url.replace("http://", "http://a:b@"))) as other:
            await other.get("/users")
            await other.get(peer.url)
        assert peer.requests[-2].headers["Authorization"] == basic("a", "b")
        assert "Authorization" not in peer.requests[-1].headers


async def test_credentials_of_two_kinds_are_refused() -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        url = peer.url.replace("http://", f"http://user:{CANARY}@")
        for more in ({"headers": {"authorization": CANARY}}, {"auth": ("user", CANARY)}):
            await check_refused(client, "url has a user or password", "GET", url, **more)
        for user in ("a%3Ab:c", "a%0D%0Ab:c", "a:b%00"):
            await check_refused(client, "must hold no", "GET", peer.url.replace("//", f"//{user}@"))
        assert peer.connections == 0


async def test_the_auth_of_a_client_goes_to_the_origin_of_its_base_url_only() -> None:
    async with echo() as peer, echo() as other:
        async with HTTPClient(QUICK.replace(base_url=f"{peer.url}/api", auth=("user", CANARY))) as client:
            for url in ("users", f"{peer.url}/outside", other.url, f"http://localhost:{peer.port}/"):
                await client.get(url)
            await client.get(other.url, auth=("user", "own"))
            await client.get("users", auth=None)
            await client.get("users", headers={"authorization": "own"})
    sent = [request.headers.get("Authorization") for request in peer.requests]
    assert sent == [basic("user", CANARY), basic("user", CANARY), None, None, "own"]
    assert [request.headers.get("Authorization") for request in other.requests] == [None, basic("user", "own")]


# ---- Parameters ----


class Colour(str, enum.Enum):  # noqa: UP042  (its str() is another one than that of a StrEnum)
    RED = "red"


@pytest.mark.parametrize(
    ("of_client", "of_url", "of_request", "query"),
    [
        ({}, "", {"a": "1"}, "?a=1"),
        ({}, "?a=1", {"b": "2"}, "?a=1&b=2"),
        ({}, "?a=1", {"a": "2"}, "?a=1&a=2"),
        ({}, "", {"a": ["1", 2, None, "3"]}, "?a=1&a=2&a=3"),
        ({}, "", {"a": ("1", "2")}, "?a=1&a=2"),
        ({}, "", {"a": None, "b": []}, ""),
        ({}, "", {"a": True, "b": False}, "?a=true&b=false"),
        ({}, "", {"a": 0, "b": -1, "c": 10**30}, f"?a=0&b=-1&c={10**30}"),
        ({}, "", {"a": 0.5, "b": -0.0, "c": 1e22}, "?a=0.5&b=-0.0&c=1e%2B22"),
        ({}, "", {"a": ""}, "?a="),
        ({}, "", {"a": Colour.RED, "b": [Colour.RED]}, "?a=red&b=red"),
        ({"a": "1", "b": "2"}, "", None, "?a=1&b=2"),
        ({"a": "1", "b": "2"}, "", {"b": "3", "c": "4"}, "?a=1&b=3&c=4"),
        ({"a": "1", "b": "2"}, "", {"a": None}, "?b=2"),
        ({"a": "1"}, "", {"a": None}, ""),
        ({"a": [1, 2]}, "?z=0", {}, "?z=0&a=1&a=2"),
    ],
)
async def test_parameters_of_client_url_and_request_are_joined(
    of_client: Any, of_url: str, of_request: Any, query: str
) -> None:
    async with echo() as peer, HTTPClient(QUICK.replace(params=of_client)) as client:
        await client.get(f"{peer.url}/{of_url}", params=of_request)
        assert [request.target for request in peer.requests] == [f"/{query}"]


# ---- Other arguments ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": None}, "method must be a str, not NoneType"),
        ({"method": b"GET"}, "method must be a str, not bytes"),
        ({"method": []}, "method must be a str, not list"),
        ({"url": None}, "url must be a str or yarl.URL, not NoneType"),
        ({"url": b"http://127.0.0.1/"}, "url must be a str or yarl.URL, not bytes"),
        ({"params": "a=b"}, "params must be a mapping, or pairs of name and value, not str"),
        ({"params": 1}, "params must be a mapping, or pairs of name and value, not int"),
        ({"params": ["ab"]}, "params must be .*; it has an item that is no pair"),
        ({"params": [("a", "b", "c")]}, "params must be .*; it has an item that is no pair"),
        ({"params": [(1, "b")]}, "params must have str as names, not 1"),
        ({"params": {1: "a"}}, "params must have str as names, not 1"),
        ({"params": {"a": CANARY.encode()}}, "params must map to str, .*, not 'a' to bytes"),
        ({"params": {"a": [[CANARY]]}}, "params must map to str, .*, not 'a' to list"),
        ({"headers": [("a", "b")]}, "headers must be a mapping, not list"),
        ({"headers": {"a": 1}}, "headers must map str to str, not 'a' to int"),
        ({"headers": {"a": CANARY.encode()}}, "headers must map str to str, not 'a' to bytes"),
        ({"headers": {b"a": CANARY}}, "headers must map str to str, not b'a' to str"),
        ({"proxy": 1}, "proxy must be a str, not int"),
        ({"proxy": URL("http://127.0.0.1")}, "proxy must be a str, not URL"),
        ({"timeout": "5"}, "timeout must be a number of seconds, not '5'"),
        ({"timeout": True}, "timeout must be a number of seconds, not True"),
        ({"timeout": aiohttp.ClientTimeout(total="5")}, "timeout.total must be a number of seconds, not '5'"),
        ({"verify_ssl": None}, "verify_ssl must be True or False, not None"),
        ({"cookies": [("a", "b")]}, "cookies must be a mapping, not list"),
        ({"cookies": {"a": 1}}, "cookies must map str to str, not 'a' to int"),
        ({"cookies": {1: CANARY}}, "cookies must map str to str, not 1 to str"),
        ({"auth": CANARY}, "auth must be"),
        ({"deadline": "5"}, "deadline must be a number of seconds, not '5'"),
        ({"retries": None}, "retries must be an int, not None"),
        ({"retries": 1.0}, "retries must be an int, not 1.0"),
        ({"retries": True}, "retries must be an int, not True"),
        ({"raise_for_status": None}, "raise_for_status must be True or False, not None"),
        ({"allow_redirects": 1}, "allow_redirects must be True or False, not 1"),
        ({"decompress": "no"}, "decompress must be True or False, not 'no'"),
        ({"max_response_size": "x"}, "max_response_size must be an int, not 'x'"),
        ({"max_response_size": True}, "max_response_size must be an int, not True"),
        ({"progress": 1, "data": b""}, "progress must be callable, not int"),
        ({"nonsense": 1}, "unknown argument 'nonsense'"),
        ({"verify": False}, "unknown argument 'verify'"),
    ],
)
async def test_a_wrong_type_is_a_type_error_that_names_the_argument(arguments: Any, words: str) -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        with pytest.raises(TypeError, match=f"^{words}") as caught:
            await client.request(**{"method": "GET", "url": peer.url} | arguments)
        assert CANARY not in repr(caught.value)
        assert client.stats.attempts == 0
        assert peer.connections == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"timeout": 0}, "timeout must be more than 0 seconds, not 0.0"),
        ({"timeout": -1}, "timeout must be more than 0 seconds, not -1.0"),
        ({"timeout": float("nan")}, "timeout must be more than 0 seconds, not nan"),
        ({"timeout": aiohttp.ClientTimeout(sock_read=-1)}, "timeout.sock_read must be 0 or more seconds, not -1.0"),
        ({"deadline": 0}, "deadline must be more than 0 seconds, not 0.0"),
        ({"deadline": float("inf")}, "deadline must be more than 0 seconds, not inf"),
        ({"retries": -1}, "retries must be 0 or more, not -1"),
        ({"max_response_size": 0}, "max_response_size must be from 1 to 9223372036854775807, not 0"),
        ({"max_response_size": -1}, "max_response_size must be from 1 to 9223372036854775807, not -1"),
        ({"max_response_size": 1 << 63}, "not 9223372036854775808"),
        ({"params": {"a": float("nan")}}, "params must have finite numbers, not 'a' to nan"),
        ({"auth": ("user", "s3cr3t\n")}, "password must hold no control characters"),
        ({"json": {}, "data": b""}, "json cannot be sent together with data"),
        ({"json": {"a": float("nan")}}, "JSON"),
        ({"json": {"a": "\ud800"}}, "surrogate"),
    ],
)
async def test_a_value_out_of_range_is_refused_and_named(arguments: Any, words: str) -> None:
    async with recorder() as peer, HTTPClient(QUICK) as client:
        await check_refused(client, words, "POST", f"{peer.url}/?key={CANARY}", **arguments)
        assert peer.connections == 0


async def test_options_at_their_bounds_are_taken() -> None:
    async with echo() as peer, HTTPClient(QUICK) as client:
        for options in (
            {"max_response_size": 2},
            {"max_response_size": None},
            {"retries": 0},
            {"deadline": None},
            {"deadline": 1e9},
            {"cookies": None},
            {"cookies": {}},
            {"auth": None},
            {"data": None, "files": None, "progress": None},
            {"timeout": 1e9},
            {"timeout": aiohttp.ClientTimeout(total=0, connect=0, sock_connect=0, sock_read=0)},
            {"allow_redirects": False, "raise_for_status": False},
        ):
            assert await client.get(peer.url, **options) == "ok"


@pytest.mark.parametrize("timeout", [0.05, aiohttp.ClientTimeout(total=0.05)])
async def test_a_timeout_is_seconds_or_a_client_timeout(timeout: Any) -> None:
    for config, arguments in ((QUICK, {"timeout": timeout}), (QUICK.replace(timeout=timeout), {})):
        async with http_peer(silent) as peer, HTTPClient(config) as client:
            with pytest.raises(NetworkTimeoutError) as caught:
                await client.get(peer.url, **arguments)
            assert caught.value.details["limit"] == "timeout"


async def test_a_method_is_sent_in_upper_case() -> None:
    async with echo() as peer, HTTPClient(QUICK) as client:
        for method in ("get", "Post", "PROPFIND", "m-search", "x!#$%&'*+.^_`|~0"):
            await client.request(method, peer.url)
    assert [request.method for request in peer.requests] == ["GET", "POST", "PROPFIND", "M-SEARCH", "X!#$%&'*+.^_`|~0"]
