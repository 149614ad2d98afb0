"""The contexts that this package builds: what they offer and refuse, and when a new one is built."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.certificates import ca_file, client_cert, common_name_cert, server_cert, server_context
from support.http_faults import response
from support.tls_peer import tls_peer_and_client

from pepperpy.network import HTTPClient, HTTPConfig, TLSError
from pepperpy.network import tls as tls_module
from pepperpy.network.tls import client_context


@pytest.fixture
def system_ca(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' authority is among the system's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file()))
    tls_module._context.cache_clear()
    yield
    tls_module._context.cache_clear()


@contextlib.asynccontextmanager
async def https_server(context: ssl.SSLContext) -> AsyncIterator[tuple[str, list[str | None]]]:
    """The URL of a server on localhost, and what was agreed on by ALPN, connection by connection."""
    agreed: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/", agreed
    finally:
        server.close()


HTTP_SETTINGS: list[dict[str, Any]] = [
    {},
    {"verify_ssl": False},
    {"ca_file": ca_file()},
    {"client_cert": client_cert()},
    {"ca_file": ca_file(), "client_cert": client_cert()},
    {"verify_ssl": False, "client_cert": client_cert()},
]


@pytest.mark.parametrize("settings", HTTP_SETTINGS, ids=lambda settings: "+".join(settings) or "defaults")
@pytest.mark.usefixtures("system_ca")
async def test_http_offers_http_1_1_whatever_is_configured(settings: dict[str, Any]) -> None:
    context = server_context(server_cert())
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with https_server(context) as (url, agreed), HTTPClient(HTTPConfig(retries=0, **settings)) as client:
        assert await client.get(url) == "ok"
        # Another context, and another connection.
        assert await client.get(url, verify_ssl=False) == "ok"
    assert set(agreed) == {"http/1.1"}


async def test_tcp_offers_nothing_by_itself() -> None:
    context = server_context(server_cert())
    context.set_alpn_protocols(["http/1.1"])
    async with tls_peer_and_client(context) as (peer, client):
        assert client.tls is not None
        assert client.tls.alpn is peer.tls.selected_alpn_protocol() is None


@pytest.mark.usefixtures("system_ca")
async def test_a_certificate_with_a_common_name_only_is_refused_by_default_over_http() -> None:
    # asyncio's server calls it for a handshake that its client breaks off.
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    async with https_server(server_context(common_name_cert())) as (url, _):
        async with HTTPClient(HTTPConfig(retries=0)) as client:
            with pytest.raises(TLSError, match="the certificate is not for 'localhost': no subjectAltName names it"):
                await client.get(url)


async def test_a_context_of_ones_own_may_still_take_the_common_name() -> None:
    context = ssl.create_default_context(cafile=ca_file())
    settings = {"tls": context, "ca_file": None, "server_hostname": "localhost"}
    async with tls_peer_and_client(server_context(common_name_cert()), **settings) as (_, client):
        assert client.tls is not None
    assert context.hostname_checks_common_name


@pytest.mark.parametrize("settings", [{}, {"verify": False}, {"ca_file": ca_file()}, {"system_trust": True}])
def test_no_context_of_ours_takes_the_common_name(settings: dict[str, Any]) -> None:
    assert not client_context(**settings).hostname_checks_common_name
