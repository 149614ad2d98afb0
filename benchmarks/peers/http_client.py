"""This package's HTTPClient with its defaults."""

import asyncio

from client import Clock
from workloads import HTTP_BODY, HTTP_IN_FLIGHT, WORKLOADS

from pepperpy.network import HTTPClient


async def http_get_1(port: int) -> dict[str, object]:
    return await _get(port, "http_get_1", 1)


async def http_get_32(port: int) -> dict[str, object]:
    return await _get(port, "http_get_32", HTTP_IN_FLIGHT)


async def _get(port: int, workload: str, in_flight: int) -> dict[str, object]:
    count = WORKLOADS[workload].operations
    url = f"http://127.0.0.1:{port}/"
    async with HTTPClient() as client:

        async def work(requests: int) -> None:
            for _ in range(requests):
                if await client.get(url) != HTTP_BODY:
                    raise RuntimeError("wrong body")

        await asyncio.gather(*(work(20) for _ in range(in_flight)))
        with Clock() as clock:
            await asyncio.gather(*(work(count // in_flight) for _ in range(in_flight)))
    return clock.report(count // in_flight * in_flight)
