"""Spoiled answers by the thousand: each is an answer or an error of this package, and no rest reaches the next request.

NIGHTLY=1 plays ten times as many. The number of one that fails is its seed: `spoiled(number)` makes it again.
"""

from __future__ import annotations

import pytest
from support.http_bare import play_bare
from support.http_lab import TRANSPORTS, Seen, lab
from support.http_spoiled import spoiled
from support.tiers import NIGHTLY, by_tier

COUNT = by_tier(500, nightly=5000)


def fault_of(seen: Seen, alone: Seen) -> str:
    """What may never be; `alone` is what httptools alone made of the same bytes."""
    if seen.raw:
        return f"raw {seen.raw}"
    if seen.hung:
        return "hangs"
    if seen.unanswered:
        return f"the next request: {seen.unanswered}"
    if seen.reused and seen.kinds:
        return "the connection was used again after an error"
    if seen.reused and alone.left:
        return "the connection was used again with bytes behind the answer"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(by_tier(120, nightly=1800))
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_spoiled_answer_harms_nobody(transport: str, loop_name: str) -> None:
    found = []
    async with lab(transport, max_connections=2) as laboratory:
        for number in range(COUNT if NIGHTLY or loop_name == "uvloop" else COUNT // 4):  # asyncio's debug mode is slow
            behaviour, cuts = spoiled(number)
            if fault := fault_of(await laboratory.play(behaviour, cuts), play_bare(behaviour, cuts)):
                found.append(f"{number}: {fault}: {behaviour.sent[:300]!r} cut at {cuts}, then {behaviour.then}")
    assert not found, "\n".join(found)
