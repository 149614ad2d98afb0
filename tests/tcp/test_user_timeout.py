"""What `user_timeout` does to a peer that takes nothing, and what the error says about it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.cancelling import until
from support.mortal import mortal_and_client, stall
from support.servers import peer_and_client

from pepperpy.network import BufferLimits, ConnectionLostError, Keepalive, NetworkClient, NetworkConfig

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the setting is of Linux")

WORDS = r"the peer answered nothing, or took no data, for user_timeout=0\.05 s; Keepalive\(user_timeout=None\) sp"


async def _stuck(client: NetworkClient) -> None:
    """Send more than the peer, which reads nothing, and this system hold; until the connection is lost."""
    await client.send(bytes(64 << 20))
    await until(lambda: not client.is_connected, "the loss")


@pytest.mark.slow
async def test_the_error_of_a_peer_that_takes_nothing_names_the_setting() -> None:
    async with peer_and_client(
        keepalive=Keepalive(user_timeout=0.05), buffers=BufferLimits(send_high=1 << 30), timeout=None
    ) as (_, client):
        await _stuck(client)
        with pytest.raises(ConnectionLostError, match="connection lost: .*timed out: " + WORDS):
            await client.receive()
        with pytest.raises(ConnectionLostError, match=WORDS):
            await client.wait_connected()
        await client.disconnect()


@pytest.mark.slow
async def test_so_does_that_of_a_disconnect_that_nobody_else_has_been_told_of() -> None:
    async with peer_and_client(
        keepalive=Keepalive(user_timeout=0.05), buffers=BufferLimits(send_high=1 << 30), timeout=None
    ) as (_, client):
        await _stuck(client)
        with pytest.raises(ConnectionLostError, match="accepted bytes unsent: .*timed out: " + WORDS):
            await client.disconnect()


@pytest.mark.slow
async def test_so_does_that_of_a_reconnecting_client() -> None:
    settings = {"keepalive": Keepalive(user_timeout=0.05), "buffers": BufferLimits(send_high=1 << 30)}
    async with mortal_and_client(stall, **settings) as (_, client):
        await _stuck(client)
        with pytest.raises(ConnectionLostError, match=WORDS):
            await client.receive()


@pytest.mark.slow
async def test_none_spares_a_peer_that_takes_its_time() -> None:
    async with peer_and_client(
        keepalive=Keepalive(user_timeout=None), buffers=BufferLimits(send_high=1 << 30), timeout=None
    ) as (peer, client):
        size = 16 << 20
        await client.send(bytes(size))
        # Longer than the one that is lost above.
        await asyncio.sleep(0.4)
        assert client.is_connected
        receiving = asyncio.create_task(peer.receive(size))
        await client.flush()
        assert len(await receiving) == size


def test_where_no_setting_has_decided_the_error_says_what_the_system_says() -> None:
    timed_out = TimeoutError(110, "Connection timed out")
    plain = NetworkConfig("h", 1, keepalive=False)
    assert plain.explained(timed_out) == "[Errno 110] Connection timed out"
    probes = Keepalive(user_timeout=None)
    assert plain.replace(keepalive=probes).explained(timed_out).endswith("neither keepalive probes nor data")
    assert NetworkConfig("h", 1).explained(ConnectionResetError(104, "reset")) == "[Errno 104] reset"
    assert NetworkConfig("h", 1).explained(OSError()) == "OSError"
    assert NetworkConfig(unix_path="/x").explained(timed_out) == "[Errno 110] Connection timed out"
