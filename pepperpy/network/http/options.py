"""`RequestOptions`: the further arguments of every request. `Arguments`: all of them, as interceptors see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

from yarl import URL

from pepperpy.network.http.aiohttp_types import aiohttp
from pepperpy.network.http.checks import Params
from pepperpy.network.http.middleware import Middleware
from pepperpy.network.http.response import HTTPResponse

Proxy: TypeAlias = str | Literal[False] | None
"""The URL of a proxy; False: none, whatever the configuration and the environment say; None: as these say."""


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
        if_changed_since: An earlier response to the same URL. If the server still has that version, it answers with
            status 304 and no body, for GET and HEAD. A server that names no versions answers as ever.
        read_timeout: Seconds without a byte from the server, as `HTTPConfig.read_timeout`; None for no limit.
        allow_redirects: Whether redirects are followed.
        decompress: As `HTTPConfig.decompress`; for downloads False by default.
        progress: Called with `(bytes sent, total or None)` while the body is sent, from 0 again at a retry; of a
            download, with the bytes received. It may be a coroutine function.
        idempotency_key: The header Idempotency-Key, one for all attempts of this call, so that they may be repeated
            whatever the method is. True: a new random UUID. A str, or what a callable returns, is sent as it is. The
            server has to know the header, or a repeated POST is carried out twice. Its name is another one if
            `HTTPConfig.idempotency_key` has one. False: none, whatever the client has.
        middlewares: As `HTTPConfig.middlewares`, for this request, inside of those.
    """

    data: Any
    files: Any
    cookies: Mapping[str, str] | None
    auth: Any
    deadline: float | None
    retries: int
    raise_for_status: bool
    max_response_size: int | None
    if_changed_since: HTTPResponse | None
    read_timeout: float | None
    allow_redirects: bool
    decompress: bool
    progress: Callable[[int, int | None], object] | None
    middlewares: Iterable[Middleware]
    idempotency_key: bool | str | Callable[[], str] | None


@dataclass(slots=True)
class Arguments:
    """The arguments of one request, as the caller gave them; nothing is checked yet."""

    method: str
    url: str | URL
    params: Params | None
    headers: Mapping[str, str | None] | None
    proxy: Proxy
    timeout: aiohttp.ClientTimeout | float | None
    verify_ssl: bool
    json: Any
    options: RequestOptions


# The other arguments of a request.
ARGUMENTS = ("params", "headers", "proxy", "timeout", "verify_ssl", "json")
