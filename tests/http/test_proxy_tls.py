"""HTTP through proxies that speak TLS themselves: the real tinyproxy behind socat; nginx. On both transports."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.certificates import ca_file, server_cert, unknown_ca_cert, wrong_host_cert
from support.nginx import TEXT, Nginx
from support.proxies import PROXY_CREDENTIALS, Tinyproxy, tls_front
from support.tls_peer import excuse_failures_within_tls

from pepperpy.network import HTTPClient, HTTPConfig, NetworkTimeoutError, ProxyError, TLSConfig, TLSError

USER, PASSWORD = PROXY_CREDENTIALS
Make = Callable[..., HTTPConfig]


@pytest.fixture(params=["aiohttp", "auto"])
def config(request: pytest.FixtureRequest) -> Make:
    """Makes a configuration for each of the transports."""

    def make(**settings: Any) -> HTTPConfig:
        return HTTPConfig(**{"transport": request.param, "retries": 0, "tls": TLSConfig(ca_file=ca_file())} | settings)

    return make


@pytest.fixture(scope="module")
def front(locked_proxy: Tinyproxy) -> Iterator[int]:
    """The port of a proxy that speaks TLS and wants `PROXY_CREDENTIALS`."""
    with tls_front(locked_proxy.port, server_cert()) as port:
        yield port


async def test_plain_and_tls_go_through_and_connections_are_reused(
    web: Nginx, front: int, locked_proxy: Tinyproxy, config: Make
) -> None:
    before = len(locked_proxy.requests())
    proxy = f"https://{USER}:{PASSWORD}@localhost:{front}"
    # Retries: tinyproxy closes behind each answer, and says so in none.
    async with HTTPClient(config(proxy=proxy, retries=2, retry_delay=0)) as client:
        for url in (web.url("/text"), web.https_url("/text")):
            for _ in range(3):
                assert await client.get(url) == TEXT
    requests = locked_proxy.requests()[before:]
    assert requests.count(f"CONNECT 127.0.0.1:{web.https_port} HTTP/1.1") == 1
    assert requests.count(f"GET {web.url('/text')} HTTP/1.1") == 3


async def test_a_connection_to_a_proxy_that_keeps_it_is_used_again(web: Nginx, config: Make) -> None:
    # nginx takes the URL in a request line as a proxy does, and keeps the connection.
    with tls_front(web.http_port, server_cert()) as port:
        async with HTTPClient(config(proxy=f"https://localhost:{port}")) as client:
            for _ in range(3):
                assert await client.get("http://server.test/text") == TEXT
            # The pool knows them by their target.
            assert await client.get("http://other.test/text") == TEXT
    assert [(request.connection, request.number) for request in web.requests()] == [
        (first := web.requests()[0].connection, 1),
        (first, 2),
        (first, 3),
        (web.requests()[3].connection, 1),
    ]


@pytest.mark.parametrize("target", ["http", "https"])
async def test_a_proxy_whose_certificate_is_refused_gets_nothing_and_the_error_names_it(
    web: Nginx, locked_proxy: Tinyproxy, config: Make, target: str
) -> None:
    url = web.https_url("/text") if target == "https" else web.url("/text")
    for cert, words in (
        (unknown_ca_cert(), "TLS to the proxy.*: the certificate's issuer is unknown"),
        (wrong_host_cert(), "TLS to the proxy.*: the certificate is not for 'localhost'"),
    ):
        before = locked_proxy.log()
        with tls_front(locked_proxy.port, cert) as port:
            async with HTTPClient(config(retries=2, retry_delay=0)) as client:
                with pytest.raises(TLSError, match=words) as caught:
                    await client.get(url, proxy=f"https://{USER}:{PASSWORD}@localhost:{port}")
                assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
                assert caught.value.details["attempt"] == 1
                assert PASSWORD not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"
        # tinyproxy sees a connection that ends without a request, at most.
        assert "Request (" not in locked_proxy.log()[len(before) :]


async def test_a_certificate_of_the_server_that_is_refused_is_not_said_to_be_the_proxys(
    front: int, config: Make
) -> None:
    excuse_failures_within_tls()
    with tls_front(9, unknown_ca_cert()) as server:
        async with HTTPClient(config()) as client:
            with pytest.raises(TLSError) as caught:
                await client.get(f"https://localhost:{server}/", proxy=f"https://{USER}:{PASSWORD}@localhost:{front}")
            assert "the certificate's issuer is unknown" in str(caught.value)
            assert "proxy" not in str(caught.value)


async def test_the_settings_of_tls_hold_for_both_but_name_and_pin_for_the_server_alone(
    web: Nginx, front: int, config: Make
) -> None:
    proxy = f"https://{USER}:{PASSWORD}@localhost:{front}"
    named = TLSConfig(ca_file=ca_file(), server_hostname="127.0.0.1")
    async with HTTPClient(config(tls=named, proxy=proxy)) as client:
        assert await client.get(web.https_url("/text").replace("127.0.0.1", "localhost")) == TEXT
    wrong = TLSConfig(ca_file=ca_file(), certificate_pin="ab" * 32)
    async with HTTPClient(config(tls=wrong, proxy=proxy)) as client:
        # No certificate of a server is seen here, and the pin is not the proxy's.
        assert await client.get(web.url("/text")) == TEXT
        with pytest.raises(TLSError, match="not a pinned one"):
            await client.get(web.https_url("/text"))


async def test_verify_ssl_false_holds_for_the_proxy_as_well(web: Nginx, locked_proxy: Tinyproxy, config: Make) -> None:
    with tls_front(locked_proxy.port, unknown_ca_cert()) as port:
        proxy = f"https://{USER}:{PASSWORD}@localhost:{port}"
        for settings, options in (({"verify_ssl": False}, {}), ({}, {"verify_ssl": False})):
            async with HTTPClient(config(**settings)) as client:
                for url in (web.url("/text"), web.https_url("/text")):
                    assert await client.get(url, proxy=proxy, **options) == TEXT


@pytest.mark.parametrize("kind", ["settings", "context", "request"])
async def test_a_pin_in_place_of_the_check_is_for_the_server_alone(
    web: Nginx, front: int, locked_proxy: Tinyproxy, kind: str
) -> None:
    def pinned(pin: str) -> HTTPConfig:
        if kind == "context":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return HTTPConfig(retries=0, tls=TLSConfig(context=context, certificate_pin=pin))
        return HTTPConfig(retries=0, tls=TLSConfig(verify=kind == "request", certificate_pin=pin))

    unchecked: dict[str, Any] = {"verify_ssl": False} if kind == "request" else {}
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", web.https_port)))
    pin = hashlib.sha256(der).hexdigest()
    with tls_front(locked_proxy.port, unknown_ca_cert()) as port:
        async with HTTPClient(pinned(pin).replace(proxy=f"https://{USER}:{PASSWORD}@localhost:{port}")) as client:
            for url in (web.url("/text"), web.https_url("/text")):
                with pytest.raises(TLSError, match=r"TLS to the proxy.*: the certificate's issuer is unknown"):
                    await client.get(url, **unchecked)
    own: dict[str, Any] = {
        "proxy": f"https://{USER}:{PASSWORD}@localhost:{front}",
        "proxy_tls": TLSConfig(ca_file=ca_file()),
    }
    async with HTTPClient(pinned(pin).replace(**own)) as client:
        assert await client.get(web.https_url("/text"), **unchecked) == TEXT
    async with HTTPClient(pinned("ab" * 32).replace(**own)) as client:
        with pytest.raises(TLSError, match="not a pinned one"):
            await client.get(web.https_url("/text"), **unchecked)


async def test_other_failures_are_those_of_a_proxy_and_show_no_secret(web: Nginx, front: int, config: Make) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with HTTPClient(config()) as client:
            # tinyproxy 1.11.1 says 401, and later versions say 407.
            for port, words in ((front, r"the proxy answered 40[17]\b"), (closed.getsockname()[1], "cannot connect")):
                with pytest.raises(ProxyError, match=words) as caught:
                    await client.get(web.https_url("/text"), proxy=f"https://{USER}:canary@localhost:{port}")
                assert "canary" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"


async def test_a_proxy_that_does_not_begin_tls_is_ended_by_connect_timeout(web: Nginx, config: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"https://localhost:{silent.getsockname()[1]}"
        async with HTTPClient(config(connect_timeout=0.05)) as client:
            for url in (web.url("/text"), web.https_url("/text")):
                with pytest.raises(NetworkTimeoutError, match="connect_timeout"):
                    await client.get(url, proxy=proxy)
