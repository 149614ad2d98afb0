"""`memory_pair`: two connected `NetworkClient`s, with no network, port or descriptor between them.

Everything above the transport is that of production: `connect()` with its retries and time limits, flow control,
buffers, errors. The transport is in memory, and behaves as TCP over the loopback interface does on Linux
(tests/testing/test_tcp_agreement.py compares the two). A pair of sockets would be shorter code. But Unix sockets report
a peer that is gone at other times than TCP, sockets need a system that allows them, and the size of the kernel's
buffers differs between systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import check_int
from pepperpy.network.config import NetworkConfig
from pepperpy.network.tcp.client import NetworkClient
from pepperpy.network.testing.tcp_connect import opening_by
from pepperpy.network.units import KIB

_numbers = itertools.count(1)


@contextlib.asynccontextmanager
async def memory_pair(
    config: NetworkConfig | None = None,
    other: NetworkConfig | None = None,
    *,
    connect: bool = True,
    capacity: int = 64 * KIB,
) -> AsyncIterator[tuple[NetworkClient, NetworkClient]]:
    """Two clients, each of which receives what the other one sends: `async with memory_pair() as (a, b):`.

    `connect()` of one client waits for `connect()` of the other, also after either has disconnected. Clients meet by
    the address in `a.config` and `b.config`: a client that the code under test makes from `a.config` meets the next
    `connect()` of `b`; that code closes it. Everything happens in one event loop. There is no TLS.

    The end of the block aborts both clients.

    Args:
        config: The settings of both clients, except `host` and `port`, which name no real place.
        other: The settings of the second client; default: `config`.
        connect: False: both clients are unconnected when the block begins.
        capacity: Bytes of one direction that are sent and not yet read by the other side, at which a sender has to
            wait; 1 or more. A kernel has such a buffer too, of 4 KiB to several MiB.

    Raises:
        ValueError: A configuration has `tls`, `proxy`, `unix_path` or `hosts`, which mean nothing in memory.
    """
    check_int("capacity", capacity, 1)
    config = config or NetworkConfig("memory", 1)
    for each in (config, other or config):
        for name in ("tls", "proxy", "unix_path", "hosts"):
            if getattr(each, name) not in (False, None, ()):
                raise ValueError(f"{name} must be left out of the configuration of memory_pair(), which has no network")
    # RFC 6761, section 6.4: no real host has this name, so a use after the block reaches nobody.
    host = f"memory-{next(_numbers)}.invalid"
    configs = config.replace(host=host, port=1), (other or config).replace(host=host, port=2)
    meeting = _Meeting(host, capacity)
    with opening_by(meeting.opener):
        a, b = NetworkClient(configs[0]), NetworkClient(configs[1])
        try:
            if connect:
                await asyncio.gather(a.connect(), b.connect())
            yield a, b
        finally:
            a.abort()
            b.abort()
            # The transports end in this turn of the loop.
            await asyncio.sleep(0)


class _Meeting:
    """Joins clients that connect to port 1 of `host` with those that connect to port 2, in the order of their calls."""

    def __init__(self, host: str, capacity: int) -> None:
        self._host = host
        self._capacity = capacity
        self._waiting: dict[int, deque[tuple[StreamProtocol, asyncio.Future[None]]]] = {1: deque(), 2: deque()}

    def opener(self, config: NetworkConfig) -> Awaitable[StreamProtocol] | None:
        return self._open(config) if config.host == self._host and config.port in self._waiting else None

    async def _open(self, config: NetworkConfig) -> StreamProtocol:
        protocol = StreamProtocol(config)
        others = self._waiting[3 - config.port]
        while others:
            other, met = others.popleft()
            if not met.done():
                self._join(config.port, protocol, other)
                met.set_result(None)
                return protocol
        met = asyncio.get_running_loop().create_future()
        self._waiting[config.port].append((protocol, met))
        try:
            await met
        except asyncio.CancelledError:
            # If it met the other one in the turn of the cancellation, that one has lost its peer.
            protocol.abort()
            raise
        return protocol

    def _join(self, port: int, protocol: StreamProtocol, other: StreamProtocol) -> None:
        here, there = (self._host, port), (self._host, 3 - port)
        mine = MemoryTransport(protocol, here, there, self._capacity)
        mine.peer = MemoryTransport(other, there, here, self._capacity)
        mine.peer.peer = mine
        protocol.connection_made(mine)
        other.connection_made(mine.peer)


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory. It does what an event loop and a kernel do for a socket."""

    peer: MemoryTransport

    def __init__(
        self, protocol: StreamProtocol, address: tuple[str, int], peer_address: tuple[str, int], capacity: int
    ) -> None:
        super().__init__({"sockname": address, "peername": peer_address})
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._capacity = capacity
        # What a kernel knows about this socket:
        self._arrived = bytearray()  # sent by the peer and not yet read
        self._ended = False  # the peer's FIN comes after these bytes,
        self._reset: OSError | None = None  # or its RST
        self._gone = False  # closed here
        # What an event loop knows about it:
        self._held = bytearray()  # written, but the peer has no room for it
        self._eof_written = False
        self._eof_told = False
        self._closing = False
        self._failed = False
        self._resets = False  # aborted with accepted bytes that have not left
        self._paused = False
        self._read_scheduled = False

    # ---- What the protocol calls ----

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """StreamProtocol asks for 0, and nothing else is supported."""

    def get_write_buffer_size(self) -> int:
        return len(self._held)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not (self._paused or self._closing)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._schedule_read()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._failed:
            return
        if self._reset is not None:
            self._fail(self._reset)
            return
        was_full = bool(self._held)
        self._held += data
        self._pass_on()
        if self._held and not was_full:
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not (self._eof_written or self._closing):
            self._eof_written = True
            if not self._held:
                self.peer._end()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._held:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._resets = bool(self._held or self._protocol.sender.bytes_queued)
        self._fail(None)

    # ---- Sending ----

    def _pass_on(self) -> None:
        # Move held bytes to the peer, as far as it has room.
        peer = self.peer
        if peer._gone:
            self._held.clear()
            # A closed socket answers bytes with a RST. Linux reports EPIPE for it if a FIN had come before.
            self._reset = _os_error(errno.EPIPE if self._ended else errno.ECONNRESET)
            return
        room = self._capacity - len(peer._arrived)
        if self._held and room > 0:
            peer._arrived += self._held[:room]
            del self._held[:room]
            peer._schedule_read()

    def _room_was_made(self) -> None:
        # The peer has read.
        if not self._held or self._failed:
            return
        self._pass_on()
        if not self._held:
            self._protocol.resume_writing()
            if self._closing:
                self._loop.call_soon(self._lose, None)
            elif self._eof_written:
                self.peer._end()

    # ---- Receiving ----

    def _end(self) -> None:
        self._ended = True
        self._schedule_read()

    def _schedule_read(self) -> None:
        if not self._read_scheduled:
            self._read_scheduled = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_scheduled = False
        if self._paused or self._closing:
            return
        if self._arrived:
            # One read, as large as the protocol's memory.
            buffer = memoryview(self._protocol.get_buffer(-1))
            size = min(len(buffer), len(self._arrived))
            buffer[:size] = self._arrived[:size]
            del self._arrived[:size]
            self._protocol.buffer_updated(size)
            self.peer._room_was_made()
            self._schedule_read()
        elif self._ended:
            if not self._eof_told:
                self._eof_told = True
                if not self._protocol.eof_received():
                    self.close()
        elif self._reset is not None:
            self._fail(self._reset)

    # ---- Ending ----

    def _fail(self, error: OSError | None) -> None:
        if not self._failed:
            self._failed = self._closing = True
            self._held.clear()
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: OSError | None) -> None:
        if self._gone:
            return
        self._gone = True
        self._protocol.connection_lost(error)
        if self.peer._gone:
            return
        if self._arrived or self._resets:
            # Closed with unread bytes: a RST instead of a FIN (RFC 1122, 4.2.2.13). The same with unsent bytes.
            self.peer._reset = _os_error(errno.ECONNRESET)
            if self.peer._held:
                self.peer._fail(self.peer._reset)
            self.peer._schedule_read()
        elif not self._eof_written:
            self.peer._end()


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
