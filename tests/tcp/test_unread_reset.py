"""A reset that comes while bytes before it are still unread in the kernel: both are told of, the bytes first.

epoll then reports the bytes and the error together, and on uvloop that ends a reader which was set by `add_reader()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.servers import TOO_MUCH, Peer, client_of, peer_and_client
from support.tls_peer import TRANSPORTS, UPGRADED, TLSPeer, tls_client_of, tls_peer_and_client, use_transport

from pepperpy.network import (
    BufferLimits,
    ConnectionLostError,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    TLSConfig,
    TLSError,
)
from pepperpy.network.testing.tcp_reset import SIOCOUTQNSD

PLAIN = "plain"
ENGINES = (PLAIN, *TRANSPORTS, UPGRADED)
# A kernel's buffer that takes what the tests send before anybody reads.
ROOM = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20),)


@pytest.fixture(params=ENGINES, autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    return str(request.param)


@contextlib.asynccontextmanager
async def pair(engine: str, **settings: object) -> AsyncIterator[tuple[Peer | TLSPeer, NetworkClient]]:
    make = peer_and_client if engine == PLAIN else tls_peer_and_client
    async with make(**settings) as (peer, client):
        await client.send(b"hello")
        await peer.receive(5)
        # From here on the connection is settled: no part of a handshake is under way.
        await peer.send(b"welcome")
        assert await client.receive_exactly(7) == b"welcome"
        yield peer, client


def say_and_reset(peer: Peer | TLSPeer, data: bytes) -> None:
    """Without a turn of the loop, so that the client finds both at once."""
    say(peer, data)
    # A reset drops what the system has not sent yet.
    deadline = time.monotonic() + 5
    fcntl = pytest.importorskip("fcntl", reason="Windows has none")
    while any(fcntl.ioctl(peer.sock, SIOCOUTQNSD, bytes(4))):
        assert time.monotonic() < deadline, "the client's kernel does not take that much"
        time.sleep(0.001)  # the kernel tells of no event
    peer.reset()


def say(peer: Peer | TLSPeer, data: bytes) -> None:
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sock.setblocking(True)
    peer.sock.sendall(peer.encrypted(data) if isinstance(peer, TLSPeer) else data)


async def everything(client: NetworkClient) -> tuple[bytes, ConnectionLostError]:
    received = b""
    try:
        while True:
            received += await client.receive()
    except ConnectionLostError as error:
        return received, error


@pytest.mark.parametrize("size", [1, 20_000, 150_000])
async def test_a_receive_gives_the_bytes_and_the_next_one_the_loss(engine: str, size: int) -> None:
    data = (b"0123456789" * (size // 10 + 1))[:size]
    async with pair(engine, socket_options=ROOM) as (peer, client):
        say_and_reset(peer, data)
        received, error = await everything(client)
        assert received == data
        assert isinstance(error.__cause__, ConnectionResetError)
        assert not client.is_connected


async def test_a_task_that_waits_already_gets_the_bytes_and_then_the_loss(engine: str) -> None:
    async with pair(engine) as (peer, client):
        waiting = asyncio.create_task(everything(client))
        await asyncio.sleep(0)
        say_and_reset(peer, b"last")
        received, error = await waiting
        assert received == b"last"
        assert isinstance(error.__cause__, ConnectionResetError)


async def test_the_loss_is_noticed_though_nobody_receives(engine: str) -> None:
    async with pair(engine) as (peer, client):
        say_and_reset(peer, b"last")
        await until(lambda: not client.is_connected, "the client has noticed the loss")
        assert (await everything(client))[0] == b"last"


async def test_the_loss_is_told_once_what_filled_the_buffer_is_taken(engine: str) -> None:
    async with pair(engine, buffers=BufferLimits(receive_high=1000, receive_low=0), socket_options=ROOM) as (
        peer,
        client,
    ):
        data = b"x" * 150_000
        say(peer, data)
        await until(lambda: client.stats.bytes_received > 0, "the client has begun to read, and is full")
        say_and_reset(peer, b"last")
        received, error = await everything(client)
        assert received == data + b"last"
        assert isinstance(error.__cause__, ConnectionResetError)


async def test_the_loss_is_noticed_while_a_send_waits_for_room_too(engine: str) -> None:
    async with pair(engine, buffers=BufferLimits(send_high=1000, send_low=0)) as (peer, client):
        await client.send(TOO_MUCH)
        waiting = asyncio.create_task(client.send(b"y"))
        for _ in range(3):
            await asyncio.sleep(0)  # for the loop to watch the socket for room, too
        say_and_reset(peer, b"last")
        # The loops' TLS may have accepted it: they tell of no room only when all is encrypted.
        with contextlib.suppress(ConnectionLostError):
            await waiting
        # What came before may be lost with a send that fails in the transport.
        received, _ = await everything(client)
        assert received in (b"", b"last")
        assert not client.is_connected


async def test_a_client_that_reconnects_does_so(engine: str) -> None:
    loop = asyncio.get_running_loop()
    settings = {} if engine == PLAIN else {"tls": TLSConfig(ca_file=ca_file())}
    context = server_context(server_cert())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def accept() -> Peer | TLSPeer:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            if engine == PLAIN:
                return Peer(sock)
            peer = TLSPeer(sock, context)
            await peer.handshake()
            return peer

        client = client_of(listener.getsockname()[1], reconnect=True, retry_delay=0, **settings)
        first, _ = await asyncio.gather(accept(), client.connect())
        try:
            await client.send(b"hello")
            await first.receive(5)
            say_and_reset(first, b"last")
            second = await accept()
            try:
                assert (await everything(client))[0] == b"last"
                await client.wait_connected()
                await second.send(b"new")
                assert await client.receive() == b"new"
            finally:
                second.close()
        finally:
            client.abort()
            await asyncio.sleep(0)


async def test_a_pool_does_not_lend_the_connection_again(engine: str) -> None:
    loop = asyncio.get_running_loop()
    settings = {} if engine == PLAIN else {"tls": TLSConfig(ca_file=ca_file())}
    context = server_context(server_cert())
    peers: list[Peer | TLSPeer] = []

    async def accept(listener: socket.socket) -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            peer = Peer(sock) if engine == PLAIN else TLSPeer(sock, context)
            if isinstance(peer, TLSPeer):
                await peer.handshake()
            peers.append(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(accept(listener))
        config = NetworkConfig(
            "127.0.0.1", listener.getsockname()[1], timeout=10, close_timeout=0, retries=0, **settings
        )
        try:
            async with NetworkPool(config, max_size=1) as pool:
                async with pool.acquire() as client:
                    await client.send(b"hello")
                    await until(lambda: peers, "the server has accepted")
                    await peers[0].receive(5)
                # Over TLS, a record that begins and does not go on: no byte that the pool would take for unasked.
                say_and_reset(Peer(peers[0].sock), b"" if engine == PLAIN else b"\x17\x03\x03")
                await until(lambda: pool.stats.idle == 0, "the pool has dropped it")
                async with pool.acquire() as client:
                    await client.send(b"again")
                    await until(lambda: len(peers) == 2, "the server has accepted again")
                    assert await peers[1].receive(5) == b"again"
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])
            for peer in peers:
                peer.close()


async def test_a_server_that_resets_amid_the_handshake_fails_it_at_once(engine: str) -> None:
    if engine == PLAIN:
        pytest.skip("has no handshake")
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        connecting = asyncio.create_task(tls_client_of(listener.getsockname()[1]).connect())
        sock, _ = await loop.sock_accept(listener)
        sock.setblocking(False)
        assert await loop.sock_recv(sock, 65536)
        # The head of a record of the handshake, which does not come.
        say_and_reset(Peer(sock), b"\x16\x03\x03\x01\x00")
        with pytest.raises(TLSError, match="closed the connection during the handshake"):
            await connecting
