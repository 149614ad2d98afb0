"""Prints the figures of a run as one Markdown table."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report import ROWS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    write = terminalreporter.write_line
    write(f"\nCPython {platform.python_version()}, {platform.machine()}, {platform.system()}; medians of the rounds\n")
    write("| workload | loop | per operation: wall / CPU / spread of each peer | figure | value | target |")
    write("|---|---|---|---|---|---|")
    for row in ROWS:
        peers = "; ".join(
            f"{peer} {f.memory_bytes:,.0f} B" if f.memory_bytes else
            f"{peer} {f.seconds * 1e6:.3f} / {f.cpu_seconds * 1e6:.3f} us ± {f.spread / 2:.0%}"
            for peer, f in row.figures.items()
        )  # fmt: skip
        write(f"| {row.workload} | {row.loop} | {peers} | {row.words} | {row.value:.2f} | {row.verdict} |")
