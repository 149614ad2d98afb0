"""What somebody writes who comes from requests, httpx or aiohttp is answered by what to write here."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig
from pepperpy.network.http.arguments import INSTEAD

NEWCOMERS: list[tuple[dict[str, Any], str]] = [
    ({"verify": False}, "write verify_ssl=False"),
    ({"ssl": False}, "write verify_ssl=False"),
    ({"cert": "me.pem"}, r"write HTTPConfig\(tls=TLSConfig\(client_cert="),
    ({"follow_redirects": True}, "write allow_redirects="),
    ({"proxies": {}}, "write proxy="),
    ({"content": b"x"}, "write data="),
    ({"body": b"x"}, "write data="),
    ({"stream": True}, r"write async with client\.stream"),
    ({"max_retries": 3}, "write retries="),
    ({"ca_file": "x"}, r"write HTTPConfig\(tls=TLSConfig\(ca_file="),
    ({"max_line_size": 3}, r"write HTTPConfig\(limits=ResponseLimits\(max_line_size="),
    ({"user_timeout": 3}, r"write HTTPConfig\(keepalive=Keepalive\(user_timeout="),
    ({"connect_timeout": 3}, r"HTTPClient\(HTTPConfig\(connect_timeout="),
    ({"heders": {}}, "did you mean 'headers'"),
    ({"max_redirect": 3}, "did you mean 'max_redirects'"),
    ({"nonsense": 1}, "unknown argument 'nonsense'$"),
]


@pytest.mark.parametrize(("arguments", "words"), NEWCOMERS)
async def test_a_request_says_what_to_write_and_sends_nothing(arguments: dict[str, Any], words: str) -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        for method in (client.get, client.post, client.get_json):
            with pytest.raises(TypeError, match=words):
                await method(peer.url, **arguments)
        with pytest.raises(TypeError, match=words):
            async with client.stream("GET", peer.url, **arguments):
                pass
        assert not peer.requests


async def test_json_is_refused_by_methods_without_a_body_and_taken_by_request() -> None:
    async with http_peer(answering(response(b"{}"))) as peer, HTTPClient() as client:
        for method in (client.get, client.head, client.options, client.get_json):
            with pytest.raises(TypeError, match=r"unknown argument 'json': write request\('GET', url, json="):
                await method(peer.url, json={"a": 1})
        with pytest.raises(TypeError, match=r"unknown argument 'json': write request\('GET'"):
            await client.download(peer.url, "nowhere", json={"a": 1})
        await client.request("GET", peer.url, json={"a": 1})
        assert [request.body for request in peer.requests] == [b'{"a":1}']


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"verify": False}, "write verify_ssl=False"),
        ({"follow_redirects": True}, r"HTTPConfig\(max_redirects="),
        ({"allow_redirects": False}, r"HTTPConfig\(max_redirects=0\)"),
        ({"limit": 3}, r"HTTPConfig\(max_connections="),
        ({"url": "http://a"}, r"HTTPConfig\(base_url="),
        ({"time_out": 3}, "did you mean 'timeout'"),
        ({"nonsense": 1}, "unknown argument 'nonsense'$"),
    ],
)
def test_both_constructors_say_what_to_write(arguments: dict[str, Any], words: str) -> None:
    for make in (HTTPConfig, HTTPConfig().replace, HTTPClient):
        with pytest.raises(TypeError, match=words):
            make(**arguments)


@pytest.mark.parametrize("name", ["base_url", "timeout", "verify_ssl", "headers", "auth"])
def test_a_client_takes_its_settings_as_a_config(name: str) -> None:
    with pytest.raises(TypeError, match=rf"'{name}'.* HTTPClient\(HTTPConfig\({name}=\.\.\.\)\)"):
        HTTPClient(**{name: "x"})


@pytest.mark.parametrize("url", ["https://user:canary@api.example", URL("https://user:canary@api.example")])
def test_a_client_of_a_url_says_where_it_goes_and_does_not_show_it(url: Any) -> None:
    with pytest.raises(TypeError, match=r"HTTPClient\(HTTPConfig\(\.\.\.\)\)") as caught:
        HTTPClient(url)
    assert "canary" not in str(caught.value)


async def test_a_path_as_verify_ssl_is_told_where_authorities_go() -> None:
    async with HTTPClient() as client:
        with pytest.raises(TypeError, match=r"not 'ca\.pem'; HTTPConfig\(tls=TLSConfig\(ca_file="):
            await client.get("https://host.example", verify_ssl="ca.pem")
    with pytest.raises(TypeError, match=r"not 'ca\.pem'; HTTPConfig\(tls=TLSConfig\(ca_file="):
        HTTPConfig(verify_ssl="ca.pem")


def test_limits_as_httpx_has_them_are_told_where_connections_go() -> None:
    with pytest.raises(TypeError, match=r"^limits must be a ResponseLimits, not int; .* HTTPConfig\(max_connections="):
        HTTPConfig(limits=3)  # type: ignore[arg-type]


async def test_two_limits_in_a_tuple_are_told_the_name_of_each() -> None:
    async with HTTPClient() as client:
        with pytest.raises(TypeError, match=r"aiohttp\.ClientTimeout\(sock_connect=, sock_read=\), not \(3, 30\)"):
            await client.get("https://host.example", timeout=(3, 30))


def test_the_signatures_stay_and_a_config_pickles() -> None:
    assert list(inspect.signature(HTTPClient).parameters) == ["config"]
    assert "verify_ssl" in inspect.signature(HTTPConfig).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(HTTPConfig).parameters.values())
    config = HTTPConfig("http://a", timeout=3)
    assert pickle.loads(pickle.dumps(config)) == config


def test_nothing_that_exists_is_explained_away() -> None:
    # Of the constructor's own names none; of a request's only json, which some methods have and others have not.
    assert not INSTEAD.keys() & inspect.signature(HTTPConfig).parameters.keys()
    assert INSTEAD.keys() & inspect.signature(HTTPClient.request).parameters.keys() == {"json", "url"}
