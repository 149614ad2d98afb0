"""Fails when throughput is lost: ratios to the peers, measured in one run, against floors. `make bench-ratios`.

Half a minute. A ratio is noisy even where client and server have a core each: a shared virtual machine was seen to
change its speed by half from one second to the next (a GET from 230 to 130 us). So both sides are compared round by
round, a floor leaves up to half of the measured figure to noise, and where something seems lost, there are more rounds
before their median decides. What it finds is a loss of the kind that a careless change brings, such as a timer or a
copy for each message. Smaller ones are for `make bench-guard`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

from harness import Figures, Peer, run
from workloads import WORKLOADS

ROUNDS = 3
MOST_ROUNDS = 9  # where something seems lost
SECONDS = 0.3  # that each client has for its work
OURS = {"tcp": "tcp.network_client", "http": "http.http_client"}


@dataclass(frozen=True)
class Floor:
    workload: str
    peer: str
    words: str
    ratio: Callable[[Figures, Figures], float]  # the larger, the better for this package
    measured: float  # on CPython 3.11.7, stock asyncio
    least: float
    ours: str = ""  # empty: what OURS has for its family

    @property
    def peers(self) -> tuple[Peer, Peer]:
        return Peer(self.ours or OURS[self.peer.partition(".")[0]], "asyncio"), Peer(self.peer, "asyncio")


def rate(ours: Figures, peer: Figures) -> float:
    return ours.rate / peer.rate


def processor(ours: Figures, peer: Figures) -> float:
    return peer.cpu_seconds / ours.cpu_seconds


FLOORS = [
    Floor("receive_line", "tcp.streams", "rate", rate, 5.0, 3.3),
    # 0.13 while its storage was given back to the kernel after each message, and every page made anew.
    Floor("receive_large_record", "tcp.network_client_exactly", "processor time", processor, 1.0, 0.7),
    # 30 to 37 where the machine is fast, 19 to 23 where it is slow (2026-11-29, two versions side by side), 15 where it
    # is slower still (2026-11-30, two versions: a GET took 95 us and not 33; of aiohttp 260 and not 170).
    Floor("send_small", "tcp.streams", "rate", rate, 30, 12),
    Floor("receive_line", "tcp.streams", "rate", rate, 4.6, 2.3, "tcp.streams_on_core"),
    Floor("receive_record", "tcp.streams", "rate", rate, 2.2, 1.4, "tcp.streams_on_core"),
    Floor("send_small", "tcp.streams", "rate", rate, 3.7, 1.8, "tcp.streams_on_core"),
    Floor("echo_64_64B", "tcp.streams", "processor time", processor, 2.9, 1.4),
    Floor("http_get_32", "http.aiohttp_session", "processor time", processor, 4.5, 2.2),
    Floor("http_get_32", "http.aiohttp_warm", "processor time", processor, 3.6, 1.8),
]


def main() -> int:
    figures = {(floor.workload, peer): Figures() for floor in FLOORS for peer in floor.peers}

    def value(floor: Floor) -> float:
        rounds = zip(*(figures[floor.workload, peer].reports for peer in floor.peers), strict=True)
        return statistics.median(floor.ratio(Figures([ours]), Figures([theirs])) for ours, theirs in rounds)

    def is_lost(floor: Floor) -> bool:
        return value(floor) < floor.least

    for number in range(1, MOST_ROUNDS + 1):
        if number > ROUNDS and not any(map(is_lost, FLOORS)):
            break
        print(f"round {number}", file=sys.stderr)
        for (workload, peer), of_peer in figures.items():
            of_peer.reports.append(run(peer, WORKLOADS[workload], SECONDS))
    for floor in FLOORS:
        ours, theirs = floor.peers
        print(
            f"{floor.workload:14} {floor.words} of {ours.name} against {theirs.name}: {value(floor):6.2f} times as good"
            f"  (at least {floor.least:g}; measured {floor.measured:g})  {'LOST' if is_lost(floor) else 'ok'}"
        )
    return 1 if any(map(is_lost, FLOORS)) else 0


if __name__ == "__main__":
    sys.exit(main())
