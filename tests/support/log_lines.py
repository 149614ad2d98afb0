"""Collects what is written to a log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @property
    def text(self) -> list[str]:
        """The lines without their numbers."""
        return [line.partition(" ")[2] for line in self.lines]


@contextlib.contextmanager
def written_to(log: logging.Logger) -> Iterator[Lines]:
    handler, before = Lines(), log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
