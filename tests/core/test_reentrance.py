"""Python code that runs in the middle of a receive: the end of an object that a receive lets go of."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from support.servers import peer_and_client

from pepperpy.network import ClosedError, NetworkClient, NetworkTimeoutError, UsageError
from pepperpy.network._core.builtin_framers import SeparatorFramer


class ClosesAtItsEnd:
    """The owner of a connection, which is done with it when this object ends."""

    def __init__(self, client: NetworkClient) -> None:
        self.client = client

    def __del__(self) -> None:
        self.client.abort()


class NeverEnough(ClosesAtItsEnd):
    """A codec that finds no message."""

    def encode(self, message: bytes) -> bytes:
        return message

    def decode(self, data: bytes, start: int) -> None:
        return None


@contextlib.asynccontextmanager
async def searched_by_a_codec(size: int) -> Any:
    """A client with `size` bytes on hand, last searched by a codec that closes the client when it ends."""
    async with peer_and_client() as (peer, client):
        messages = client.framed(NeverEnough(client))
        await peer.send(b"x" * size)
        with pytest.raises(NetworkTimeoutError):
            await messages.receive(timeout=0.02)
        with pytest.raises(NetworkTimeoutError):
            # Nobody waits for the codec's message any more.
            await client.receive_exactly(size + 1, timeout=0)
        assert client.stats.bytes_buffered == size
        del messages
        yield client


async def test_a_codec_whose_end_closes_the_connection_ends_a_search_for_a_separator() -> None:
    async with searched_by_a_codec(5000) as client:
        with pytest.raises(ClosedError):
            await client.receive_until(b"\0\1\2")


async def test_a_codec_whose_end_closes_the_connection_ends_a_receive_of_lines() -> None:
    async with searched_by_a_codec(5000) as client:
        with pytest.raises(ClosedError):
            await client.receive_lines()


async def test_a_codec_whose_end_closes_the_connection_ends_the_receive_of_another_codec() -> None:
    async with searched_by_a_codec(5000) as client:
        with pytest.raises(ClosedError):
            await client.framed(NeverEnough(client)).receive_batch()


async def test_a_message_that_nobody_took_may_close_the_connection_when_it_ends() -> None:
    class Meddling(NeverEnough):
        def decode(self, data: bytes, start: int) -> Any:  # type: ignore[override]
            if self.client.stats.bytes_buffered == 5000:
                # Takes what it is asked about, so that its message is refused and left behind.
                assert self.client._receiver.take(1) == b"x"
                return ClosesAtItsEnd(self.client), start + 1
            assert not self.client.is_connected
            return None

    async with peer_and_client() as (peer, client):
        await peer.send(b"x" * 5000)
        messages = client.framed(Meddling(client))
        with pytest.raises(UsageError):
            await messages.receive()
        with pytest.raises((ClosedError, UsageError)):
            await messages.receive()


def test_a_framer_needs_separators_and_each_has_a_byte() -> None:
    with pytest.raises(ValueError, match=r"separators must be one or more, not \(\)"):
        SeparatorFramer(100, (), False, False)
    with pytest.raises(ValueError, match="separators must hold 1 byte or more each"):
        SeparatorFramer(100, (b"\n", b""), False, False)
