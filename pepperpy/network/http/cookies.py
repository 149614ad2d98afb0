"""What a server sets: `Cookie`, and how a `Set-Cookie` is read. `cookie_jar.py` keeps them.

It is read as RFC 6265 and its successor (draft-ietf-httpbis-rfc6265bis) say, in linear time, and what a server sends is
bounded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie

from yarl import URL

from pepperpy.network.http.dates import parse_cookie_date

# Bytes of a name with its value, and of an attribute's value (rfc6265bis, section 5.6). Characters of a whole line;
# arbitrary.
MAX_SIZE = 4096
MAX_ATTRIBUTE = 1024
MAX_LINE = 16_384

# rfc6265bis, section 5.6: a cookie with a control character is ignored. Surrogates stand for bytes that are not UTF-8;
# aiohttp cannot send them.
UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_SECONDS = re.compile(r"-?[0-9]{1,19}")
# The latest time that datetime knows: the end of 9999.
_NEVER = 253402300799.0

# Of a quoted value, and attributes that have none.
_ESCAPED = re.compile(r"\\(.)")
_FLAGS = frozenset({"secure", "httponly", "partitioned"})


@dataclass(slots=True)
class Cookie:
    """One cookie that a server has set. Its value is not in the `repr`, because it may be secret.

    Attributes:
        name: Its name.
        value: Its value, byte for byte as it is sent.
        domain: The host that set it, or the domain that it names; empty for all hosts (`client.session` only).
        path: The beginning of the paths to which it goes.
        host_only: Whether it is for this host alone, not for the hosts below it.
        secure: Whether it goes over https only.
        http_only: Whether scripts in a page may not see it; it means nothing here.
        expires_at: Seconds since 1970; None: it ends with the client.
        number: Its number in the jar; cookies set earlier are sent first.
    """

    name: str
    value: str = field(repr=False)
    domain: str
    path: str
    host_only: bool
    secure: bool
    http_only: bool
    expires_at: float | None
    number: int = 0


def parse_set_cookie(line: str, url: URL) -> Cookie | None:
    """The cookie of a `Set-Cookie` in an answer from `url` (RFC 6265, section 5.2); None if it is to be ignored."""
    if (parts := _parts(line)) is None:
        return None
    name, value, attributes = parts
    host = host_of(url)
    domain = attributes.get("domain", "").removeprefix(".").lower()
    path = attributes.get("path", "")
    if not path.startswith("/"):
        path = _default_path(url)
    return Cookie(
        name=name,
        value=value,
        domain=domain or host,
        path=path,
        host_only=not domain,
        secure="secure" in attributes,
        http_only="httponly" in attributes,
        expires_at=expiry(attributes.get("max-age", ""), attributes.get("expires", "")),
    )


def response_cookies(lines: Iterable[str]) -> SimpleCookie:
    """The cookies of an answer's headers `Set-Cookie`, as the standard library has them. Never raises."""
    cookies: SimpleCookie = SimpleCookie()
    for line in lines:
        parts = _parts(line)
        if parts is None or "\t" in line:  # which a Morsel refuses in newer versions of Python
            continue
        name, coded, attributes = parts
        morsel: Morsel[str] = Morsel()
        value = _ESCAPED.sub(r"\1", coded[1:-1]) if len(coded) > 1 and coded[0] == coded[-1] == '"' else coded
        # Not by set(), which takes fewer names, and would quote the value.
        morsel.__setstate__({"key": name, "value": value, "coded_value": coded})  # type: ignore[attr-defined]
        for key, text in attributes.items():
            if key in morsel:
                dict.__setitem__(morsel, key, True if key in _FLAGS else text.strip('"'))
        dict.__setitem__(cookies, name, morsel)
    return cookies


def _parts(line: str) -> tuple[str, str, dict[str, str]] | None:
    """Name, value and attributes of a `Set-Cookie`; None if it cannot be used."""
    if len(line) > MAX_LINE or UNSENDABLE.search(line):
        return None
    pair, _, rest = line.partition(";")
    name, equals, value = pair.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name or len(name.encode()) + len(value.encode()) > MAX_SIZE:
        return None
    attributes: dict[str, str] = {}
    for attribute in rest.split(";"):
        key, _, text = attribute.partition("=")
        if len(text := text.strip()) <= MAX_ATTRIBUTE:
            attributes[key.strip().lower()] = text  # of several with one name, the last one counts
    return name, value, attributes


def expiry(max_age: str, expires: str) -> float | None:
    """When a cookie with these attributes expires, in seconds since 1970; None if neither can be read."""
    if _SECONDS.fullmatch(max_age):
        seconds = int(max_age)
        return min(time.time() + seconds, _NEVER) if seconds > 0 else 0.0
    return parse_cookie_date(expires) if expires else None


def host_of(url: URL) -> str:
    """The host of a URL as cookies are compared by it: in lower case, empty if there is none."""
    return (url.raw_host or "").lower()


def _default_path(url: URL) -> str:
    """RFC 6265, section 5.1.4."""
    return url.raw_path.rpartition("/")[0] or "/"
