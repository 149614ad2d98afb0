"""The methods of `HTTPClient` that make many requests in one call: `events()` and `map()`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack

from yarl import URL

from pepperpy.network.backoff import Backoff
from pepperpy.network.checks import check_int, check_timeout
from pepperpy.network.errors import InvalidRequestError
from pepperpy.network.http.aiohttp_types import aiohttp
from pepperpy.network.http.checks import Params
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.event_source import follow_events
from pepperpy.network.http.lifetime import Lifetime
from pepperpy.network.http.mapping import MapResult, map_bounded
from pepperpy.network.http.options import Proxy, RequestOptions
from pepperpy.network.http.response import HTTPResponse
from pepperpy.network.http.sse import ServerSentEvent
from pepperpy.network.http.stream import HTTPStream
from pepperpy.network.json_codec import RequestData


class SeriesMethods:
    """The part of `HTTPClient` that makes many requests in one call."""

    config: HTTPConfig
    _life: Lifetime

    if TYPE_CHECKING:

        async def request(self, *arguments: Any, **options: Any) -> HTTPResponse: ...
        def stream(self, *arguments: Any, **options: Any) -> HTTPStream: ...

    def events(
        self,
        url: str | URL,
        params: Params | None = None,
        headers: Mapping[str, str | None] | None = None,
        proxy: Proxy = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        verify_ssl: bool = True,
        json: RequestData | None = None,
        *,
        method: str = "GET",
        last_event_id: str = "",
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Server-sent events, of a stream that is opened again when it ends: `async for event in client.events(url):`.

        When a stream ends, breaks off, or is silent for `read_timeout`, it waits for the time that the server has named
        (`retry`; 3 s if it has not, and half a second at least), and asks for what comes behind the last event
        (`Last-Event-ID`). After streams in a row that brought no event, it waits longer, by `retry_delay` and
        `max_retry_delay`. It ends when the server answers 204, or when you leave the loop; if you may leave it early,
        use `contextlib.aclosing`.

        Making a connection is tried `retries` times, as for every request; when that fails, it raises. Also a status of
        400 or above ends it, and an answer that is no event stream.

        Args:
            last_event_id: The `ServerSentEvent.id` behind which to begin.
            options: See `RequestOptions`. `deadline` is that of the whole; then NetworkTimeoutError.

        Raises:
            DecodeError, MessageTooLargeError: As `HTTPStream.events()`.
        """
        deadline = options.pop("deadline", self.config.deadline)
        if deadline is not None:
            check_timeout("deadline", deadline, zero=False)

        def stream(headers: Mapping[str, str | None], **limit: Any) -> HTTPStream:
            own: Any = {**options, "deadline": None, **limit}
            return self.stream(method, url, params, headers, proxy, timeout, verify_ssl, json, **own)

        async def wait(seconds: float) -> None:
            await self._life.open().pause(seconds)

        backoff = Backoff(self.config.retry_delay, self.config.max_retry_delay)
        return follow_events(stream, headers, last_event_id, deadline, backoff, wait)

    async def map(
        self,
        urls: Iterable[str | URL] | AsyncIterable[str | URL],
        *,
        concurrency: int = 10,
        errors: Literal["return", "raise"] = "return",
        method: str = "GET",
        **arguments: Any,
    ) -> AsyncGenerator[MapResult, None]:
        """Request many URLs, at most `concurrency` at a time, and yield each result as it comes.

        `urls` is read as requests end and results are taken. So it may be endless, and memory stays bounded.

        Args:
            urls: The URLs; an async iterable is read by one task at a time.
            concurrency: How many requests run at once, 1 or more. Those beyond `max_connections` only wait.
            errors: "return" puts the NetworkError of a request into its result; "raise" raises the first one, and
                cancels the others.
            arguments: Arguments of `request()`, for every request.

        A cancellation, a loop that is left early, and an error of `urls` itself cancel the other requests. If you may
        leave the loop early, use `contextlib.aclosing`; otherwise that happens when the generator is collected.
        """
        try:
            check_int("concurrency", concurrency, 1)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None
        if errors not in ("return", "raise"):
            raise InvalidRequestError(f"errors must be 'return' or 'raise', not {errors!r}")

        async def fetch(url: str | URL) -> HTTPResponse:
            return await self.request(method, url, **arguments)

        async with contextlib.aclosing(map_bounded(fetch, urls, concurrency)) as results:
            async for result in results:
                if errors == "raise" and result.error is not None:
                    raise result.error
                yield result
