"""aiofastnet under a bare protocol: the code of protocol.py on a loop that aiofastnet has patched.

Its README ("Quickstart") recommends patch_loop() where the loop exists already; its own benchmark is of protocols.
"""

import aiofastnet
from client import Job
from peers.tcp import protocol


async def receive_line(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.receive_line(job)


async def receive_lines(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.receive_lines(job)


async def receive_record(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.receive_record(job)


async def receive_records(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.receive_records(job)


async def receive_bulk(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.receive_bulk(job)


async def receive_stream(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.receive_stream(job)


async def send(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.send(job)


async def echo(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.echo(job)


async def connect_close(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.connect_close(job)


async def idle(job: Job) -> None:
    aiofastnet.patch_loop()
    await protocol.idle(job)
