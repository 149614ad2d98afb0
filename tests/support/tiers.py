"""How much the tests do: in seconds, in a short form, every day, at night, under the sanitizers. Nothing else says so.

Everyday (`make test`, `.ci/run`): minutes for the whole suite, and the same games each time.
Nightly (`NIGHTLY=1`, as `make nightly` sets it): the long forms, with games that nobody has played before.
Short (`SHORT=1`, as `make wheels` sets it for the newest CPython): each test function runs with its first parameters,
on each loop; a third of all. It is for what differs by the build, the interpreter or the folder: another CPython, an
installed wheel. What a parameter changes is Python and C code that the full run has seen on CPython 3.11.
Fast (`FAST=1`, as `make fast` sets it, and `make wheels` for the other CPythons): under 20 seconds on an idle machine.
Each test function runs once, with its first parameters and on one of the two loops (conftest.py). `make wheels` runs it
with eager tasks on one CPython (`LOOPS=asyncio-eager`, loops.py). Left out are:

    @pytest.mark.slow                         more than 0.1 s, even so
    @pytest.mark.needs_server                 starts a program of others; fixtures that do so mark their tests

A test has three ways to say what it does at night:

    max_examples=by_tier(60, nightly=3000)    a number for each tier; hypothesis needs nothing else: a profile
                                              says whether the games are the same each time (conftest.py)
    if NIGHTLY: ...                           anything else that depends on the tier
    @pytest.mark.nightly                      a test that runs at night only; elsewhere it is deselected

Each test has a time limit: `timeout` in pyproject.toml every day, `NIGHTLY_LIMIT` at night, or what its own
`@pytest.mark.timeout(seconds)` says.

The sanitizers (`make sanitize`) make everything slower, some things 20 times. A test that compares what it measures
with a clock, or counts memory that the sanitizers use themselves, is left out there:

    @pytest.mark.time_bound("why")            deselected by `make sanitize`
"""

from __future__ import annotations

import os

FAST = os.environ.get("FAST", "0") not in ("", "0")
FAST_EXAMPLES = 10
SHORT = os.environ.get("SHORT", "0") not in ("", "0")
NIGHTLY = os.environ.get("NIGHTLY", "0") not in ("", "0")
# Seconds for one test at night.
NIGHTLY_LIMIT = 3600


def by_tier(everyday: int, *, nightly: int) -> int:
    """The number that fits this run."""
    return nightly if NIGHTLY else min(everyday, FAST_EXAMPLES) if FAST or SHORT else everyday
