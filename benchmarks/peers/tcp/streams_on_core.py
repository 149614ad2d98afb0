"""This package's streams, which stand in for asyncio's (docs/streams.md): the code of streams.py over them."""

import asyncio

from client import Job
from peers.tcp import streams

from pepperpy.network.streams import open_connection


def _patch() -> None:
    asyncio.open_connection = open_connection


async def receive_line(job: Job) -> None:
    _patch()
    await streams.receive_line(job)


async def receive_record(job: Job) -> None:
    _patch()
    await streams.receive_record(job)


async def receive_bulk(job: Job) -> None:
    _patch()
    await streams.receive_bulk(job)


async def receive_stream(job: Job) -> None:
    _patch()
    await streams.receive_stream(job)


async def send(job: Job) -> None:
    _patch()
    await streams.send(job)


async def echo(job: Job) -> None:
    _patch()
    await streams.echo(job)


async def connect_close(job: Job) -> None:
    _patch()
    await streams.connect_close(job)


async def idle(job: Job) -> None:
    _patch()
    await streams.idle(job)
