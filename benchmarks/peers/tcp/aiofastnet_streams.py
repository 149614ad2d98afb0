"""aiofastnet under asyncio streams: the code of streams.py on a loop that aiofastnet has patched.

Its README ("Quickstart"): "Keep using the standard `asyncio` streams"; patch_loop() where the loop exists already.
"""

import aiofastnet
from client import Job
from peers.tcp import streams


async def receive_line(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.receive_line(job)


async def receive_record(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.receive_record(job)


async def receive_bulk(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.receive_bulk(job)


async def receive_stream(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.receive_stream(job)


async def send(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.send(job)


async def echo(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.echo(job)


async def connect_close(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.connect_close(job)


async def idle(job: Job) -> None:
    aiofastnet.patch_loop()
    await streams.idle(job)
