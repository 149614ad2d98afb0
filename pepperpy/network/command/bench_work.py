"""What the processes of `bench` do: a server for all workloads, and a client of each kind."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable

LINE = b"x" * 63 + b"\n"
BODY = b"y" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + BODY
BLOCK = LINE * 1000
BATCH = 100  # operations between two looks at the clock


class Server(asyncio.Protocol):
    """asyncio's fastest: a protocol without buffers. The first byte of a connection says what the client wants."""

    transport: asyncio.Transport
    wants: bytes = b""
    writing: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.wants = self.wants or data[:1]
        if self.wants == b"L":
            self.resume_writing()
        elif self.wants == b"G":
            for _ in range(data.count(b"\r\n\r\n")):
                self.transport.write(ANSWER)
        else:
            self.transport.write(data)

    def resume_writing(self) -> None:
        self.writing = True
        while self.writing and not self.transport.is_closing():
            self.transport.write(BLOCK)

    def pause_writing(self) -> None:
        self.writing = False


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


async def rate(once: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Operations a second."""
    for _ in range(BATCH):
        await once()
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(BATCH):
            await once()
        done += BATCH
    return done / elapsed


async def stream(workload: str, client: str, port: int, seconds: float) -> float:
    """Lines, or round trips."""
    if client == "theirs":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def theirs() -> None:
            writer.write(LINE)
            await reader.readexactly(len(LINE))

        writer.write(b"L" if workload == "lines" else LINE)
        await reader.readexactly(len(LINE))
        return await rate(reader.readline if workload == "lines" else theirs, seconds)
    from pepperpy.network.config import NetworkConfig
    from pepperpy.network.tcp.client import NetworkClient

    connection = NetworkClient(NetworkConfig("127.0.0.1", port))
    await connection.connect()

    async def ours() -> None:
        await connection.send(LINE)
        await connection.receive_exactly(len(LINE))

    await connection.send(b"L" if workload == "lines" else LINE)
    await connection.receive_exactly(len(LINE))
    try:
        return await rate(connection.receive_line if workload == "lines" else ours, seconds)
    finally:
        connection.abort()


async def get(client: str, port: int, seconds: float) -> float:
    """GETs, one after the other."""
    url = f"http://127.0.0.1:{port}/"
    if client == "theirs":
        import aiohttp

        async with aiohttp.ClientSession() as session:

            async def theirs() -> None:
                async with session.get(url) as answer:
                    assert await answer.read() == BODY

            return await rate(theirs, seconds)
    from pepperpy.network.http.client import HTTPClient

    async with HTTPClient() as http:

        async def ours() -> None:
            assert (await http.request("GET", url)).content == BODY

        return await rate(ours, seconds)


async def main(workload: str, client: str = "", port: str = "0", seconds: str = "0") -> None:
    if workload == "server":
        await serve()
    elif workload == "get":
        print(await get(client, int(port), float(seconds)))
    else:
        print(await stream(workload, client, int(port), float(seconds)))


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        # The command that has started this process reports it.
        sys.exit(130)
