"""pycurl on asyncio: AsyncCurlMulti, which its documentation calls experimental (its examples/async_multi.py).

Otherwise as pycurl_multi.py.
"""

from typing import Any

import pycurl
from client import Job
from http_load import keep_in_flight
from peers.http import pycurl_multi


async def get(job: Job) -> None:
    await _run(job, pycurl_multi._Get)


async def get_bytes(job: Job) -> None:
    await _run(job, pycurl_multi._GetBytes)


async def post_json(job: Job) -> None:
    await _run(job, pycurl_multi._PostJSON)


async def post_bytes(job: Job) -> None:
    await _run(job, pycurl_multi._PostBytes)


async def _run(job: Job, kind: type[pycurl_multi._Request]) -> None:
    async with pycurl.AsyncCurlMulti() as multi:
        multi.setopt(pycurl.M_MAXCONNECTS, max(job.connections, job.workload.hosts))
        free = [kind(job) for _ in range(job.connections)]

        async def one(url: str) -> Any:
            request = free.pop()
            request.begin(url)
            await multi.perform(request.curl)
            free.append(request)
            return request.result()

        await keep_in_flight(job, one)
