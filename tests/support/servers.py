"""Servers of the tests' own: a peer that the test drives by hand, and an echo server."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from pepperpy.network import NetworkClient, NetworkConfig
from pepperpy.network.testing import FaultProxy, Faults

NO_FAULTS = Faults()


def _more_than_the_kernel_takes() -> int:
    least = 16 << 20
    try:
        sent, received = (Path(f"/proc/sys/net/ipv4/tcp_{which}mem").read_text().split() for which in "wr")
    except OSError:
        return least
    return max(least, 2 * int(sent[2]) + 2 * int(received[1]))


# Bytes of which some stay in this process where the peer reads nothing. How many the kernel takes depends on more than
# the buffers' first sizes: Linux lets a send buffer grow to the last figure of tcp_wmem at once where it remembers that
# earlier connections to the same address were fast (tcp metrics). A receive buffer grows only for a peer that reads.
TOO_MUCH = bytes(_more_than_the_kernel_takes())


def client_of(port: int, **settings: object) -> NetworkClient:
    """A client of a local server that gives up at once rather than late."""
    return NetworkClient(NetworkConfig("127.0.0.1", port, **{"timeout": 10, "retries": 0} | settings))


def wait_for_the_kernel(sock: Any, *, lost: bool = False) -> None:
    """Return when a socket has something to read, or (`lost`) has been reset, and let no loop run meanwhile.

    A packet to the same machine has mostly arrived when the call that sends it returns. A busy kernel puts that off.
    """
    poll = select.poll()
    # It tells of a reset unasked.
    poll.register(sock.fileno(), 0 if lost else select.POLLIN)
    assert poll.poll(30_000), "nothing has come"


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """The port of a listener whose queue is full and which accepts nobody: no further connection is made."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            # The queue is full when the first handshake has ended. Until then the kernel begins more of them.
            assert select.select([listener], [], [], 30)[0]
        yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def peer_and_client(**settings: object) -> AsyncIterator[tuple[Peer, NetworkClient]]:
    """A connected client and the other end of its connection; both are closed at the end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = client_of(listener.getsockname()[1], **settings)
        await client.connect()
        sock, _ = await loop.sock_accept(listener)
    sock.setblocking(False)
    peer = Peer(sock)
    try:
        yield peer, client
    finally:
        client.abort()
        peer.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def client_behind_faults(
    to_client: Faults = NO_FAULTS, to_server: Faults = NO_FAULTS, **settings: object
) -> AsyncIterator[tuple[Peer, NetworkClient, FaultProxy]]:
    """As `peer_and_client`, with a proxy between the two."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with FaultProxy("127.0.0.1", port, to_client=to_client, to_server=to_server) as proxy:
            client = client_of(proxy.port, **settings)
            await client.connect()
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            peer = Peer(sock)
            try:
                yield peer, client, proxy
            finally:
                client.abort()
                peer.close()
                await asyncio.sleep(0)


class Peer:
    """The other end of a client's connection: a plain non-blocking socket, driven by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end of the stream."""
        loop = asyncio.get_running_loop()
        pieces = []
        while size and (piece := await loop.sock_recv(self.sock, size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def receive_now(self, size: int) -> bytes:
        """Up to `size` bytes that need no further turn of the loop to arrive."""
        wait_for_the_kernel(self.sock)
        return self.sock.recv(size)

    async def receive_all(self) -> bytes:
        """Everything up to the end of the stream."""
        loop = asyncio.get_running_loop()
        pieces = []
        while piece := await loop.sock_recv(self.sock, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def send_eof(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """The port of a server that sends everything back."""
    writers = set()
    is_over = False

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_over:
            # The loop had accepted it before.
            writer.transport.abort()
            return
        writers.add(writer)
        try:
            # Writing to a closed transport is a RuntimeError on uvloop.
            while (data := await reader.read(65536)) and not writer.transport.is_closing():
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        is_over = True
        server.close()
        for writer in list(writers):
            writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)
