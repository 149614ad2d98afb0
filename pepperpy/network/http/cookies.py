"""Cookies: what servers set, and what is sent back. One jar for all wires and for `client.session`; no aiohttp here.

RFC 6265 with what its successor (draft-ietf-httpbis-rfc6265bis) adds: values go back byte for byte, `Secure` is set
over https only, the prefixes `__Secure-` and `__Host-` are held. What a server sends is bounded, and read in linear
time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from yarl import URL

from pepperpy.network.http.dates import parse_cookie_date

# Bytes of a name and its value, and of an attribute's value (rfc6265bis, section 5.6). Characters of a whole line are
# looked at up to here; arbitrary.
MAX_SIZE = 4096
MAX_ATTRIBUTE = 1024
MAX_LINE = 16_384
# Cookies of one domain and of all. RFC 6265, section 6.1, asks for 50 and 3000 at least; Chrome has 180 of a domain.
MAX_OF_DOMAIN = 180
MAX_COOKIES = 3000

# rfc6265bis, section 5.6: a cookie with a control character is ignored. Surrogates stand for bytes that are no UTF-8,
# which aiohttp cannot send.
UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_SECONDS = re.compile(r"-?[0-9]{1,19}")
# The latest time that datetime knows: the end of 9999.
_NEVER = 253402300799.0

_SECURE_SCHEMES = ("https", "wss")


@dataclass(slots=True)
class Cookie:
    """One cookie.

    Attributes:
        domain: Of the host that set it, or the one that it names; empty: all hosts (of `client.session` only).
        host_only: Whether it is for this host alone, and not for those below it.
        expires_at: Seconds since 1970; None: with the client.
        number: Counts the cookies of a jar; those set earlier are sent first.
    """

    name: str
    value: str
    domain: str
    path: str
    host_only: bool
    secure: bool
    http_only: bool
    expires_at: float | None
    number: int = 0


def has_no_dot(domain: str) -> bool:
    """The least of a public-suffix rule: `com` and `localhost` are nobody's domain, `co.uk` is not known."""
    return "." not in domain


