"""niquests: one AsyncSession for all requests (niquests.readthedocs.io, Advanced Usage, "Session Objects").

`pool_connections` (hosts) and `pool_maxsize` (connections of each) are as large as the load, where that is above the
defaults of 10 (Advanced Usage, list of a session's parameters). `verify` of a request is a documented place for a
certificate authority; a session's own yields to the environment's REQUESTS_CA_BUNDLE. It takes orjson for JSON by
itself where that is installed, as here. nginx speaks HTTP/1.1 here, so there is nothing to multiplex.
"""

from typing import Any

import niquests
from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight


def _session(job: Job) -> niquests.AsyncSession:
    return niquests.AsyncSession(pool_connections=max(10, job.workload.hosts), pool_maxsize=max(10, job.connections))


async def get(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> str | None:
            return (await session.get(url, verify=job.ca_file)).raise_for_status().text

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> bytes | None:
            return (await session.get(url)).raise_for_status().content

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> Any:
            return (await session.post(url, json=JSON_SENT)).raise_for_status().json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _session(job) as session:

        async def one(url: str) -> str | None:
            return (await session.post(url, data=body)).raise_for_status().text

        await keep_in_flight(job, one)
