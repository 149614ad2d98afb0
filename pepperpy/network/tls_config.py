"""`TLSConfig`: how a client speaks TLS. The setting `tls` of both clients."""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass
from types import NoneType
from typing import Any

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_bool
from pepperpy.network.settings import Settings

ClientCert = str | os.PathLike[str] | tuple[Any, ...]
Pin = str | bytes

_SHA256_SIZE = 32  # bytes; FIPS 180-4

# Fields that say how a context is made.
CONTEXT_FIELDS = (
    "verify",
    "ca_file",
    "ca_data",
    "client_cert",
    "alpn",
    "minimum_version",
    "ignore_unexpected_eof",
    "system_trust",
)


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class TLSConfig(Settings):
    """How a client speaks TLS. Its `repr` shows no password.

    Files are read when a connection is made (TCP) or the client opens (HTTP); `ValueError` if they cannot be used. They
    are read again when they have changed.

    Attributes:
        verify: Check the server's certificate and its name. The name must be a subjectAltName (RFC 9525); a common name
            does not count. False is for tests: anybody can then pose as the server.
        ca_file: PEM file of the authorities to trust instead of OpenSSL's.
        ca_data: Such authorities as PEM or DER in memory. With `ca_file`, both are trusted.
        client_cert: PEM file with certificate and key, or `(certificate, key)`, or `(certificate, key, password)`,
            where the key may be None.
        server_hostname: The name that the certificate must have, and that the client sends (SNI). None: the host of the
            connection.
        alpn: Names of protocols to offer (RFC 7301), the preferred one first. None by default; HTTP offers `http/1.1`.
        minimum_version: The oldest version of TLS to speak. 1.2, as RFC 9325 asks for.
        ignore_unexpected_eof: Accept a TLS stream that ends without close_notify, for servers that are killed or never
            send one. False: it raises `ConnectionLostError`, because anybody on the way can end a stream like that. Use
            it only if the protocol says where its messages end. It needs OpenSSL 3, and is the option
            OP_IGNORE_UNEXPECTED_EOF of an `ssl.SSLContext`.
        certificate_pin: SHA-256 of the server's certificate in DER, in hex (colons allowed) or as 32 bytes; or a tuple
            of several, one of which must fit. It is checked besides the rest, or with `verify=False` instead of it,
            before any byte of yours is sent. A renewed certificate has another sum: pin that too.
        system_trust: Trust the authorities that the operating system trusts, instead of OpenSSL's files. On macOS and
            Windows these differ, and it needs `pip install truststore`.
        context: A context to use as it is; it is never modified. Only `server_hostname` and `certificate_pin` may be
            given with it. `tls=context` is short for `tls=TLSConfig(context=context)`.
    """

    verify: bool = True
    ca_file: str | os.PathLike[str] | None = None
    ca_data: str | bytes | None = None
    client_cert: ClientCert | None = None
    server_hostname: str | None = None
    alpn: tuple[str, ...] = ()
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ignore_unexpected_eof: bool = False
    certificate_pin: Pin | tuple[Pin, ...] = ()
    system_trust: bool = False
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for name in ("verify", "system_trust", "ignore_unexpected_eof"):
            check_bool(name, getattr(self, name))
        if self.ca_file is not None and not isinstance(self.ca_file, (str, os.PathLike)):
            raise TypeError(f"ca_file must be a path, not {type(self.ca_file).__name__}")
        if self.ca_data is not None:
            _check_ca_data(self.ca_data)
        certificate_parts(self.client_cert)
        if self.server_hostname is not None:
            _check_server_hostname(self.server_hostname)
        _check_alpn(self.alpn)
        if not isinstance(self.minimum_version, ssl.TLSVersion):
            raise TypeError(f"minimum_version must be an ssl.TLSVersion, not {self.minimum_version!r}")
        if self.ignore_unexpected_eof and not hasattr(ssl, "OP_IGNORE_UNEXPECTED_EOF"):
            raise ValueError(f"ignore_unexpected_eof needs OpenSSL 3; this Python has {ssl.OPENSSL_VERSION}")
        for name in ("ca_file", "ca_data"):
            if self.system_trust and getattr(self, name) is not None:
                raise ValueError(f"system_trust=True leaves no use for {name}={self._shown(name, getattr(self, name))}")
        _ = self.pins
        if self.context is not None:
            self._check_context(self.context)

    def _check_context(self, context: object) -> None:
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"context must be an ssl.SSLContext, not {type(context).__name__}")
        for name in CONTEXT_FIELDS:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"{name} must be set in the SSLContext that is given, which is used as it is")

    @functools.cached_property
    def pins(self) -> frozenset[bytes]:
        """The SHA-256 sums of `certificate_pin`; empty without one."""
        values = self.certificate_pin if isinstance(self.certificate_pin, tuple) else (self.certificate_pin,)
        return frozenset(map(_digest, values))

    @property
    def checks_name(self) -> bool:
        """Whether the certificate must be for a certain name."""
        return self.verify if self.context is None else self.context.check_hostname

    def _shown(self, name: str, value: Any) -> str:
        if name == "ca_data":
            return f"<{len(value)} {'characters' if isinstance(value, str) else 'bytes'}>"
        if name == "client_cert" and isinstance(value, tuple):
            value = (*value[:2], *("***" for _ in value[2:]))
        return repr(value)