class CookieJar:
    """The cookies of one open client.

    Args:
        given: Cookies to begin with, for one origin at a time (see `header()`); what a server sets, or deletes, under
            such a name counts from then on.
        is_public_suffix: Whether cookies may not be set for a whole domain, such as `com`: the host itself may have
            one of that name. It is given a lower-case name.

    Attributes:
        in_use: Whether there is, or has been, any cookie.
    """

    def __init__(
        self, given: Mapping[str, str] | None = None, is_public_suffix: Callable[[str], bool] = has_no_dot
    ) -> None:
        self._given = dict(given or {})
        self.in_use = bool(self._given)
        self._is_public_suffix = is_public_suffix
        # In the order in which they were set, which is the one in which they are dropped where there are too many.
        self._domains: dict[str, dict[tuple[str, str], Cookie]] = {}
        self._count = 0
        self._numbers = 0
        self._replaced: dict[tuple[URL, str], None] = {}

    def __iter__(self) -> Iterator[Cookie]:
        now = time.time()
        for cookies in list(self._domains.values()):
            yield from [cookie for cookie in cookies.values() if not _is_over(cookie, now)]

    # ---- What is sent ----

    def header(self, url: URL, text: str | None, own: Mapping[str, str] | None, given: bool) -> str | None:
        """The value of the header `Cookie` for a request to `url`; None: no such header.

        Args:
            url: Without user info.
            text: A header that the caller has written. Its cookies replace those of the jar.
            own: Cookies of this request; they replace all others of their names.
            given: Whether those that the jar was given go there.
        """
        own = own or {}
        pairs = [pair for pair in map(str.strip, (text or "").split(";")) if pair and _name(pair) not in own]
        names = {*map(_name, pairs), *own}
        pairs += [f"{name}={value}" for name, value in self.pairs(url, given) if name not in names]
        pairs += [f"{name}={value}" for name, value in own.items()]
        return "; ".join(pairs) or None

    def pairs(self, url: URL, given: bool) -> list[tuple[str, str]]:
        """Names and values for `url`, the longest paths first, then the oldest (RFC 6265, section 5.4)."""
        found = sorted(self.matching(url), key=lambda cookie: (-len(cookie.path), cookie.number))
        pairs = [(cookie.name, cookie.value) for cookie in found]
        if given:
            origin = url.origin()
            pairs += [(name, value) for name, value in self._given.items() if (origin, name) not in self._replaced]
        return pairs

    def matching(self, url: URL) -> list[Cookie]:
        """The cookies that servers have set for `url`, in no order."""
        host, path, secure = _host(url), url.raw_path or "/", url.scheme in _SECURE_SCHEMES
        now = time.time()
        found = []
        for domain in _domains_of(host):
            over = []
            for key, cookie in self._domains.get(domain, {}).items():
                if _is_over(cookie, now):
                    over.append(key)
                elif (
                    (not cookie.host_only or domain == host)
                    and (secure or not cookie.secure)
                    and _path_matches(path, cookie.path)
                ):
                    found.append(cookie)
            for key in over:
                self._remove(domain, key)
        return found

    # ---- What is set ----

    def update(self, url: URL, lines: Iterable[str]) -> None:
        """Keep what an answer from `url` has set: the values of its headers `Set-Cookie`. Never raises."""
        for line in lines:
            if (cookie := parse_set_cookie(line, url)) is not None:
                self.set(cookie, url)

    def set(self, cookie: Cookie, url: URL) -> None:
        """Keep a cookie that an answer from `url` has set, if it may (RFC 6265, section 5.3)."""
        host = _host(url)
        if cookie.domain != host and (not _domain_matches(host, cookie.domain) or self._is_nobodys(cookie.domain)):
            return
        if cookie.domain == host and (self._is_nobodys(host) or _is_address(host)):
            cookie.host_only = True
        safe = url.scheme in _SECURE_SCHEMES
        if not _keeps_its_prefix(cookie) or (not safe and (cookie.secure or self._would_hide(cookie))):
            return
        if cookie.name in self._given and cookie.path == "/" and cookie.domain == host:
            self._replaced[url.origin(), cookie.name] = None
            if len(self._replaced) > MAX_COOKIES:
                del self._replaced[next(iter(self._replaced))]
        self.put(cookie)

    def put(self, cookie: Cookie) -> None:
        """Keep a cookie, or forget the one of its name if it is over; make room for it if need be."""
        cookies = self._domains.pop(cookie.domain, {})
        self._domains[cookie.domain] = cookies
        key = (cookie.path, cookie.name)
        before = cookies.pop(key, None)
        self._count -= before is not None
        if not _is_over(cookie, time.time()):
            self.in_use = True
            self._numbers += 1
            cookie.number = self._numbers if before is None else before.number
            cookies[key] = cookie
            self._count += 1
            if len(cookies) > MAX_OF_DOMAIN:
                # `Secure` ones last (rfc6265bis, section 5.7): plain HTTP could push them out, and set its own instead.
                plain = (key for key, other in cookies.items() if not other.secure)
                self._remove(cookie.domain, next(plain, next(iter(cookies))))
            elif self._count > MAX_COOKIES:
                domain = next(iter(self._domains))
                self._remove(domain, next(iter(self._domains[domain])))
        elif not cookies:
            del self._domains[cookie.domain]

    def remove(self, are_gone: Callable[[Cookie], bool]) -> None:
        """Forget some cookies; given ones stay."""
        for cookie in list(self):
            if are_gone(cookie):
                self._remove(cookie.domain, (cookie.path, cookie.name))

    def _remove(self, domain: str, key: tuple[str, str]) -> None:
        cookies = self._domains[domain]
        del cookies[key]
        self._count -= 1
        if not cookies:
            del self._domains[domain]

    def _is_nobodys(self, domain: str) -> bool:
        # `com.`, with the dot of the root, is `com`; no rule of public suffixes has to know it.
        return domain.endswith(".") or self._is_public_suffix(domain)

    def _would_hide(self, cookie: Cookie) -> bool:
        """Whether there is a `Secure` cookie of this name, which nobody between may replace (rfc6265bis, 5.7)."""
        # One of a whole domain goes to the hosts below it as well, and before theirs where its path is longer.
        domains = _domains_of(cookie.domain) if cookie.host_only else self._domains
        return any(
            other.name == cookie.name
            and other.secure
            and _path_matches(cookie.path, other.path)
            and (_domain_matches(other.domain, cookie.domain) or _domain_matches(cookie.domain, other.domain))
            for domain in domains
            for other in self._domains.get(domain, {}).values()
        )


def parse_set_cookie(line: str, url: URL) -> Cookie | None:
    """The cookie of a `Set-Cookie` in an answer from `url` (RFC 6265, section 5.2); None: it is to be ignored."""
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
            attributes[key.strip().lower()] = text  # the last one of a name counts
    host = _host(url)
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


def expiry(max_age: str, expires: str) -> float | None:
    """When a cookie with such attributes is over, in seconds since 1970; None if neither can be read."""
    if _SECONDS.fullmatch(max_age):
        seconds = int(max_age)
        return min(time.time() + seconds, _NEVER) if seconds > 0 else 0.0
    return parse_cookie_date(expires) if expires else None


def _is_over(cookie: Cookie, now: float) -> bool:
    return cookie.expires_at is not None and cookie.expires_at <= now


def _name(pair: str) -> str:
    return pair.partition("=")[0].rstrip()


def _host(url: URL) -> str:
    return (url.raw_host or "").lower()


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _domains_of(host: str) -> Collection[str]:
    """The domains whose cookies a host may have: itself, those above it, and the empty one of all."""
    if _is_address(host):
        return (host, "")
    domains = [host]
    while "." in host:
        host = host.partition(".")[2]
        domains.append(host)
    return (*domains, "") if domains[-1] else domains


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or (host.endswith(f".{domain}") and not _is_address(host))


def _path_matches(path: str, of_cookie: str) -> bool:
    return path.startswith(of_cookie) and (
        len(path) == len(of_cookie) or of_cookie.endswith("/") or path[len(of_cookie)] == "/"
    )


def _default_path(url: URL) -> str:
    """RFC 6265, section 5.1.4."""
    return url.raw_path.rpartition("/")[0] or "/"


def _keeps_its_prefix(cookie: Cookie) -> bool:
    """rfc6265bis, section 4.1.3: what such a name promises, in any case of its letters."""
    name = cookie.name.lower()
    if name.startswith("__host-"):
        return cookie.secure and cookie.host_only and cookie.path == "/"
    return cookie.secure or not name.startswith("__secure-")
