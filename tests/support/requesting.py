"""Tests of `request()`: tasks that ask for a line, how they end, and what the connection is good for then."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from pepperpy.network import ClosedError, ConnectionLostError, NetworkClient
from support.servers import Peer


async def line(client: NetworkClient) -> bytes:
    return await client.receive_until(b"\n")


def asked(client: NetworkClient, text: bytes = b"q\n", **options: Any) -> asyncio.Task[bytes]:
    return asyncio.create_task(client.request(text, line, **options))


async def outcome(task: asyncio.Task[Any]) -> BaseException | None:
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def still_usable(peer: Peer, client: NetworkClient) -> None:
    """The next request is the next thing the peer sees, and gets its own reply."""
    task = asked(client, b"next\n")
    assert await peer.receive(5) == b"next\n"
    await peer.send(b"its reply\n")
    assert await task == b"its reply\n"


async def is_dropped(peer: Peer, client: NetworkClient) -> None:
    assert not client.is_connected
    with pytest.raises((ClosedError, ConnectionLostError), match="dropped after a failed request"):
        await client.request(b"never sent\n", line)
    with contextlib.suppress(ConnectionError):
        await peer.send(b"late reply\n")
    with pytest.raises(ClosedError):
        await client.receive()
