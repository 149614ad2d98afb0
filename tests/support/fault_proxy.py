"""A network that fails as told: between a client and the test's own server, by byte offset and direction.

Nothing depends on time. Both ways are tasks on the test's loop that read from one socket exactly as many bytes as they
may pass on, write them to the other, and do what their script says when its offset is reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from pepperpy.network import NetworkClient
from support.servers import Peer, client_of


class Fault(enum.Enum):
    NONE = "passes on everything, and the end too"
    STALL = "passes on nothing more until `resume()`"
    END = "says that this direction has ended; the other goes on"
    CLOSE = "closes the connection to the client in order, both ways"
    RESET = "closes the connection to the client with a RST"


@dataclass(frozen=True)
class Way:
    """One direction: `fault` happens when `at` bytes have passed, and they pass `slice_size` bytes at a time."""

    fault: Fault = Fault.NONE
    at: int = 0
    slice_size: int = 65536


class FaultProxy:
    """Two pumps between the client's socket and the server's."""

    def __init__(self, client_side: socket.socket, server_side: socket.socket) -> None:
        self._client_side = client_side
        self._server_side = server_side
        self._resumed = asyncio.Event()
        self._pumps: list[asyncio.Task[None]] = []
        # Called after each slice that went to the client, when its loop has had the time to read it.
        self.slice_passed: Callable[[], None] = lambda: None

    def start(self, to_client: Way, to_server: Way) -> None:
        self._pumps = [
            asyncio.create_task(self._pump(self._server_side, self._client_side, to_client)),
            asyncio.create_task(self._pump(self._client_side, self._server_side, to_server)),
        ]

    def resume(self) -> None:
        """Let what stalls go on."""
        self._resumed.set()

    async def stop(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.wait(self._pumps)
        self._client_side.close()
        self._server_side.close()
        for pump in self._pumps:
            if not pump.cancelled():
                pump.result()

    async def _pump(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        loop = asyncio.get_running_loop()
        passed = 0
        while True:
            if way.fault is not Fault.NONE and passed == way.at:
                if await self._fail(way.fault, target):
                    return
                way = dataclasses.replace(way, fault=Fault.NONE)
            most = way.slice_size if way.fault is Fault.NONE else min(way.slice_size, way.at - passed)
            try:
                data = await loop.sock_recv(source, most)
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(target, data)
            except OSError:
                # One of the two has broken the connection: there is no more to pass on.
                return
            passed += len(data)
            if target is self._client_side:
                # One turn in which the loop sees the bytes, one in which it reads them.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.slice_passed()

    async def _fail(self, fault: Fault, target: socket.socket) -> bool:
        # True if nothing passes this way any more.
        if fault is Fault.STALL:
            await self._resumed.wait()
            return False
        if fault is Fault.END:
            target.shutdown(socket.SHUT_WR)
            return True
        current = asyncio.current_task()
        others = [pump for pump in self._pumps if pump is not current]
        for pump in others:
            pump.cancel()
        await asyncio.wait(others)
        if fault is Fault.RESET:
            self._client_side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._client_side.close()
        return True


@contextlib.asynccontextmanager
async def client_behind_faults(
    to_client: Way = Way(),
    to_server: Way = Way(),
    **settings: object,
) -> AsyncIterator[tuple[Peer, NetworkClient, FaultProxy]]:
    """The server's end, the client and the proxy between them, all closed at the end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client = client_of(listener.getsockname()[1], **settings)
        await client.connect()
        client_side, _ = await loop.sock_accept(listener)
    server_side, server = socket.socketpair()
    for sock in (client_side, server_side, server):
        sock.setblocking(False)
    proxy = FaultProxy(client_side, server_side)
    proxy.start(to_client, to_server)
    peer = Peer(server)
    try:
        yield peer, client, proxy
    finally:
        client.abort()
        await proxy.stop()
        peer.close()
        await asyncio.sleep(0)
