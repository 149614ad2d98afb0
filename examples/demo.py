"""The main job of the package in one minute: `make demo`, or `python examples/demo.py`.

Starts a server in a process of its own, talks to it through `NetworkClient`, kills it, starts it again, and prints the
rates beside those of plain asyncio streams doing the same against the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

from pepperpy.network import ConnectionLostError, NetworkClient, NetworkConfig

LINE = b"x" * 63 + b"\n"
LINES = 2_000_000
BULK_BYTES = 2 << 30
PIECE_BYTES = 4 << 20
MESSAGES = 300_000


# ---- The server ----


class Handler(socketserver.StreamRequestHandler):
    """One connection: its first line says what the client wants."""

    def handle(self) -> None:
        command, _, number = self.rfile.readline().decode().strip().partition(" ")
        if command == "echo":
            while data := self.rfile.read1(65536):
                self.request.sendall(data)
        elif command == "send":
            block = LINE * 4096
            left = int(number)
            with contextlib.suppress(ConnectionError):
                while left > 0:
                    self.request.sendall(block[:left])
                    left -= len(block)
        elif command == "count":
            total = 0
            while data := self.rfile.read1(1 << 20):
                total += len(data)
            self.wfile.write(b"%d\n" % total)


def serve(port: int) -> None:
    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


class ServerProcess:
    """A server that can be killed, and started again on its port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the server, and return when it listens."""
        command = [sys.executable, __file__, "--serve", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the server does not start on port {self.port}")

    def kill(self) -> None:
        """Kill the server, and return when nothing of it is left.

        Linux closes the connections of a killed process first, and its listening socket a moment later. So a client
        that connects as soon as it sees the end of its connection may be accepted by the dying server, and then reset.
        """
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@contextlib.contextmanager
def server_process() -> Iterator[ServerProcess]:
    # The port stays bound until the end, so that no other program gets it between two servers. A server that sets
    # SO_REUSEADDR may listen on it all the same, but only on Linux.
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        server = ServerProcess(reservation.getsockname()[1])
        if sys.platform != "linux":
            reservation.close()
        try:
            server.start()
            yield server
        finally:
            server.kill()


# ---- Rates ----


def bar(title: str, done: int, total: int, started: float) -> None:
    """A progress bar, for jobs of more than a second, if the output is a terminal."""
    if sys.stderr.isatty() and time.perf_counter() - started > 1:
        filled = 30 * done // total
        line = f"\r  {title:36} [{'#' * filled}{'.' * (30 - filled)}] {100 * done // total:3} %"
        print(line if done < total else f"\r{' ' * 79}\r", end="", file=sys.stderr)


async def timed(title: str, total: int, steps: AsyncIterator[int]) -> float:
    """Units per second of a job, which yields how far it is."""
    started = time.perf_counter()
    async for done in steps:
        bar(title, min(done, total), total, started)
    return total / (time.perf_counter() - started)


async def client_lines(port: int) -> AsyncIterator[int]:
    async with NetworkClient(NetworkConfig("127.0.0.1", port)) as client:
        await client.send(b"send %d\n" % (LINES * len(LINE)))
        for number in range(1, LINES + 1):
            if await client.receive_line() != LINE:
                raise AssertionError("wrong line")
            if number % 100_000 == 0:
                yield number


async def client_line_batches(port: int) -> AsyncIterator[int]:
    async with NetworkClient(NetworkConfig("127.0.0.1", port)) as client:
        await client.send(b"send %d\n" % (LINES * len(LINE)))
        received = 0
        while lines := await client.receive_lines():
            received += len(lines)
            yield received
        assert received == LINES


async def stream_lines(port: int) -> AsyncIterator[int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"send %d\n" % (LINES * len(LINE)))
    for number in range(1, LINES + 1):
        if await reader.readline() != LINE:
            raise AssertionError("wrong line")
        if number % 100_000 == 0:
            yield number
    writer.close()
    await writer.wait_closed()


async def client_bulk(port: int) -> AsyncIterator[int]:
    async with NetworkClient(NetworkConfig("127.0.0.1", port)) as client:
        await client.send(b"send %d\n" % BULK_BYTES)
        for number in range(BULK_BYTES // PIECE_BYTES):
            assert len(await client.receive_exactly(PIECE_BYTES)) == PIECE_BYTES
            yield (number + 1) * PIECE_BYTES


async def stream_bulk(port: int) -> AsyncIterator[int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"send %d\n" % BULK_BYTES)
    for number in range(BULK_BYTES // PIECE_BYTES):
        assert len(await reader.readexactly(PIECE_BYTES)) == PIECE_BYTES
        yield (number + 1) * PIECE_BYTES
    writer.close()
    await writer.wait_closed()


async def client_messages(port: int) -> AsyncIterator[int]:
    async with NetworkClient(NetworkConfig("127.0.0.1", port)) as client:
        await client.send(b"count\n")
        for number in range(1, MESSAGES + 1):
            await client.send(LINE)
            if number % 10_000 == 0:
                yield number
        await client.send_eof()
        assert int(await client.receive_line()) == MESSAGES * len(LINE)


async def stream_messages(port: int) -> AsyncIterator[int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"count\n")
    for number in range(1, MESSAGES + 1):
        writer.write(LINE)
        await writer.drain()
        if number % 10_000 == 0:
            yield number
    writer.write_eof()
    assert int(await reader.readline()) == MESSAGES * len(LINE)
    writer.close()
    await writer.wait_closed()


async def show_rates(port: int) -> None:
    Job = Callable[[int], AsyncIterator[int]]
    jobs: list[tuple[str, int, float, str, Job, Job]] = [
        ("lines in, one await each", LINES, 1e6, "M/s", client_lines, stream_lines),
        ("lines in, a batch per await", LINES, 1e6, "M/s", client_line_batches, stream_lines),
        ("bulk in, pieces of 4 MiB", BULK_BYTES, 1e9, "GB/s", client_bulk, stream_bulk),
        ("64-byte messages out", MESSAGES, 1e6, "M/s", client_messages, stream_messages),
    ]
    print(f"\n  {'':28} {'NetworkClient':>15} {'asyncio streams':>17} {'ratio':>8}")
    for title, total, scale, unit, ours, theirs in jobs:
        fast = await timed(title, total, ours(port))
        slow = await timed(title + ", streams", total, theirs(port))
        print(f"  {title:28} {fast / scale:10.2f} {unit:4} {slow / scale:12.2f} {unit:4} {fast / slow:7.1f}x")


# ---- The tour ----


async def tour(server: ServerProcess) -> None:
    # A retry about every quarter of a second, for half a minute: on a busy machine a new server takes a while.
    config = NetworkConfig("127.0.0.1", server.port, retries=100, retry_delay=0.5, max_retry_delay=0.5)
    client = NetworkClient(config)
    async with client:
        print(f"connected   {client.local_address} -> {client.remote_address}")
        await client.send(b"echo\n")
        await client.send(b"Hello")
        print(f"received    {await client.receive(1024)!r}")
        await client.send_many([b"first line\n", b"second line\n"])
        print(f"lines       {await client.receive_line()!r}, {await client.receive_line()!r}")

        print("killing the server ...")
        killing = asyncio.create_task(asyncio.to_thread(server.kill))
        try:
            while await client.receive(timeout=None):
                pass
            print("noticed     the end of the stream")
        except ConnectionLostError as error:
            print(f"noticed     {error}")
        await killing
        await client.disconnect()
        connecting = asyncio.create_task(client.connect())
        while not client.stats.retries and not connecting.done():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        await connecting
        print(f"connected   again, after {client.stats.retries} retries")
        await client.send(b"echo\n")
        await client.send(b"Hello again")
        print(f"received    {await client.receive_exactly(11)!r}")
        print(f"counted     {client.stats}")


def main() -> None:
    with server_process() as server:
        asyncio.run(tour(server))
        asyncio.run(show_rates(server.port))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server, in a process of its own")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            serve(arguments.serve)
    else:
        main()
