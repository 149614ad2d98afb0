"""`bench`: this package beside asyncio's streams and aiohttp, on the loopback interface, in fresh processes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from pepperpy.network.command.terminal import ProgressBar, say

NAME = "bench"
HELP = "this package beside asyncio's streams and aiohttp"
DESCRIPTION = """\
Measures on 127.0.0.1, each client and the server in a process of its own: some 10 seconds. A shared or busy machine
gives other figures each time, so compare the ratios. The real measurements are in docs/benchmarks/results.md."""

# Workload, words, and the peer's name.
WORKLOADS = (
    ("lines", "64-byte lines in, one await each", "asyncio streams"),
    ("echo", "64-byte round trips, one connection", "asyncio streams"),
    ("get", "GET of 100 bytes, one after the other", "aiohttp"),
)
_WORK = "pepperpy.network.command.bench_work"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long."""
    parser.add_argument("--seconds", type=float, default=1.0, help="that each client works; default: %(default)s")


async def run(options: argparse.Namespace) -> int:
    """Measure and show. Returns the exit code."""
    if not 0.01 <= options.seconds <= 60:
        raise ValueError(f"--seconds must be from 0.01 to 60, not {options.seconds}")
    bar = ProgressBar("measuring")
    say(f"{'':40} {'this package':>14} {'the peer':>14} {'ratio':>7}")
    async with server_process() as port:
        for number, (workload, words, peer) in enumerate(WORKLOADS):
            rates = []
            for turn, client in enumerate(("ours", "theirs")):
                bar(2 * number + turn, 2 * len(WORKLOADS))
                rates.append(await measured(workload, client, port, options.seconds))
            bar.end()
            ours, theirs = rates
            say(f"{words:40} {ours:12,.0f}/s {theirs:12,.0f}/s {ours / theirs:6.1f}x   {peer}")
    return 0


@contextlib.asynccontextmanager
async def server_process() -> AsyncIterator[int]:
    """The port of a server in a process of its own, which ends with the block, or with this process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _WORK, "server"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def measured(workload: str, client: str, port: int, seconds: float) -> float:
    """Operations a second of one client, in a process of its own."""
    arguments = (sys.executable, "-m", _WORK, workload, client, str(port), str(seconds))
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    try:
        printed, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        raise OSError(f"the client {client!r} of the workload {workload!r} failed (exit code {process.returncode})")
    return float(printed)
