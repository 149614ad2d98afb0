"""Options of the benchmarks, and the report at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=100, help="at most so many rounds of each workload")
    parser.addoption("--out", type=Path, default=None, help="folder for results.md, results.json and the plots")
    parser.addoption("--quick", action="store_true", help="a few workloads, this package beside what most use now")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        from workloads import QUICK

        peers = {"tcp.network_client", "tcp.streams", "http.http_client", "http.aiohttp_session"}
        items[:] = [
            item
            for item in items
            if item.callspec.params["workload"].name in QUICK and item.callspec.params["peer"].name in peers  # type: ignore[attr-defined]
        ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    import plots
    import report

    if not report.RESULTS:
        return
    command = report.command_line()
    for line in report.markdown(command):
        terminalreporter.write_line(line)
    folder = config.getoption("--out")
    if folder is not None:
        report.write(folder, command)
        plots.write(folder)
        terminalreporter.write_line(f"\nwritten to {folder}: results.md, results.json and the plots")
