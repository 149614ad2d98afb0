"""Cookies: what servers set, and what is sent back. One jar for all transports and `client.session`.

It follows RFC 6265 and its successor (draft-ietf-httpbis-rfc6265bis): values go back byte for byte, only https may set
a `Secure` cookie, and the prefixes `__Secure-` and `__Host-` are enforced. What a server sends is bounded, and read in
linear time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie

from yarl import URL

from pepperpy.network.http.dates import parse_cookie_date

# Bytes of a name with its value, and of an attribute's value (rfc6265bis, section 5.6). Characters of a whole line;
# arbitrary.
MAX_SIZE = 4096
MAX_ATTRIBUTE = 1024
MAX_LINE = 16_384
# Cookies of one domain, and of all. RFC 6265, section 6.1, asks for at least 50 and 3000; Chrome keeps 180 of a domain.
MAX_OF_DOMAIN = 180
MAX_COOKIES = 3000

# rfc6265bis, section 5.6: a cookie with a control character is ignored. Surrogates stand for bytes that are not UTF-8;
# aiohttp cannot send them.
UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_SECONDS = re.compile(r"-?[0-9]{1,19}")
# The latest time that datetime knows: the end of 9999.
_NEVER = 253402300799.0

# Of a quoted value, and attributes that have none.
_ESCAPED = re.compile(r"\\(.)")
_FLAGS = frozenset({"secure", "httponly", "partitioned"})

_SECURE_SCHEMES = ("https", "wss")


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


def has_no_dot(domain: str) -> bool:
    """The smallest public-suffix rule: no cookie for all of `com` or `localhost`. It does not know `co.uk`.

    `public_suffix.py` has the one that does.
    """
    return "." not in domain


class CookieJar:
    """The cookies of one open client.

    Args:
        given: Cookies to begin with; `header()` says for which origin. When a server sets or deletes a cookie of such a
            name, that counts from then on.
        is_public_suffix: Called with a domain in lower case; says whether nobody may set cookies for all of it, as for
            `com`. A host of exactly that name may still have cookies.

    Attributes:
        in_use: Whether the jar has, or has had, any cookie.
    """

    def __init__(
        self, given: Mapping[str, str] | None = None, is_public_suffix: Callable[[str], bool] = has_no_dot
    ) -> None:
        self._given = dict(given or {})
        self.in_use: bool = bool(self._given)
        self._is_public_suffix = is_public_suffix
        # In the order in which they were set. If there are too many, the first ones are dropped.
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
        """The value of the header `Cookie` for a request to `url`; None for no header.

        Args:
            url: Without user info.
            text: The header that the caller has written. Its cookies replace those of the jar with the same names.
            own: Cookies of this request. They replace all others with the same names.
            given: Whether the cookies that the jar was given belong to this origin.
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
        """Keep the cookies that an answer from `url` sets; `lines` are its headers `Set-Cookie`. Never raises."""
        for line in lines:
            if (cookie := parse_set_cookie(line, url)) is not None:
                self.set(cookie, url)

    def set(self, cookie: Cookie, url: URL) -> None:
        """Keep a cookie that an answer from `url` sets, if it is allowed to (RFC 6265, section 5.3)."""
        host = _host(url)
        if cookie.domain != host and (not _domain_matches(host, cookie.domain) or self._is_nobodys(cookie.domain)):
            return
        if cookie.domain == host and not cookie.host_only and (_is_address(host) or self._is_nobodys(host)):
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
        """Keep a cookie, and drop another if there are too many. One that has expired removes the one of its name."""
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
                # Drop `Secure` ones last (rfc6265bis, section 5.7): else plain HTTP could push them out, and set its
                # own instead.
                plain = (key for key, other in cookies.items() if not other.secure)
                self._remove(cookie.domain, next(plain, next(iter(cookies))))
            elif self._count > MAX_COOKIES:
                domain = next(iter(self._domains))
                self._remove(domain, next(iter(self._domains[domain])))
        elif not cookies:
            del self._domains[cookie.domain]

    def remove(self, are_gone: Callable[[Cookie], bool]) -> None:
        """Remove the cookies for which `are_gone` is true. Those that the jar was given stay."""
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
        # `com.`, with the dot of the root, is `com`. So a rule of public suffixes need not know it.
        return domain.endswith(".") or self._is_public_suffix(domain)

    def _would_hide(self, cookie: Cookie) -> bool:
        """Whether a `Secure` cookie has this name: plain HTTP may not replace it (rfc6265bis, section 5.7)."""
        # A cookie of a whole domain also goes to the hosts below it, and in front of theirs if its path is longer.
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
    """The cookie of a `Set-Cookie` in an answer from `url` (RFC 6265, section 5.2); None if it is to be ignored."""
    if (parts := _parts(line)) is None:
        return None
    name, value, attributes = parts
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


def _is_over(cookie: Cookie, now: float) -> bool:
    return cookie.expires_at is not None and cookie.expires_at <= now


def _name(pair: str) -> str:
    return pair.partition("=")[0].rstrip()


def _host(url: URL) -> str:
    return (url.raw_host or "").lower()


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _domains_of(host: str) -> Collection[str]:
    """The domains whose cookies go to a host: itself, those above it, and the empty one for all hosts."""
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
    """Whether the cookie is what the prefix of its name promises, upper or lower case (rfc6265bis, section 4.1.3)."""
    name = cookie.name.lower()
    if name.startswith("__host-"):
        return cookie.secure and cookie.host_only and cookie.path == "/"
    return cookie.secure or not name.startswith("__secure-")
