"""`Cookies`: what users see of the cookies of an open client, `HTTPClient.cookies`."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from yarl import URL

from pepperpy.network.checks import check_seconds, shown
from pepperpy.network.http.checks import parse_url
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.cookies import MAX_SIZE, UNSENDABLE, Cookie

_FIELDS = {field.name: field for field in dataclasses.fields(Cookie) if field.name != "number"}
_NOT_IN_COOKIE = re.compile(f"{UNSENDABLE.pattern}|;")
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "value", "domain", "path"), (str,)),
    **dict.fromkeys(("host_only", "secure", "http_only"), (bool,)),
    "expires_at": (int, float, type(None)),
}


class Cookies:
    """The cookies that servers have set, of one open client; `HTTPConfig.cookies` are not among them.

    Iterating gives copies, in no order. What changes here counts for the next request. Closing the client ends it:
    `dump()` before, and `load()` into the next one, keep the cookies.
    """

    __slots__ = ("_jar",)

    def __init__(self, jar: CookieJar) -> None:
        self._jar = jar

    def __repr__(self) -> str:
        return f"<Cookies {len(self)}>"

    def __iter__(self) -> Iterator[Cookie]:
        return (dataclasses.replace(cookie) for cookie in self._jar)

    def __len__(self) -> int:
        return sum(1 for _ in self._jar)

    def get(self, name: str, url: str | URL) -> str | None:
        """The value of the cookie that a request to `url` would send; None if there is none of this name."""
        return next((value for key, value in self._jar.pairs(_target(url), False) if key == name), None)

    def set(self, name: str, value: str, url: str | URL, *, path: str = "/", max_age: float | None = None) -> None:
        """Keep a cookie for the host of `url`, as if that host had set it; for https only, if `url` is https.

        Args:
            path: The beginning of the paths to which it goes.
            max_age: Seconds for which it is kept; None: until the client is closed.

        Raises:
            ValueError: It has a character that cannot be sent, or more than 4,096 bytes (rfc6265bis, section 5.6).
        """
        target = _target(url)
        if max_age is not None:
            check_seconds("max_age", max_age, zero=True)
        expires_at = None if max_age is None else time.time() + max_age
        host = (target.raw_host or "").lower()
        cookie = Cookie(name, value, host, path, True, target.scheme == "https", False, expires_at)
        _check(cookie)
        self._jar.put(cookie)

    def clear(self, domain: str | None = None) -> None:
        """Remove all cookies, or those of `domain` and of the hosts below it."""
        end = None if domain is None else f".{domain.lower()}"
        self._jar.remove(lambda cookie: end is None or f".{cookie.domain}".endswith(end))

    def dump(self) -> list[dict[str, Any]]:
        """The cookies as values of JSON, in the order in which they were set. They are secrets: keep them as such."""
        cookies = sorted(self._jar, key=lambda cookie: cookie.number)
        return [{name: getattr(cookie, name) for name in _FIELDS} for cookie in cookies]

    def load(self, cookies: Iterable[Mapping[str, Any]]) -> None:
        """Keep what `dump()` gave, beside what is there. What has expired is left out.

        Raises:
            TypeError, ValueError: This is nothing that `dump()` gave. No cookie was kept.
        """
        for cookie in [_cookie_of(item) for item in cookies]:
            self._jar.put(cookie)


def _cookie_of(item: Mapping[str, Any]) -> Cookie:
    if not isinstance(item, Mapping) or item.keys() != _FIELDS.keys():
        raise ValueError(f"a cookie must be a mapping of {', '.join(_FIELDS)}, as dump() gives it")
    for name, types in _TYPES.items():
        if not isinstance(item[name], types) or (name == "expires_at" and isinstance(item[name], bool)):
            raise TypeError(f"a cookie must have {' or '.join(kind.__name__ for kind in types)} as {name}")
    cookie = Cookie(**item)
    _check(cookie)
    return cookie


def _check(cookie: Cookie) -> None:
    # What a server may set; an error shows no value, which may be secret.
    if not cookie.name.strip() or "=" in cookie.name:
        raise ValueError(f"the name of a cookie must not be empty, nor have '=', as {shown(cookie.name)} has")
    if found := _NOT_IN_COOKIE.search(cookie.name + cookie.value):
        raise ValueError(f"a cookie must not have the character {found.group()!r}, as {shown(cookie.name)} has")
    size = len(cookie.name.encode()) + len(cookie.value.encode())
    if size > MAX_SIZE:
        raise ValueError(f"a cookie must have {MAX_SIZE} bytes or fewer, name and value together, not {size}")
    if not cookie.path.startswith("/"):
        raise ValueError(f"the path of a cookie must begin with '/', not be {shown(cookie.path)}")


def _target(url: str | URL) -> URL:
    return parse_url("url", url) if isinstance(url, str) else url
