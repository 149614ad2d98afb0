"""`demo`: the client at work in a few seconds, beside a server of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time

from pepperpy.network.command.terminal import say
from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import ConnectionLostError
from pepperpy.network.tcp.client import NetworkClient
from pepperpy.network.tcp.serve import serve

NAME = "demo"
HELP = "the client at work in a few seconds"
DESCRIPTION = "Starts a server on 127.0.0.1, talks to it, stops it and starts it again, and shows what the client does."

LINES = 300_000
REQUESTS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


async def run(options: argparse.Namespace) -> int:
    """The tour. Returns the exit code."""
    async with contextlib.AsyncExitStack() as stack:
        async with serve(handle, stop_timeout=0) as server:
            port = server.port
            client = NetworkClient(
                NetworkConfig("127.0.0.1", port, retry_delay=0.1, max_retry_delay=0.2, reconnect=True)
            )
            stack.push_async_callback(client.disconnect)
            await client.connect()
            await talk(client)
            say("stopping the server ...")
        try:
            await client.receive()
        except ConnectionLostError as error:
            say(f"noticed     {error}")
        async with serve(handle, "127.0.0.1", port, stop_timeout=0):
            await client.wait_connected(timeout=30)
            say(f"connected   again, by itself, after {client.stats.retries} retries")
            with contextlib.suppress(ConnectionLostError):
                # Each direction reports a loss once. Sending has not done so yet.
                await client.send(b"")
            await take(client)
            say(f"counted     {client.stats}")
            await client.disconnect()
    return 0


async def talk(client: NetworkClient) -> None:
    """Bytes, a message, many requests."""
    from pepperpy.network.messages.values import JSONLines  # here, as below: the other commands start without it

    say(f"connected   {client.local_address} -> {client.remote_address}")
    await client.send(b"echo\nHello\n")
    say(f"received    {await client.receive_line()!r}")
    messages = client.framed(JSONLines())
    await messages.send({"answer": 42})
    say(f"as JSON     {await messages.receive()}")
    await ask(client)


async def ask(client: NetworkClient) -> None:
    """Many requests in flight on the connection."""
    from pepperpy.network.messages.codecs import Delimited

    started = time.perf_counter()
    async with client.pipeline(Delimited(b"\n")) as pipeline:
        numbers = [b"%d" % number for number in range(REQUESTS)]
        replies = await asyncio.gather(*map(pipeline.request, numbers))
    right = sum(reply == number for reply, number in zip(replies, numbers, strict=True))
    say(f"asked       {right} of {REQUESTS} replies, each its own, in {time.perf_counter() - started:.2f} s")


async def take(client: NetworkClient) -> None:
    """Lines as fast as they come."""
    await client.send(b"lines %d\n" % LINES)
    started = time.perf_counter()
    for _ in range(LINES):
        await client.receive_line()
    seconds = time.perf_counter() - started
    say(f"lines       {LINES:,} in {seconds:.2f} s, one await each, client and server on one processor")


async def handle(client: NetworkClient) -> None:
    """The first line says what the client wants."""
    command, _, number = (await client.receive_line()).decode().strip().partition(" ")
    if command == "echo":
        async for chunk in client:
            await client.send(chunk)
    elif command == "lines":
        block = (b"x" * 63 + b"\n") * 1000
        for _ in range(int(number) // 1000):
            await client.send(block, timeout=None)
        await client.receive(timeout=None)
