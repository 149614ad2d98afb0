"""The TCP workloads: this package beside asyncio streams, in turn, each round in fresh processes.

    make bench-tcp                        all of them, about ten minutes
    make bench-tcp ARGS="-k 'echo_64'"    one of them

Every figure is a ratio within one run. pytest-benchmark's own columns are seconds per operation of this package, as the
client process measured them; the table at the end has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from harness import Figures, run
from report import ROWS, Row
from workloads import TCP_WORKLOADS

ROUNDS = 5
OURS = "network_client"


@dataclass(frozen=True)
class Target:
    """What a measurement is held against: on stock asyncio the issue's figure, on uvloop not to lose."""

    words: str
    figure: Callable[[dict[str, Figures]], float]
    least: float | None = None
    most: float | None = None


def rate_over(peer: str) -> Callable[[dict[str, Figures]], float]:
    return lambda figures: figures[peer].seconds / figures[OURS].seconds


def cpu_over_streams(figures: dict[str, Figures]) -> float:
    return figures[OURS].cpu_seconds / figures["streams"].cpu_seconds


TARGETS: dict[str, list[Target]] = {
    "receive_line": [Target("rate / streams", rate_over("streams"), least=5)],
    "receive_lines": [Target("rate / streams' readline", rate_over("streams"), least=15)],
    "receive_record": [Target("rate / streams", rate_over("streams"), least=1)],
    "receive_bulk": [
        Target("rate / streams", rate_over("streams"), least=6),
        Target("rate / blocking C recv loop", rate_over("c_recv_loop"), least=0.9),
    ],
    "receive_stream": [Target("rate / streams", rate_over("streams"), least=1)],
    "send_small": [Target("rate / streams", rate_over("streams"), least=40)],
    "send_bulk": [Target("rate / streams", rate_over("streams"), least=1)],
    "echo_1": [Target("rate / streams", rate_over("streams"), least=1)],
    "echo_64": [Target("CPU per round trip / streams", cpu_over_streams, most=0.75)],
    "idle": [
        Target(
            "bytes beyond the bare transport",
            lambda figures: figures[OURS].memory_bytes - figures["bare"].memory_bytes,
            most=2048,
        )
    ],
}
PEERS = {"receive_bulk": ["streams", "c_recv_loop"], "idle": ["streams", "bare"]}


class ReportedTime:
    """A clock for pytest-benchmark that advances by what the client process has measured, per operation."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


reported_time = ReportedTime()


@pytest.mark.benchmark(timer=reported_time, warmup=False)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("workload", TCP_WORKLOADS)
def test_tcp(benchmark: object, workload: str, loop: str) -> None:
    peers = [OURS, *PEERS.get(workload, ["streams"])]
    figures = {peer: Figures() for peer in peers}

    def one_round() -> None:
        for peer in peers:
            figures[peer].reports.append(run(peer, workload, loop))
        last = figures[OURS].reports[-1]
        reported_time.now += last["seconds"] / last["operations"]

    benchmark.pedantic(one_round, rounds=1 if workload == "idle" else ROUNDS, iterations=1)  # type: ignore[attr-defined]
    for target in TARGETS[workload]:
        least = target.least
        if loop == "uvloop" and least is not None and target.words.endswith(("streams", "readline")):
            least = 1.0
        value = target.figure(figures)
        row = Row(workload, loop, target.words, value, least, target.most, figures)
        ROWS.append(row)
        benchmark.extra_info[target.words] = round(value, 3)  # type: ignore[attr-defined]
