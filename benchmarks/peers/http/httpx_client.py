"""httpx: one AsyncClient for all requests, as its documentation recommends (python-httpx.org, Async Support).

Its connections are as many as the load's, where that is above the default of 100 (Advanced, Resource limits), or most
of 256 requests would wait for longer than its pool timeout. `max_keepalive_connections` stays at its default of 20:
with more, its pool looks at all connections for each of them at every request, which took twice as long with 32 of them
and twenty times as long with 256. `verify` is its documented place for a certificate authority (Advanced, SSL).
HTTP/1.1 and the standard library's JSON are its defaults.
"""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight, keep_streaming


def _client(job: Job) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=max(100, job.connections), max_keepalive_connections=20)
    return httpx.AsyncClient(limits=limits, verify=job.ssl_context() or True)


async def get(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> str:
            return (await client.get(url)).raise_for_status().text

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> bytes:
            return (await client.get(url)).raise_for_status().content

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> Any:
            return (await client.post(url, json=JSON_SENT)).raise_for_status().json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _client(job) as client:

        async def one(url: str) -> str:
            return (await client.post(url, content=body)).raise_for_status().text

        await keep_in_flight(job, one)


async def events(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> AsyncGenerator[str, None]:
            async with client.stream("GET", url) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        yield line[6:]

        await keep_streaming(job, one)
