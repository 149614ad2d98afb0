"""Throw-away certificates for localhost and 127.0.0.1, made when first asked for and gone with the process.

Each certificate file holds key and chain in PEM, so that one path serves `load_cert_chain` and nginx alike.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import ssl
import tempfile
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ("localhost", "127.0.0.1")
DAY = datetime.timedelta(days=1)


def ca_file() -> Path:
    """The certificate of the authority that all but `self_signed_cert` and `unknown_ca_cert` come from."""
    path = _folder() / "ca.pem"
    if not path.exists():
        _ca().cert_pem.write_to_path(path)
    return path


@functools.cache
def server_cert() -> Path:
    return _issued("server", *HOSTS)


@functools.cache
def documented_cert() -> Path:
    """A server's certificate for the host of the document's examples."""
    return _issued("documented", "api.example.com")


def client_cert() -> Path:
    """For a server that asks for one; its common name is `pepperpy-client`."""
    return _written("client", _ca().issue_cert("client@example.org", common_name="pepperpy-client"))


def certificate_of_the_authority() -> trustme.LeafCert:
    """A new one at each call, in no file yet."""
    return _ca().issue_cert("client@example.org")


@functools.cache
def expired_cert() -> Path:
    return _issued("expired", *HOSTS, not_before=_now() - 2 * DAY, not_after=_now() - DAY)


@functools.cache
def not_yet_valid_cert() -> Path:
    return _issued("not-yet-valid", *HOSTS, not_before=_now() + DAY, not_after=_now() + 2 * DAY)


@functools.cache
def wrong_host_cert() -> Path:
    return _issued("wrong-host", "elsewhere.example")


@functools.cache
def unknown_ca_cert() -> Path:
    """Right in all but its authority, which `ca_file()` does not hold."""
    return _written("unknown-ca", trustme.CA().issue_cert(*HOSTS))


@functools.cache
def self_signed_cert() -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), _now() - DAY, _now() + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _written_by_hand("self-signed", key, certificate)


@functools.cache
def common_name_cert() -> Path:
    """Names `localhost` as certificates did before subjectAltName."""
    ca = _ca()
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    signer = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(
        issuer, name, key.public_key(), x509.random_serial_number(), _now() - DAY, _now() + DAY
    )
    # Without it, CPython 3.13 and later refuse the certificate for that (VERIFY_X509_STRICT).
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    return _written_by_hand("common-name", key, builder.sign(signer, hashes.SHA256()))


def server_context(cert: Path) -> ssl.SSLContext:
    """What a server shows `cert` with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    return context


def client_context(cert: Path | None = None) -> ssl.SSLContext:
    """What a client trusts `ca_file()` with, showing `cert` if there is one."""
    context = ssl.create_default_context(cafile=ca_file())
    if cert is not None:
        context.load_cert_chain(cert)
    return context


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="pepperpy-certificates-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _ca() -> trustme.CA:
    return trustme.CA(organization_name="pepperpy tests")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _issued(name: str, *hosts: str, **validity: datetime.datetime) -> Path:
    return _written(name, _ca().issue_cert(*hosts, **validity))


def _written_by_hand(name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Path:
    pem = serialization.Encoding.PEM
    path = _folder() / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return path


def _written(name: str, certificate: trustme.LeafCert) -> Path:
    path = _folder() / f"{name}.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    return path
