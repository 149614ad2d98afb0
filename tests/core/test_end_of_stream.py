"""The end of the peer's stream: `at_eof`, `is_connected`, and receiving and sending on at it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.ended_streams import client_over, ended, last_words
from support.servers import peer_and_client
from support.tls_peer import TRANSPORTS, use_transport

from pepperpy.network import ConnectionLostError, IncompleteReadError, LengthPrefixed, NetworkClient, NetworkConfig


@pytest.fixture(params=["tcp", "unix", *TRANSPORTS])
def over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Over what the client connects: TCP, a Unix socket, or TLS by one of its implementations."""
    if request.param in TRANSPORTS:
        use_transport(monkeypatch, request.param)
    return str(request.param)


# ---- at_eof and is_connected ----


async def test_at_eof_is_true_once_the_peer_has_ended_and_every_byte_is_taken(over: str, tmp_path: Path) -> None:
    async with client_over(over, tmp_path, last_words(b"one\ntwo")) as client:
        assert (client.at_eof, client.is_connected) == (False, True)
        await ended(client)
        await asyncio.sleep(0.01)  # over TLS the loop closes the connection then
        assert (client.at_eof, client.is_connected) == (False, True)
        assert await client.receive_line() == b"one\n"
        assert (client.at_eof, client.is_connected) == (False, True)
        assert await client.receive_line() == b"two"
        assert (client.at_eof, client.is_connected) == (True, False)
        assert await client.receive_line() == b""
        assert (client.at_eof, client.is_connected) == (True, False)


async def test_an_idle_connection_tells_by_itself(over: str, tmp_path: Path) -> None:
    async with client_over(over, tmp_path, last_words(b"")) as client:
        await until(lambda: client.at_eof, "the end of the stream has come")
        assert not client.is_connected


async def test_a_loop_over_is_connected_loses_no_line_and_ends(over: str, tmp_path: Path) -> None:
    lines = [b"%d\n" % number for number in range(1000)] + [b"unfinished"]
    async with client_over(over, tmp_path, last_words(b"".join(lines))) as client:
        got = []
        while client.is_connected:
            got.append(await client.receive_line())
            if len(got) == 500:
                await ended(client)
        assert got == lines


async def test_a_client_without_a_connection_is_at_no_end() -> None:
    client = NetworkClient(NetworkConfig("localhost", 1))
    assert not client.at_eof
    async with peer_and_client() as (peer, client):
        peer.reset()
        with pytest.raises(ConnectionLostError):
            await client.receive()
        assert (client.at_eof, client.is_connected) == (False, False)


async def test_the_part_of_a_message_counts_until_it_is_handed_over() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"\0\0\0\x10half")
        peer.send_eof()
        await ended(client)
        assert (client.at_eof, client.is_connected) == (False, True)
        with pytest.raises(IncompleteReadError):
            await client.framed(LengthPrefixed(4)).receive()
        assert (client.at_eof, client.is_connected) == (True, False)


async def test_a_send_that_told_of_the_loss_ends_the_connection_before_all_is_taken(tmp_path: Path) -> None:
    async with client_over("the loop's", tmp_path, last_words(b"last words")) as client:
        await ended(client)
        assert client.is_connected
        with pytest.raises(ConnectionLostError, match="ended the TLS connection"):
            await client.send(b"too late")
        assert not client.is_connected
        assert await client.receive() == b"last words"
        await client.connect()
        assert await client.receive() == b"last words"
        assert client.stats.connects == 2


# ---- Receiving on ----


RECEIVES: dict[str, Callable[[NetworkClient], Awaitable[Any]]] = {
    "receive": lambda client: client.receive(),
    "receive_into": lambda client: client.receive_into(bytearray(10)),
    "receive_exactly": lambda client: client.receive_exactly(1_000_000),
    "receive_until": lambda client: client.receive_until(b";", timeout=0),
    "receive_line": lambda client: client.receive_line(),
    "receive_lines": lambda client: client.receive_lines(timeout=0),
    "framed": lambda client: client.framed(LengthPrefixed(4)).receive(),
    "framed batch": lambda client: client.framed(LengthPrefixed(4)).receive_batch(),
}


@pytest.mark.parametrize("name", RECEIVES)
async def test_receiving_at_the_end_again_and_again_lets_the_loop_run(name: str) -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        turns, counting = 0, True

        def count() -> None:
            nonlocal turns
            turns += 1
            if counting:
                asyncio.get_running_loop().call_soon(count)

        outcomes = []
        count()
        for _ in range(6):
            try:
                outcomes.append(await RECEIVES[name](client))
            except IncompleteReadError as error:
                outcomes.append(error.partial)
        # The first one waited for the end itself.
        assert turns >= 5
        assert len(set(map(str, outcomes))) == 1 and not outcomes[0]
        counting = False


async def test_a_loop_that_ignores_the_end_can_be_timed_out_and_loses_nothing_by_it(over: str, tmp_path: Path) -> None:
    async with client_over(over, tmp_path, last_words(b"line\n")) as client:
        lines = []
        await ended(client)

        async def spin() -> None:
            while True:
                if line := await client.receive_line():
                    lines.append(line)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await spin()
        assert lines == [b"line\n"]
        assert await client.receive_line() == b""


# ---- Sending on ----


async def test_a_half_closed_plain_connection_can_still_be_sent_on() -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        assert await client.receive() == b""
        assert not client.is_connected
        await client.send(b"x" * 3_000_000)
        flushing = asyncio.create_task(client.flush())
        assert await peer.receive(3_000_000) == b"x" * 3_000_000
        await flushing
        await client.send_eof()
        assert await peer.receive_all() == b""
