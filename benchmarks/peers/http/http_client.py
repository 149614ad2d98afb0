"""This package, as its README recommends."""

import asyncio
from time import perf_counter

from client import Job

from pepperpy.network import HTTPClient


async def get(job: Job) -> None:
    url = f"{job.url}/"
    async with HTTPClient() as client:

        async def one() -> None:
            if len(await client.get(url)) != job.size:
                raise RuntimeError("wrong body")

        async def work() -> None:
            begun = perf_counter()
            while begun < clock.end:
                await one()
                now = perf_counter()
                clock.latencies.append(now - begun)
                begun = now

        await asyncio.gather(*(one() for _ in range(job.connections)))
        with job.measure() as clock:
            await asyncio.gather(*(work() for _ in range(job.connections)))
