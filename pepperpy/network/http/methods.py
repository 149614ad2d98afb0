"""The methods of `HTTPClient` that are named after those of HTTP, and `get_json()`: each sends by `request()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from yarl import URL

from pepperpy.network.http.aiohttp_types import aiohttp
from pepperpy.network.http.arguments import unknown_argument
from pepperpy.network.http.checks import Params
from pepperpy.network.http.options import Proxy, RequestOptions
from pepperpy.network.http.response import HTTPResponse
from pepperpy.network.json_codec import RequestData

T = TypeVar("T")


class NamedMethods:
    """The part of `HTTPClient` that sends a request by the name of its method."""

    if TYPE_CHECKING:

        async def request(self, *arguments: Any, **options: Any) -> HTTPResponse: ...

    async def get(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send GET request. Returns the text of the response; `request()` returns the response itself.

        Raises:
            DecodeError: The body is not text.
        """
        if options:
            _refuse_json(options)
        response = await self.request("GET", url, params, headers, proxy, timeout, verify_ssl, None, **options)
        return response.text

    async def post(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send POST request. The text of the response, as `get()`."""
        response = await self.request("POST", url, params, headers, proxy, timeout, verify_ssl, json, **options)
        return response.text

    async def put(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send PUT request. The text of the response, as `get()`."""
        response = await self.request("PUT", url, params, headers, proxy, timeout, verify_ssl, json, **options)
        return response.text

    async def patch(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send PATCH request. The text of the response, as `get()`."""
        response = await self.request("PATCH", url, params, headers, proxy, timeout, verify_ssl, json, **options)
        return response.text

    async def delete(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send DELETE request. The text of the response, as `get()`."""
        response = await self.request("DELETE", url, params, headers, proxy, timeout, verify_ssl, json, **options)
        return response.text

    async def head(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send HEAD request. The text of the response, as `get()`."""
        if options:
            _refuse_json(options)
        response = await self.request("HEAD", url, params, headers, proxy, timeout, verify_ssl, None, **options)
        return response.text

    async def options(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        **options: Unpack[RequestOptions],
    ) -> str:
        """Send OPTIONS request. The text of the response, as `get()`."""
        if options:
            _refuse_json(options)
        response = await self.request("OPTIONS", url, params, headers, proxy, timeout, verify_ssl, None, **options)
        return response.text

    @overload
    async def get_json(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        *,
        type: type[T],
        **options: Unpack[RequestOptions],
    ) -> T: ...
    @overload
    async def get_json(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        *,
        type: object = None,
        **options: Unpack[RequestOptions],
    ) -> Any: ...
    async def get_json(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        *,
        type: Any = None,
        **options: Unpack[RequestOptions],
    ) -> Any:
        """Send GET request and decode the JSON response, into `type` if given; see `HTTPResponse.json()`."""
        if options:
            _refuse_json(options)
        response = await self.request("GET", url, params, headers, proxy, timeout, verify_ssl, None, **options)
        return response.json(type)


def _refuse_json(options: RequestOptions) -> None:
    if "json" in options:
        # request() would take it for given twice.
        raise unknown_argument("json", ())