def certificate_parts(client_cert: object, field: str = "client_cert") -> tuple[Any, Any, Any]:
    """The paths of certificate and key, and the password; None for what is not given. It opens no file.

    Raises:
        TypeError: It is no path and no such tuple. The message shows no value, because one may be the password.
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
        raise TypeError(f"{field} must be a path, (certificate, key) or (certificate, key, password), not {kinds}")
    return certificate, key, password


def ca_text(data: str | bytes) -> str | bytes:
    """`ca_data` in the form that OpenSSL takes: PEM as str, DER as bytes."""
    return data.decode("ascii", "replace") if isinstance(data, bytes) and b"-----BEGIN " in data else data


def _check_ca_data(data: object) -> None:
    if not isinstance(data, (str, bytes)):
        raise TypeError(f"ca_data must be PEM or DER as str or bytes, not {type(data).__name__}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca_text(data))
    except (ssl.SSLError, ValueError, TypeError):
        # ValueError: empty; TypeError: not ASCII.
        raise ValueError("ca_data has no certificate in PEM or DER that can be read") from None


def _check_server_hostname(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"server_hostname must be a str, not {name!r}")
    try:
        name.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"server_hostname {name!r} is no host name: {error}") from None


def _check_alpn(names: object) -> None:
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"alpn must be a tuple of str, not {names!r}")
    for name in names:
        # One byte says how long a name is (RFC 7301, section 3.1).
        if not name.isascii() or not 1 <= len(name) <= 255:
            raise ValueError(f"alpn must hold names of 1 to 255 ASCII characters, not {name!r}")


def _digest(pin: object) -> bytes:
    if isinstance(pin, str):
        try:
            digest = bytes.fromhex(pin.replace(":", ""))
        except ValueError:
            raise ValueError(f"certificate_pin must be a SHA-256 in hex, not {pin!r}") from None
    elif isinstance(pin, bytes):
        digest = pin
    else:
        raise TypeError(f"certificate_pin must be hex, 32 bytes or a tuple of these, not {pin!r}")
    if len(digest) != _SHA256_SIZE:
        raise ValueError(f"certificate_pin must be {_SHA256_SIZE} bytes (SHA-256), not {len(digest)}: {pin!r}")
    return digest


def is_for_servers(context: ssl.SSLContext) -> bool:
    """Whether a connection with this context is the server of its handshake."""
    return context.protocol is ssl.PROTOCOL_TLS_SERVER


_DEFAULT = TLSConfig()


def check_tls(value: object, *, off: bool) -> None:
    """Accept a value for the setting `tls`; False only if it can be `off`."""
    if not isinstance(value, (bool, ssl.SSLContext, TLSConfig)):
        # Not the value: a dict or tuple may hold the password of a key.
        kind = type(value).__name__
        raise TypeError(f"tls must be True, {'False, ' * off}an ssl.SSLContext or a TLSConfig, not {kind}")
    if value is False and not off:
        raise ValueError("tls must not be False: the URL says whether to use TLS; verify_ssl=False checks no server")


def tls_settings(tls: bool | ssl.SSLContext | TLSConfig, verify_ssl: bool = True) -> TLSConfig:
    """What `tls` and `verify_ssl` of a client stand for, whether or not it is on.

    Raises:
        ValueError: `verify_ssl` is False, and there is a context, which has to say that itself.
    """
    if isinstance(tls, ssl.SSLContext):
        settings = TLSConfig(context=tls)
    else:
        settings = tls if isinstance(tls, TLSConfig) else _DEFAULT
    if verify_ssl:
        return settings
    if settings.context is not None:
        raise ValueError("verify_ssl must be set in the SSLContext that is given as tls, which is used as it is")
    return settings.replace(verify=False)


def check_proxy_tls(value: object) -> None:
    """Accept a value for the setting `proxy_tls`."""
    if value is not None and not isinstance(value, (ssl.SSLContext, TLSConfig)):
        raise TypeError(f"proxy_tls must be a TLSConfig, an ssl.SSLContext or None, not {type(value).__name__}")
    context = value.context if isinstance(value, TLSConfig) else value
    if context is not None and is_for_servers(context):
        raise ValueError("proxy_tls must have a context for clients (PROTOCOL_TLS_CLIENT), not one for servers")


def proxy_tls_settings(proxy_tls: ssl.SSLContext | TLSConfig | None, server: TLSConfig) -> TLSConfig:
    """How TLS to an `https://` proxy is spoken; without `proxy_tls` as TLS to the server is.

    Then all but the name, the pin and the protocols holds, which are the server's alone. So is an unchecked certificate
    where there is a pin, which stands for the check.
    """
    if proxy_tls is not None:
        return tls_settings(proxy_tls)
    pinned = bool(server.pins)
    context = server.context
    if context is None:
        return server.replace(server_hostname=None, certificate_pin=(), alpn=(), verify=server.verify or pinned)
    # A context for servers says how this side answers a handshake, and here it begins one.
    if is_for_servers(context) or (pinned and context.verify_mode is ssl.CERT_NONE):
        return _DEFAULT
    return TLSConfig(context=context)
