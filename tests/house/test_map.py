"""The map of the tests names each file, files stay short, and CONTRIBUTING.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from support.tests_map import FOLDERS, TESTS, lines, shown, table

ROOT = Path(__file__).parents[2]
MOST_LINES = 420


def test_every_file_is_in_the_map_with_what_it_holds() -> None:
    assert shown() == table(), "`make map` writes the map in tests/README.md anew"


def test_every_folder_is_in_the_map() -> None:
    assert {name.partition("/")[0] for name in lines() if "/" in name} == set(FOLDERS) - {"."}


def test_no_file_is_too_long_to_be_read_in_a_sitting() -> None:
    lengths = {str(path.relative_to(TESTS)): path.read_text().count("\n") for path in TESTS.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}, "split by subject"


def test_what_is_to_be_run_after_a_change_exists() -> None:
    named = re.findall(r"\btests/[\w/*.]*\w", (ROOT / "CONTRIBUTING.md").read_text())
    sanitized = re.search(r"^SANITIZED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named and sanitized is not None
    named += [f"tests/{name}" for name in sanitized[1].split()]
    assert [name for name in named if not any(ROOT.glob(name))] == []


def test_a_fixed_time_that_is_slept_has_its_reason_beside_it() -> None:
    sleep = re.compile(r"\bsleep\((?:0\.\d*[1-9]\d*|[1-9][\d.]*)\)")
    found = []
    for path in TESTS.rglob("*.py"):
        lines = path.read_text().split("\n")
        for before, line in zip(["", *lines], lines, strict=False):
            if sleep.search(line) and "#" not in before + line:
                found.append(f"{path.relative_to(TESTS)}: {line.strip()}")
    assert found == [], "wait for an event: support/cancelling.py, until(); else say why there is none"
