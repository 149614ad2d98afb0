"""Runs pytest, and once more the few tests that failed: `.ci/again.py COMMAND...`, where COMMAND is one of pytest.

`.ci/run` plays some 30,000 tests on machines that stop for moments. If each fails once in a million times for that, one
run in thirty is refused for a change that is innocent. CPython's buildbots have the same answer (`regrtest --rerun`).

The rule is narrow. More than MOST failures are the change's. So is anything that ends pytest otherwise: a crash, a test
that hangs, an error while tests are collected. Each test that failed then has to pass TIMES times, without the others.
What passed so is named here and at the end of `.ci/run`: it is a fault, of the test or of the package, that is still to
be mended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 2
TIMES = 10
FORGIVEN = ROOT / "build" / "failed-by-chance"
SOME_FAILED = 1  # pytest's exit codes; 2 to 5 are errors


def run(command: Sequence[str], tree: Path, environment: Mapping[str, str] = os.environ) -> int:
    """The exit status of the command, or 0 if it failed by chance. `tree` is pytest's root folder."""
    cache = f"build/again-{os.getpid()}"
    command = [*command, "-o", f"cache_dir={cache}"]
    last_failed = tree / cache / "v" / "cache" / "lastfailed"
    # A run that does not come to its end writes none, so one of an earlier process with this number must not be read.
    last_failed.unlink(missing_ok=True)
    status = subprocess.run(command, env=environment, check=False).returncode
    if status != SOME_FAILED or not last_failed.exists():
        return status
    failed = last_failed.read_text()
    names = sorted(json.loads(failed))
    if len(names) > MOST:
        return status
    print(f"\nThese may have failed by chance, and have to pass {TIMES} times now: {', '.join(names)}", flush=True)
    for _ in range(TIMES):
        # A run that passes empties it.
        last_failed.write_text(failed)
        if subprocess.run([*command, "--last-failed"], env=environment, check=False).returncode:
            return status
    FORGIVEN.parent.mkdir(exist_ok=True)
    with FORGIVEN.open("a") as file:
        file.writelines(f"{name}\n" for name in names)
    print(f"\n!!!! failed by chance, and to be mended: {', '.join(names)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], ROOT))
