"""Who carries a request: our own core, or aiohttp where a setting says so; whatever proxy there is."""

from __future__ import annotations

import socket
from base64 import b64encode

import pytest
from support.certificates import ca_file, server_cert
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import HTTPClient, HTTPConfig, ProxyError, TLSConfig


@pytest.mark.parametrize(("transport", "carrier"), [("auto", "core"), ("aiohttp", "aiohttp")])
@pytest.mark.parametrize("secure", [False, True])
async def test_a_request_by_way_of_a_proxy_is_carried_as_all_others_are(
    transport: str, carrier: str, secure: bool
) -> None:
    tls = TLSConfig(ca_file=ca_file())
    async with http_peer(answering(response()), certificate=server_cert() if secure else None) as peer:
        async with HTTPClient(HTTPConfig(transport=transport, proxy=peer.url, tls=tls)) as client:
            answer = await client.request("GET", "http://server.test/")
    assert (answer.transport, answer.text) == (carrier, "ok")


async def test_any_proxy_that_the_configuration_takes_is_asked() -> None:
    # Bound, and not listening: nobody else has the port, and it refuses.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refuses = f"127.0.0.1:{bound.getsockname()[1]}"
        proxies = (
            f"http://{refuses}",
            f"HTTP://{refuses}/",
            f"https://{refuses}",
            "http://127.0.0.255",
            "https://[::1]/path",
        )
        for proxy in proxies:
            for url in ("http://server.test/", "https://server.test/"):
                async with HTTPClient(HTTPConfig(proxy=proxy, retries=0)) as client:
                    with pytest.raises(ProxyError):
                        await client.get(url)


async def test_credentials_of_any_length_reach_the_proxy_and_in_one_encoding() -> None:
    # A token as the password, as proxies of clouds have it; and RFC 7617 leaves the encoding open.
    for user, password, sent in (
        ("u" * 300, "p" * 3000, "u" * 300 + ":" + "p" * 3000),
        ("user", "p%C3%A4ss%40", "user:p\xe4ss@"),
        ("user", "", "user:"),
    ):
        async with http_peer(answering(response(status="407 Who"))) as peer:
            proxy = peer.url.replace("//", f"//{user}:{password}@")
            async with HTTPClient(HTTPConfig(proxy=proxy, raise_for_status=False, retries=0)) as client:
                assert (await client.request("GET", "http://server.test/")).status == 407
                with pytest.raises(ProxyError):
                    await client.get("https://server.test/")
        expected = "Basic " + b64encode(sent.encode()).decode()
        assert [request.headers["Proxy-Authorization"] for request in peer.requests] == [expected, expected]
