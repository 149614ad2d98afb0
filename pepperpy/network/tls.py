"""TLS for both clients: contexts that are built once and shared, and words for what went wrong."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import ssl
from dataclasses import dataclass
from types import NoneType
from typing import Any

from pepperpy.network.checks import check_bool
from pepperpy.network.printable import printable
from pepperpy.network.tls_files import (
    Authorities,
    FileKey,
    context_for,
    default_authorities,
    default_context,
    file_key,
    load_client_cert,
)

ClientCert = str | os.PathLike[str] | tuple[Any, ...]


def client_context(
    *,
    verify: bool = True,
    ca_file: str | os.PathLike[str] | None = None,
    client_cert: ClientCert | None = None,
    alpn: tuple[str, ...] = (),
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    system_trust: bool = False,
) -> ssl.SSLContext:
    """A context for connecting as a client; the same one for the same arguments and unchanged files.

    Building one takes about 26 ms (httpx#2298), most of it for reading the system's authorities.

    Args:
        verify: Check the peer's certificate and host name.
        ca_file: PEM file of the authorities to trust instead of the system's.
        client_cert: PEM file with certificate and key, or `(certificate, key)`, or `(certificate, key, password)`,
            where the key may be None.
        alpn: Names of protocols to offer (RFC 7301), the preferred one first.
        minimum_version: The oldest version of TLS to speak.
        system_trust: Trust what the operating system trusts: see `tls_files.default_context()`.

    Raises:
        UsageError: `system_trust` without the package that it needs on macOS and Windows; an `ImportError` as well.
        ValueError: A file cannot be read or used; the message names the field, the path and the reason.
        TypeError: See `certificate_parts()`.
    """
    certificate, key, password = certificate_parts(client_cert)
    return _context(
        verify,
        default_authorities(system_trust) if ca_file is None else file_key("ca_file", ca_file),
        None if certificate is None else file_key("client_cert", certificate),
        None if key is None else file_key("client_cert", key),
        _Secret(password),
        alpn,
        minimum_version,
    )


def certificate_parts(client_cert: object) -> tuple[Any, Any, Any]:
    """The paths of certificate and key, and the password; None for what is not given. Looks at no file.

    Raises:
        TypeError: No path and no such tuple. Its message shows no value, because one may be the password.
    """
    if client_cert is None:
        return None, None, None
    parts = client_cert if isinstance(client_cert, tuple) else (client_cert,)
    certificate, key, password = (*parts, None, None, None)[:3]
    if (
        len(parts) > 3
        or not isinstance(certificate, (str, os.PathLike))
        or not isinstance(key, (str, os.PathLike, NoneType))
        or not isinstance(password, (str, bytes, NoneType))
    ):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(f"client_cert must be a path, (certificate, key) or (certificate, key, password), not {kinds}")
    return certificate, key, password


def check_fields(config: Any) -> None:
    """Refuse values of the fields of a `NetworkConfig` that concern TLS, alone and together."""
    if not isinstance(config.tls, (bool, ssl.SSLContext)):
        raise TypeError(f"tls must be True, False or an ssl.SSLContext, not {config.tls!r}")
    for name in ("verify_ssl", "system_trust", "tls_ignore_unexpected_eof"):
        check_bool(name, getattr(config, name))
    if config.ca_file is not None and not isinstance(config.ca_file, (str, os.PathLike)):
        raise TypeError(f"ca_file must be a path, not {config.ca_file!r}")
    certificate_parts(config.client_cert)
    if not isinstance(config.alpn, tuple) or not all(isinstance(name, str) for name in config.alpn):
        raise TypeError(f"alpn must be a tuple of str, not {config.alpn!r}")
    for name in config.alpn:
        # One byte says how long a name is (RFC 7301, section 3.1).
        if not name.isascii() or not 1 <= len(name) <= 255:
            raise ValueError(f"alpn must hold names of 1 to 255 ASCII characters, not {name!r}")
    if not isinstance(config.tls_minimum_version, ssl.TLSVersion):
        raise TypeError(f"tls_minimum_version must be an ssl.TLSVersion, not {config.tls_minimum_version!r}")
    pins_of(config.certificate_pin)
    if config.system_trust and config.ca_file is not None:
        raise ValueError(f"system_trust=True leaves no use for ca_file={os.fspath(config.ca_file)!r}")
    context = config.tls if isinstance(config.tls, ssl.SSLContext) else None
    if context is not None:
        for name in CONTEXT_FIELDS:
            if getattr(config, name) != type(config).__dataclass_fields__[name].default:
                raise ValueError(f"{name} must be set in the SSLContext that is given as tls, which is used as it is")
    if config.server_hostname is not None:
        if not isinstance(config.server_hostname, str):
            raise TypeError(f"server_hostname must be a str, not {config.server_hostname!r}")
        try:
            config.server_hostname.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"server_hostname {config.server_hostname!r} is no host name: {error}") from None
    checks_name = config.verify_ssl if context is None else context.check_hostname
    if config.tls and checks_name and not config.tls_name:
        raise ValueError("server_hostname must name whom the certificate is for, unless verify_ssl is False")


# What a context is made of; see client_context().
CONTEXT_FIELDS = ("verify_ssl", "ca_file", "client_cert", "alpn", "tls_minimum_version", "system_trust")


def context_of(config: Any) -> ssl.SSLContext:
    """The context that a `NetworkConfig` asks for, whether or not its `tls` is on. Raises: as `client_context()`."""
    if isinstance(config.tls, ssl.SSLContext):
        return config.tls
    return client_context(
        verify=config.verify_ssl,
        ca_file=config.ca_file,
        client_cert=config.client_cert,
        alpn=config.alpn,
        minimum_version=config.tls_minimum_version,
        system_trust=config.system_trust,
    )


def pins_of(value: object) -> frozenset[bytes]:
    """The SHA-256 sums of `NetworkConfig.certificate_pin`. Raises: `TypeError`, `ValueError` for what is none."""
    pins = set()
    for pin in value if isinstance(value, tuple) else (value,):
        if isinstance(pin, str):
            try:
                digest = bytes.fromhex(pin.replace(":", ""))
            except ValueError:
                raise ValueError(f"certificate_pin must be a SHA-256 in hex, not {pin!r}") from None
        elif isinstance(pin, bytes):
            digest = pin
        else:
            raise TypeError(f"certificate_pin must be hex, 32 bytes or a tuple of these, not {pin!r}")
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError(f"certificate_pin must be 32 bytes (SHA-256), not {len(digest)}: {pin!r}")
        pins.add(digest)
    return frozenset(pins)


class _Secret:
    """A password in a cache key: compared by value, never shown."""

    def __init__(self, value: str | bytes | None) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


@functools.lru_cache(maxsize=64)
def _context(
    verify: bool,
    trusted: Authorities | FileKey,
    certificate: FileKey | None,
    key: FileKey | None,
    password: _Secret,
    alpn: tuple[str, ...],
    minimum_version: ssl.TLSVersion,
) -> ssl.SSLContext:
    context = context_for(trusted) if isinstance(trusted, FileKey) else default_context(trusted)
    context.minimum_version = minimum_version
    # Python's default takes the common name for a host name where a certificate has no subjectAltName. RFC 9525,
    # section 2, forbids that, and browsers, Go and urllib3 refuse.
    context.hostname_checks_common_name = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if not verify:
        # In this order: ssl refuses CERT_NONE while it is to check names.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        load_client_cert(context, certificate, key, password.value)
    return context


# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_VERIFY_CODES = {
    9: "the certificate is not yet valid",
    10: "the certificate has expired",
    18: "the certificate is self-signed, and not trusted",
    19: "the certificate's chain ends in an authority that is not trusted (self-signed)",
    20: "the certificate's issuer is unknown: a chain that is not whole, or an authority that is not trusted",
    21: "the certificate cannot be verified: the server sent no chain to a trusted authority",
    23: "the certificate was revoked",
    26: "the certificate is not meant for a server (purpose)",
    66: "the certificate's key is too small",
    67: "an authority's key is too small",
    68: "the certificate is signed with a digest that is too weak",
}

_REASONS = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS on this port",
    "HTTP_REQUEST": "the server speaks plain HTTP on this port",
    "PACKET_LENGTH_TOO_LONG": "the server does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "the server does not speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "there is no TLS version that both sides allow",
    "TLSV1_ALERT_PROTOCOL_VERSION": "there is no TLS version that both sides allow",
    "NO_PROTOCOLS_AVAILABLE": "there is no TLS version that both sides allow",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server refused: no common cipher, or it wants a client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate, and got none",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server refused the client certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server refused the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not trust the client certificate's issuer",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the server says that the client certificate has expired",
    "TLSV1_UNRECOGNIZED_NAME": "the server has no certificate for this host name",
    "UNEXPECTED_EOF_WHILE_READING": "the server closed the connection during the handshake",
    "EE_KEY_TOO_SMALL": "the certificate's key is too small",
    "CA_KEY_TOO_SMALL": "an authority's key is too small",
}


def describe_failure(error: BaseException, expected: str = "") -> str:
    """One sentence that says which check of a TLS handshake failed, with a server of that name; never empty."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Python leaves the attributes away where not OpenSSL made the error.
        # On macOS, what truststore says quotes the certificate's subject, which is the peer's text.
        text = printable(getattr(error, "verify_message", "") or str(error))
        if "mismatch" in text.lower() or "not valid for" in text.lower():
            # "Hostname mismatch, certificate is not valid for 'name'."
            name = re.search(r"'([^']*)'", text)
            if name or expected:
                return (
                    f"the certificate is not for {name.group() if name else repr(expected)}: no subjectAltName names it"
                )
            return "the certificate is for another host name"
        return _VERIFY_CODES.get(getattr(error, "verify_code", 0)) or f"the certificate was refused: {text}"
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "the server closed the connection during the handshake"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or (str(error) if error.args else type(error).__name__)
        return _REASONS.get(reason) or f"the TLS handshake failed: {printable(reason)}"
    if isinstance(error, OSError) and error.strerror:
        return f"the connection broke during the TLS handshake: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "the TLS handshake took too long"
    return printable(str(error)) or f"the TLS handshake failed: {type(error).__name__}"


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What was agreed on for one connection.

    Attributes:
        version: `"TLSv1.3"` or `"TLSv1.2"`.
        cipher: OpenSSL's name of the cipher suite.
        alpn: The protocol that the server chose of those offered, or None.
        peer_certificate: The server's certificate in DER.
    """

    version: str
    cipher: str
    alpn: str | None
    peer_certificate: bytes

    @classmethod
    def of(cls, connection: ssl.SSLObject) -> TLSInfo:
        cipher = connection.cipher()
        certificate = connection.getpeercert(True)
        assert cipher is not None and certificate is not None
        return cls(connection.version() or "", cipher[0], connection.selected_alpn_protocol(), certificate)


def check_pin(pins: frozenset[bytes], connection: ssl.SSLObject) -> None:
    """Refuse a peer whose certificate has none of the SHA-256 sums `pins`; no pins, no check.

    Raises:
        ssl.SSLCertVerificationError: The message names the sum that it has.
    """
    certificate = connection.getpeercert(True) or b""
    found = hashlib.sha256(certificate).digest()
    if pins and found not in pins:
        raise ssl.SSLCertVerificationError(
            ssl.SSL_ERROR_SSL, f"the certificate is not a pinned one: its SHA-256 is {found.hex()}"
        )
