"""What `.ci/run` forgives (.ci/again.py): one or two tests that fail, and then pass each time by themselves."""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FLAKY = """
def test_{name}():
    seen = Path(__file__).with_suffix(".{name}")
    runs = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (runs + 1))
    assert runs {passes}
"""


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("again", ROOT / ".ci" / "again.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FORGIVEN", tmp_path / "build" / "forgiven")
    return module


def play(again: ModuleType, folder: Path, tests: str) -> int:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(f"import os\nfrom pathlib import Path\n{textwrap.dedent(tests)}")
    # A plugin that another test does not want, and that costs most of the time.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "-p", "no:benchmark", str(folder)]
    status = again.run(command, folder)
    assert isinstance(status, int)
    return status


def runs(folder: Path, name: str) -> int:
    return len((folder / f"test_it.{name}").read_text())


def flaky(*names: str) -> str:
    return "".join(FLAKY.format(name=name, passes="> 0") for name in names)


def test_two_tests_that_fail_once_are_forgiven_after_ten_runs_without_the_others_and_named(
    again: ModuleType, tmp_path: Path
) -> None:
    good = FLAKY.format(name="good", passes=">= 0")
    assert play(again, tmp_path, flaky("one", "two") + good) == 0
    assert [runs(tmp_path, name) for name in ("one", "two", "good")] == [11, 11, 1]
    assert again.FORGIVEN.read_text() == "test_it.py::test_one\ntest_it.py::test_two\n"


def test_a_third_failure_is_the_changes(again: ModuleType, tmp_path: Path) -> None:
    assert play(again, tmp_path, flaky("one", "two", "three")) == 1
    assert runs(tmp_path, "one") == 1
    assert not again.FORGIVEN.exists()


def test_a_test_that_fails_once_more_is_refused(again: ModuleType, tmp_path: Path) -> None:
    assert play(again, tmp_path, FLAKY.format(name="one", passes="not in (0, 5)")) == 1
    assert runs(tmp_path, "one") == 6
    assert not again.FORGIVEN.exists()


@pytest.mark.parametrize(
    ("tests", "status"),
    [
        # As a test ends that hangs (support/watchdog.py).
        ("def test_it(): os._exit(1)", 1),
        ("def test_it(): os.abort()", -6),
        ("raise ValueError", 2),
        ("def test_it(): raise KeyboardInterrupt", 2),
    ],
    ids=["hang", "crash", "collection", "interrupt"],
)
def test_what_ends_pytest_otherwise_is_refused_at_once(
    again: ModuleType, tmp_path: Path, tests: str, status: int
) -> None:
    left_behind = tmp_path / f"build/again-{os.getpid()}/v/cache/lastfailed"
    left_behind.parent.mkdir(parents=True)
    left_behind.write_text('{"test_it.py::test_one": true}')
    assert play(again, tmp_path, flaky("one") + tests) == status
    assert not again.FORGIVEN.exists()


def test_tests_that_pass_run_once(again: ModuleType, tmp_path: Path) -> None:
    assert play(again, tmp_path, FLAKY.format(name="one", passes="== 0")) == 0
    assert runs(tmp_path, "one") == 1
