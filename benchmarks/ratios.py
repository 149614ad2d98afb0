"""Fails when throughput is lost: ratios to the peers, measured in one run, against floors. `make bench-ratios`.

Half a minute. A ratio of one run is noisy even where client and server have a core each: on a shared virtual machine
the medians of three rounds were seen to move by a third. So a floor leaves up to half of the measured figure to noise;
what it finds is a loss of the kind that a careless change brings, such as a timer or a copy for each message. Smaller
ones are for `make bench-guard`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

# Read by the client processes: a quarter of the work of the full benchmarks.
os.environ.setdefault("BENCH_SCALE", "0.25")

from harness import Figures, run

ROUNDS = 3


@dataclass(frozen=True)
class Floor:
    workload: str
    ours: str
    peer: str
    words: str
    ratio: Callable[[Figures, Figures], float]  # the larger, the better for this package
    measured: float  # on CPython 3.11.7, stock asyncio; README
    least: float


def rate(ours: Figures, peer: Figures) -> float:
    return peer.seconds / ours.seconds


def processor(ours: Figures, peer: Figures) -> float:
    return peer.cpu_seconds / ours.cpu_seconds


FLOORS = [
    Floor("receive_line", "network_client", "streams", "rate", rate, 5.0, 3.3),
    Floor("send_small", "network_client", "streams", "rate", rate, 30, 20),
    Floor("echo_64", "network_client", "streams", "processor time", processor, 2.9, 1.4),
    Floor("http_get_32", "http_client", "aiohttp_session", "processor time", processor, 1.2, 0.85),
    Floor("http_get_32", "http_client", "aiohttp_warm", "processor time", processor, 0.93, 0.75),
]


def main() -> int:
    figures: dict[tuple[str, str], Figures] = {}
    for floor in FLOORS:
        for peer in (floor.ours, floor.peer):
            figures.setdefault((floor.workload, peer), Figures())
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for (workload, peer), of_peer in figures.items():
            of_peer.reports.append(run(peer, workload, "asyncio"))
    lost = False
    for floor in FLOORS:
        ours, peer = figures[floor.workload, floor.ours], figures[floor.workload, floor.peer]
        value = floor.ratio(ours, peer)
        lost = lost or value < floor.least
        print(
            f"{floor.workload:14} {floor.words} of {floor.peer} / ours: {value:6.2f}"
            f"  (at least {floor.least:g}; measured {floor.measured:g})  {'LOST' if value < floor.least else 'ok'}"
        )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
