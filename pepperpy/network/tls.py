"""TLS for both clients: contexts, built once and shared; what a failed handshake means; the check of a pin."""

from __future__ import annotations

import functools
import re
import ssl
from dataclasses import dataclass
from typing import NamedTuple

from pepperpy.network.printable import printable
from pepperpy.network.tls_config import ClientCert, TLSConfig, ca_text, certificate_parts
from pepperpy.network.tls_files import (
    Authorities,
    FileKey,
    context_for,
    default_authorities,
    default_context,
    file_key,
    load_client_cert,
)


def client_context(settings: TLSConfig, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A client's context. For the same settings and unchanged files it is the same object.

    Building one takes about 26 ms (httpx#2298), most of it for reading the system's authorities.

    Args:
        alpn: Names of protocols to offer if the settings have none.

    Raises:
        UsageError: `system_trust` needs a package on macOS and Windows that is not installed; an `ImportError` as well.
        ValueError: A file cannot be read or used; the message names the field, the path and the reason.
    """
    if settings.context is not None:
        return settings.context
    certificate, key, password = certificate_parts(settings.client_cert)
    trusted: Authorities | _Trusted
    if settings.ca_file is None and settings.ca_data is None:
        trusted = default_authorities(settings.system_trust)
    else:
        file = None if settings.ca_file is None else file_key("ca_file", settings.ca_file)
        trusted = _Trusted(file, settings.ca_data)
    return _context(
        settings.verify,
        trusted,
        None if certificate is None else file_key("client_cert", certificate),
        None if key is None else file_key("client_cert", key),
        _Secret(password),
        settings.alpn or alpn,
        settings.minimum_version,
        settings.ignore_unexpected_eof,
    )


def server_context(files: ClientCert) -> ssl.SSLContext:
    """A server's context that shows the certificate in these files: `path`, `(certificate, key)` or with a password.

    Raises:
        TypeError: It is no such path or tuple; the message shows no value.
        ValueError: A file cannot be read or used; the message names the path and the reason.
    """
    certificate, key, password = certificate_parts(files, "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_client_cert(
        context, file_key("tls", certificate), None if key is None else file_key("tls", key), password, field="tls"
    )
    return context


class _Trusted(NamedTuple):
    """Cache key of authorities that the settings give, in place of the system's."""

    file: FileKey | None
    data: str | bytes | None


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
    trusted: Authorities | _Trusted,
    certificate: FileKey | None,
    key: FileKey | None,
    password: _Secret,
    alpn: tuple[str, ...],
    minimum_version: ssl.TLSVersion,
    ignore_unexpected_eof: bool,
) -> ssl.SSLContext:
    if isinstance(trusted, Authorities):
        context = default_context(trusted)
    else:
        context = context_for(trusted.file, None if trusted.data is None else ca_text(trusted.data))
    context.minimum_version = minimum_version
    # By default, Python accepts the common name as a host name if a certificate has no subjectAltName. RFC 9525,
    # section 2, forbids that; browsers, Go and urllib3 refuse it.
    context.hostname_checks_common_name = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if ignore_unexpected_eof:
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if not verify:
        # In this order: ssl refuses CERT_NONE while it checks names.
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
    """One sentence that says which check of a TLS handshake failed; never empty. `expected` is the server's name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # The attributes are missing if another library than OpenSSL made the error. On macOS, truststore's text quotes
        # the certificate's subject, which comes from the peer.
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
        reason = _reason(error)
        return _REASONS.get(reason) or f"the TLS handshake failed: {printable(reason)}"
    if isinstance(error, OSError) and error.strerror:
        return f"the connection broke during the TLS handshake: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "the TLS handshake took too long"
    return printable(str(error)) or f"the TLS handshake failed: {type(error).__name__}"


def is_refusal(error: ssl.SSLError) -> bool:
    """Whether the peer has ended TLS by an alert. Else, once the handshake is done, what came is `SPOILED`."""
    return "ALERT" in _reason(error)


SPOILED = "what came is no TLS, or was changed on its way"


# The same as a server sees it.
def _reason(error: BaseException) -> str:
    # OpenSSL's newer name of alerts that are as old as SSL 3: CPython shows it where its own table has none for them.
    reason = getattr(error, "reason", None) or (str(error) if error.args else type(error).__name__)
    return str(reason).replace("SSL/TLS_ALERT", "SSLV3_ALERT")


_REASONS_OF_CLIENT = {
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
    "HTTP_REQUEST": "the client speaks plain HTTP",
    "PACKET_LENGTH_TOO_LONG": "the client does not speak TLS",
    "RECORD_LAYER_FAILURE": "the client does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "there is no TLS version that both sides allow",
    "NO_SHARED_CIPHER": "there is no cipher that both sides allow",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has shown no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust the certificate's issuer",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refused the certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refused the certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that the certificate has expired",
}


def describe_failure_of_client(error: BaseException) -> str:
    """One sentence that says why a server's handshake with a client failed; never empty."""
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "the client closed the connection during the handshake"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate was refused: {printable(getattr(error, 'verify_message', '') or str(error))}"
    reason = _reason(error)
    return _REASONS_OF_CLIENT.get(reason) or f"the TLS handshake failed: {printable(reason)}"


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What client and server have agreed on for one connection.

    Attributes:
        version: `"TLSv1.3"` or `"TLSv1.2"`.
        cipher: OpenSSL's name of the cipher suite.
        alpn: The protocol that the server chose, or None.
        peer_certificate: The peer's certificate in DER; empty if it has shown none, as most clients of a server.
    """

    version: str
    cipher: str
    alpn: str | None
    peer_certificate: bytes

    @classmethod
    def of(cls, connection: ssl.SSLObject) -> TLSInfo:
        cipher = connection.cipher()
        assert cipher is not None, "the handshake is done"
        certificate = connection.getpeercert(True) or b""
        return cls(connection.version() or "", cipher[0], connection.selected_alpn_protocol(), certificate)


def check_pin(pins: frozenset[bytes], connection: ssl.SSLObject) -> None:
    """Check that the SHA-256 of the peer's certificate is one of `pins`. Without pins there is no check.

    Raises:
        ssl.SSLCertVerificationError: It is none of them. The message has its SHA-256.
    """
    if not pins:
        return
    import hashlib  # here, because few connections have a pin

    found = hashlib.sha256(connection.getpeercert(True) or b"").digest()
    if found not in pins:
        raise ssl.SSLCertVerificationError(
            ssl.SSL_ERROR_SSL, f"the certificate is not a pinned one: its SHA-256 is {found.hex()}"
        )
