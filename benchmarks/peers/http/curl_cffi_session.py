"""curl_cffi: one AsyncSession for all requests (curl-cffi.readthedocs.io, Quick start, "Asyncio").

`max_clients` is as large as the load, where that is above the default of 10 (documentation of AsyncSession). `verify`
is its documented place for a certificate authority. No browser is impersonated, which is optional. It takes orjson to
decode JSON by itself where that is installed, as here. For large bodies libcurl has the larger buffers that its manual
pages speak of (Advanced, "curl_options").
"""

from typing import Any

from client import Job
from curl_cffi import AsyncSession, CurlOpt
from http_load import JSON_SENT, body_of, keep_in_flight

LARGE_BODIES = {CurlOpt.BUFFERSIZE: 512 << 10, CurlOpt.UPLOAD_BUFFERSIZE: 2 << 20}


def _session(job: Job, options: dict[CurlOpt, int] | None = None) -> AsyncSession:
    return AsyncSession(
        max_clients=max(10, job.connections), verify=job.ca_file or True, raise_for_status=True, curl_options=options
    )


async def get(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> str:
            return (await session.get(url)).text

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _session(job, LARGE_BODIES) as session:

        async def one(url: str) -> bytes:
            return (await session.get(url)).content

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _session(job) as session:

        async def one(url: str) -> Any:
            return (await session.post(url, json=JSON_SENT)).json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _session(job, LARGE_BODIES) as session:

        async def one(url: str) -> str:
            return (await session.post(url, data=body)).text

        await keep_in_flight(job, one)
