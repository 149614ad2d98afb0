"""This package, as its README recommends; the pool as large as the load, where that is above the default of 100."""

from collections.abc import AsyncGenerator
from typing import Any

from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight, keep_streaming

from pepperpy.network import HTTPClient, HTTPConfig, TLSConfig


def _client(job: Job) -> HTTPClient:
    return HTTPClient(HTTPConfig(max_connections=max(100, job.connections), tls=TLSConfig(ca_file=job.ca_file)))


async def get(job: Job) -> None:
    async with _client(job) as client:
        await keep_in_flight(job, client.get)


async def get_bytes(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> bytes:
            return (await client.request("GET", url)).content

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> Any:
            return (await client.request("POST", url, json=JSON_SENT)).json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _client(job) as client:

        async def one(url: str) -> str:
            return await client.post(url, data=body)

        await keep_in_flight(job, one)


async def events(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> AsyncGenerator[str, None]:
            async with client.stream("GET", url) as stream:
                async for event in stream.events():
                    yield event.data

        await keep_streaming(job, one)
