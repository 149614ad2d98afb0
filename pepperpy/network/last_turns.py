"""The turns of the event loop between the end of a time limit and the verdict that nothing came in time.

A task that computes for longer than a limit holds up the timer of that limit and the reading alike. Afterwards uvloop
looks at its timers first, and a reply that lies in the kernel would count as none. asyncio reads first, but 256 KiB at
most, and who waits for the reply runs some turns later. So what is due gets a few more turns, and fails after those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# A turn reads 256 KiB of a connection or more (asyncio's selector_events.py, and the scratch of our own), and a Linux
# kernel holds 6 MiB of one at most, by default (tcp(7), tcp_rmem). All of them take 50 us on an idle loop (measured).
LAST_TURNS = 24


def after_last_turns(
    loop: asyncio.AbstractEventLoop, is_over: Callable[[], bool], fail: Callable[[], object], turns: int = LAST_TURNS
) -> None:
    """Call `fail()` after the last turns, unless `is_over()` says in one of them that nobody waits any more."""
    if is_over():
        return
    if turns:
        loop.call_soon(after_last_turns, loop, is_over, fail, turns - 1)
    else:
        fail()
