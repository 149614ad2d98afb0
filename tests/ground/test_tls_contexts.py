"""The contexts that this package builds: what they offer and refuse, and when a new one is built."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import (
    ca_file,
    certificate_of_the_authority,
    client_cert,
    common_name_cert,
    server_cert,
    server_context,
)
from support.http_faults import response
from support.tls_peer import tls_peer_and_client

from pepperpy.network import HTTPClient, HTTPConfig, TLSConfig, TLSError, tls_files
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
    {"tls": TLSConfig(ca_file=ca_file())},
    {"tls": TLSConfig(client_cert=client_cert())},
    {"tls": TLSConfig(ca_file=ca_file(), client_cert=client_cert())},
    {"verify_ssl": False, "tls": TLSConfig(client_cert=client_cert())},
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
    settings = {"tls": TLSConfig(context=context, server_hostname="localhost")}
    async with tls_peer_and_client(server_context(common_name_cert()), **settings) as (_, client):
        assert client.tls is not None
    assert context.hostname_checks_common_name


@pytest.mark.parametrize(
    "settings", [TLSConfig(), TLSConfig(verify=False), TLSConfig(ca_file=ca_file()), TLSConfig(system_trust=True)]
)
def test_no_context_of_ours_takes_the_common_name(settings: TLSConfig) -> None:
    assert not client_context(settings).hostname_checks_common_name


# ---- What the system trusts ----


async def _greeting_of(settings: TLSConfig) -> type:
    """The type of the context that a client with these settings has connected with; bytes have gone both ways."""
    async with tls_peer_and_client(tls=settings) as (peer, client):
        await client.send(b"x")
        assert await peer.receive(1) == b"x"
        return type(client._link.protocol.extra_info("sslcontext"))


@pytest.fixture
def no_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """OpenSSL finds no authorities; the folder where it looks for them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("system_ca")
async def test_the_systems_authorities_are_read_once_into_an_ordinary_context() -> None:
    first = client_context(TLSConfig(system_trust=True))
    read = first.cert_store_stats()
    for _ in range(2):
        # truststore's context would read them again, and add them to those it has.
        assert await _greeting_of(TLSConfig(system_trust=True)) is ssl.SSLContext
    assert client_context(TLSConfig(system_trust=True)) is first
    assert first.cert_store_stats() == read
    assert first is not client_context(TLSConfig())


async def test_where_openssl_finds_no_authorities_the_distributions_are_looked_for(
    no_authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "_BUNDLES", (str(no_authorities / "nowhere.pem"), str(ca_file())))
    assert await _greeting_of(TLSConfig(system_trust=True)) is ssl.SSLContext
    # Without system_trust, OpenSSL decides.
    assert not client_context(TLSConfig()).get_ca_certs()


def test_authorities_in_a_folder_of_openssls_are_the_systems(
    no_authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_authorities / "0123abcd.0").touch()
    monkeypatch.setattr(tls_files, "_BUNDLES", (str(ca_file()),))
    assert not client_context(TLSConfig(system_trust=True)).get_ca_certs()


def test_a_bundle_of_the_system_that_cannot_be_read_is_named(
    no_authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (broken := no_authorities / "broken.pem").write_text("no certificate")
    monkeypatch.setattr(tls_files, "_BUNDLES", (str(broken),))
    with pytest.raises(ValueError, match=r"system_trust '.*broken.pem' cannot be used: it has no certificate in PEM"):
        client_context(TLSConfig(system_trust=True))


def test_authorities_that_are_replaced_or_named_by_the_environment_make_a_new_context(
    no_authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = no_authorities / "missing.pem"
    for system_trust in (False, True):
        contexts = [client_context(TLSConfig(system_trust=system_trust))]
        shutil.copy(ca_file(), file)
        contexts.append(client_context(TLSConfig(system_trust=system_trust)))
        shutil.copy(ca_file(), no_authorities / "new.pem")
        os.replace(no_authorities / "new.pem", file)
        contexts.append(client_context(TLSConfig(system_trust=system_trust)))
        assert client_context(TLSConfig(system_trust=system_trust)) is contexts[-1]
        with monkeypatch.context() as other:
            other.setenv("SSL_CERT_DIR", "/nonexistent")
            contexts.append(client_context(TLSConfig(system_trust=system_trust)))
        assert len(set(contexts)) == 4
        file.unlink()


@pytest.mark.usefixtures("system_ca")
async def test_macos_and_windows_are_asked_through_truststore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_files, "_TRUST_IS_FILES", False)
    assert (await _greeting_of(TLSConfig(system_trust=True))).__module__.startswith("truststore")
    tls_module._context.cache_clear()
    monkeypatch.setitem(sys.modules, "truststore", None)
    with pytest.raises(ImportError, match=r"pip install truststore"):
        client_context(TLSConfig(system_trust=True))
    assert ssl.SSLContext.__module__ == "ssl"


# ---- Files that are replaced while the program runs ----


async def _serial_shown(settings: TLSConfig) -> str:
    """The serial number of the certificate that a client with these settings shows to the server."""
    context = server_context(server_cert())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file())
    async with tls_peer_and_client(context, tls=settings.replace(ca_file=ca_file())) as (peer, client):
        await client.send(b"x")
        assert await peer.receive(1) == b"x"
        return str(peer.tls.getpeercert()["serialNumber"])


async def test_a_pair_that_is_being_replaced_is_refused_by_name_and_the_new_one_is_shown_at_once(
    tmp_path: Path,
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    settings = TLSConfig(client_cert=(certificate, key))
    serials = []
    for turn in range(3):
        leaf = certificate_of_the_authority()
        for file, blob in (
            (certificate, leaf.cert_chain_pems[0]),
            (key, leaf.private_key_pem),
        ):
            if turn and file is key:
                # The certificate is the new one already, the key still the old one.
                with pytest.raises(
                    ValueError, match=r"cert.pem, .*key.pem' cannot be used: the key belongs to another"
                ):
                    client_context(settings)
            blob.write_to_path(new := tmp_path / "new.pem")
            os.replace(new, file)
        serials.append(await _serial_shown(settings))
    assert len(set(serials)) == 3


def test_a_file_that_is_rewritten_in_place_with_its_old_time_and_size_makes_a_new_context(tmp_path: Path) -> None:
    shutil.copy(ca_file(), file := tmp_path / "ca.pem")
    before, first = file.stat(), client_context(TLSConfig(ca_file=file))
    assert client_context(TLSConfig(ca_file=file)) is first
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        # As rsync --inplace --times does.
        file.write_bytes(file.read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert client_context(TLSConfig(ca_file=file)) is not first


def test_a_file_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    (file := tmp_path / "ca.pem").write_text("half of")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"ca_file '.*ca.pem' cannot be used: it has no certificate in PEM"):
            client_context(TLSConfig(ca_file=file))
    shutil.copy(ca_file(), file)
    assert client_context(TLSConfig(ca_file=file)).get_ca_certs()
