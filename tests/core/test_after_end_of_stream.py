"""After the end of the peer's stream: connecting again, and what is told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.ended_streams import client_over, ended, last_words
from support.mortal import mortal_server
from support.servers import TOO_MUCH, peer_and_client
from support.tls_peer import TRANSPORTS, use_transport

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    DecodeError,
    Heartbeat,
    JSONLines,
    LengthPrefixed,
    NetworkClient,
    NetworkConfig,
    ProtocolError,
    UsageError,
)
from pepperpy.network.testing import memory_pair


@pytest.fixture(params=["tcp", "unix", *TRANSPORTS])
def over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Over what the client connects: TCP, a Unix socket, or TLS by one of its implementations."""
    if request.param in TRANSPORTS:
        use_transport(monkeypatch, request.param)
    return str(request.param)


# ---- Connecting again ----


@pytest.mark.slow
async def test_connect_makes_a_new_connection_at_the_end_of_the_stream(over: str, tmp_path: Path) -> None:
    async with client_over(over, tmp_path, last_words(b"hello\n")) as client:
        for number in range(1, 4):
            assert await client.receive_line() == b"hello\n"
            assert await client.receive_line() == b""
            await client.connect()
            assert client.stats.connects == number + 1
        assert await client.receive_line() == b"hello\n"


async def test_after_the_news_of_the_end_requests_go_on_in_a_new_connection() -> None:
    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.readline())

    async def echo(client: NetworkClient) -> bytes:
        return await client.request(b"line\n", NetworkClient.receive_line)

    async with mortal_server(one_each) as server:
        async with NetworkClient(NetworkConfig("127.0.0.1", server.port, timeout=10)) as client:
            for _ in range(3):
                assert await echo(client) == b"got line\n"
                await until(lambda: client.at_eof, "the server has hung up")
                with pytest.raises(ConnectionLostError, match="ended its stream"):
                    await echo(client)
                await client.connect()
            assert await echo(client) == b"got line\n"


async def test_a_pipeline_ends_with_the_stream_and_the_next_connection_has_its_own() -> None:
    async with mortal_server(last_words(b"")) as server:
        async with NetworkClient(NetworkConfig("127.0.0.1", server.port, timeout=10)) as client:
            for number in range(1, 3):
                async with client.pipeline(LengthPrefixed(4)) as pipeline:
                    with pytest.raises(ConnectionLostError, match="ended its stream"):
                        await pipeline.wait_ended()
                assert not client.is_connected
                await client.connect()
                assert client.stats.connects == number + 1
            assert await client.receive() == b""


async def test_connect_refuses_while_received_bytes_are_not_taken(over: str, tmp_path: Path) -> None:
    async with client_over(over, tmp_path, last_words(b"last words")) as client:
        await ended(client)
        for _ in range(2):
            with pytest.raises(UsageError, match="10 received bytes were not taken; receive") as caught:
                await client.connect()
        assert (caught.value.details["unread"], caught.value.details["unsent"]) == (10, 0)
        assert await client.receive(5) == b"last "
        with pytest.raises(UsageError, match="5 received bytes"):
            await client.connect()
        assert await client.receive() == b"words"
        await client.connect()
        assert await client.receive() == b"last words"


async def test_connect_refuses_while_accepted_bytes_have_not_left() -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        await client.send(TOO_MUCH)
        assert await client.receive() == b""
        queued = client.stats.bytes_queued
        with pytest.raises(UsageError, match=f"{queued} accepted bytes have not left") as caught:
            await client.connect()
        assert caught.value.details["unsent"] == queued
        assert await peer.receive(len(TOO_MUCH)) == TOO_MUCH


async def test_abort_drops_what_connect_refused_to_drop(over: str, tmp_path: Path) -> None:
    async with client_over(over, tmp_path, last_words(b"last words")) as client:
        await ended(client)
        with pytest.raises(UsageError):
            await client.connect()
        client.abort()
        await client.connect()
        assert await client.receive() == b"last words"


async def test_connect_closes_the_old_connection_in_order_and_first() -> None:
    ends: list[Any] = []
    serving = asyncio.Lock()

    async def one_at_a_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert not serving.locked()
        async with serving:
            writer.write_eof()
            try:
                ends.append(await reader.read())
            except ConnectionError as error:
                ends.append(error)

    async with mortal_server(one_at_a_time) as server:
        async with NetworkClient(NetworkConfig("127.0.0.1", server.port, timeout=10)) as client:
            assert await client.receive() == b""
            await client.send(b"accepted")
            await client.connect()
            assert await client.receive() == b""
            assert ends == [b"accepted"]


