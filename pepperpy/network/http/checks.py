"""Checks of what callers give, for a client's configuration and for each request.

A check raises `TypeError` for a wrong type and `ValueError` for what cannot be sent. The messages show names, and no
value that may be secret.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from http.cookies import Morsel
from typing import Any, TypeAlias

from yarl import URL

from pepperpy.network.checks import check_timeout
from pepperpy.network.http import urls
from pepperpy.network.http.aiohttp_types import is_client_timeout
from pepperpy.network.http.redact import redact_url
from pepperpy.network.proxy_url import read_proxy, require_socks, without_path

Params: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Query parameters: a mapping (a multidict too, or the query of a `yarl.URL`) or pairs of name and value."""

# RFC 9110, section 5.6.2 (token) and 5.5 (field value: no control characters but HTAB).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# With surrogates: yarl and aiohttp silently leave them out, and send the rest.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# With the semicolon, which ends a cookie: what follows it would be another one.
_NOT_IN_COOKIE = re.compile(r"[\x00-\x1f;\x7f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# The same where the surrogates of PEP 383 are bytes, as in the headers of an answer.
_IN_ESCAPED = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")
# RFC 3986, section 3.2.2, without percent-encoding, which no resolver undoes; or an IPv6 address with its zone.
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._~%-]+)?")


def is_http(url: str) -> bool:
    """Whether this is an absolute URL of HTTP."""
    return url[:8].lower().startswith(("http://", "https://"))


def parse_url(name: str, url: str) -> URL:
    """`url` as it was given, checked to be an absolute one of HTTP. The error shows nothing of it."""
    if found := _CONTROL.search(url):
        raise ValueError(f"{name} has the character {found.group()!r}")
    if not is_http(url):
        raise ValueError(f"{name} must start with http:// or https://")
    try:
        return check_url(name, urls.parse(url))
    except ValueError:
        # yarl's message may contain the credentials.
        raise ValueError(f"{name} has a host or a port that cannot be used") from None


