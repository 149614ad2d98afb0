"""Each allocation at the end of the wait for a socket fails once: the loop looks again, and the wait ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, Starved

from pepperpy.network.tcp import connect

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))


@pytest.mark.parametrize("wait", [connect.readable, connect._writable])
async def test_a_wait_for_a_socket_ends_whatever_allocation_fails(wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    set_done = connect._set_done
    for number in range(10):
        starved = Starved(0, number)
        monkeypatch.setattr(connect, "_set_done", lambda *arguments, starved=starved: starved(set_done, *arguments))
        one, other = socket.socketpair()
        with contextlib.closing(one), contextlib.closing(other):
            one.setblocking(False)
            other.send(b"x")
            async with asyncio.timeout(5):
                await wait(loop, one)
