"""Counts the instructions of fixed workloads and compares them with the committed counts: `make bench-guard`.

    python guard.py [NAME ...]             compare; 1 if a workload grew by more than TOLERANCE
    python guard.py --update [NAME ...]    measure, and write the counts to guard_baseline.json

Unlike times, instructions repeat on a busy machine, to 1 % (measured). The tolerance leaves room for what moves with
the layout of memory. They depend on the interpreter, the compiler and the dependencies, so the counts are kept per
environment; where there are none for this one, they are measured, and the last line says that nothing was compared. Of
what grew, the functions that grew most are shown; Python functions are all the interpreter's one, but compiled ones
have their names.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from guard_workloads import WORKLOADS

HERE = Path(__file__).parent
BASELINE = HERE / "guard_baseline.json"
TOLERANCE = 0.03
SHOWN = 12  # functions


def environment() -> str:
    """What the counts depend on."""
    parts = [f"CPython {platform.python_version()}", platform.machine(), platform.python_compiler()]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in ("aiohttp", "yarl", "multidict")]
    return ", ".join(parts)


def instructions(name: str, count: int) -> Counter[str]:
    """Instructions of a whole process, by function."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"),
                *(sys.executable, str(HERE / "guard_workloads.py"), name, str(count)),
            ],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return self_cost(out.read_text(errors="replace"))


def self_cost(text: str) -> Counter[str]:
    """The cost of each function itself, from callgrind's format (valgrind manual, "Callgrind Format Specification")."""
    names: dict[str, str] = {}
    cost: Counter[str] = Counter()
    function = ""
    of_a_call = False
    for line in text.splitlines():
        if line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            function = names.setdefault(number, name)
        elif line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            names.setdefault(number, name)
        elif line.startswith("calls="):
            of_a_call = True  # the next line is the cost of what is called
        elif re.match(r"[0-9+*-]", line):
            if not of_a_call:
                cost[function] += int(line.split()[1])
            of_a_call = False
    return cost


def measure(name: str) -> Counter[str]:
    """Instructions per operation, by function: the start of the process is in two runs, and cancels out."""
    count = WORKLOADS[name][1]
    once, twice = instructions(name, count), instructions(name, 2 * count)
    twice.subtract(once)
    return Counter({function: round(cost / count) for function, cost in twice.items() if abs(cost) >= count})


def report(name: str, now: Counter[str], before: dict[str, Any]) -> bool:
    """Print the comparison; whether it is within the tolerance."""
    total, old = now.total(), before["instructions"]
    change = total / old - 1
    verdict = "MORE" if change > TOLERANCE else "ok" if change > -TOLERANCE else "less: --update keeps it"
    print(f"{name:16} {total:>9,} instructions each, {old:,} before ({change:+.1%})  {verdict}")
    if abs(change) > TOLERANCE:
        grown = Counter({f: now[f] - before["functions"].get(f, 0) for f in {*now, *before["functions"]}})
        for function, difference in sorted(grown.items(), key=lambda item: -abs(item[1]))[:SHOWN]:
            print(f"    {difference:+9,}  {function}")
    return change <= TOLERANCE


def main(arguments: list[str]) -> int:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed; `make bench-guard` installs it", file=sys.stderr)
        return 2
    update = "--update" in arguments
    names = [name for name in arguments if name != "--update"] or list(WORKLOADS)
    if unknown := set(names) - set(WORKLOADS):
        print(f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}", file=sys.stderr)
        return 2
    baselines = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    mine = baselines.setdefault(environment(), {})
    print(environment())
    within, compared = True, 0
    for name in names:
        now = measure(name)
        if update or name not in mine:
            print(
                f"{name:16} {now.total():>9,} instructions each" + ("" if update else "  (no counts to compare with)")
            )
            if update:
                mine[name] = {"instructions": now.total(), "functions": dict(now.most_common(60))}
        else:
            within = report(name, now, mine[name]) and within
            compared += 1
    if not update and compared < len(names):
        print(
            f"{len(names) - compared} of {len(names)} were not compared: no counts for this environment; see --update"
        )
    if update:
        BASELINE.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
