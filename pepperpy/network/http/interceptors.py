"""Interceptors: code of the user that runs before each call and after each response."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from multidict import MultiDict, MultiDictProxy

from pepperpy.network.http.checks import Params, param_pairs, url_text
from pepperpy.network.http.middleware import Middleware, Send
from pepperpy.network.http.middleware_request import HTTPRequest
from pepperpy.network.http.options import Arguments
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


async def before_request(interceptors: Iterable[Any], given: Arguments) -> tuple[Any, Any]:
    """Show a call to the interceptors. Returns its `params` and `headers`, which they may have changed."""
    params, headers = _own_params(given.params), _own(given.headers)
    for interceptor in interceptors:
        if (function := getattr(interceptor, "pre_request", None)) is not None:
            result = function(
                given.method,
                url_text(given.url),
                params=params,
                headers=headers,
                proxy=given.proxy,
                timeout=given.timeout,
                verify_ssl=given.verify_ssl,
                json=given.json,
                data=given.options.get("data"),
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


def show_responses(interceptors: Iterable[Any]) -> list[Middleware]:
    """The middleware that shows responses to the interceptors, if one of them wants to see any."""
    functions = [interceptor.post_response for interceptor in interceptors if hasattr(interceptor, "post_response")]

    async def show(request: HTTPRequest, send: Send) -> HTTPResponse:
        response = await send(request)
        if not request.streamed:
            for function in functions:
                result = function(response)
                if inspect.isawaitable(result):
                    await result
        return response

    return [show] if functions else []
