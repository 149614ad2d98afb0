"""pyreqwest: one Client for all requests (its README, Quickstart, and the documentation of `pyreqwest.client`).

There is no limit of connections to raise. `add_root_certificate_pem` is its documented place for a certificate
authority. JSON is its own, in Rust. Its threads run on the one core that every peer's process has.
"""

from pathlib import Path
from typing import Any

from client import Job
from http_load import JSON_SENT, body_of, keep_in_flight
from pyreqwest.client import Client, ClientBuilder


def _client(job: Job) -> Client:
    builder = ClientBuilder().error_for_status(True)
    if job.ca_file is not None:
        builder = builder.add_root_certificate_pem(Path(job.ca_file).read_bytes())
    return builder.build()


async def get(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> str:
            return await (await client.get(url).build().send()).text()

        await keep_in_flight(job, one)


async def get_bytes(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> Any:
            return await (await client.get(url).build().send()).bytes()

        await keep_in_flight(job, one)


async def post_json(job: Job) -> None:
    async with _client(job) as client:

        async def one(url: str) -> Any:
            return await (await client.post(url).body_json(JSON_SENT).build().send()).json()

        await keep_in_flight(job, one)


async def post_bytes(job: Job) -> None:
    body = body_of(job.workload.path, job.size)
    async with _client(job) as client:

        async def one(url: str) -> str:
            return await (await client.post(url).body_bytes(body).build().send()).text()

        await keep_in_flight(job, one)
