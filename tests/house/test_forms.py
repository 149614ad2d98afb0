"""Which form of the suite each CPython has in `.ci/run`, and that each form is one of tests/support/tiers.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheels() -> Any:
    spec = importlib.util.spec_from_file_location("wheels", ROOT / ".ci" / "wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["wheels"] = module  # its dataclass looks there
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / ".ci")
        spec.loader.exec_module(module)
    return module


def test_the_newest_version_that_is_there_has_every_test_and_one_has_eager_tasks(wheels: Any) -> None:
    def forms(*versions: str) -> list[str]:
        return [wheels.form_of(version, list(versions)) for version in versions]

    assert forms("3.11", "3.12", "3.13", "3.14", "3.15") == ["fast", "fast", "eager", "fast", "short"]
    # Where Debian's next release cannot be had.
    assert forms("3.11", "3.12", "3.13") == ["fast", "fast", "eager"]
    assert wheels.EAGER in wheels.VERSIONS[1:-1]


def test_a_form_sets_what_the_tiers_know(wheels: Any) -> None:
    known = (ROOT / "tests" / "support" / "tiers.py").read_text()
    for settings in wheels.FORMS.values():
        assert all(f"`{name}={value}`" in known for name, value in settings.items())


def test_what_fails_on_any_version_refuses_the_change() -> None:
    steps = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if ".ci/wheels.py test" in line]
    assert steps == ['"$python" .ci/wheels.py test']
