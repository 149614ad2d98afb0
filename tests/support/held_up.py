"""A loop that a task holds up for longer than a limit."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

LIMIT_S = 0.05


async def hold_up(meanwhile: Callable[[], object]) -> None:
    """Hold the loop up for longer than the limit, in a read callback: uvloop looks at its timers right after those."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def hog() -> None:
            loop.remove_reader(ours)
            meanwhile()
            time.sleep(2 * LIMIT_S)
            done.set_result(None)

        loop.add_reader(ours, hog)
        theirs.send(b"x")
        await done
