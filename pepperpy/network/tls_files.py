"""The files of a TLS context: finds them, notices when they change, and says which one cannot be used."""

from __future__ import annotations

import importlib
import os
import re
import ssl
import sys
from typing import Any, NamedTuple

from pepperpy.network.errors import not_installed


class FileKey(NamedTuple):
    """Cache key of a file: changes when the file is replaced or rewritten."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int  # changes even if a copy has kept the time of modification


def file_key(field: str, path: str | os.PathLike[str]) -> FileKey:
    """The key of the file at `path`. Raises `ValueError`, which names `field` and `path`, if it cannot be found."""
    path = os.fspath(path)
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unusable(field, path, error) from error
    return FileKey(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _unusable(field: str, path: str, error: Exception, reason: str | None = None) -> ValueError:
    return ValueError(f"{field} {path!r} cannot be used: {reason or getattr(error, 'strerror', None) or error}")


# ---- Whom to trust ----


class Authorities(NamedTuple):
    """Cache key of the authorities without a `ca_file`: changes with the environment, and when a file is replaced.

    Certificates in `folder` need no key, because OpenSSL looks them up at each handshake.
    """

    system_trust: bool
    file: FileKey | None  # OpenSSL's own, or the one that SSL_CERT_FILE names
    folder: str
    bundle: FileKey | None  # used in place of both


# The places that OpenSSL was built with. If the authorities are not there, as for a Python that was built on another
# system, distributions have them in one of these files (the list of Go's crypto/x509).
_BUILT_IN = ssl.get_default_verify_paths()
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # their older releases
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, BSD
)
# On macOS and Windows the system has an interface of its own, which is asked for each certificate.
_TRUST_IS_FILES = sys.platform not in ("darwin", "win32")


def default_authorities(system_trust: bool) -> Authorities:
    file = _found(os.environ.get(_BUILT_IN.openssl_cafile_env, _BUILT_IN.openssl_cafile))
    folder = os.environ.get(_BUILT_IN.openssl_capath_env, _BUILT_IN.openssl_capath)
    bundle = None
    if system_trust and _TRUST_IS_FILES and file is None and not _has_certificates(folder):
        bundle = next(filter(None, map(_found, _BUNDLES)), None)
    return Authorities(system_trust, file, folder, bundle)


def _found(path: str) -> FileKey | None:
    try:
        return file_key("", path)
    except ValueError:
        return None


def _has_certificates(folder: str) -> bool:
    try:
        # OpenSSL looks for these names: the hash of a subject, and a number.
        return any(re.fullmatch(r"[0-9a-f]{8}\.\d{1,4}", name) for name in os.listdir(folder))
    except OSError:
        return False


def default_context(authorities: Authorities) -> ssl.SSLContext:
    """A context that trusts OpenSSL's authorities, or the operating system's.

    On macOS and Windows truststore asks the system at each handshake. Elsewhere this module reads the files itself,
    once. There truststore would read them again at each handshake, and add them to those that it has: with OpenSSL 3.0,
    which searches all of them, a handshake took 23 ms of CPU, and the 200th took 56 (truststore#212). With the files
    read once it takes 1 ms.

    Raises:
        UsageError: truststore is needed and not installed; an `ImportError` as well.
        ValueError: A file cannot be used.
    """
    if not authorities.system_trust:
        return ssl.create_default_context()
    if _TRUST_IS_FILES:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if authorities.bundle is None:
            context.load_default_certs()
        else:
            try:
                context.load_verify_locations(authorities.bundle.path)
            except OSError as error:
                bundle = authorities.bundle.path
                raise _unusable("system_trust", bundle, error, _no_pem("certificate", error)) from error
        return context
    try:
        truststore: Any = importlib.import_module("truststore")
    except ImportError as error:
        raise not_installed("system_trust", "truststore", "truststore") from error
    # Not inject_into_ssl(), which would change every context of the process.
    of_system: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return of_system


def context_for(ca_file: FileKey | None, ca_data: str | bytes | None) -> ssl.SSLContext:
    """A context that trusts the authorities of this file and data only. Raises `ValueError`, which names the file."""
    try:
        return ssl.create_default_context(cafile=ca_file and ca_file.path, cadata=ca_data)
    except OSError as error:
        assert ca_file is not None  # TLSConfig has checked the data
        raise _unusable("ca_file", ca_file.path, error, _no_pem("certificate", error)) from error


def _no_pem(what: str, error: Exception) -> str | None:
    # Python gets no more exact message from OpenSSL.
    return f"it has no {what} in PEM that can be read" if isinstance(error, ssl.SSLError) else None


# ---- Whom to be ----


def load_client_cert(
    context: ssl.SSLContext,
    certificate: FileKey,
    key: FileKey | None,
    password: str | bytes | None,
    field: str = "client_cert",
) -> None:
    """Load certificate and key. Raises `ValueError`, which names `field` and the file that is unusable, or both if they
    differ.
    """
    try:
        context.load_cert_chain(certificate.path, key and key.path, _no_prompt if password is None else password)
    except (OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            # While somebody replaces a pair, either file may be the new one already.
            path = certificate.path if key is None else f"{certificate.path}, {key.path}"
            raise _unusable(field, path, error, "the key belongs to another certificate") from error
        # Find out which file it is. OpenSSL reads the certificate first.
        if refused := _certificate_refused(certificate.path):
            raise _unusable(field, certificate.path, refused, _no_pem("certificate", refused)) from error
        reason = _no_pem("key", error)
        if reason and password is not None:
            reason += ", or the password is wrong"
        raise _unusable(field, (key or certificate).path, error, reason) from error


def _certificate_refused(path: str) -> OSError | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        return error
    return None


def _no_prompt() -> str:
    # Without this, OpenSSL asks on the terminal.
    raise ValueError("the key is encrypted, and no password is given")
