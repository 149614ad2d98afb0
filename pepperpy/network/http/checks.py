"""What a caller gives, looked at before it is used: for a client's configuration and for each request.

`TypeError` for a wrong type, `ValueError` for what cannot be sent. The messages show names, and no value that may be
secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from http.cookies import Morsel
from typing import Any

from aiohttp import ClientTimeout
from yarl import URL

from pepperpy.network.config import check_timeout
from pepperpy.network.http.redact import redact_url
from pepperpy.network.proxy import read_proxy, require_socks

# RFC 9110, section 5.6.2 (token) and 5.5 (field value: no control characters but HTAB).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Surrogates too: yarl and aiohttp leave them out without a word, and send the rest.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# RFC 7617, section 2, and what aiohttp encodes credentials of a proxy as.
_NOT_FOR_PROXY = re.compile(r"[^\x20-\x7e\x80-\xff]")
# RFC 3986, section 3.2.2, without percent-encoding, which no resolver undoes; or an IPv6 address with its zone.
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._~%-]+)?")


def is_http(url: str) -> bool:
    """Whether this is an absolute URL of HTTP."""
    return url[:8].lower().startswith(("http://", "https://"))


def parse_url(name: str, url: str) -> URL:
    """`url`, which is to be an absolute one of HTTP. The error repeats nothing of it."""
    if found := _CONTROL.search(url):
        raise ValueError(f"{name} has the character {found.group()!r}")
    if not is_http(url):
        raise ValueError(f"{name} must start with http:// or https://")
    try:
        return check_url(name, URL(url))
    except ValueError:
        # yarl's own words may repeat the credentials.
        raise ValueError(f"{name} has a host or a port that cannot be used") from None


def check_url(name: str, url: URL) -> URL:
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ValueError(f"{name} must start with http:// or https:// and name a host")
    if not _HOST.fullmatch(url.raw_host) or not url.port:
        raise ValueError(f"{name} has a host or a port that cannot be used")
    return url


def check_base_url(url: object) -> None:
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a str, not {type(url).__name__}")
    if "?" in url or "#" in url:
        raise ValueError(f"base_url must be without query and fragment, not '{redact_url(url)}'")
    try:
        parse_url("base_url", url)
    except ValueError as error:
        raise ValueError(f"{error}: '{redact_url(url)}'") from None


def check_proxy(proxy: object) -> None:
    """Refuse what cannot be used as a proxy, or aiohttp takes for none, without showing its credentials.

    Raises: also `ImportError` for SOCKS without python-socks.
    """
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a str, not {type(proxy).__name__}")
    if proxy.startswith("socks"):
        read_proxy(proxy)
        return require_socks()
    try:
        url = parse_url("proxy", proxy)
    except ValueError as error:
        raise ValueError(f"{error}: '{redact_url(proxy)}'") from None
    if ":" in (url.user or "") or _NOT_FOR_PROXY.search(f"{url.user}{url.password}"):
        # aiohttp's own error would hold both.
        raise ValueError("proxy must have a user without colon, and Latin-1 without control characters (RFC 7617)")


def check_limits(name: str, timeout: object) -> None:
    """Refuse what is neither seconds, None, nor an `aiohttp.ClientTimeout` of such, where 0 is no limit."""
    if isinstance(timeout, ClientTimeout):
        for limit in ("total", "connect", "sock_connect", "sock_read", "ceil_threshold"):
            check_timeout(f"{name}.{limit}", getattr(timeout, limit), zero=True)
    else:
        check_timeout(name, timeout, zero=False)


def check_params(params: object) -> dict[str, Any]:
    """A copy of `params`, after a look at each name and value. Values are not shown: they may be secret."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be a mapping, not {type(params).__name__}")
    copy = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    for name, value in copy.items():
        for item in value if isinstance(value, tuple) else (value,):
            param_text(name, "" if item is None else item)
    return copy


def param_text(name: object, value: object) -> str:
    """A query parameter's value as text; yarl encodes what has to be."""
    if not isinstance(name, str):
        raise TypeError(f"params must have str as names, not {name!r}")
    if isinstance(value, str):
        text = str.__str__(value)  # not what an enum makes of it
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"params must have finite numbers, not {name!r} to {value!r}")
        text = str(value)
    else:
        raise TypeError(
            f"params must map to str, int, float, bool, None or a list of these, not {name!r} to {type(value).__name__}"
        )
    if not (name.isascii() and text.isascii()) and _SURROGATE.search(name + text):
        raise ValueError(f"params has a lone surrogate in the name or the value of {name!r}")
    return text


def check_cookies(cookies: object) -> dict[str, str]:
    """A copy of `cookies`, after a look at each name and value. Values are not shown: they may be secret."""
    if not isinstance(cookies, Mapping):
        raise TypeError(f"cookies must be a mapping, not {type(cookies).__name__}")
    for name, value in cookies.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"cookies must map str to str, not {name!r} to {type(value).__name__}")
        if not _TOKEN.fullmatch(name) or _RESERVED(name):
            raise ValueError(f"cookies has {name!r}, which is no name of a cookie (RFC 6265, 4.1.1)")
        if found := _CONTROL.search(value):
            raise ValueError(f"cookies has the character {found.group()!r} in the value of {name!r}")
    return dict(cookies)


# "path" and other words that stand beside cookies in Set-Cookie; aiohttp's jar refuses them.
_RESERVED = Morsel[str]().isReservedKey


def check_headers(field_name: str, headers: object, *, none: bool) -> dict[str, Any]:
    """A copy of `headers`, after a look at each name and value; values may be None where `none`.

    Names are shown in errors, values are not: they may be secret.
    """
    if not isinstance(headers, Mapping):
        raise TypeError(f"{field_name} must be a mapping, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not (isinstance(value, str) or (none and value is None)):
            raise TypeError(f"{field_name} must map str to str, not {name!r} to {type(value).__name__}")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{field_name} has the name {name!r}, which is not a token (RFC 9110, 5.6.2)")
        if value is not None and (found := _IN_VALUE.search(value)):
            raise ValueError(f"{field_name} has the character {found.group()!r} in the value of {name!r}")
    names = [name.lower() for name, _ in headers.items()]  # a multidict's keys are without doubles
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise ValueError(f"{field_name} has {double!r} twice; several values of one name are joined by commas")
    return dict(headers)


def check_method(method: object) -> str:
    if not isinstance(method, str):
        raise TypeError(f"method must be a str, not {type(method).__name__}")
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"method must be a token (RFC 9110, 5.6.2), not {method[:50]!r}")
    return method.upper()
