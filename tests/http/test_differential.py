"""What servers do, played through each transport and the parser alone: the same comes of it, or one list says why not.

`support/behaviours` has what servers do and what is right; `support/http_differences.py` the list.
"""

from __future__ import annotations

import zlib

import pytest
from support.behaviours import ALL, SUBJECTS
from support.behaviours.model import Behaviour
from support.http_bare import play_bare
from support.http_differences import DIFFERENCES, disagreement, fits, hangs
from support.http_lab import LIMIT, TRANSPORTS, cuts_of, lab
from support.tiers import NIGHTLY

# httptools decompresses nothing and has no limit.
PARSED = [subject for subject in SUBJECTS if subject not in ("encodings", "limits")]
# A stream that hangs is one for which nothing comes in this time.
HANGING = 0.3


def plays(behaviour: Behaviour, loop_name: str) -> list[tuple[int, ...]]:
    """How a behaviour is cut. Every day: whole and in two pieces; on the slow loop half of them, once."""
    cuts = list(cuts_of(behaviour, every=NIGHTLY, salt=loop_name))
    if NIGHTLY or loop_name == "uvloop":
        return cuts
    number = zlib.crc32(behaviour.name.encode())
    return [cuts[number // 2 % len(cuts)]] if number % 2 else []


def test_there_are_many_behaviours_and_each_has_a_name_of_its_own() -> None:
    assert len(ALL) == sum(map(len, SUBJECTS.values())) >= 1300


@pytest.mark.slow
@pytest.mark.parametrize("who", DIFFERENCES)
def test_each_line_of_the_list_is_about_something(who: str) -> None:
    for line in DIFFERENCES[who]:
        for name in line.names:
            assert name.startswith("made: ") or any(fits(name, one) for one in ALL), name


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_transport_makes_of_it_what_is_right(transport: str, subject: str, loop_name: str) -> None:
    found = []
    async with lab(transport) as laboratory:
        for behaviour in SUBJECTS[subject]:
            waits = hangs(transport, behaviour)
            if waits and not NIGHTLY:
                continue
            for cuts in plays(behaviour, loop_name)[: 8 if waits else None]:
                seen = await laboratory.play(behaviour, cuts, limit=HANGING if waits else LIMIT)
                found.append(disagreement(transport, behaviour, cuts, seen.verdict(behaviour)))
    assert not any(found), "\n".join(filter(None, found))


@pytest.mark.parametrize("subject", PARSED)
def test_the_parser_alone_makes_of_it_what_is_right(subject: str) -> None:
    found = []
    for behaviour in SUBJECTS[subject]:
        for cuts in cuts_of(behaviour, every=NIGHTLY):
            verdict = play_bare(behaviour, cuts).verdict(behaviour)
            found.append(disagreement("httptools", behaviour, cuts, verdict))
    assert not any(found), "\n".join(filter(None, found))
