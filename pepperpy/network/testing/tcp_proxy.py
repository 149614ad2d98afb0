"""`FaultProxy`: a network between any client and any server that fails at given byte offsets of each direction.

Only faults that are about time depend on time. Each direction is a task that reads no more bytes than it may pass on,
so an offset is exact on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from pepperpy.network.checks import check_int, check_timeout
from pepperpy.network.config import NetworkConfig
from pepperpy.network.lookup import look_up
from pepperpy.network.testing.tcp_peer import HOST
from pepperpy.network.testing.tcp_reset import before_reset, reset_on_close


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What happens to the bytes of one direction of one connection; by default nothing.

    A fault `..._after` happens when exactly so many bytes of this direction have passed; 0: before the first one. There
    may be several, in both directions.

    Attributes:
        slice_size: The most bytes that pass at a time; 1: byte by byte.
        latency: Seconds before each slice.
        bandwidth: Bytes per second; None: no limit.
        stall_after: Bytes after which nothing passes until `FaultProxy.resume()`.
        end_after: Bytes after which this direction ends (half-close): the receiver reads the end of the stream, further
            bytes of the sender are dropped, the other direction goes on.
        close_after: Bytes after which both connections are closed, in order.
        reset_after: Bytes after which both connections are reset (RST).
        corrupt_at: Offset of a byte that arrives with all its bits inverted.
        end_delay: Seconds by which the end of the sender's stream arrives late.
    """

    slice_size: int = 65536
    latency: float = 0.0
    bandwidth: float | None = None
    stall_after: int | None = None
    end_after: int | None = None
    close_after: int | None = None
    reset_after: int | None = None
    corrupt_at: int | None = None
    end_delay: float = 0.0

    # In the order in which they happen at the same offset.
    _AFTER: ClassVar = ("stall_after", "end_after", "close_after", "reset_after")

    def __post_init__(self) -> None:
        check_int("slice_size", self.slice_size, 1)
        if self.bandwidth is not None and not (isinstance(self.bandwidth, (int, float)) and self.bandwidth > 0):
            raise ValueError(f"bandwidth must be a number of bytes per second above 0, not {self.bandwidth!r}")
        for name in ("latency", "end_delay"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a number of seconds, not None")
            check_timeout(name, getattr(self, name), zero=True)
        for name in (*self._AFTER, "corrupt_at"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 0)

    def _events(self) -> list[tuple[int, str]]:
        found = [(offset, name) for name in self._AFTER if (offset := getattr(self, name)) is not None]
        return sorted(found, key=lambda event: event[0])


class FaultProxy:
    """A proxy on a free port of 127.0.0.1 that forwards to `host` and `port`, with faults.

        async with FaultProxy(server.host, server.port, to_client=Faults(slice_size=1, reset_after=100)) as proxy:
            client = NetworkClient(proxy.config)

    It serves any protocol over TCP, TLS included, because it does not look into the bytes. A reset, or the end of a
    stream, on one side is passed on to the other.

    Attributes:
        host: The address that clients connect to.
        port: Its port.
        config: A `NetworkConfig` for clients, with the defaults but no retries.
        connections: How many clients have been accepted.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        to_client: Faults | Sequence[Faults] = Faults(),
        to_server: Faults | Sequence[Faults] = Faults(),
    ) -> None:
        """Args: to_client, to_server: The faults of all connections; or a sequence, for the first connection, the
        second, ...: the last one also holds for all later ones.
        """
        self._target = (host, port)
        self._to_client = _as_sequence("to_client", to_client)
        self._to_server = _as_sequence("to_server", to_server)
        self.host = HOST
        self.port: int = 0
        self.config: NetworkConfig
        self.connections: int = 0
        self._listener: socket.socket
        self._is_up = False
        self._connections: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()

    async def __aenter__(self) -> FaultProxy:
        self._bind()
        self.config = NetworkConfig(self.host, self.port, retries=0)
        self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_listening()
        await self.reset_all()

    # ---- What a test does ----

    def resume(self) -> None:
        """Let stalled directions go on; no direction stalls from now on."""
        self._resumed.set()

    async def reset_all(self) -> None:
        """Reset all present connections. New ones are accepted."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def down(self) -> None:
        """Reset all present connections and refuse new ones until `up()`. The port stays reserved."""
        if self._is_up:
            self._stop_listening()
            # Bound but not listening: the system refuses connections.
            self._bind()
        await self.reset_all()

    def up(self) -> None:
        """Accept connections again after `down()`."""
        if not self._is_up:
            self._is_up = True
            self._listener.listen()
            # A task in sock_accept() that is cancelled can lose a connection, which is then left open.
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    # ---- Connections ----

    def _bind(self) -> None:
        self._listener = socket.socket()
        self._listener.setblocking(False)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, self.port))
        self.port = self._listener.getsockname()[1]

    def _stop_listening(self) -> None:
        if self._is_up:
            self._is_up = False
            asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the client has given up meanwhile
        client.setblocking(False)
        connection = asyncio.create_task(self._carry(client, self.connections))
        self.connections += 1
        self._connections.add(connection)

        def ended(connection: asyncio.Task[None]) -> None:
            self._connections.discard(connection)
            if client.fileno() >= 0:
                # The task was cancelled before its first step.
                _close(client, in_order=False)

        connection.add_done_callback(ended)

    async def _carry(self, client: socket.socket, number: int) -> None:
        to_client = self._to_client[min(number, len(self._to_client) - 1)]
        to_server = self._to_server[min(number, len(self._to_server) - 1)]
        sockets = [client]
        pumps: list[asyncio.Task[bool]] = []
        in_order = False
        try:
            loop = asyncio.get_running_loop()
            (family, *_, address), *_ = await look_up(*self._target)
            server = socket.socket(family)
            sockets.append(server)
            server.setblocking(False)
            await loop.sock_connect(server, address)
            pumps = [
                asyncio.create_task(self._pump(server, client, to_client)),
                asyncio.create_task(self._pump(client, server, to_server)),
            ]
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            ended_in_order = [pump.result() for pump in done]
            in_order = all(ended_in_order)
        except _ClosedInOrder:
            in_order = True
        except OSError:
            pass  # a reset, by a fault or by a peer; or there is no server, which the client sees as a reset
        finally:
            for pump in pumps:
                pump.cancel()
            # Not even a cancellation cuts this short: a descriptor that a task waits for must not be closed.
            while not all(pump.done() for pump in pumps):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(pumps)
            for pump in pumps:
                if not pump.cancelled():
                    pump.exception()
            for sock in sockets:
                _close(sock, in_order)

    async def _pump(self, source: socket.socket, target: socket.socket, faults: Faults) -> bool:
        # Returns whether this direction ended in order.
        loop = asyncio.get_running_loop()
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        events = faults._events()
        passed = 0
        while True:
            while events and events[0][0] == passed:
                if await self._happen(events.pop(0)[1], source, target):
                    return True
            most = min(faults.slice_size, events[0][0] - passed) if events else faults.slice_size
            data = await loop.sock_recv(source, most)
            if not data:
                await asyncio.sleep(faults.end_delay)
                _end(target)
                return True
            if faults.corrupt_at is not None and 0 <= (at := faults.corrupt_at - passed) < len(data):
                data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            await asyncio.sleep(faults.latency + (len(data) / faults.bandwidth if faults.bandwidth else 0))
            try:
                await loop.sock_sendall(target, data)
            except OSError:
                # No error yet: the other direction first passes on what the target sent before it went.
                return False
            passed += len(data)
            # Two turns: in the first a receiver on this loop sees the slice, in the second it reads it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _happen(self, event: str, source: socket.socket, target: socket.socket) -> bool:
        # Returns True if nothing more passes in this direction.
        match event:
            case "stall_after":
                await self._resumed.wait()
                return False
            case "end_after":
                _end(target)
                while await asyncio.get_running_loop().sock_recv(source, 65536):
                    pass
                return True
            case "close_after":
                raise _ClosedInOrder
        await before_reset(target)
        raise ConnectionResetError


class _ClosedInOrder(Exception):
    pass


def _close(sock: socket.socket, in_order: bool) -> None:
    if not in_order:
        reset_on_close(sock)
    sock.close()


def _end(sock: socket.socket) -> None:
    # OSError: the socket was closed or reset. The direction that reads from it will notice.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


def _as_sequence(name: str, faults: Faults | Sequence[Faults]) -> Sequence[Faults]:
    found = (faults,) if isinstance(faults, Faults) else faults
    if not (isinstance(found, Sequence) and found and all(isinstance(each, Faults) for each in found)):
        raise TypeError(f"{name} must be Faults, or a sequence of them that is not empty, not {faults!r}")
    return found
