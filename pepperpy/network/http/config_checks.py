"""Checks of what only `HTTPConfig` has; what a request may give too stands in checks.py."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

from pepperpy.network.checks import check_int, shown
from pepperpy.network.http.checks import check_headers, is_token, parse_url, plain
from pepperpy.network.http.redact import redact_url
from pepperpy.network.tls_config import TLSConfig, check_proxy_tls, check_tls, tls_settings


def check_base_url(url: object) -> str:
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a str, not {type(url).__name__}")
    url = plain(url)
    if "?" in url or "#" in url:
        raise ValueError(f"base_url must be without query and fragment, not '{redact_url(url)}'")
    try:
        parse_url("base_url", url)
    except ValueError as error:
        raise ValueError(f"{error}: '{redact_url(url)}'") from None
    return url


def check_default_headers(headers: object) -> dict[str, Any]:
    """A checked copy of the headers that every request has."""
    copy = check_headers("headers", headers, none=False)
    for name in copy:
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ValueError(f"headers must not have {name!r}, which is another one for each request")
    return copy


def check_secret_headers(names: object) -> frozenset[str]:
    """The names in lower case."""
    copy = _items("secret_headers", names)
    for name in copy:
        if not isinstance(name, str):
            raise TypeError(f"secret_headers must hold str, not {name!r}")
    return frozenset(name.lower() for name in copy)


def check_retry_statuses(statuses: object) -> frozenset[int]:
    copy = frozenset(_items("retry_statuses", statuses))
    for status in copy:
        check_int("retry_statuses", status, 400, 599)
    return copy


def check_retry_budget(share: object) -> None:
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise TypeError(f"retry_budget must be a number, not {share!r}")
    if not 0 <= share <= 10:
        raise ValueError(f"retry_budget must be from 0 to 10, not {share!r}")


def check_transport(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"transport must be 'auto' or 'aiohttp', not {shown(name)}")
    if name not in ("auto", "aiohttp"):
        raise ValueError(f"transport must be 'auto' or 'aiohttp', not {shown(name)}")


def check_http_tls(tls: Any, verify_ssl: bool) -> None:
    """Accept a value for the setting `tls` of HTTP."""
    check_tls(tls, off=False)
    _check_for_http("tls", tls_settings(tls, verify_ssl))


def check_http_proxy_tls(proxy_tls: Any) -> None:
    """Accept a value for the setting `proxy_tls` of HTTP."""
    check_proxy_tls(proxy_tls)
    if proxy_tls is not None:
        _check_for_http("proxy_tls", tls_settings(proxy_tls))


def _check_for_http(name: str, settings: TLSConfig) -> None:
    if settings.alpn not in ((), ("http/1.1",)):
        raise ValueError(
            f"{name}: alpn must be left out, as HTTP/1.1 is all that is spoken here, not {settings.alpn!r}"
        )
    if settings.ignore_unexpected_eof:
        raise ValueError(f"{name}: ignore_unexpected_eof must be left out: an HTTP message says itself where it ends")


# draft-ietf-httpapi-idempotency-key-header.
IDEMPOTENCY_KEY = "Idempotency-Key"
# Headers that are something else already, or decide where the request ends.
_NO_KEYS = frozenset({"authorization", "connection", "content-length", "content-type", "cookie", "expect", "host"})


def check_key_name(name: object, headers: Mapping[str, str]) -> bool | str:
    """The checked setting `idempotency_key` of a client, whose `headers` are these."""
    if isinstance(name, bool):
        header = IDEMPOTENCY_KEY
    elif isinstance(name, str):
        header = name = plain(name)
        if not is_token(name) or name.lower() in _NO_KEYS or name.lower() == "transfer-encoding":
            raise ValueError(f"idempotency_key must be True, False or the name of a header for it, not {name[:50]!r}")
    else:
        raise TypeError(f"idempotency_key must be a bool or the name of a header, not {type(name).__name__}")
    if name and any(header.lower() == given.lower() for given in headers):
        raise ValueError(f"headers must not have {header!r} with idempotency_key: it is another one for each call")
    return name


def check_interceptors(interceptors: object) -> tuple[Any, ...]:
    """A checked copy of `interceptors`, a collection."""
    if not isinstance(interceptors, Iterable):
        raise TypeError(f"interceptors must be a collection, not {type(interceptors).__name__}")
    copy = _items("interceptors", interceptors)
    for interceptor in copy:
        if not hasattr(interceptor, "pre_request") and not hasattr(interceptor, "post_response"):
            kind = type(interceptor).__name__
            raise TypeError(f"interceptors must have pre_request or post_response, which this {kind} has not")
    return copy


def check_text_errors(value: object) -> None:
    """Accept a value for the setting `text_errors`."""
    if not isinstance(value, str):
        raise TypeError(f"text_errors must be a str, not {type(value).__name__}")
    try:
        codecs.lookup_error(value)
    except LookupError:
        text = "must be the name of an error handler: 'replace', 'strict', 'ignore', 'backslashreplace', or your own"
        raise ValueError(f"text_errors {text}, not {value!r:.50}") from None


def _items(name: str, value: object) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a collection, not {value!r}")
    return tuple(value)
