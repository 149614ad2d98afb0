"""`SessionCookieJar`: the client's cookies as a cookie jar of aiohttp, for `client.session`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from http.cookies import Morsel, SimpleCookie
from types import MappingProxyType
from typing import Any

from aiohttp.abc import AbstractCookieJar, ClearCookiePredicate
from aiohttp.typedefs import LooseCookies
from yarl import URL

from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.cookies import UNSENDABLE, Cookie, expiry

_NO_URL = URL()


class SessionCookieJar(AbstractCookieJar):
    """Shares the cookies of a client with its session: a cookie that one of them gets, the other sends back."""

    def __init__(self, jar: CookieJar, base_url: str | None) -> None:
        super().__init__()
        self._jar = jar
        self._given_to = None if base_url is None else URL(base_url).origin()

    @property
    def unsafe(self) -> bool:
        """True: servers that are named by their address have cookies too."""
        return True

    @property
    def quote_cookie(self) -> bool:
        return False

    @property
    def cookies(self) -> MappingProxyType[tuple[str, str], SimpleCookie]:
        """A copy of the cookies."""
        found: dict[tuple[str, str], SimpleCookie] = defaultdict(SimpleCookie)
        for cookie in self._jar:
            dict.__setitem__(found[cookie.domain, cookie.path.rstrip("/")], cookie.name, _morsel(cookie))
        return MappingProxyType(found)

    @property
    def host_only_cookies(self) -> frozenset[tuple[str, str, str]]:
        return frozenset(
            (cookie.domain, cookie.path.rstrip("/"), cookie.name) for cookie in self._jar if cookie.host_only
        )

    def __iter__(self) -> Iterator[Morsel[str]]:
        return map(_morsel, self._jar)

    def __len__(self) -> int:
        return sum(1 for _ in self._jar)

    def clear(self, predicate: ClearCookiePredicate | None = None) -> None:
        self._jar.remove(lambda cookie: predicate is None or predicate(_morsel(cookie)))

    def clear_domain(self, domain: str) -> None:
        self._jar.remove(lambda cookie: f".{cookie.domain}".endswith(f".{domain.lower()}"))

    def update_cookies(self, cookies: LooseCookies, response_url: URL = _NO_URL) -> None:
        """Set cookies as an answer from `response_url` does; without it, for all hosts or the domain of the cookie."""
        pairs: Any = cookies.items() if isinstance(cookies, Mapping) else cookies
        for name, value in pairs:
            cookie = _cookie(name, value, response_url)
            if response_url.raw_host:
                self._jar.set(cookie, response_url)
            else:
                self._jar.put(cookie)

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        self._jar.update(response_url, headers)

    def filter_cookies(self, request_url: URL) -> SimpleCookie:
        found: SimpleCookie = SimpleCookie()
        given = request_url.origin() == self._given_to
        # If a name comes more than once, the one with the longest path is sent, which is the first.
        for name, value in reversed(self._jar.pairs(request_url, given)):
            dict.__setitem__(found, name, _plain_morsel(name, value))
        return found


def _plain_morsel(name: str, value: str) -> Morsel[str]:
    morsel: Morsel[str] = Morsel()
    # Not by set(), which accepts fewer names and would quote the value.
    morsel.__setstate__({"key": name, "value": value, "coded_value": value})  # type: ignore[attr-defined]
    return morsel


def _morsel(cookie: Cookie) -> Morsel[str]:
    morsel = _plain_morsel(cookie.name, cookie.value)
    morsel["domain"] = cookie.domain
    morsel["path"] = cookie.path
    if cookie.secure:
        morsel["secure"] = True
    if cookie.http_only:
        morsel["httponly"] = True
    return morsel


def _cookie(name: str, value: Any, url: URL) -> Cookie:
    host = (url.raw_host or "").lower()
    if not isinstance(value, Morsel):
        text = str(value)
        if UNSENDABLE.search(text) or ";" in text:
            text = SimpleCookie().value_encode(text)[1]
        return Cookie(name, text, host, "/", bool(host), False, False, None)
    domain = str(value["domain"]).removeprefix(".").lower()
    path = str(value["path"])
    return Cookie(
        name=name,
        value=value.coded_value,
        domain=domain or host,
        path=path if path.startswith("/") else "/",
        host_only=not domain and bool(host),
        secure=bool(value["secure"]),
        http_only=bool(value["httponly"]),
        expires_at=expiry(str(value["max-age"]), str(value["expires"])),
    )
