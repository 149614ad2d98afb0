"""Client certificates and authorities, in each form: what is shown and trusted, and what is refused by whom."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from support.certificates import ca_file, client_cert, expired_cert, server_cert, server_context, unknown_ca_cert
from support.nginx import TEXT, Nginx
from support.own_kind import own_kind
from support.tls_by_hand import TRUSTING, TLSByHand, listening, refusal

from pepperpy.network import HTTPClient, HTTPConfig, HTTPStatusError, TLSConfig, TLSError
from pepperpy.network.tls import client_context

SECRET = "s3cr3t-w0rd"

# ---- The client's certificate ----


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: certificate and key by themselves, the key with the password SECRET, and files that are none."""
    folder = tmp_path_factory.mktemp("pem")
    content = client_cert().read_bytes()
    start = content.index(b"-----BEGIN CERTIFICATE")
    (folder / "cert.pem").write_bytes(content[start:])
    (folder / "key.pem").write_bytes(content[:start])
    key = serialization.load_pem_private_key(content[:start], None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    (folder / "locked.pem").write_bytes(encrypted)
    (folder / "both-locked.pem").write_bytes(encrypted + content[start:])
    (folder / "other.pem").write_bytes(expired_cert().read_bytes())
    (folder / "junk.pem").write_text("not PEM\n")
    (folder / "empty.pem").write_text("")
    (folder / "broken.pem").write_bytes(content[start : start + 300])
    (folder / "der.pem").write_bytes(ssl.PEM_cert_to_DER_cert(ca_file().read_text()))
    return folder


async def test_a_client_certificate_is_shown_in_whichever_form_it_is_given(web: Nginx, pem: Path) -> None:
    cert, key, locked, both = (pem / f"{name}.pem" for name in ("cert", "key", "locked", "both-locked"))
    for given in (
        client_cert(),
        str(client_cert()),
        (client_cert(), client_cert()),
        (cert, key),
        (str(cert), str(key)),
        (cert, locked, SECRET),
        (cert, locked, SECRET.encode()),
        (both, None, SECRET),
        (cert, key, None),
        (cert, key, "not needed"),
    ):
        async with HTTPClient(TRUSTING.replace(tls=TLSConfig(ca_file=ca_file(), client_cert=given))) as client:
            assert await client.get(web.mtls_url("/text")) == TEXT
            assert await client.get(web.mtls_url("/text"), verify_ssl=False) == TEXT
            # Also to a server that does not ask for it.
            assert await client.get(web.https_url("/text")) == TEXT


async def test_a_client_certificate_that_is_asked_for_and_missing(web: Nginx) -> None:
    async with HTTPClient(TRUSTING) as client:
        # nginx answers it in HTTP.
        with pytest.raises(HTTPStatusError, match="answered 400"):
            await client.get(web.mtls_url("/text"))


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (None, "or it wants a client certificate"),
        (unknown_ca_cert, "the server does not trust the client certificate's issuer"),
        (expired_cert, "the server says that the client certificate has expired"),
    ],
)
async def test_a_client_certificate_that_the_server_refuses(certificate: Callable[[], Path] | None, words: str) -> None:
    context = server_context(server_cert())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file())
    # With 1.3, the client has sent its request before it learns of this.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = TLSByHand(context)
    async with listening(server.serve) as url:
        tls = TLSConfig(ca_file=ca_file(), client_cert=certificate and certificate())
        error = await refusal(url, TRUSTING.replace(tls=tls))
    assert own_kind(error) is TLSError
    assert words in error.message
    assert server.received == b""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("cert", "nowhere"), "nowhere.pem' cannot be used: No such file or directory"),
        (("nowhere",), "nowhere.pem' cannot be used: No such file or directory"),
        (("cert",), "cert.pem' cannot be used: it has no key in PEM that can be read"),
        (("key",), "key.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("junk",), "junk.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("empty", "key"), "empty.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("broken", "key"), "broken.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("cert", "junk"), "junk.pem' cannot be used: it has no key in PEM that can be read"),
        (("cert", "other"), "cert.pem, .*other.pem' cannot be used: the key belongs to another certificate"),
        (("cert", "locked"), "locked.pem' cannot be used: the key is encrypted, and no password is given"),
        (("both-locked",), "both-locked.pem' cannot be used: the key is encrypted, and no password is given"),
        (("cert", "locked", "wr0ng"), "locked.pem' cannot be used: .* or the password is wrong"),
        (("cert", "locked", ""), "locked.pem' cannot be used: .* or the password is wrong"),
        (("cert", "locked", "wr0ng" * 1000), "password cannot be longer than 1024 bytes"),
        (("cert", "key\0"), "embedded null (byte|character in path)"),
    ],
)
def test_a_client_certificate_that_cannot_be_used_is_a_value_error(
    given: tuple[str, ...], reason: str, pem: Path, capfd: Any
) -> None:
    paths = tuple(pem / f"{name}.pem" for name in given[:2])
    with pytest.raises(ValueError) as caught:
        client_context(TLSConfig(client_cert=(*paths, *given[2:]) if len(given) > 1 else paths[0]))
    message = str(caught.value)
    assert message.startswith(f"client_cert '{pem}/")
    assert re.search(rf"{reason}$", message)
    assert "wr0ng" not in message
    # OpenSSL has asked nobody for a password.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "given",
    [1, b"cert.pem", ["cert.pem"], (), (None, "k"), ("c", 1), ("c", "k", 1), ("c", "k", SECRET, "x"), (b"c", "k")],
)
def test_a_client_certificate_of_a_wrong_type_is_a_type_error_that_shows_no_password(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^client_cert must be a path, ") as caught:
        client_context(TLSConfig(client_cert=given))
    assert SECRET not in str(caught.value)
    with pytest.raises(TypeError, match=r"^client_cert must be a path, "):
        HTTPConfig(tls=TLSConfig(client_cert=given))


# ---- The authorities ----


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.pem", "No such file or directory"),
        ("junk.pem", "it has no certificate in PEM that can be read"),
        ("empty.pem", "it has no certificate in PEM that can be read"),
        ("key.pem", "it has no certificate in PEM that can be read"),
        ("broken.pem", "it has no certificate in PEM that can be read"),
        ("der.pem", "it has no certificate in PEM that can be read"),
        ("", "Is a directory"),
        ("nul\0", "null"),
    ],
)
async def test_authorities_that_cannot_be_used_are_a_value_error_when_the_client_opens(
    name: str, reason: str, pem: Path
) -> None:
    config = HTTPConfig(tls=TLSConfig(ca_file=pem / name))  # the file may come later
    client = HTTPClient(config)
    for open_it in (client.initialize, lambda: client.get("https://localhost/")):
        with pytest.raises(ValueError, match=rf"^ca_file '/\S+' cannot be used: .*{reason}"):
            await open_it()
    await client.close()
    with pytest.raises(ValueError, match=r"^ca_file "):
        client_context(TLSConfig(ca_file=pem / name))


