"""Every workload with every peer that can do it: see README.md in this folder.

    make bench                                    everything
    make bench ARGS="-k 'echo_64 and not trio'"   a part, by the names of workloads, peers and loops

The peers of a workload take turns, round by round, each in fresh processes; so the first test of a workload runs the
whole of it, and the others report. pytest-benchmark's columns are seconds per operation as the client measured them.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from harness import Figures, Peer, peers_for, run
from report import RESULTS
from workloads import WORKLOADS, Workload


class ReportedTime:
    """A clock for pytest-benchmark that advances by what the client process has measured, per operation."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


reported_time = ReportedTime()
measured: dict[str, dict[Peer, Figures]] = {}
CASES = [
    pytest.param(workload, peer, id=f"{workload.name}-{peer}")
    for workload in WORKLOADS.values()
    for peer in peers_for(workload)
]


@pytest.mark.benchmark(timer=reported_time, warmup=False)
@pytest.mark.parametrize(("workload", "peer"), CASES)
def test_benchmark(benchmark: Any, request: pytest.FixtureRequest, workload: Workload, peer: Peer) -> None:
    figures = measured.get(workload.name)
    if figures is None:
        figures = measured[workload.name] = measure(request, workload)
        if good := {each: of_peer for each, of_peer in figures.items() if of_peer.failure is None}:
            RESULTS[workload.name] = good
    if figures[peer].failure is not None:
        raise RuntimeError(f"{peer} could not do {workload.name}") from figures[peer].failure
    reports = iter(figures[peer].reports)

    def one_round() -> None:
        report = next(reports)
        reported_time.now += report["seconds"] / report["operations"]

    benchmark.group = workload.name
    benchmark.pedantic(one_round, rounds=len(figures[peer].reports), iterations=1)


def measure(request: pytest.FixtureRequest, workload: Workload) -> dict[Peer, Figures]:
    """All selected peers of the workload, in turn."""
    cases = [item.callspec.params for item in request.session.items]  # type: ignore[attr-defined]
    selected = [case["peer"] for case in cases if case["workload"] == workload]
    workloads = list(dict.fromkeys(case["workload"] for case in cases))
    rounds = min(workload.rounds, request.config.getoption("--rounds"))
    figures = {peer: Figures() for peer in selected}
    for number in range(rounds):
        for peer in selected:
            place = f"{workloads.index(workload) + 1}/{len(workloads)}"
            progress(request, f"{place} {workload.name}: round {number + 1}/{rounds}, {peer}")
            if figures[peer].failure is None:
                try:
                    figures[peer].reports.append(run(peer, workload))
                except Exception as error:  # of one peer, such as a package that is not there; the others go on
                    figures[peer].failure = error
    progress(request, "")
    return figures


def progress(request: pytest.FixtureRequest, words: str) -> None:
    """One line that is written over and over, on a terminal; a line each elsewhere."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        if sys.stderr.isatty():
            print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)
        elif words:
            print(words, file=sys.stderr, flush=True)
