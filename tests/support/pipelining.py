"""Tests of pipelines: tasks that ask for lines with or without an id, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

from pepperpy.network import Delimited
from pepperpy.network.requests.pipeline import Pipeline
from support.cancelling import until

LINES = Delimited(b"\n")


def word(message: bytes) -> bytes | None:
    """The id of a line such as b"7 some text"; None without one."""
    first, _, rest = message.partition(b" ")
    return first if rest else None


def asked(pipeline: Pipeline[Any], *messages: Any, **options: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(pipeline.request(message, **options)) for message in messages]


async def in_flight(pipeline: Pipeline[Any], number: int) -> None:
    await until(lambda: pipeline.in_flight == number, f"{number} requests in flight")
