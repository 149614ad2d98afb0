"""The programs of `examples/`, run as programs or imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


def output(name: str, *arguments: str, stdin: str = "", strict: bool = True) -> list[str]:
    """The lines that an example prints; it must neither fail nor complain."""
    flags = ["-W", "error"] if strict else []
    command = [sys.executable, *flags, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert not done.stderr or not strict, done.stderr
    return done.stdout.splitlines()


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
