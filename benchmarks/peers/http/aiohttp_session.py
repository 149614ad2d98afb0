"""aiohttp: one ClientSession for all requests, as its documentation recommends (docs.aiohttp.org, Client Quickstart).

The pool is as large as the load, where that is above the default of 100 (Advanced Client Usage, "Limiting connection
pool size"); `ssl` is its documented place for a certificate authority. JSON is the standard library's, its default. It
knows no server-sent events: the lines of its content are read, and only that field which the server sends.
"""

import io
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight, keep_streaming


def _session(job: Job) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=max(100, job.connections), ssl=job.ssl_context() or True)
    return aiohttp.ClientSession(connector=connector, raise_for_status=True)


async def get(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> str:
            async with session.get(url) as response:
                return await response.text()

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> bytes:
            async with session.get(url) as response:
                return await response.read()

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> Any:
            async with session.post(url, json=JSON_SENT) as response:
                return await response.json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _session(job) as session:

        async def one(url: str) -> str:
            # A ResourceWarning asks for an io.BytesIO where bytes are above 1 MiB (payload.py, BytesPayload).
            async with session.post(url, data=io.BytesIO(body)) as response:
                return await response.text()

        await keep_in_flight(job, one)


async def events(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> AsyncGenerator[str, None]:
            async with session.get(url) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        yield line[6:-1].decode()

        await keep_streaming(job, one)
