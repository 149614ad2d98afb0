"""What HTTPClient costs beside the same call of aiohttp's ClientSession, in turn, each round in fresh processes.

    make bench-http                       both workloads on both loops, some two minutes

The figure is processor time per request as a ratio. asyncio gives glibc 256 KiB to map and unmap for every receive of
a fresh process, which this package avoids (http/wire.py); so there are two comparisons: with aiohttp as its users run
it, and with aiohttp in a process where that has been avoided as well, which is the cost of the wrapper alone.
"""

from __future__ import annotations

import pytest
from harness import Figures, run
from report import ROWS, Row
from test_tcp import reported_time
from workloads import HTTP_WORKLOADS

ROUNDS = 7
OURS = "http_client"
PEERS = ("aiohttp_session", "aiohttp_warm", OURS)
MOST = 1.10


@pytest.mark.benchmark(timer=reported_time, warmup=False)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("workload", HTTP_WORKLOADS)
def test_http(benchmark: object, workload: str, loop: str) -> None:
    figures = {peer: Figures() for peer in PEERS}

    def one_round() -> None:
        for peer in PEERS:
            figures[peer].reports.append(run(peer, workload, loop))
        last = figures[OURS].reports[-1]
        reported_time.now += last["seconds"] / last["operations"]

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)  # type: ignore[attr-defined]
    for peer in PEERS[:-1]:
        value = figures[OURS].cpu_seconds / figures[peer].cpu_seconds
        ROWS.append(Row(workload, loop, f"CPU per request / {peer}", value, None, MOST, figures))
        benchmark.extra_info[peer] = round(value, 3)  # type: ignore[attr-defined]
