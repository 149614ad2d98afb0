"""The figures of a run, against their targets."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Figures


@dataclass
class Row:
    workload: str
    loop: str
    words: str
    value: float
    least: float | None
    most: float | None
    figures: dict[str, Figures]

    @property
    def verdict(self) -> str:
        if self.least is not None:
            return f"{'reached' if self.value >= self.least else 'MISSED'} (at least {self.least:g})"
        return f"{'reached' if self.value <= (self.most or 0) else 'MISSED'} (at most {self.most:g})"


ROWS: list[Row] = []
