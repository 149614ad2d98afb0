"""Gives the event loop some more turns between the end of a time limit and its error, to read what came in time.

A task that computes for longer than a limit delays both the limit's timer and the reading. Afterwards uvloop looks at
its timers first, so a reply that waits in the kernel would count as missing. asyncio reads first, but at most 256 KiB,
and the task that waits for the reply runs some turns later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# A turn reads 256 KiB of a connection or more (asyncio's selector_events.py, and this package's scratch). By default, a
# Linux kernel holds at most 6 MiB of one (tcp(7), tcp_rmem). All 24 turns take 50 us on an idle loop (measured).
LAST_TURNS = 24


def after_last_turns(
    loop: asyncio.AbstractEventLoop, is_over: Callable[[], bool], fail: Callable[[], object], turns: int = LAST_TURNS
) -> None:
    """Call `fail()` after so many turns, unless `is_over()` is true in one of them: then the wait has ended."""
    if is_over():
        return
    if turns:
        loop.call_soon(after_last_turns, loop, is_over, fail, turns - 1)
    else:
        fail()