async def test_a_failed_connect_at_the_end_of_the_stream_leaves_a_closed_client() -> None:
    async with peer_and_client(retries=0) as (peer, client):
        # The listener of this peer is closed.
        peer.send_eof()
        assert await client.receive() == b""
        with pytest.raises(ConnectionError):
            await client.connect()
        assert not client.is_connected
        with pytest.raises(ClosedError):
            await client.receive()


# ---- Who watches ----


async def test_on_state_tells_of_the_end_when_the_last_byte_is_taken() -> None:
    states: list[str] = []

    def note(client: NetworkClient, state: str) -> None:
        states.append(state)

    async with mortal_server(last_words(b'"good"\nbad\n')) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, on_state=note)
        async with NetworkClient(config) as client:
            await ended(client)
            frames = client.framed(JSONLines())
            assert await frames.receive() == "good"
            await asyncio.sleep(0)
            assert states == ["connecting", "connected"]
            with pytest.raises(DecodeError):
                await frames.receive()
            assert client.at_eof
            await asyncio.sleep(0)
            assert states == ["connecting", "connected", "lost"]
            assert await frames.receive() is None
            with pytest.raises(ConnectionLostError, match="ended its stream"):
                await client.wait_connected()
            await client.connect()
            assert await frames.receive() == "good"
    await asyncio.sleep(0)
    assert states == ["connecting", "connected", "lost", "connecting", "connected", "closed"]


async def test_on_state_waits_for_the_last_byte(over: str, tmp_path: Path) -> None:
    states: list[str] = []

    def note(client: NetworkClient, state: str) -> None:
        states.append(state)

    async with client_over(over, tmp_path, last_words(b"last words"), on_state=note) as client:
        await ended(client)
        await asyncio.sleep(0.01)  # over TLS the loop closes the connection then
        assert states == ["connecting", "connected"]
        assert await client.receive() == b"last words"
        await asyncio.sleep(0)
        assert states == ["connecting", "connected", "lost"]
        await client.connect()
        assert await client.receive() == b"last words"


async def test_on_state_tells_of_the_end_of_an_idle_connection_once(over: str, tmp_path: Path) -> None:
    states: list[str] = []

    def note(client: NetworkClient, state: str) -> None:
        states.append(state)

    async with client_over(over, tmp_path, last_words(b""), on_state=note) as client:
        await until(lambda: "lost" in states, "the end is told")
        assert client.at_eof
        await client.disconnect()
        await asyncio.sleep(0)
    assert states == ["connecting", "connected", "lost", "closed"]


async def test_a_heartbeat_ends_with_the_peers_stream_and_leaves_the_sending_side() -> None:
    beats = 0

    async def beat(connection: NetworkClient) -> None:
        nonlocal beats
        beats += 1

    # Nobody answers one that comes before the end, on a machine that is slow: so a heartbeat may take its time.
    async with peer_and_client(heartbeat=Heartbeat(beat, interval=0.02, timeout=60)) as (peer, client):
        await peer.send(b"unread")
        peer.send_eof()
        await ended(client)
        for _ in range(3):
            await asyncio.sleep(0)  # one that was due before the end begins now
        before = beats
        # Five times the interval: a heartbeat would have come.
        await asyncio.sleep(0.1)
        assert beats == before
        assert await client.receive() == b"unread"
        await client.send(b"still here")
        assert await peer.receive(10) == b"still here"


async def test_a_client_that_reconnects_takes_the_end_for_a_loss() -> None:
    async with mortal_server(last_words(b"line\n")) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, reconnect=True, retry_delay=0.01)
        async with NetworkClient(config) as client:
            for _ in range(2):
                assert await client.receive_line() == b"line\n"
                with pytest.raises(ConnectionLostError, match="ended its stream"):
                    await client.receive_line()
                assert not client.at_eof


async def test_a_request_at_the_end_with_bytes_on_hand_leaves_a_client_that_can_connect() -> None:
    async with mortal_server(last_words(b"bye\n")) as server:
        async with NetworkClient(NetworkConfig("127.0.0.1", server.port, timeout=10)) as client:
            await ended(client)
            with pytest.raises(ProtocolError, match="4 bytes"):
                await client.request(b"x\n", NetworkClient.receive_line)
            await client.connect()
            assert await client.receive_line() == b"bye\n"


async def test_a_pair_in_memory_ends_as_a_connection_does() -> None:
    async with memory_pair() as (a, b):
        await b.send(b"last line")
        await b.disconnect()
        got = []
        while a.is_connected:
            got.append(await a.receive_line())
        assert (got, a.at_eof) == ([b"last line"], True)
        await asyncio.gather(a.connect(), b.connect())
        await b.send(b"again\n")
        assert await a.receive_line() == b"again\n"
