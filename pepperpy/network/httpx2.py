"""A transport for httpx2: `httpx2.AsyncClient(transport=AsyncHTTPTransport())` sends by this package's HTTP.

It is `pepperpy.network.httpx`, which says the rest, for the other of the two libraries.
"""

from __future__ import annotations

from types import ModuleType
from typing import ClassVar

import httpx2

from pepperpy.network.http.for_httpx import Exchanges
from pepperpy.network.http.for_httpx_response import Body, Content, Whole

__all__ = ["AsyncHTTPTransport"]


class _Body(Body, httpx2.AsyncByteStream):
    pass


class _Content(Content, httpx2.AsyncByteStream):
    pass


class _Whole(Whole, httpx2.Response):
    pass


class AsyncHTTPTransport(Exchanges, httpx2.AsyncBaseTransport):
    """`pepperpy.network.httpx.AsyncHTTPTransport`, with httpx2 in place of httpx."""

    library: ClassVar[ModuleType] = httpx2
    body_class: ClassVar[type[Body]] = _Body
    content_class: ClassVar[type[Content]] = _Content
    response_class: ClassVar[type[httpx2.Response]] = httpx2.Response
    whole_class: ClassVar[type[httpx2.Response]] = _Whole
