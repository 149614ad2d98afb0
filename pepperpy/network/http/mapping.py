"""`HTTPClient.map()`: many requests, a bounded number at a time, with results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from yarl import URL

from pepperpy.network.arguments import explains_attributes
from pepperpy.network.errors import NetworkError
from pepperpy.network.http.response import HTTPResponse


@explains_attributes(
    {name: f"result.unwrap().{name}" for name in ("status", "text", "content", "headers", "json", "ok")}
)
@dataclass(frozen=True, slots=True)
class MapResult:
    """The outcome of one URL of `HTTPClient.map()`.

    Attributes:
        index: The position of the URL in the input, from 0.
        url: The URL as it was given.
        response: The response, or None.
        error: What `HTTPClient.request()` raised, or None.
    """

    index: int
    url: str | URL = field(repr=False)  # it may hold credentials
    response: HTTPResponse | None = None
    error: NetworkError | None = None

    def unwrap(self) -> HTTPResponse:
        """The response. If there is none, raises the error."""
        if self.response is None:
            raise self.error or NetworkError("no response")
        return self.response


async def map_bounded(
    fetch: Callable[[str | URL], Awaitable[HTTPResponse]],
    urls: Iterable[str | URL] | AsyncIterable[str | URL],
    concurrency: int,
) -> AsyncGenerator[MapResult, None]:
    """Results of `fetch(url)` as they come. A NetworkError becomes a result; any other exception ends them all."""
    if isinstance(urls, str) or not isinstance(urls, (Iterable, AsyncIterable)):
        raise TypeError(f"urls must be an iterable or async iterable of URLs, not {type(urls).__name__}")
    source = aiter(urls) if isinstance(urls, AsyncIterable) else _as_async(urls)
    turn = asyncio.Lock()
    index = -1
    # With one place: workers go on only when the caller takes results.
    results: asyncio.Queue[MapResult | BaseException | None] = asyncio.Queue(maxsize=1)
    workers: list[asyncio.Task[None]] = []
    running = 0

    def start() -> None:
        nonlocal running
        running += 1  # before the task is made: an eager one runs at once
        workers.append(asyncio.create_task(work()))

    async def work() -> None:
        nonlocal index
        try:
            while True:
                async with turn:
                    url = await anext(source)
                    index += 1
                    place = index
                    if running < concurrency:
                        # Only for what may still come: a large `concurrency` costs nothing.
                        start()
                try:
                    result = MapResult(place, url, response=await fetch(url))
                except NetworkError as error:
                    result = MapResult(place, url, error=error)
                await results.put(result)
        except StopAsyncIteration:
            await results.put(None)
        except Exception as error:
            await results.put(error)
        except asyncio.CancelledError as error:
            # Not this worker was cancelled, but something that it awaited, such as an interceptor's own future.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await results.put(error)

    try:
        start()
        while running:
            result = await results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        if (aclose := getattr(source, "aclose", None)) is not None:
            await aclose()


async def _as_async(items: Iterable[str | URL]) -> AsyncIterator[str | URL]:
    for item in items:
        yield item
