"""Interceptors: the users' own code before each request and after each response."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Protocol

from aiohttp import ClientTimeout
from yarl import URL

from pepperpy.network.http.checks import url_text
from pepperpy.network.http.response import HTTPResponse


class Interceptor(Protocol):
    """What `HTTPConfig.interceptors` may hold. Either method may be left out, and either may be a plain function.

    They see each call once: not its retries, nor its redirects. What they raise ends the call, as it is. The response
    of a stream or download is not shown to them, because its body is not read yet.
    """

    async def pre_request(self, method: str, url: str, **arguments: Any) -> None:
        """Look at a call, or change it, before anything else is done with it.

        Args:
            method: As the caller gave it.
            url: As the caller gave it.
            arguments: `params` and `headers`, each a dict of this call's own that may be changed (a multidict, where a
                multidict or pairs were given), and `proxy`,
                `timeout`, `verify_ssl`, `json` and `data` as the caller gave them.
        """

    async def post_response(self, response: HTTPResponse) -> None:
        """Look at a response whose body was read, before its status is checked.

        Of a body that will only be part of an `HTTPStatusError`, `ResponseLimits.max_error_body` bytes were read.
        """


async def before_request(
    interceptors: Iterable[Any],
    method: str,
    url: str | URL,
    params: Any,
    headers: Any,
    proxy: str | None,
    timeout: ClientTimeout | float | None,
    verify_ssl: bool,
    json: Any,
    data: Any,
) -> None:
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
                data=data,
            )
            if inspect.isawaitable(result):
                await result


async def after_response(interceptors: Iterable[Any], response: HTTPResponse) -> None:
    for interceptor in interceptors:
        if (function := getattr(interceptor, "post_response", None)) is not None:
            result = function(response)
            if inspect.isawaitable(result):
                await result
