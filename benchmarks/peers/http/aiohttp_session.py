"""aiohttp: one ClientSession with its defaults, as its documentation recommends (Client Quickstart)."""

import asyncio
from time import perf_counter

import aiohttp
from client import Job


async def get(job: Job) -> None:
    url = f"{job.url}/"
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            async with session.get(url) as response:
                text = await response.text()
            if len(text) != job.size:
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
