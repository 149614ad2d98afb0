"""aiosonic: one HTTPClient for all requests (aiosonic.readthedocs.io, Examples).

Its pool is as large as the load, as in its own benchmark (scripts/performance.py of its repository): the default of 30
is for all hosts together. `ssl` of a request is its documented place for a certificate authority. It unpacks what is
packed, but does not ask for it: nginx packs all the same here. JSON is the standard library's, its default.
"""

from typing import Any

import aiosonic
from aiosonic.pools import PoolConfig
from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight


def _client(job: Job) -> aiosonic.HTTPClient:
    size = max(30, job.connections, job.workload.hosts)
    return aiosonic.HTTPClient(aiosonic.TCPConnector(pool_configs={":default": PoolConfig(size=size)}))


async def get(job: Job) -> None:
    context = job.ssl_context()
    async with _client(job) as client:

        async def one(url: str) -> str:
            response = await client.get(url, ssl=context)
            response.raise_for_status()
            return await response.text()

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> bytes:
            response = await client.get(url)
            response.raise_for_status()
            return await response.content()

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> Any:
            response = await client.post(url, json=JSON_SENT)
            response.raise_for_status()
            return await response.json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _client(job) as client:

        async def one(url: str) -> str:
            response = await client.post(url, data=body)
            response.raise_for_status()
            return await response.text()

        await keep_in_flight(job, one)
