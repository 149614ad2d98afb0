"""The cookies of one client, which go back to their servers: one jar for all transports and `client.session`.

It follows RFC 6265 and its successor (draft-ietf-httpbis-rfc6265bis): values go back byte for byte, only https may set
a `Secure` cookie, and the prefixes `__Secure-` and `__Host-` are enforced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from yarl import URL

from pepperpy.network.http.cookies import Cookie, host_of, parse_set_cookie

# Cookies of one domain, and of all. RFC 6265, section 6.1, asks for at least 50 and 3000; Chrome keeps 180 of a domain.
MAX_OF_DOMAIN = 180
MAX_COOKIES = 3000

_SECURE_SCHEMES = ("https", "wss")


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
        host, path, secure = host_of(url), url.raw_path or "/", url.scheme in _SECURE_SCHEMES
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
        host = host_of(url)
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


def _is_over(cookie: Cookie, now: float) -> bool:
    return cookie.expires_at is not None and cookie.expires_at <= now


def _name(pair: str) -> str:
    return pair.partition("=")[0].rstrip()


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


def _keeps_its_prefix(cookie: Cookie) -> bool:
    """Whether the cookie is what the prefix of its name promises, upper or lower case (rfc6265bis, section 4.1.3)."""
    name = cookie.name.lower()
    if name.startswith("__host-"):
        return cookie.secure and cookie.host_only and cookie.path == "/"
    return cookie.secure or not name.startswith("__secure-")
