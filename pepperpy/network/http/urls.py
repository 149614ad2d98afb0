"""Keeps URLs as they were given: valid percent-encoding stays byte for byte, and what cannot be sent is encoded.

Servers sign URLs as bytes. If a client decodes one and encodes it again (`%2F`, `%7E`, `+`), the signature fails.
`yarl.URL` does that. So this module encodes, and gives yarl the result with `encoded=True`. yarl still reads the host:
IDNA, IPv6, the port.
"""

from __future__ import annotations

import re

from yarl import URL

from pepperpy.network.hosts import plain_host

# RFC 3986, appendix B. Matches any string.
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
# Characters that RFC 3986 does not allow in a path, query or fragment, and a "%" that begins no escape. Brackets are
# sent as they are, as browsers do.
_UNSENDABLE = re.compile(r"[^!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+|%(?![0-9A-Fa-f]{2})")
# Refused in a host name: yarl would silently leave some of them out.
_NOT_IN_AUTHORITY = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")

# Characters of a host name, from RFC 1035, section 2.3.4: its 255 bytes include the lengths of the labels.
MAX_NAME = 253
MAX_LABEL = 63


def parse(text: str) -> URL:
    """An absolute URL.

    Raises:
        ValueError: There is no scheme or authority, or the host or port is invalid.
    """
    scheme, authority, path, query, fragment = _split(text)
    if scheme is None or authority is None:
        raise ValueError("the URL is not absolute")
    return _url(_origin(scheme, authority), path, query, fragment)


def join(base: URL, reference: str) -> URL:
    """Resolve `reference` against `base`, an absolute URL of HTTP without user info (RFC 3986, section 5.2).

    Raises:
        ValueError: The result is no URL of HTTP.
    """
    scheme, authority, path, query, fragment = _split(reference)
    if scheme is not None and scheme.lower() not in ("http", "https"):
        raise ValueError("the URL is none of HTTP")
    if authority is not None:
        return _url(_origin(scheme or base.scheme, authority), path, query, fragment)
    # "http:path" is relative, as in browsers.
    if scheme is not None and scheme.lower() != base.scheme:
        raise ValueError("the URL has no host")
    if not path:
        path = base.raw_path
        query = query or (f"?{base.raw_query_string}" if base.raw_query_string else None)
    elif not path.startswith("/"):
        path = f"{base.raw_path.rpartition('/')[0]}/{path}"
    return _url(str(base.origin()), path, query, fragment)


def with_plain_zone(url: URL) -> URL:
    """The URL with the zone of an IPv6 address as it is looked up: `%eth0`, not `%25eth0` (RFC 6874).

    Raises:
        ValueError: The zone has characters that no URL has.
    """
    host = url.raw_host
    return url.with_host(plain_host(host)) if host is not None and "%" in host else url


def host_field(url: URL) -> str:
    """The value of the header Host: without a zone, which counts on this machine only (RFC 6874, section 4)."""
    host = url.host_port_subcomponent or ""
    return host if "%" not in host else re.sub(r"%[^\]]*", "", host)


def _split(text: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    parts = _PARTS.fullmatch(text)
    assert parts is not None  # the pattern takes any string
    scheme, authority, path, query, fragment = parts.groups()
    return scheme, authority, path, query, fragment


def _origin(scheme: str, authority: str) -> str:
    """`scheme://authority`, with the host in the form that is looked up."""
    if _NOT_IN_AUTHORITY.search(authority):
        raise ValueError("the host has a character that no host has")
    host = authority.rpartition("@")[2]
    if not host.startswith("["):
        # Check the length before IDNA, whose time grows with its square.
        name = host.partition(":")[0].removesuffix(".")
        if not name:
            raise ValueError("the URL has no host")
        if len(name) > MAX_NAME or max(map(len, name.split("."))) > MAX_LABEL:
            raise ValueError(f"the host has more than {MAX_NAME} characters, or {MAX_LABEL} between two dots")
    try:
        return str(URL(f"{scheme}://{authority}"))
    except LookupError as error:  # yarl 1.25, for "http://]x[@"
        raise ValueError("the host cannot be read") from error


def _url(origin: str, path: str, query: str | None, fragment: str | None) -> URL:
    if "/." in path:
        path = _without_dots(path)
    rest = f"{path}{query or ''}{fragment or ''}"
    return URL(origin + _UNSENDABLE.sub(_encoded, rest), encoded=True)


def _encoded(found: re.Match[str]) -> str:
    # Bytes of a header that are not UTF-8 came as surrogates. They are sent as the original bytes.
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _without_dots(path: str) -> str:
    """Remove the dot segments of a path that begins with a slash (RFC 3986, section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
