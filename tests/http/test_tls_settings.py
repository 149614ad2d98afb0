"""HTTP has all of `TLSConfig`: authorities in memory, a context of one's own, the oldest version, a pin, the name."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.certificates import ca_file, self_signed_cert, server_cert, server_context, wrong_host_cert
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.proxies import Tinyproxy, tinyproxy
from support.tls_by_hand import TLSByHand, listening

from pepperpy.network import HTTPClient, HTTPConfig, TLSConfig, TLSError

TRUSTING = TLSConfig(ca_file=ca_file())


def pin_of(pem: str) -> str:
    """Of the first certificate in it."""
    first = pem[pem.index("-----BEGIN CERTIFICATE") :].partition("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0] + first[1])).hexdigest()


RIGHT, WRONG = pin_of(server_cert().read_text()), "ab" * 32


Make = Callable[..., HTTPConfig]


@pytest.fixture(params=["aiohttp", "auto"])
def config(request: pytest.FixtureRequest) -> Make:
    """Makes a configuration for each of the transports."""
    return functools.partial(HTTPConfig, transport=request.param, retries=0)


def quiet() -> None:
    """asyncio's server calls the loop's exception handler for a handshake that its client breaks off."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)


@pytest.mark.parametrize(
    "tls",
    [
        TLSConfig(ca_data=ca_file().read_bytes()),
        TLSConfig(ca_data=ssl.PEM_cert_to_DER_cert(ca_file().read_text())),
        ssl.create_default_context(cafile=ca_file()),
        TLSConfig(context=ssl.create_default_context(cafile=ca_file()), certificate_pin=RIGHT),
        TRUSTING.replace(certificate_pin=(WRONG, RIGHT)),
        TLSConfig(verify=False, certificate_pin=RIGHT),
    ],
)
async def test_a_server_that_is_trusted_answers(tls: Any, config: Make) -> None:
    async with http_peer(answering(response()), certificate=server_cert()) as peer:
        async with HTTPClient(config(tls=tls)) as client:
            assert await client.get(peer.url) == "ok"


@pytest.mark.parametrize(
    "tls",
    [
        TRUSTING.replace(certificate_pin=WRONG),
        TLSConfig(verify=False, certificate_pin=WRONG),
        TLSConfig(context=ssl.create_default_context(cafile=ca_file()), certificate_pin=WRONG),
    ],
)
async def test_a_certificate_that_is_not_pinned_is_refused_before_anything_is_sent(
    tls: TLSConfig, config: Make
) -> None:
    server = TLSByHand(server_context(server_cert()))
    async with listening(server.serve) as url, HTTPClient(config(tls=tls, retries=2)) as client:
        for verify_ssl in (True, False):
            with pytest.raises(TLSError, match=f"not a pinned one: its SHA-256 is {RIGHT}"):
                await client.get(url, verify_ssl=verify_ssl)
        assert client.stats.open_connections == 0
    assert server.requests == []
    assert server.connections == 2


@pytest.fixture(scope="module")
def proxy() -> Iterator[Tinyproxy]:
    with tinyproxy() as proxy:
        yield proxy


async def test_through_a_proxy_the_pin_is_that_of_the_server(proxy: Tinyproxy, config: Make) -> None:
    server = TLSByHand(server_context(server_cert()))
    async with listening(server.serve) as url:
        for pin in (RIGHT, WRONG):
            tls = TRUSTING.replace(certificate_pin=pin)
            async with HTTPClient(config(tls=tls, proxy=proxy.url)) as client:
                if pin == RIGHT:
                    assert await client.get(url) == "ok"
                else:
                    with pytest.raises(TLSError, match="not a pinned one"):
                        await client.get(url)
    assert server.requests == [1]


async def test_a_pin_is_of_no_concern_to_plain_http(config: Make) -> None:
    async with http_peer(answering(response())) as peer:
        async with HTTPClient(config(tls=TLSConfig(certificate_pin=WRONG))) as client:
            assert await client.get(peer.url) == "ok"


async def test_an_older_version_than_allowed_is_refused_verified_or_not(config: Make) -> None:
    quiet()
    context = server_context(server_cert())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = TLSByHand(context)
    tls = TRUSTING.replace(minimum_version=ssl.TLSVersion.TLSv1_3)
    async with listening(server.serve) as url, HTTPClient(config(tls=tls)) as client:
        for verify_ssl in (True, False):
            with pytest.raises(TLSError, match="no TLS version that both sides allow"):
                await client.get(url, verify_ssl=verify_ssl)


async def test_the_certificate_may_be_for_another_name_than_that_of_the_url(config: Make) -> None:
    async with http_peer(answering(response()), certificate=wrong_host_cert()) as peer:
        tls = TRUSTING.replace(server_hostname="elsewhere.example")
        async with HTTPClient(config(tls=tls)) as client:
            assert await client.get(peer.url) == "ok"
    quiet()
    async with http_peer(answering(response()), certificate=server_cert()) as peer:
        async with HTTPClient(config(tls=tls)) as client:
            with pytest.raises(TLSError, match=r"not for 'elsewhere\.example'"):
                await client.get(peer.url)


async def test_a_request_without_verification_uses_nothing_of_a_context_of_ones_own(config: Make) -> None:
    server = TLSByHand(server_context(self_signed_cert()))
    context = ssl.create_default_context(cafile=ca_file())
    async with listening(server.serve) as url, HTTPClient(config(tls=context)) as client:
        assert await client.get(url, verify_ssl=False) == "ok"
        with pytest.raises(TLSError):
            await client.get(url)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"tls": TLSConfig(verify=False)}, True),
        ({"verify_ssl": False}, True),
        # What is pinned is certain.
        ({"tls": TLSConfig(verify=False, certificate_pin=RIGHT)}, False),
        ({"tls": TRUSTING}, False),
    ],
)
def test_a_client_that_checks_nothing_is_warned_of(settings: dict[str, Any], warned: bool, caplog: Any) -> None:
    HTTPClient(HTTPConfig(**settings))
    assert ["certificates are not verified" in record.getMessage() for record in caplog.records] == [True] * warned
