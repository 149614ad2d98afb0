"""`NetworkConfig.wire_log`: what goes over a connection, line by line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from support.cancelling import arrived
from support.log_lines import Lines, written_to
from support.servers import client_of, echo_server, peer_and_client
from support.tls_peer import TRANSPORTS, tls_peer_and_client, use_transport

from pepperpy.network import NetworkConfig, NetworkPool
from pepperpy.network.wire_log import MAX_LINE

LOG = logging.getLogger("test.wire")


@pytest.fixture
def lines() -> Iterator[Lines]:
    with written_to(LOG) as seen:
        yield seen


def pieces(lines: Lines) -> list[str]:
    """Without number and place."""
    return [line.split(" ", 2)[2] for line in lines.lines]


async def test_what_is_sent_and_received_is_written_with_its_place_and_size(lines: Lines) -> None:
    async with peer_and_client(wire_log=LOG) as (peer, client):
        await client.send(b"PING\r\n")
        await client.send_many([b"a", b"bc"])
        assert await peer.receive(9) == b"PING\r\nabc"
        await peer.send(b"+PONG\r\n")
        assert await client.receive_line() == b"+PONG\r\n"
        host, port = client.remote_address
    assert pieces(lines) == [
        r"> 6 bytes: PING\r\n", "> 1 bytes: a", "> 2 bytes: bc", r"< 7 bytes: +PONG\r\n"
    ]  # fmt: skip
    (number,) = {line.split(" ")[0] for line in lines.lines}
    assert number[0] == "#" and {line.split(" ")[1] for line in lines.lines} == {f"{host}:{port}"}


async def test_connections_are_told_apart_by_their_numbers(lines: Lines) -> None:
    async with echo_server() as port:
        for _ in range(2):
            async with client_of(port, wire_log=LOG) as client:
                await client.send(b"x")
                await client.receive()
    assert len({line.split(" ")[0] for line in lines.lines}) == 2


async def test_bytes_that_are_no_text_are_escaped_and_long_pieces_are_cut(lines: Lines) -> None:
    async with peer_and_client(wire_log=LOG) as (peer, client):
        await client.send(b"\x1b[31m\xff\0")
        await peer.send(b"y" * 4000)
        await arrived(client, 4000)
    sent, *received = pieces(lines)
    assert sent == r"> 7 bytes: \x1b[31m\xff\x00"
    assert sum(int(piece.split(" ")[1]) for piece in received) == 4000
    text = received[0].partition(": ")[2]
    assert len(text) <= MAX_LINE and text.startswith("yyy")
    assert all(line.isprintable() for line in lines.lines)


async def test_a_large_receive_that_lands_in_its_own_memory_is_written(lines: Lines) -> None:
    size = 1 << 20
    async with peer_and_client(wire_log=LOG) as (peer, client):
        sending = asyncio.create_task(peer.send(b"z" * size))
        assert await client.receive_exactly(size) == b"z" * size
        await sending
    assert sum(int(piece.split(" ")[1]) for piece in pieces(lines)) == size
    assert all(piece.partition(": ")[2].strip(".") == "z" * 497 for piece in pieces(lines) if len(piece) > 600)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_over_tls_it_is_in_clear_text(transport: str, monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    use_transport(monkeypatch, transport)
    async with tls_peer_and_client(wire_log=LOG, server_hostname="localhost") as (peer, client):
        await client.send(b"question")
        assert await peer.receive(8) == b"question"
        await peer.send(b"answer")
        assert await client.receive() == b"answer"
    assert pieces(lines) == ["> 8 bytes: question", "< 6 bytes: answer"]


async def test_the_connections_of_a_pool_are_written_too(lines: Lines) -> None:
    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port, wire_log=LOG)) as pool:
        for _ in range(2):
            async with pool.acquire() as client:
                await client.send(b"x")
                await client.receive()
    assert pieces(lines) == ["> 1 bytes: x", "< 1 bytes: x"] * 2


async def test_what_was_accepted_leaves_although_ctrl_c_interrupts_the_log() -> None:
    class Interrupted(logging.LoggerAdapter[logging.Logger]):
        def isEnabledFor(self, level: int) -> bool:
            raise KeyboardInterrupt

    async with peer_and_client(wire_log=Interrupted(LOG, {})) as (peer, client):
        with pytest.raises(KeyboardInterrupt):
            await client.send(b"a")
        with pytest.raises(KeyboardInterrupt):
            await client.send_many([b"b", b"c"])
        assert await peer.receive(3) == b"abc"
        assert client.stats.bytes_sent == 3


async def test_a_log_that_is_off_or_raises_changes_nothing(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(logging.LoggerAdapter[logging.Logger]):
        def debug(self, *arguments: object, **options: object) -> None:
            raise ValueError("broken")

    class BrokenSooner(logging.LoggerAdapter[logging.Logger]):
        def isEnabledFor(self, level: int) -> bool:
            raise ValueError("broken sooner")

    async with echo_server() as port:
        for kind in (Broken, BrokenSooner):
            async with client_of(port, wire_log=kind(LOG, {})) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"
        LOG.setLevel(logging.INFO)
        async with client_of(port, wire_log=LOG) as client:
            await client.send(b"x")
            assert await client.receive() == b"x"
    assert lines.lines == []
    assert caplog.text.count("the wire log has raised") == 4


def test_what_is_no_logger_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"wire_log must be a .*Logger.* or None, not True"):
        NetworkConfig("h", 1, wire_log=True)  # type: ignore[arg-type]
    assert NetworkConfig("h", 1, wire_log=LOG).bare.wire_log is LOG
