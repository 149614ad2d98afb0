"""Each allocation of a proxy's answer over TLS, and of the end of its connection, fails once: who asked is told."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.allocations import IMPOSSIBLE_WITH_FUNCTIONS, MOST, Starved, Wire, turns

from pepperpy.network import ProxyError
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.tcp import tls_tunnel

pytestmark = pytest.mark.skipif(IMPOSSIBLE_WITH_FUNCTIONS is not None, reason=str(IMPOSSIBLE_WITH_FUNCTIONS))

ANSWER = b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("callback", "argument"),
    [
        ("data_received", ANSWER + b"\r\n\r\nhello"),
        ("connection_lost", ConnectionResetError("reset")),
        ("connection_lost", None),
    ],
    ids=["answered", "lost", "hung up"],
)
async def test_who_asked_the_proxy_is_told_whatever_allocation_fails(callback: str, argument: object) -> None:
    for number in range(MOST):
        dialogue, wire = tls_tunnel._Dialogue(read_proxy("https://proxy"), "proxy"), Wire()
        wire.connect(dialogue)
        asking = asyncio.create_task(dialogue.ask(wire, b"CONNECT"))
        await turns()
        try:
            Starved(0, number)(getattr(dialogue, callback), argument)
        except MemoryError:
            # What a loop does with a protocol that raises; the end of its connection is told once.
            if callback == "data_received":
                dialogue.connection_lost(None)
        _, asleep = await asyncio.wait([asking], timeout=5)
        for task in asleep:
            task.cancel()
        assert not asleep, "it waits for ever"
        with contextlib.suppress(ProxyError, MemoryError):
            assert asking.result() == ANSWER
            assert dialogue.rest == b"hello"