# ---- Contexts are shared ----


def test_a_context_is_built_once_for_the_same_files_and_anew_when_one_changes(tmp_path: Path) -> None:
    trusted, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    trusted.write_bytes(ca_file().read_bytes())
    own.write_bytes(client_cert().read_bytes())

    def contexts() -> list[ssl.SSLContext]:
        return [
            client_context(TLSConfig()),
            client_context(TLSConfig(verify=False)),
            client_context(TLSConfig(ca_file=trusted)),
            client_context(TLSConfig(client_cert=own)),
            client_context(TLSConfig(ca_file=trusted, client_cert=(own, own))),
            client_context(TLSConfig(ca_file=trusted, client_cert=(own, own, SECRET))),
        ]

    before = contexts()
    assert len(set(before)) == len(before)
    assert contexts() == before
    assert client_context(TLSConfig(ca_file=str(trusted), client_cert=(str(own), str(own)))) is before[4]

    stamp = os.stat(own).st_mtime_ns
    os.utime(own, ns=(stamp, stamp + 1))
    assert [new is old for new, old in zip(contexts(), before, strict=True)] == [True, True, True, False, False, False]

    # Another file in its place, as a renewal puts it there, even with the same time.
    before = contexts()
    stamp = os.stat(trusted).st_mtime_ns
    (tmp_path / "new.pem").write_bytes(ca_file().read_bytes())
    os.utime(tmp_path / "new.pem", ns=(stamp, stamp))
    os.replace(tmp_path / "new.pem", trusted)
    assert [new is old for new, old in zip(contexts(), before, strict=True)] == [True, True, False, True, False, False]


def test_every_context_wants_tls_1_2_and_checks_unless_told_not_to(pem: Path) -> None:
    for verify in (True, False):
        for context in (
            client_context(TLSConfig(verify=verify)),
            client_context(TLSConfig(verify=verify, ca_file=ca_file())),
            client_context(TLSConfig(verify=verify, client_cert=(pem / "cert.pem", pem / "locked.pem", SECRET))),
        ):
            assert context.minimum_version is ssl.TLSVersion.TLSv1_2
            assert context.check_hostname is verify
            assert context.verify_mode is (ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)
