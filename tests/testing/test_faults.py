"""`FaultProxy`: which bytes pass, what both sides are told, and when. core/test_faults.py uses it on the client."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import Any

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.processes import reserved_ports
from support.servers import Peer, client_behind_faults, client_of, echo_server

from pepperpy.network import BufferLimits, ConnectError, ConnectionLostError, NetworkClient, NetworkTimeoutError
from pepperpy.network.testing import FaultProxy, Faults, connect_failures, no_retry_waits, scripted_peer

DATA = bytes(range(200))


async def everything(client: NetworkClient) -> tuple[bytes, str]:
    """What is received until the end, and how it ends."""
    received = b""
    try:
        while piece := await client.receive():
            received += piece
    except ConnectionLostError as error:
        return received, type(error.__cause__).__name__
    return received, "end"


async def peers_everything(peer: Peer) -> tuple[bytes, str]:
    received = b""
    try:
        while piece := await peer.receive(1):
            received += piece
    except ConnectionResetError:
        return received, "ConnectionResetError"
    return received, "end"


async def test_without_faults_everything_passes_both_ways_and_so_do_both_ends() -> None:
    async with client_behind_faults() as (peer, client, proxy):
        await client.send(DATA)
        await client.send_eof()
        assert await peers_everything(peer) == (DATA, "end")
        await peer.send(DATA * 10_000)
        peer.close()
        assert await everything(client) == (DATA * 10_000, "end")
        assert proxy.connections == 1


async def test_a_slice_is_what_one_read_gets() -> None:
    async with client_behind_faults(Faults(slice_size=1)) as (peer, client, _):
        await peer.send(DATA)
        assert [await client.receive() for _ in DATA] == [bytes([byte]) for byte in DATA]


async def test_a_reset_of_either_side_is_passed_on_after_what_was_said_before() -> None:
    async with client_behind_faults() as (peer, client, _):
        await peer.send(b"last words")
        assert await client.receive() == b"last words"
        peer.reset()
        assert await everything(client) == (b"", "ConnectionResetError")
    async with client_behind_faults(buffers=BufferLimits(receive_high=1, receive_low=0)) as (peer, client, _):
        await peer.send(b"1")
        while not client.stats.bytes_received:
            await asyncio.sleep(0)
        # Reading is paused: what comes now is unread when the client closes, which is a reset.
        await peer.send(DATA)
        await until(lambda: proxy_has_passed(client), "it lies in the kernel")
        client.abort()
        assert await peers_everything(peer) == (b"", "ConnectionResetError")


def proxy_has_passed(client: NetworkClient) -> bool:
    """Whether bytes for the client lie in the kernel."""
    import fcntl
    import termios

    sock = client._link.protocol.extra_info("socket")
    return any(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))


@pytest.mark.parametrize("offset", [0, 1, 100, 200])
async def test_what_happens_at_an_offset_happens_to_both_sides_after_exactly_so_many_bytes(offset: int) -> None:
    outcomes: list[tuple[dict[str, int], str, str]] = [
        ({"reset_after": offset}, "ConnectionResetError", "ConnectionResetError"),
        ({"end_after": offset}, "end", "nothing"),
    ]
    if offset == 200:
        # Before, the sender's bytes are unread, and closing is a reset (RFC 1122, 4.2.2.13).
        outcomes.append(({"close_after": offset}, "end", "end"))
    for faults, told_receiver, told_sender in outcomes:
        async with client_behind_faults(to_server=Faults(**faults)) as (peer, client, _):
            await asyncio.wait([sending := asyncio.create_task(client.send(DATA))])
            if sending.exception() is None:
                assert await peers_everything(peer) == (DATA[:offset], told_receiver)
            if told_sender == "nothing":
                await peer.send(DATA)
                assert await client.receive_exactly(len(DATA)) == DATA
            else:
                assert await everything(client) == (b"", told_sender)
        async with client_behind_faults(Faults(**faults)) as (peer, client, _):
            try:
                await peer.send(DATA)
            except ConnectionError:
                assert faults == {"reset_after": 0}
            assert await everything(client) == (DATA[:offset], told_receiver)
            if told_sender == "nothing":
                await client.send(DATA)
                assert await peer.receive(len(DATA)) == DATA
            elif faults != {"reset_after": 0}:
                assert await peers_everything(peer) == (b"", told_sender)


async def test_a_stall_lasts_until_it_is_resumed_and_what_comes_later_still_happens() -> None:
    async with client_behind_faults(Faults(stall_after=50, end_after=150)) as (peer, client, proxy):
        await peer.send(DATA)
        assert await client.receive_exactly(50) == DATA[:50]
        with pytest.raises(NetworkTimeoutError):
            await client.receive(timeout=0.02)
        await client.send(b"the other direction goes on")
        assert await peer.receive(27) == b"the other direction goes on"
        proxy.resume()
        assert await everything(client) == (DATA[50:150], "end")


async def test_one_byte_is_corrupted_and_no_other() -> None:
    async with client_behind_faults(Faults(corrupt_at=100, slice_size=7)) as (peer, client, _):
        await peer.send(DATA)
        assert await client.receive_exactly(200) == DATA[:100] + bytes([100 ^ 0xFF]) + DATA[101:]


@pytest.mark.parametrize("faults", [Faults(latency=0.02), Faults(bandwidth=10_000), Faults(end_delay=0.02)])
async def test_what_takes_time_takes_at_least_that(faults: Faults) -> None:
    async with client_behind_faults(faults) as (peer, client, _):
        started = time.monotonic()
        await peer.send(DATA)
        peer.send_eof()
        assert await everything(client) == (DATA, "end")
        # Loops round their timers by a clock tick.
        assert time.monotonic() - started > 0.015


async def test_each_connection_has_its_faults_and_the_last_ones_hold_on() -> None:
    async with echo_server() as port:
        first, second = Faults(end_after=0), Faults(corrupt_at=0)
        async with FaultProxy("localhost", port, to_client=[first, second]) as proxy:
            answers = []
            for _ in range(3):
                async with NetworkClient(proxy.config) as client:
                    await client.send(b"\x00")
                    answers.append(await client.receive())
        assert answers == [b"", b"\xff", b"\xff"]


async def test_down_resets_and_refuses_and_up_accepts_again_on_the_same_port() -> None:
    async with echo_server() as port, FaultProxy("127.0.0.1", port) as proxy:
        client = NetworkClient(proxy.config)
        for _ in range(2):
            await client.connect()
            await client.send(b"echo")
            assert await client.receive_exactly(4) == b"echo"
            await proxy.down()
            await proxy.down()
            assert await everything(client) == (b"", "ConnectionResetError")
            with pytest.raises(ConnectError) as caught:
                await client.connect()
            assert isinstance(caught.value.__cause__, ConnectionRefusedError)
            proxy.up()
            proxy.up()
        await client.connect()
        await proxy.reset_all()
        assert await everything(client) == (b"", "ConnectionResetError")
        await client.connect()
        client.abort()


async def test_what_a_server_said_before_it_went_arrives_though_nothing_can_be_sent_to_it() -> None:
    async with client_behind_faults(Faults(stall_after=0)) as (peer, client, proxy):
        await peer.send(b"last words")
        peer.close()
        for _ in range(5):
            await client.send(b"to nobody")
            await asyncio.sleep(0.001)  # nothing tells that the proxy has passed it on, to where no answer comes from
        proxy.resume()
        assert await everything(client) == (b"last words", "end")


async def test_a_connection_that_is_reset_as_soon_as_it_is_accepted_is_closed() -> None:
    async with echo_server() as port, FaultProxy("127.0.0.1", port) as proxy:
        with socket.create_connection((proxy.host, proxy.port), timeout=5) as client:
            proxy._accept()  # as the loop does, and in the same turn:
            await proxy.reset_all()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


async def test_without_a_server_its_clients_are_reset() -> None:
    with reserved_ports(1) as [port]:
        async with FaultProxy("127.0.0.1", port) as proxy, client_of(proxy.port) as client:
            assert await everything(client) == (b"", "ConnectionResetError")


async def test_tls_passes() -> None:
    async def script(peer: Any) -> None:
        await peer.send(b"secret")
        await peer.receive_all()

    context = ssl.create_default_context(cafile=str(ca_file()))
    async with scripted_peer(script, tls=server_context(server_cert())) as server:
        async with FaultProxy(server.host, server.port, to_client=Faults(slice_size=3)) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port, ssl=context)
            assert await reader.readexactly(6) == b"secret"
            writer.close()
            await writer.wait_closed()


async def test_nothing_is_left_of_connections_in_any_state() -> None:
    async with echo_server() as port:
        clients = [client_of(1) for _ in range(4)]
        faults = [Faults(stall_after=0), Faults(latency=60), Faults(end_after=0), Faults()]
        async with FaultProxy("127.0.0.1", port, to_client=faults) as proxy:
            for client in clients:
                client.config = proxy.config
                await client.connect()
                await client.send(DATA)
            late = client_of(proxy.port)
            await late.connect()
        for client in (*clients, late):
            client.abort()


async def test_a_client_with_retries_comes_through_all_of_it_together() -> None:
    async def script(peer: Any) -> None:
        await peer.expect(b"PING\r\n")
        await peer.send(b"+PONG\r\n")

    async with scripted_peer(script, others=script) as server:
        faults = [Faults(slice_size=1, reset_after=3), Faults(slice_size=1)]
        async with FaultProxy(server.host, server.port, to_client=faults) as proxy:
            client = NetworkClient(proxy.config.replace(retries=2))
            with no_retry_waits(), connect_failures(2):
                answers = []
                for _ in range(2):
                    await client.connect()
                    await client.send(b"PING\r\n")
                    answers.append(await everything_of_a_line(client))
                    await client.disconnect()
    assert answers == [b"", b"+PONG\r\n"]
    assert client.stats.retries == 2


async def everything_of_a_line(client: NetworkClient) -> bytes:
    try:
        return await client.receive_line()
    except ConnectionLostError:
        return b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slice_size": 0}, "slice_size must be 1 or more"),
        ({"reset_after": -1}, "reset_after must be 0 or more"),
        ({"corrupt_at": 1.5}, "corrupt_at must be an int"),
        ({"latency": -1}, "latency must be 0 or more seconds"),
        ({"end_delay": None}, "end_delay must be a number of seconds, not None"),
        ({"bandwidth": 0}, "bandwidth must be a number of bytes per second above 0"),
    ],
)
def test_faults_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Faults(**arguments)


def test_faults_of_another_type_are_refused() -> None:
    for wrong in ([], [1], None):
        with pytest.raises(TypeError, match="to_client must be Faults, or a sequence of them"):
            FaultProxy("127.0.0.1", 1, to_client=wrong)  # type: ignore[arg-type]