def check_url(name: str, url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ValueError(f"{name} must start with http:// or https:// and name a host")
    url = urls.with_plain_zone(url)
    if not _HOST.fullmatch(url.raw_host or "") or not url.port:
        raise ValueError(f"{name} has a host or a port that cannot be used")
    return url


def check_proxy(proxy: object) -> str:
    """Accept the URL of a proxy; no error shows a secret.

    Raises:
        TypeError, ValueError: It is no such URL.
        UsageError: It is one of SOCKS, and python-socks is not installed.
    """
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a str, not {type(proxy).__name__}")
    proxy = plain(proxy)
    if proxy[:5].lower() == "socks":
        proxy = read_proxy(proxy).scheme + proxy[proxy.index(":") :]
        require_socks()
        return proxy
    try:
        parse_url("proxy", proxy)
    except ValueError as error:
        raise ValueError(f"{error}: '{redact_url(proxy)}'") from None
    # Not for SOCKS, where a path was never taken.
    proxy = without_path(proxy)
    read_proxy(proxy)
    return proxy


def check_verify(value: object) -> None:
    if not isinstance(value, bool):
        hint = "HTTPConfig(tls=TLSConfig(ca_file=...)) trusts an authority of your own"
        raise TypeError(f"verify_ssl must be True or False, not {value!r}; {hint}")


def check_limits(name: str, timeout: object) -> None:
    """Accept seconds, None, or an `aiohttp.ClientTimeout` of them, in which 0 means no limit."""
    if is_client_timeout(timeout):
        for limit in ("total", "connect", "sock_connect", "sock_read", "ceil_threshold"):
            check_timeout(f"{name}.{limit}", getattr(timeout, limit), zero=True)
    elif isinstance(timeout, tuple):
        # The library requests takes such a tuple.
        what = f"{name} must be seconds or aiohttp.ClientTimeout(sock_connect=, sock_read=), not {timeout!r}"
        raise TypeError(f"{what}; HTTPConfig(connect_timeout=..., read_timeout=...) sets both for all")
    else:
        check_timeout(name, timeout, zero=False)


def plain(text: str) -> str:
    """`text` as a plain str: `str()` and `format()` of a subclass may return something else, as an enum's name."""
    return text if type(text) is str else str.__str__(text)


def url_text(url: object) -> str:
    """`url` as a str, whatever type it has."""
    try:
        return plain(url) if isinstance(url, str) else str(url)
    except ValueError:
        # Of a yarl.URL that was made with encoded=True, nothing has been looked at.
        return "a URL that cannot be read"


def token_text(what: str, token: object) -> str:
    """`token` as a plain str, if a header can hold it. The errors do not show it.

    RFC 6750 allows fewer characters than services use: tokens of Laravel Sanctum have a "|", others a colon.
    """
    if not isinstance(token, str):
        raise TypeError(f"{what} must be a str, not {type(token).__name__}")
    if not token or token != token.strip() or _IN_VALUE.search(token):
        raise ValueError(
            f"{what} must be of characters that a header can have (RFC 9110, 5.5), without spaces around it"
        )
    return plain(token)


def credential_text(name: str, value: object) -> str:
    """A user or a password as a plain str, in normalization form C. The errors do not show it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    # RFC 7617, section 2, forbids the control characters of RFC 5234; UTF-8 has no surrogates.
    if _CONTROL.search(value):
        raise ValueError(f"{name} must hold no control characters or surrogates")
    return unicodedata.normalize("NFC", plain(value))


def number_text(number: int | float) -> str:
    """A number as text; True and False as in JSON."""
    if isinstance(number, bool):
        return "true" if number else "false"
    return int.__repr__(number) if isinstance(number, int) else float.__repr__(number)


def check_params(params: object) -> dict[str, Any]:
    """A checked copy of `params`. Errors show no values, which may be secret.

    If a name comes more than once, or with a list, its values become a tuple.
    """
    copy: dict[str, Any] = {}
    for name, value in param_pairs(params):
        for item in value if isinstance(value, (list, tuple)) else (value,):
            param_text(name, "" if item is None else item)
        value = tuple(value) if isinstance(value, list) else value
        copy[name] = value if name not in copy else (*_several(copy[name]), *_several(value))
    return copy


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def param_pairs(params: object) -> list[tuple[str, Any]]:
    """Names and values of query parameters. A name comes as often as it was given.

    Raises:
        TypeError: `params` is neither a mapping nor pairs, or a name is no str.
    """
    if isinstance(params, (str, bytes, bytearray)) or not isinstance(params, Iterable):
        raise TypeError(f"params must be a mapping, or pairs of name and value, not {type(params).__name__}")
    pairs = []
    for pair in params.items() if isinstance(params, Mapping) else params:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError("params must be a mapping, or pairs of name and value; it has an item that is no pair")
        if not isinstance(pair[0], str):
            raise TypeError(f"params must have str as names, not {pair[0]!r}")
        pairs.append((plain(pair[0]), pair[1]))
    return pairs


def param_text(name: str, value: object) -> str:
    """The value of a query parameter as text; yarl encodes it."""
    if isinstance(value, str):
        text = plain(value)
    elif isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"params must have finite numbers, not {name!r} to {value!r}")
        text = number_text(value)
    else:
        raise TypeError(
            f"params must map to str, int, float, bool, None or a list of these, not {name!r} to {type(value).__name__}"
        )
    if not (name.isascii() and text.isascii()) and _SURROGATE.search(name + text):
        raise ValueError(f"params has a lone surrogate in the name or the value of {name!r}")
    return text


def check_cookies(cookies: object) -> dict[str, str]:
    """A checked copy of `cookies`. Errors show no values, which may be secret."""
    if not isinstance(cookies, Mapping):
        raise TypeError(f"cookies must be a mapping, not {type(cookies).__name__}")
    for name, value in cookies.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"cookies must map str to str, not {name!r} to {type(value).__name__}")
        if not _TOKEN.fullmatch(name) or _RESERVED(name):
            raise ValueError(f"cookies has {name!r}, which is no name of a cookie (RFC 6265, 4.1.1)")
        if found := _NOT_IN_COOKIE.search(value):
            raise ValueError(f"cookies has the character {found.group()!r} in the value of {name!r}")
    return {plain(name): plain(value) for name, value in cookies.items()}


# "path" and other words with a meaning in Set-Cookie; aiohttp's jar refuses cookies of such names.
_RESERVED = Morsel[str]().isReservedKey


def check_headers(field_name: str, headers: object, *, none: bool, escaped: bool = False) -> dict[str, Any]:
    """A checked copy of `headers`; with `none`, values may be None; if they are `escaped`, surrogates may be bytes.

    Errors show names and no values, which may be secret.
    """
    if not isinstance(headers, Mapping):
        raise TypeError(f"{field_name} must be a mapping, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not (isinstance(value, str) or (none and value is None)):
            raise TypeError(f"{field_name} must map str to str, not {name!r} to {type(value).__name__}")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{field_name} has the name {name!r}, which is not a token (RFC 9110, 5.6.2)")
        if value is not None and (found := (_IN_ESCAPED if escaped else _IN_VALUE).search(value)):
            raise ValueError(f"{field_name} has the character {found.group()!r} in the value of {name!r}")
    names = [name.lower() for name, _ in headers.items()]  # not keys(): a multidict's have no duplicates
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise ValueError(f"{field_name} has {double!r} twice; several values of one name are joined by commas")
    return {plain(name): value if value is None else plain(value) for name, value in headers.items()}


@functools.lru_cache(maxsize=1024)  # names of headers, mostly; arbitrary
def is_token(text: str) -> bool:
    """Whether it can be a method or the name of a header (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def check_middlewares(name: str, middlewares: object) -> tuple[Any, ...]:
    """A checked copy of `middlewares`, a collection of callables."""
    if isinstance(middlewares, (str, bytes)) or not isinstance(middlewares, Iterable):
        raise TypeError(f"{name} must be a collection of callables, not {type(middlewares).__name__}")
    copy = tuple(middlewares)
    for middleware in copy:
        if isinstance(middleware, type) or not callable(middleware):
            what = f"the class {middleware.__name__}" if isinstance(middleware, type) else type(middleware).__name__
            raise TypeError(f"{name} must hold callables of (request, send), not {what}")
    return copy


def check_method(method: object) -> str:
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {type(method).__name__}")
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"method must be a token (RFC 9110, 5.6.2), not {method[:50]!r}")
    return method.upper()
