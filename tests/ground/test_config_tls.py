"""`NetworkConfig`: the fields of TLS and of Unix sockets, and the URLs of both."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from support.certificates import ca_file

from pepperpy.network import HTTPConfig, NetworkConfig, TLSConfig
from pepperpy.network.tls import client_context
from pepperpy.network.tls_config import CONTEXT_FIELDS

PIN = "ab" * 32


def test_a_tls_url_is_a_tcp_url_with_tls() -> None:
    url = "tls://example.com:443?verify_ssl=false&server_hostname=other.example&timeout=3"
    expected = NetworkConfig(
        "example.com", 443, tls=TLSConfig(server_hostname="other.example"), verify_ssl=False, timeout=3
    )
    assert NetworkConfig.from_url(url) == expected
    assert NetworkConfig.from_url("tls://example.com:443?server_hostname=none").tls_name == "example.com"


def test_a_unix_url_names_a_path() -> None:
    config = NetworkConfig.from_url("unix:///run/my%20server.sock?timeout=3&retries=0")
    assert config == NetworkConfig(unix_path="/run/my server.sock", timeout=3, retries=0)
    assert config.address == "/run/my server.sock"
    assert config.place == {"path": "/run/my server.sock"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("unix://host/path", "unix:///path"),
        ("unix:///", None),
        ("unix:///path#x", "unix:///path"),
        ("unix:", "unix:///path"),
        ("tls://example.com", "host and a port"),
        ("tls://example.com:1/path", "tls://host:port"),
        ("tcp://h:1?unix_path=/x", "unknown field 'unix_path'"),
        ("tcp://h:1?proxy=x", "unknown field 'proxy'"),
        ("tls://h:1?tls=true", "unknown field 'tls'"),
        ("ssl://h:1", "tcp://, tls:// or unix://"),
        ("tls://user:secret@h:1", "no user name or password"),
        ("unix://user:secret@/path", "no user name or password"),
    ],
)
def test_other_urls_are_refused(url: str, words: str | None) -> None:
    if words is None:
        assert NetworkConfig.from_url(url).unix_path == "/"
        return
    with pytest.raises(ValueError, match=words) as caught:
        NetworkConfig.from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tls": 1}, "tls must be True, False, an ssl.SSLContext or a TLSConfig, not int"),
        ({"tls": "yes"}, "tls must be"),
        ({"verify_ssl": 0}, "verify_ssl must be True or False"),
        ({"tls": TLSConfig(server_hostname="")}, "server_hostname must name whom"),
    ],
)
def test_a_wrong_value_is_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        NetworkConfig("h", 1, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"verify": 0}, "verify must be True or False"),
        ({"system_trust": None}, "system_trust must be"),
        ({"ignore_unexpected_eof": 1}, "ignore_unexpected_eof must be"),
        ({"ca_file": 1}, "ca_file must be a path"),
        ({"ca_data": 1}, "ca_data must be PEM or DER as str or bytes, not int"),
        ({"ca_data": b""}, "ca_data has no certificate"),
        ({"ca_data": "-----BEGIN CERTIFICATE-----"}, "ca_data has no certificate"),
        ({"ca_data": "ca.pem"}, "ca_data has no certificate in PEM or DER"),
        ({"ca_data": "\u2100"}, "ca_data has no certificate"),
        ({"client_cert": 1}, "client_cert must be"),
        ({"alpn": ["h2"]}, "alpn must be a tuple of str"),
        ({"alpn": (b"h2",)}, "alpn must be a tuple of str"),
        ({"alpn": ("",)}, "alpn must hold names of 1 to 255"),
        ({"alpn": ("x" * 256,)}, "alpn must hold names of 1 to 255"),
        ({"minimum_version": "1.3"}, "minimum_version must be an ssl.TLSVersion"),
        ({"certificate_pin": 1}, "certificate_pin must be hex, 32 bytes"),
        ({"certificate_pin": "xyz"}, "certificate_pin must be a SHA-256 in hex"),
        ({"certificate_pin": (PIN, "ab" * 20)}, "certificate_pin must be 32 bytes"),
        ({"certificate_pin": b"short"}, "certificate_pin must be 32 bytes"),
        ({"server_hostname": 1}, "server_hostname must be a str"),
        ({"server_hostname": "a" * 64 + ".example"}, "server_hostname .* is no host name"),
        ({"system_trust": True, "ca_file": "x.pem"}, "system_trust=True leaves no use for ca_file='x.pem'"),
        ({"context": True}, "context must be an ssl.SSLContext, not bool"),
        ({"cafile": "x.pem"}, "unknown argument 'cafile': did you mean 'ca_file'"),
    ],
)
def test_tls_refuses_what_cannot_work(fields: dict[str, object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        TLSConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unix_path": ""}, "unix_path must be a path"),
        ({"unix_path": "a\0b"}, "unix_path must be a path"),
        ({"unix_path": b"/x"}, "unix_path must be a str"),
        ({"unix_path": "/x", "host": "h"}, "host must be left out"),
        ({"unix_path": "/x", "port": 1}, "port must be left out"),
        ({"unix_path": "/x", "proxy": "http://p:1"}, "proxy must be left out"),
        ({"unix_path": "/x", "local_address": ("::1", 0)}, "local_address must be left out"),
        ({"unix_path": "/x", "tls": True}, "server_hostname must name whom"),
        ({}, "host must not be empty"),
    ],
)
def test_a_unix_path_stands_alone(fields: dict[str, object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        NetworkConfig(**fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NetworkConfig("localhost", 1, tls={"client_cert": ("cert", "key", "hunter2")}),  # type: ignore[arg-type]
        lambda: NetworkConfig("localhost", 1, tls=("cert", "key", "hunter2")),  # type: ignore[arg-type]
        lambda: HTTPConfig(tls={"client_cert": ("cert", "key", "hunter2")}),  # type: ignore[arg-type]
        lambda: TLSConfig(ca_file=("cert", "key", "hunter2")),  # type: ignore[arg-type]
        lambda: TLSConfig(client_cert=["cert", "key", "hunter2"]),  # type: ignore[arg-type]
    ],
)
def test_no_error_shows_the_password_of_a_key_in_the_wrong_place(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert "hunter2" not in str(caught.value)


def test_what_a_context_says_is_not_said_twice() -> None:
    context = ssl.create_default_context()
    values: dict[str, Any] = {
        "verify": False,
        "ca_file": "x.pem",
        "ca_data": ca_file().read_bytes(),
        "client_cert": "x.pem",
        "alpn": ("h2",),
        "minimum_version": ssl.TLSVersion.TLSv1_3,
        "ignore_unexpected_eof": True,
        "system_trust": True,
    }
    assert set(values) == set(CONTEXT_FIELDS)
    for name, value in values.items():
        with pytest.raises(ValueError, match=f"^{name} must be set in the SSLContext"):
            TLSConfig(context=context, **{name: value})
    with pytest.raises(ValueError, match=r"^verify_ssl must be set in the SSLContext"):
        NetworkConfig("h", 1, tls=context, verify_ssl=False)
    context.check_hostname = False
    settings = TLSConfig(context=context, server_hostname="", certificate_pin=PIN)
    assert client_context(NetworkConfig("h", 1, tls=settings).tls_settings) is context
    assert client_context(NetworkConfig("h", 1, tls=context).tls_settings) is context


def test_verify_ssl_and_verify_are_one_thing() -> None:
    unverified = TLSConfig(alpn=("x",), verify=False)
    for tls, verify_ssl in ((unverified, True), (unverified, False), (unverified.replace(verify=True), False)):
        assert NetworkConfig("h", 1, tls=tls, verify_ssl=verify_ssl).tls_settings == unverified
    # Whether or not TLS is on already: start_tls() takes what is configured.
    assert NetworkConfig("h", 1, verify_ssl=False).tls_settings == TLSConfig(verify=False)


def test_the_name_of_a_server_is_its_host_as_certificates_have_it() -> None:
    assert NetworkConfig("example.com.", 1).tls_name == "example.com"
    assert NetworkConfig("fe80::1%eth0", 1).tls_name == "fe80::1"
    assert NetworkConfig("h", 1, tls=TLSConfig(server_hostname="x.example")).tls_name == "x.example"


def test_pins_may_be_written_in_several_ways() -> None:
    colons = ":".join(["AB"] * 32)
    forms = (PIN, colons, bytes.fromhex(PIN), (PIN, colons))
    assert {TLSConfig(certificate_pin=form).pins for form in forms} == {frozenset([bytes.fromhex(PIN)])}
    assert not TLSConfig().pins


@pytest.mark.slow
def test_contexts_differ_by_protocols_version_and_trust() -> None:
    authority = ca_file().read_text()
    contexts = {
        client_context(TLSConfig()),
        client_context(TLSConfig(alpn=("h2",))),
        client_context(TLSConfig(alpn=("h2", "http/1.1"))),
        client_context(TLSConfig(minimum_version=ssl.TLSVersion.TLSv1_3)),
        client_context(TLSConfig(system_trust=True)),
        client_context(TLSConfig(ignore_unexpected_eof=True)),
        client_context(TLSConfig(ca_data=authority)),
        client_context(TLSConfig(ca_data=authority, ca_file=ca_file())),
    }
    assert len(contexts) == 8
    assert client_context(TLSConfig(minimum_version=ssl.TLSVersion.TLSv1_3)).minimum_version == ssl.TLSVersion.TLSv1_3
    assert client_context(TLSConfig(alpn=("h2",))) is client_context(TLSConfig(alpn=("h2",)))


def test_authorities_in_memory_are_pem_or_der() -> None:
    pem = ca_file().read_text()
    forms = (pem, pem.encode(), ssl.PEM_cert_to_DER_cert(pem))
    trusted = [client_context(TLSConfig(ca_data=form)).get_ca_certs() for form in forms]
    assert trusted[0] == trusted[1] == trusted[2] == client_context(TLSConfig(ca_file=ca_file())).get_ca_certs()
    assert len(trusted[0]) == 1
