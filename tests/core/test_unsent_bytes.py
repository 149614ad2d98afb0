"""Accepted bytes that are dropped: the peer sees a reset, so that half a file does not look whole."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support.cancelling import until
from support.servers import TOO_MUCH, client_of, peer_and_client
from support.tls_peer import TRANSPORTS, UPGRADED, tls_peer_and_client, use_transport

from pepperpy.network import (
    BufferLimits,
    ClosedError,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkPool,
    NetworkTimeoutError,
)
from pepperpy.network.testing import memory_pair

FILE = TOO_MUCH


async def end_of(sock: socket.socket) -> str:
    """How the stream of a connection ends that nobody has read so far."""
    loop = asyncio.get_running_loop()
    try:
        while await loop.sock_recv(sock, 1 << 20):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"


@contextlib.asynccontextmanager
async def connection(over: str, **settings: object) -> AsyncIterator[tuple[socket.socket, NetworkClient]]:
    """The plain socket of the peer, and a connected client."""
    pair = peer_and_client(**settings) if over == "tcp" else tls_peer_and_client(**settings)
    async with pair as (peer, client):  # type: ignore[attr-defined]
        yield peer.sock, client


@pytest.fixture(params=["tcp", *TRANSPORTS, UPGRADED])
def over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "tcp":
        use_transport(monkeypatch, request.param)
    return str(request.param)


async def abort(client: NetworkClient) -> None:
    client.abort()


async def disconnect_beyond_its_time(client: NetworkClient) -> None:
    with pytest.raises(NetworkTimeoutError, match="did not take"):
        await client.disconnect()


async def cancel_disconnect(client: NetworkClient) -> None:
    closing = asyncio.create_task(client.disconnect())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])


async def fail_a_request(client: NetworkClient) -> None:
    with pytest.raises(NetworkTimeoutError):
        await client.request(b"?", NetworkClient.receive_line, timeout=0.01)


async def lose(client: NetworkClient) -> None:
    client._link.protocol.lose(TimeoutError("silent"))


WAYS: list[Callable[[NetworkClient], Awaitable[None]]] = [
    abort, disconnect_beyond_its_time, cancel_disconnect, fail_a_request, lose,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_peer_whose_bytes_are_dropped_sees_a_reset(over: str, way: Callable[..., Awaitable[None]]) -> None:
    async with connection(over, close_timeout=0.05, buffers=BufferLimits(send_high=2 * len(FILE))) as (sock, client):
        await client.send(FILE)
        await way(client)
        assert await end_of(sock) == "reset"


@pytest.mark.parametrize("way", [abort, cancel_disconnect, lose], ids=lambda way: way.__name__)
async def test_what_the_kernel_has_taken_still_reaches_the_peer(way: Callable[..., Awaitable[None]]) -> None:
    async with peer_and_client() as (peer, client):
        for _ in range(10):
            await client.send(b"x" * 1000)
        await client.flush()
        await way(client)
        assert await peer.receive_all() == b"x" * 10_000


async def test_small_bytes_that_wait_for_the_end_of_the_turn_count_too() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"this leaves at once")
        # If the machine lets this process wait for a millisecond in between, the next one leaves at once, too (QUIET).
        while not client.stats.bytes_queued:
            await client.send(b"this waits")
        assert client.stats.bytes_queued == 10
        client.abort()
        assert await end_of(peer.sock) == "reset"


async def test_a_pool_that_is_aborted_resets_what_has_not_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with NetworkPool(NetworkConfig("127.0.0.1", listener.getsockname()[1], retries=0)) as pool:
            with contextlib.suppress(ClosedError):
                async with pool.acquire() as client:
                    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                    await client.send(FILE)
                    pool.abort()
            sock.setblocking(False)
            assert await end_of(sock) == "reset"
            sock.close()


async def test_a_client_that_was_forgotten_resets_what_has_not_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = client_of(listener.getsockname()[1])
        await client.connect()
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        sock.setblocking(False)
        await client.send(FILE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del client
            gc.collect()
        assert await end_of(sock) == "reset"
        sock.close()


def test_a_connection_whose_loop_was_closed_resets_what_has_not_left() -> None:
    async def leave(port: int) -> NetworkClient:
        client = client_of(port)
        await client.connect()
        await client.send(FILE)
        return client

    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        client = asyncio.run(leave(listener.getsockname()[1]))
        sock, _ = listener.accept()
        client.abort()
        gc.collect()
        sock.settimeout(10)
        with sock, pytest.raises(ConnectionResetError):
            while sock.recv(1 << 20):
                pass


async def test_a_connection_in_memory_is_reset_too() -> None:
    async with memory_pair(capacity=10) as (a, b):
        await a.send(b"more than there is room for")
        a.abort()
        assert await b.receive() == b"more than "
        with pytest.raises(NetworkError) as caught:
            await b.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        await asyncio.gather(a.connect(), b.connect())
        await a.send(b"all of it")
        await until(lambda: b.stats.bytes_buffered == 9, "it has arrived")
        a.abort()
        assert (await b.receive(), await b.receive()) == (b"all of it", b"")
