"""httpx on this package's transport: `httpx.AsyncClient(transport=pepperpy.network.httpx.AsyncHTTPTransport())`."""

from collections.abc import AsyncGenerator

import httpx
from client import Job
from http_load import keep_in_flight, keep_streaming

from pepperpy.network.httpx import AsyncHTTPTransport


def _client(job: Job) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=max(100, job.connections))
    transport = AsyncHTTPTransport(limits=limits, verify=job.ssl_context() or True)
    return httpx.AsyncClient(transport=transport)


async def get(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> str:
            return (await client.get(url)).raise_for_status().text

        await keep_in_flight(job, one)


async def events(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> AsyncGenerator[str, None]:
            async with client.stream("GET", url) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        yield line[6:]

        await keep_streaming(job, one)
