"""A network that fails at every offset, and what the client makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket

import pytest
from support.allocations import Wire
from support.cancelling import until
from support.servers import TOO_MUCH, client_behind_faults, client_of, peer_and_client, wait_for_the_kernel

from pepperpy.network import BufferLimits, ConnectionLostError, IncompleteReadError, NetworkClient, NetworkTimeoutError
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.tcp.client import link_of
from pepperpy.network.testing import Faults

# Lines, a record with a separator of two bytes, a fixed one: 300 bytes in which every receive has its part.
LINES = [b"line %02d %s\n" % (number, b"." * (number % 5)) for number in range(10)]
HEADER = b"name: value\r\n\r\n"
RECORD = bytes(range(100))
STREAM = b"".join(LINES) + HEADER + RECORD + b"tail"


async def receive_stream(client: NetworkClient) -> bytes:
    """Everything, by a different receive for each part; raises if it does not come whole."""
    received = b"".join([await client.receive_line() for _ in LINES])
    received += await client.receive_until(b"\r\n\r\n")
    received += await client.receive_exactly(len(RECORD))
    memory = bytearray(4)
    filled = 0
    while filled < 4:
        count = await client.receive_into(memoryview(memory)[filled:])
        if not count:
            raise IncompleteReadError("the tail is missing")
        filled += count
    return received + bytes(memory)


@pytest.mark.slow
@pytest.mark.parametrize("slice_size", [1, 2, 7, 255])
async def test_a_stream_in_slices_is_the_same_stream(slice_size: int) -> None:
    async with client_behind_faults(Faults(slice_size=slice_size), Faults(slice_size=slice_size)) as (peer, client, _):
        await peer.send(STREAM)
        assert await receive_stream(client) == STREAM
        await client.send_many([STREAM[:50], STREAM[50:]])
        assert await peer.receive(len(STREAM)) == STREAM


@pytest.mark.parametrize("slice_size", [1, 3])
async def test_line_batches_in_slices_hold_every_line_once(slice_size: int) -> None:
    async with client_behind_faults(Faults(slice_size=slice_size)) as (peer, client, _):
        await peer.send(b"".join(LINES) + b"unfinished")
        peer.send_eof()
        received = []
        while lines := await client.receive_lines():
            received += lines
        assert received == [*LINES, b"unfinished"]


@pytest.mark.slow
async def test_an_end_at_any_offset_is_never_a_short_success() -> None:
    for offset in range(len(STREAM)):
        async with client_behind_faults(Faults(end_after=offset)) as (peer, client, _):
            await peer.send(STREAM)
            received = b""
            try:
                for _ in LINES:
                    line = await client.receive_line()
                    received += line
                    if not line.endswith(b"\n"):
                        break
                else:
                    received += await client.receive_until(b"\r\n\r\n")
                    received += await client.receive_exactly(len(RECORD) + 4)
                    raise AssertionError(f"a success after {offset} of {len(STREAM)} bytes")
            except IncompleteReadError as error:
                received += error.partial
            assert received == STREAM[:offset]
            assert await client.receive() == b""


@pytest.mark.slow
async def test_a_reset_at_any_offset_is_a_loss_and_never_an_end() -> None:
    for offset in range(len(STREAM)):
        async with client_behind_faults(Faults(reset_after=offset)) as (peer, client, _):
            with contextlib.suppress(ConnectionError):  # at offset 0 it has been reset already
                await peer.send(STREAM)
            with pytest.raises(ConnectionLostError) as caught:
                await receive_stream(client)
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            rest = b""
            with pytest.raises(ConnectionLostError):
                while piece := await client.receive():
                    rest += piece
            assert STREAM[:offset].endswith(rest)
            assert not client.is_connected


@pytest.mark.slow
async def test_a_close_at_any_offset_of_what_is_sent_leaves_the_peer_a_prefix() -> None:
    for offset in range(0, len(STREAM), 3):
        async with client_behind_faults(to_server=Faults(reset_after=offset)) as (peer, client, _):
            with pytest.raises(ConnectionLostError):
                for position in range(len(STREAM)):
                    await client.send(STREAM[position : position + 1])
                    await asyncio.sleep(0)
                await client.receive()
            received = b""
            while len(received) < offset:
                received += await peer.receive(offset - len(received))
            assert received == STREAM[:offset]


async def test_a_stall_is_a_timeout_and_the_stream_goes_on_after_it() -> None:
    for offset in (0, 1, 100, len(STREAM) - 1):
        async with client_behind_faults(Faults(stall_after=offset)) as (peer, client, proxy):
            await peer.send(STREAM)
            with pytest.raises(NetworkTimeoutError):
                await client.receive_exactly(len(STREAM), timeout=0.05)
            proxy.resume()
            assert await receive_stream(client) == STREAM


async def test_each_side_can_end_while_the_other_goes_on() -> None:
    async with client_behind_faults() as (peer, client, _):
        await client.send(b"request")
        await client.send_eof()
        assert await peer.receive_all() == b"request"
        await peer.send(STREAM)
        assert await receive_stream(client) == STREAM
    async with client_behind_faults() as (peer, client, _):
        peer.send_eof()
        assert await client.receive() == b""
        await client.send(STREAM)
        await client.disconnect()
        assert await peer.receive_all() == STREAM


async def test_a_peer_that_never_reads_costs_bounded_memory_and_a_bounded_disconnect() -> None:
    async with peer_and_client(close_timeout=0.1, buffers=BufferLimits(send_high=100_000)) as (_, client):
        with pytest.raises(NetworkTimeoutError):
            while True:
                await client.send(b"x" * 50_000, timeout=0.05)
        assert client.stats.bytes_queued <= 100_000 + 50_000
        with pytest.raises(NetworkTimeoutError, match="did not take") as caught:
            await client.disconnect()
        assert caught.value.details["undelivered"] <= 150_000
        await client.disconnect()
        assert client.stats.bytes_queued == 0


@pytest.mark.slow
async def test_a_client_that_does_not_receive_stops_reading_and_loses_nothing() -> None:
    async with peer_and_client(buffers=BufferLimits(receive_high=100_000, receive_low=10_000)) as (peer, client):
        data = b"".join(b"%07d\n" % number for number in range(1_000_000))
        sending = asyncio.create_task(peer.send(data))
        await until(lambda: client.stats.bytes_buffered >= 100_000, "the buffer is full")
        assert client.stats.bytes_buffered <= 100_000 + 256 * 1024
        digest = hashlib.sha256()
        count = 0
        while count < len(data):
            piece = await client.receive(1 << 20)
            assert client.stats.bytes_buffered <= 100_000 + 256 * 1024
            digest.update(piece)
            count += len(piece)
        await sending
        assert digest.digest() == hashlib.sha256(data).digest()


async def test_disconnect_sends_what_was_accepted_to_a_slow_reader() -> None:
    async with peer_and_client() as (peer, client):
        pieces = [bytes([number]) * (len(TOO_MUCH) // 250) for number in range(250)]

        async def send_all() -> None:
            for piece in pieces:
                await client.send(piece)

        sending = asyncio.create_task(send_all())
        while client.stats.bytes_queued < client.config.buffers.send_high:
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        accepted = client.stats.bytes_sent
        closing = asyncio.create_task(client.disconnect())
        assert await peer.receive_all() == b"".join(pieces)[:accepted]
        await closing


async def test_what_the_peer_said_before_it_reset_can_be_received_after_a_failed_send() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"go away\n")
        peer.reset()
        wait_for_the_kernel(client.extra_info("socket"), lost=True)
        # The RST is here, and the loop has had no chance to see it: sending is told first.
        with pytest.raises(ConnectionLostError) as caught:
            await client.send(b"too late")
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert await client.receive_line() == b"go away\n"
        with pytest.raises(ConnectionLostError):
            await client.receive()


@pytest.mark.parametrize("size", [10, 5000, 100_000, 8 << 20])
async def test_what_is_done_to_a_buffer_after_send_changes_nothing_on_the_wire(size: int) -> None:
    async with peer_and_client() as (peer, client):
        expected = b""
        buffer = bytearray(size)
        receiving = asyncio.create_task(peer.receive(4 * size))
        for value in (b"a", b"b"):
            buffer[:] = value * size
            await client.send(buffer)
            buffer[:] = b"!" * size
            expected += value * size
        for value in (b"c", b"d"):
            buffer[:] = value * size
            await client.send_many([memoryview(buffer)])
            buffer[:] = b"?" * size
            expected += value * size
        assert await receiving == expected


@pytest.mark.slow
async def test_20_megabytes_through_the_smallest_socket_buffers_arrive_unchanged() -> None:
    options = ((socket.SOL_SOCKET, socket.SO_SNDBUF, 4096), (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096))
    async with peer_and_client(socket_options=options) as (peer, client):
        data = bytes(range(256)) * 40_960
        receiving = asyncio.create_task(peer.receive(2 * len(data)))
        for start in range(0, len(data), 70_001):
            await client.send(data[start : start + 70_001])
        await client.send(data)
        received = await receiving
        assert hashlib.sha256(received).digest() == hashlib.sha256(data * 2).digest()


@pytest.mark.slow
async def test_many_clients_and_one_that_fails_do_not_disturb_each_other() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        clients = [client_of(listener.getsockname()[1]) for _ in range(32)]
        peers = []
        for client in clients:
            await client.connect()
            peers.append((await loop.sock_accept(listener))[0])
        for number, peer in enumerate(peers):
            peer.setblocking(False)
            await loop.sock_sendall(peer, b"%d\n" % number * 1000)
        peers[7].close()
        for number, client in enumerate(clients):
            received = b"".join([await client.receive_line() for _ in range(1000)])
            assert received == b"%d\n" % number * 1000
        for client, peer in zip(clients, peers, strict=True):
            await client.disconnect()
            peer.close()


@pytest.mark.parametrize("counts_as_closed", [False, True])
async def test_disconnect_ends_although_the_transport_cannot_close(counts_as_closed: bool) -> None:
    class Broken(Wire):
        def close(self) -> None:
            # As asyncio's, which first counts as closed, and then has no memory to call connection_lost() later.
            self.aborted = counts_as_closed
            raise MemoryError

    client = client_of(1)
    protocol = StreamProtocol(client.config)
    Broken().connect(protocol)
    link_of(client).use(protocol)
    await asyncio.wait_for(client.disconnect(), 10)
    assert protocol.state == "closed"
    assert not protocol.has_transport
