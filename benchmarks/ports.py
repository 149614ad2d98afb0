"""The memcached clients of `examples/`, on asyncio streams and on this package: CPU time a call, side by side.

    .venv/bin/python benchmarks/ports.py [--user nobody]

It starts a memcached of its own (as root: `--user`, because memcached refuses root), and a server of length-prefixed
frames. Both clients take turns in one process, five rounds of each; the figure is the median of the ratios, so that a
machine that is busy or slows down spoils both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import memcached_client
import memcached_streams

from pepperpy.network import LengthPrefixed, NetworkClient, NetworkConfig

ROUNDS = 5
MIB = 1 << 20


@contextlib.contextmanager
def memcached(user: str | None) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["memcached", "-l", "127.0.0.1", "-p", str(port), "-m", "128", "-I", "16m"]
    with subprocess.Popen([*command, *(("-u", user) if user else ())]) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()


def serve_frames(listener: socket.socket) -> None:
    while True:
        threading.Thread(target=send_frames, args=(listener.accept()[0],), daemon=True).start()


def send_frames(conn: socket.socket) -> None:
    """Send as many frames of 8 MiB as each request, four bytes, asks for."""
    frame = struct.pack(">I", 8 * MIB) + bytes(8 * MIB)
    while count := conn.recv(4, socket.MSG_WAITALL):
        for _ in range(int.from_bytes(count)):
            conn.sendall(frame)


async def cpu(call: Callable[[], Awaitable[object]], count: int) -> float:
    """Seconds of this process's CPU time for a call."""
    start = time.process_time()
    for _ in range(count):
        await call()
    return (time.process_time() - start) / count


async def compared(
    name: str, streams: Callable[[], Awaitable[object]], ours: Callable[[], Awaitable[object]], count: int
) -> None:
    for call in (streams, ours):
        await cpu(call, count // 10 + 1)
    pairs = [(await cpu(streams, count), await cpu(ours, count)) for _ in range(ROUNDS)]
    of_streams, of_ours = (statistics.median(times) * 1e6 for times in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / own for theirs, own in pairs)
    print(f"{name:42} {of_streams:11.1f} {of_ours:11.1f} {ratio:7.2f}")


async def main(port: int, frames_port: int) -> None:
    print(f"{'CPU microseconds a call':42} {'streams':>11} {'ours':>11} {'ratio':>7}")
    config = NetworkConfig("127.0.0.1", port, retries=0)
    async with (
        memcached_streams.Memcached("127.0.0.1", port) as streams,
        memcached_client.Memcached(config, max_size=8) as ours,
    ):
        await ours.set("small", b"x" * 100)
        await ours.set("half", bytes(500_000))
        await ours.set("large", bytes(8 * MIB))
        await compared(
            "get of 100 B, idle check before each", lambda: streams.get("small"), lambda: ours.get("small"), 3000
        )
        await compared(
            "50 tasks, pool of 8",
            lambda: asyncio.gather(*(streams.get("small") for _ in range(50))),
            lambda: asyncio.gather(*(ours.get("small") for _ in range(50))),
            60,
        )
        await compared("get of 500 KB", lambda: streams.get("half"), lambda: ours.get("half"), 200)
        await compared("get of 8 MiB", lambda: streams.get("large"), lambda: ours.get("large"), 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", frames_port, limit=MIB)
    async with NetworkClient(config.replace(port=frames_port)) as client:
        frames = client.framed(LengthPrefixed(4))

        async def by_streams() -> None:
            writer.write(struct.pack(">I", 1))
            await reader.readexactly(int.from_bytes(await reader.readexactly(4)))

        async def by_frames() -> None:
            await client.send(struct.pack(">I", 1))
            await frames.receive()

        await compared("frame of 8 MiB", by_streams, by_frames, 20)
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--user", default="nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = multiprocessing.Process(target=serve_frames, args=(listening,), daemon=True)
        server.start()
        with memcached(arguments.user) as memcached_port:
            asyncio.run(main(memcached_port, listening.getsockname()[1]))
        server.terminate()
