"""The fixed workloads whose instructions are counted: `python guard_workloads.py NAME COUNT`.

One thread, and both ends of a loopback connection in it, so that each run does the same in the same order: the peer is
a blocking socket (TCP) or a protocol in the same loop (HTTP), and is served between the operations that are counted.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

from pepperpy.network import HTTPClient, HTTPConfig, LengthPrefixed, NetworkClient, NetworkConfig, NetworkPool

LINE = b"x" * 63 + b"\n"
ROUND = 500  # operations between two looks at the peer: 32 KB fit into the buffers of any socket


async def _connected() -> tuple[NetworkClient, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = NetworkClient(NetworkConfig("127.0.0.1", listener.getsockname()[1], timeout=None))
        await client.connect()
        peer, _ = listener.accept()
    return client, peer


async def receive_line(count: int) -> None:
    client, peer = await _connected()
    with peer:
        for _ in range(count // ROUND):
            peer.sendall(LINE * ROUND)
            for _ in range(ROUND):
                if await client.receive_line() != LINE:
                    raise AssertionError("wrong line")
        client.abort()


async def receive_record(count: int) -> None:
    """Length-prefixed: 4 bytes that say how many follow, then these."""
    client, peer = await _connected()
    record = len(LINE).to_bytes(4, "big") + LINE
    with peer:
        for _ in range(count // ROUND):
            peer.sendall(record * ROUND)
            for _ in range(ROUND):
                size = int.from_bytes(await client.receive_exactly(4), "big")
                if await client.receive_exactly(size) != LINE:
                    raise AssertionError("wrong record")
        client.abort()


async def receive_frame(count: int) -> None:
    """The same by a codec, one message an `await`."""
    await _framed(count, batch=False)


async def receive_frames(count: int) -> None:
    """The same, all that are on hand an `await`."""
    await _framed(count, batch=True)


async def _framed(count: int, batch: bool) -> None:
    client, peer = await _connected()
    messages = client.framed(LengthPrefixed(4))
    record = len(LINE).to_bytes(4, "big") + LINE
    with peer:
        for _ in range(count // ROUND):
            peer.sendall(record * ROUND)
            left = ROUND
            while left:
                received = await messages.receive_batch() if batch else [await messages.receive()]
                if received[0] != LINE:
                    raise AssertionError("wrong message")
                left -= len(received)
        client.abort()


async def send(count: int) -> None:
    client, peer = await _connected()
    with peer:
        for _ in range(count // ROUND):
            for _ in range(ROUND):
                await client.send(LINE)
            await client.flush()
            left = ROUND * len(LINE)
            while left:
                left -= len(peer.recv(left))
        client.abort()


async def connect(count: int) -> None:
    """A connection made, used for one round trip, and closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = NetworkConfig("127.0.0.1", listener.getsockname()[1])
        for _ in range(count):
            client = NetworkClient(config)
            await client.connect()
            peer, _ = listener.accept()
            with peer:
                await client.send(LINE)
                peer.send(peer.recv(len(LINE)))
                if await client.receive_exactly(len(LINE)) != LINE:
                    raise AssertionError("wrong echo")
                await client.disconnect()


async def pool_block(count: int) -> None:
    """An idle connection of a pool, lent for a block without input or output."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = NetworkConfig("127.0.0.1", listener.getsockname()[1])
        async with NetworkPool(config, 1, 1) as pool:
            for _ in range(count):
                async with pool.acquire():
                    pass


class _Server(asyncio.Protocol):
    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.ANSWER)  # type: ignore[attr-defined]


async def http_get(count: int) -> None:
    """On our own core."""
    await _get(count, HTTPConfig())


async def http_get_aiohttp(count: int) -> None:
    """By aiohttp's transport."""
    await _get(count, HTTPConfig(transport="aiohttp"))


async def _get(count: int, config: HTTPConfig) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, HTTPClient(config) as client:
        for _ in range(count):
            if await client.get(url) != "hello":
                raise AssertionError("wrong answer")


# How many operations are counted: enough for the start of the process to matter less than a part in a thousand.
WORKLOADS: dict[str, tuple[Callable[[int], Awaitable[None]], int]] = {
    "receive_line": (receive_line, 20_000),
    "receive_record": (receive_record, 10_000),
    "receive_frame": (receive_frame, 20_000),
    "receive_frames": (receive_frames, 100_000),
    "send": (send, 20_000),
    "connect": (connect, 200),
    "pool_block": (pool_block, 5_000),
    "http_get": (http_get, 200),
    "http_get_aiohttp": (http_get_aiohttp, 200),
}

if __name__ == "__main__":
    function, _ = WORKLOADS[sys.argv[1]]

    async def main() -> None:
        await function(int(sys.argv[2]))

    asyncio.run(main())
