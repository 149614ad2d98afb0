"""TLS for both clients: contexts that are built once and shared, and words for what went wrong."""

from __future__ import annotations

import functools
import os
import re
import ssl
from typing import Any

ClientCert = str | os.PathLike[str] | tuple[Any, ...]


def client_context(
    *, verify: bool = True, ca_file: str | os.PathLike[str] | None = None, client_cert: ClientCert | None = None
) -> ssl.SSLContext:
    """A context for connecting as a client, TLS 1.2 or newer; the same one for the same arguments and unchanged files.

    Building one takes about 26 ms (httpx#2298), most of it for reading the system's authorities.

    Args:
        verify: Check the peer's certificate and host name.
        ca_file: PEM file of the authorities to trust instead of the system's.
        client_cert: PEM file with certificate and key, or `(certificate, key)`, or `(certificate, key, password)`.

    Raises:
        ValueError: A file cannot be used; the message names the field, the path and the reason.
        OSError: A file cannot be read.
    """
    certificate, key, password = _parts(client_cert)
    trusted: Any = ca_file
    files = tuple((path, os.stat(path).st_mtime_ns) for path in (ca_file, certificate, key) if path is not None)
    return _context(verify, trusted, certificate, key, _Secret(password), files)


class _Secret:
    """A password in a cache key: compared by value, never shown."""

    def __init__(self, value: str | bytes | None) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def _parts(client_cert: ClientCert | None) -> tuple[Any, Any, Any]:
    if client_cert is None:
        return None, None, None
    if isinstance(client_cert, (str, os.PathLike)):
        return client_cert, None, None
    if isinstance(client_cert, tuple) and len(client_cert) in (2, 3):
        return (*client_cert, None)[:3]
    raise TypeError("client_cert must be a path, (certificate, key) or (certificate, key, password)")


@functools.lru_cache(maxsize=64)
def _context(verify: bool, ca_file: Any, certificate: Any, key: Any, password: _Secret, files: Any) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ValueError(
            f"ca_file {os.fspath(ca_file)!r} has no certificate that can be read: {error.reason}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        # In this order: ssl refuses CERT_NONE while it is to check names.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, _no_prompt if password.value is None else password.value)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "the password does not fit, or one is needed"
            raise ValueError(f"client_cert {os.fspath(certificate)!r} cannot be used: {reason}") from None
    return context


def _no_prompt() -> str:
    # OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted, and client_cert has no password")


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
    "UNSUPPORTED_PROTOCOL": "there is no TLS version that both sides allow; this side wants 1.2 or newer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "there is no TLS version that both sides allow; this side wants 1.2 or newer",
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


def describe_failure(error: BaseException) -> str:
    """One sentence that says which check of a TLS handshake failed; never empty."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message or str(error)
        if "mismatch" in text.lower() or "not valid for" in text.lower():
            # "Hostname mismatch, certificate is not valid for 'name'."
            name = re.search(r"'([^']*)'", text)
            return f"the certificate is not for {name.group()}" if name else "the certificate is for another host name"
        return _VERIFY_CODES.get(error.verify_code, f"the certificate was refused: {text}")
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "the server closed the connection during the handshake"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error) or type(error).__name__
        return _REASONS.get(reason, f"the TLS handshake failed: {reason}")
    if isinstance(error, TimeoutError):
        return "the TLS handshake took too long"
    return str(error) or f"the TLS handshake failed: {type(error).__name__}"
