"""Interceptors: code of the user that runs before each call and after each response."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from aiohttp import ClientTimeout
from multidict import MultiDict, MultiDictProxy
from yarl import URL

from pepperpy.network.http.checks import Params, param_pairs, url_text
from pepperpy.network.http.options import RequestOptions
from pepperpy.network.http.response import HTTPResponse


class Interceptor(Protocol):
    """An item of `HTTPConfig.interceptors`. It may have one of the methods or both; each may be a plain function.

    Each call is shown once, without its retries and redirects. If a method raises, the call ends with that exception.
    The response of a stream or download is not shown, because its body is not read yet.
    """

    async def pre_request(self, method: str, url: str, **arguments: Any) -> None:
        """Look at a call, or change it, before anything else happens.

        Args:
            method: The method as the caller gave it.
            url: The URL as the caller gave it.
            arguments: `params` and `headers`, each a copy for this call that may be changed: a dict, or a multidict if
                the caller gave a multidict or pairs. And `proxy`, `timeout`, `verify_ssl`, `json` and `data` as the
                caller gave them.
        """

    async def post_response(self, response: HTTPResponse) -> None:
        """Look at a response whose body was read, before its status is checked.

        If the body only becomes part of an `HTTPStatusError`, at most `ResponseLimits.max_error_body` bytes were read.
        """


async def before_request(
    interceptors: Iterable[Any],
    method: str,
    url: str | URL,
    params: Params | None,
    headers: Mapping[str, str | None] | None,
    proxy: str | None,
    timeout: ClientTimeout | float | None,
    verify_ssl: bool,
    json: Any,
    options: RequestOptions,
) -> tuple[Params | None, Mapping[str, str | None] | None]:
    """Show a call to the interceptors. Returns its `params` and `headers`, which they may have changed."""
    if not interceptors:
        return params, headers
    params, headers = _own_params(params), _own(headers)
    for interceptor in interceptors:
        if (function := getattr(interceptor, "pre_request", None)) is not None:
            result = function(
                method,
                url_text(url),
                params=params,
                headers=headers,
                proxy=proxy,
                timeout=timeout,
                verify_ssl=verify_ssl,
                json=json,
                data=options.get("data"),
            )
            if inspect.isawaitable(result):
                await result
    return params, headers


def _own(mapping: Any) -> Any:
    """A copy for interceptors to change, a dict or a multidict. `Prepare` refuses what is no mapping."""
    if isinstance(mapping, (MultiDict, MultiDictProxy)):
        return mapping.copy()
    return dict(mapping or {}) if mapping is None or isinstance(mapping, Mapping) else mapping


def _own_params(params: Params | None) -> Any:
    if params is None or isinstance(params, (Mapping, str, bytes)) or not isinstance(params, Iterable):
        return _own(params)
    return MultiDict(param_pairs(params))


async def after_response(interceptors: Iterable[Any], response: HTTPResponse) -> None:
    for interceptor in interceptors:
        if (function := getattr(interceptor, "post_response", None)) is not None:
            result = function(response)
            if inspect.isawaitable(result):
                await result
