"""wreq: one Client for all requests, in `async with` (its README, Example; docs, Quick Start).

No emulation of a browser, which is optional, and would add headers. There is no limit of connections to raise.
`tls_verify` is its documented place for a certificate authority. JSON is its own, `json=` and `.json()`, as in all of
its examples; sending bytes that another library has made would be faster. Its threads run on the one core that every
peer's process has.
"""

from pathlib import Path
from typing import Any

from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight
from wreq import Client


def _client(job: Job) -> Client:
    return Client(raise_for_status=True, tls_verify=True if job.ca_file is None else Path(job.ca_file))


async def get(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> str:
            async with client.get(url) as response:
                return await response.text()

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> memoryview:
            async with client.get(url) as response:
                return await response.bytes()

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> Any:
            async with client.post(url, json=JSON_SENT) as response:
                return await response.json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _client(job) as client:

        async def one(url: str) -> str:
            async with client.post(url, body=body) as response:
                return await response.text()

        await keep_in_flight(job, one)
