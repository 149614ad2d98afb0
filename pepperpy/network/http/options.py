"""The arguments of a request: `RequestOptions`, and `Arguments`, which has all of them as the caller gave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from aiohttp import ClientTimeout
from yarl import URL

from pepperpy.network.http.checks import Params


class RequestOptions(TypedDict, total=False):
    """Further arguments of every request.

    Attributes:
        data: The body: bytes-like, str, a mapping or pairs of form fields, a path, a binary file, an async iterable of
            bytes, or `aiohttp.FormData`. Only a body that can be read again is ever sent again.
        files: A multipart body: maps names to paths, binary files, bytes, or `(filename, content, content_type)`;
            `data` may add fields.
        cookies: Cookies of this request, beside those of the client.
        auth: As `HTTPConfig.auth`, for this request; None for no authorization.
        deadline: Seconds, as `HTTPConfig.deadline`.
        retries: As `HTTPConfig.retries`.
        raise_for_status: As `HTTPConfig.raise_for_status`.
        max_response_size: Bytes, as `HTTPConfig.max_response_size`; None for no limit.
        allow_redirects: Whether redirects are followed.
        decompress: As `HTTPConfig.decompress`; for downloads False by default.
        progress: Called with `(bytes sent, total or None)` while the body is sent, from 0 again at a retry; of a
            download, with the bytes received. It may be a coroutine function.
    """

    data: Any
    files: Any
    cookies: Mapping[str, str] | None
    auth: Any
    deadline: float | None
    retries: int
    raise_for_status: bool
    max_response_size: int | None
    allow_redirects: bool
    decompress: bool
    progress: Callable[[int, int | None], object] | None


# The other arguments of a request.
ARGUMENTS = ("params", "headers", "proxy", "timeout", "verify_ssl", "json")


class Arguments:
    """The arguments of one request, unchecked. Interceptors may change `params` and `headers`."""

    __slots__ = ("headers", "json", "method", "options", "params", "proxy", "timeout", "url", "verify_ssl")

    def __init__(
        self,
        method: str,
        url: str | URL,
        params: Params | None,
        headers: Mapping[str, str | None] | None,
        proxy: str | None,
        timeout: ClientTimeout | float | None,
        verify_ssl: bool,
        json: Any,
        options: RequestOptions,
    ) -> None:
        self.method: str = method
        self.url: str | URL = url
        self.params: Params | None = params
        self.headers: Mapping[str, str | None] | None = headers
        self.proxy: str | None = proxy
        self.timeout: ClientTimeout | float | None = timeout
        self.verify_ssl: bool = verify_ssl
        self.json: Any = json
        self.options: RequestOptions = options
