"""TLS of the TCP client: moving bytes and ending, over the loops' own transports and over aiofastnet's."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

import pytest
from support.cancelling import until
from support.servers import TOO_MUCH, peer_and_client
from support.tls_peer import TRANSPORTS, UPGRADED, TLSPeer, tls_peer_and_client, use_transport

from pepperpy.network import (
    BufferLimits,
    ClosedError,
    ConnectionLostError,
    NetworkClient,
    NetworkTimeoutError,
    UsageError,
)


@pytest.fixture(params=[*TRANSPORTS, UPGRADED], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    return str(request.param)


async def test_bytes_go_both_ways_and_the_connection_says_what_was_agreed_on() -> None:
    async with tls_peer_and_client() as (peer, client):
        assert client.tls is not None
        assert client.tls.version == "TLSv1.3"
        assert client.tls.cipher == peer.tls.cipher()[0]
        assert client.tls.alpn is None
        assert client.local_address == peer.sock.getpeername()
        await client.send(b"ping\n")
        assert await peer.receive(5) == b"ping\n"
        await peer.send(b"pong\nrest")
        assert await client.receive_line() == b"pong\n"
        assert await client.receive() == b"rest"
    assert client.tls is None


async def test_a_plain_connection_has_no_tls() -> None:
    async with peer_and_client() as (_, client):
        assert client.tls is None


@pytest.mark.parametrize("size", [1, 16_384, 300_000, 2_000_000])
async def test_exact_receives_of_any_size_leave_what_follows(size: int) -> None:
    pattern = bytes(range(251)) * (size // 251 + 1)
    data = pattern[:size]
    async with tls_peer_and_client() as (peer, client):
        sending = asyncio.create_task(peer.send(b"a" + data + b"rest" + data))
        assert await client.receive_exactly(1) == b"a"
        assert await client.receive_exactly(size) == data
        assert await client.receive_exactly(4) == b"rest"
        assert await client.receive_exactly(size) == data
        await sending


async def test_a_large_exact_receive_that_times_out_keeps_its_bytes() -> None:
    async with tls_peer_and_client() as (peer, client):
        await peer.send(b"x" * 1000)
        with pytest.raises(NetworkTimeoutError):
            await client.receive_exactly(1 << 20, timeout=0.05)
        await peer.send(b"y" * 10)
        assert await client.receive_exactly(1010) == b"x" * 1000 + b"y" * 10


async def test_messages_leave_in_order_and_whole_whatever_their_size() -> None:
    messages = [
        bytes([65 + number % 26]) * size for number, size in enumerate((1, 100_000, 3, 1_000_000, 70_000, 10) * 3)
    ]
    async with tls_peer_and_client() as (peer, client):
        receiving = asyncio.create_task(peer.receive(sum(map(len, messages))))
        for message in messages:
            await client.send(message)
        assert await receiving == b"".join(messages)
        await client.flush()
        assert client.stats.bytes_queued == 0


async def test_a_peer_that_reads_nothing_holds_senders_back_until_it_does() -> None:
    async with tls_peer_and_client(buffers=BufferLimits(send_high=1000, send_low=0)) as (peer, client):
        sent = 0
        with pytest.raises(NetworkTimeoutError):
            while True:
                await client.send(b"x" * 65536, timeout=0.1)
                sent += 65536
        assert client.stats.bytes_queued >= 1000
        with pytest.raises(NetworkTimeoutError):
            await client.flush(timeout=0.05)
        assert await peer.receive(sent) == b"x" * sent
        await client.flush()
        assert client.stats.bytes_queued == 0
        await client.send(b"last")
        assert await peer.receive(4) == b"last"


async def test_a_client_that_takes_nothing_stops_reading_and_loses_nothing() -> None:
    data = bytes(range(256)) * (len(TOO_MUCH) // 256)
    async with tls_peer_and_client(buffers=BufferLimits(receive_high=1000, receive_low=0)) as (peer, client):
        sending = asyncio.create_task(peer.send(data))
        received = 0
        while received != client.stats.bytes_received or not received:
            received = client.stats.bytes_received
            # Nothing tells that no more comes: the transport may have decrypted more than the client has got.
            await asyncio.sleep(0.02)
        # One read at most on top, and what the transport has decrypted of it.
        assert received <= 1000 + 2 * 320 * 1024
        assert not sending.done()
        assert await client.receive_exactly(len(data)) == data
        await sending


# ---- How it ends ----


def _in_order(peer: TLSPeer, data: bytes) -> None:
    peer.sock.setblocking(True)
    peer.sock.sendall(peer.encrypted(data) + peer.close_notify())
    peer.sock.shutdown(socket.SHUT_WR)


def _cut_off(peer: TLSPeer, data: bytes) -> None:
    peer.sock.setblocking(True)
    peer.sock.sendall(peer.encrypted(data))
    peer.sock.shutdown(socket.SHUT_WR)


async def _receive_all(client: NetworkClient) -> bytes:
    return b"".join([chunk async for chunk in client])


@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 10_000], ids=len)
async def test_a_stream_that_ends_in_order_gives_everything_and_then_its_end(data: bytes) -> None:
    async with tls_peer_and_client() as (peer, client):
        _in_order(peer, data)
        assert await _receive_all(client) == data
        assert await client.receive() == b""
        assert await client.receive_line() == b""
        # Unlike TCP, TLS as all transports have it ends both ways at once.
        assert not client.is_connected
        with pytest.raises(ConnectionLostError, match="has ended the TLS connection"):
            await client.send(b"x")
        await client.disconnect()


@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 10_000], ids=len)
async def test_a_stream_that_is_cut_off_gives_everything_and_then_an_error(data: bytes) -> None:
    async with tls_peer_and_client() as (peer, client):
        _cut_off(peer, data)
        assert await client.receive_exactly(len(data)) == data
        for receive in (client.receive, client.receive_line, client.receive_lines):
            with pytest.raises(ConnectionLostError, match="without close_notify") as caught:
                await receive()
            assert isinstance(caught.value.__cause__, ssl.SSLEOFError)
        await client.disconnect()


async def test_a_stream_that_is_cut_off_within_a_record_is_cut_off() -> None:
    async with tls_peer_and_client() as (peer, client):
        await peer.send(b"whole")
        record = peer.encrypted(b"never whole")
        await asyncio.get_running_loop().sock_sendall(peer.sock, record[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        assert await client.receive() == b"whole"
        with pytest.raises(ConnectionLostError, match="without close_notify"):
            await client.receive()


async def test_a_reset_is_an_error_with_its_reason() -> None:
    async with tls_peer_and_client() as (peer, client):
        await peer.send(b"before")
        assert await client.receive() == b"before"
        waiting = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        peer.reset()
        with pytest.raises(ConnectionLostError) as caught:
            await waiting
        assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("end", [_in_order, _cut_off])
@pytest.mark.parametrize("rest", [1, 5000, 60_000])
async def test_what_came_before_the_end_is_not_lost_when_reads_are_just_full(
    end: Callable[[TLSPeer, bytes], None], rest: int
) -> None:
    # uvloop reads 64 KiB of TLS at a time, and goes on in the same callback as long as that is just filled: it then
    # finds the end before it has decrypted what did not fit where the first receive is filled directly.
    room = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20),)
    async with tls_peer_and_client(socket_options=room, buffers=BufferLimits(receive_high=1000, receive_low=0)) as (
        peer,
        client,
    ):
        # TLS 1.3 adds 22 bytes to each record of up to 16 KiB, and ends with one of 2.
        size = 4 * 65536 - 16 * 22 - (24 if end is _in_order else 0)
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        waiting = asyncio.create_task(client.receive_exactly(size - rest))
        await asyncio.sleep(0)
        end(peer, data)
        assert await waiting == data[:-rest]
        assert await client.receive_exactly(rest) == data[-rest:]
        if end is _in_order:
            assert await client.receive() == b""
        else:
            with pytest.raises(ConnectionLostError, match="without close_notify"):
                await client.receive()


async def test_the_server_sees_a_close_in_order() -> None:
    async with tls_peer_and_client() as (peer, client):
        await client.send(b"x" * 1_000_000)
        closing = asyncio.create_task(client.disconnect())
        assert await peer.receive(1_000_000) == b"x" * 1_000_000
        # A zero-length read is the close_notify; a plain end would raise SSLEOFError.
        assert await peer.receive(1) == b""
        await peer.send(b"")
        peer.close()
        await closing


async def test_a_peer_that_answers_no_close_holds_nobody_for_longer_than_close_timeout() -> None:
    async with tls_peer_and_client(close_timeout=0.05) as (peer, client):
        await client.send(b"x")
        started = time.monotonic()
        await client.disconnect()
        assert time.monotonic() - started < 2
        assert not client.is_connected
        assert await peer.receive(1) == b"x"


async def test_closing_a_connection_whose_peer_goes_on_sending_is_bounded() -> None:
    async with tls_peer_and_client(close_timeout=0.05) as (peer, client):

        async def flood() -> None:
            try:
                while True:
                    await peer.send(b"x" * 65536)
            except OSError:
                pass

        flooding = asyncio.create_task(flood())
        await client.receive()
        started = time.monotonic()
        await client.disconnect()
        assert time.monotonic() - started < 2
        await flooding


async def test_bytes_that_the_peer_does_not_take_are_reported_by_disconnect() -> None:
    async with tls_peer_and_client(close_timeout=0.05) as (_, client):
        await client.send(TOO_MUCH)
        with pytest.raises(NetworkTimeoutError, match="did not take") as caught:
            await client.disconnect()
        assert caught.value.details["undelivered"] > 0


async def test_abort_is_immediate() -> None:
    async with tls_peer_and_client() as (_, client):
        waiting = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        await client.send(TOO_MUCH)
        client.abort()
        assert not client.is_connected
        with pytest.raises(ClosedError):
            await waiting
        await until(lambda: not client._link.protocol.has_transport, "the transport is gone")
        await client.disconnect()


async def test_there_is_no_end_of_one_direction_and_asking_for_it_changes_nothing() -> None:
    async with tls_peer_and_client() as (peer, client):
        with pytest.raises(UsageError, match="TLS"):
            await client.send_eof()
        await client.send(b"still here")
        assert await peer.receive(10) == b"still here"
        await peer.send(b"x")
        assert await client.receive() == b"x"
