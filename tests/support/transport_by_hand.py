"""A transport by hand: the test is the kernel, the network and the loop's selector, and nothing moves by itself.

It does what asyncio's selector transport does (CPython 3.11, selector_events.py; like 3.12 it keeps what `write` is
given without copying it), and notes in `breaches` whatever the protocol does that crashes or confuses a real loop.

The package's transport in memory (`pepperpy.network.testing.tcp_memory`) does another job, and neither can be the
other. That one joins two protocols, moves bytes in turns of the loop, and ends as TCP over loopback does. This one has
one end. It runs each callback when the test says so, takes a part of a write or fails it, keeps the pieces that it was
given, and can write to a real socket. Users of the package need nothing of that; the tests of the core need all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pepperpy.network._core.stream_protocol import StreamProtocol

WHOLE = 1 << 30  # a chunk larger than any buffer: as much as fits


class TransportByHand(asyncio.Transport):
    """One connection of `protocol`, whose kernel takes `room` bytes until the peer makes more room."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: StreamProtocol, room: float = math.inf) -> None:
        super().__init__()
        self.loop = loop
        self.protocol = protocol
        self.room = room
        self.wire = bytearray()  # what the peer has got
        self.wire_ended = False
        self.inbox = bytearray()  # what the peer has sent and the loop has not read
        self.calls: list[str] = []  # of the transport's methods, in order
        self.breaches: list[str] = []
        self.dropped = 0  # bytes given to write() that will never leave
        self.kernel_error: OSError | None = None  # what the next write meets
        self.before_update: Callable[[bytes], None] = lambda data: None
        self.before_loss: Callable[[], None] = lambda: None
        self.reading_paused = False
        self.closing = False
        self.lost = False  # connection_lost was called
        self._inside: list[str] = []  # of the protocol's callbacks
        self._held: deque[memoryview] = deque()
        self._handed_before = 0
        self._protocol_paused = False
        self._high = 64 * 1024
        self._eof_written = False
        self._eof_read = False
        self._loss_scheduled = False

    # ---- What the test does ----

    def connect(self) -> None:
        with self._calling("connection_made"):
            self.protocol.connection_made(self)

    def arrives(self, data: bytes, chunks: Iterable[int] = ()) -> None:
        """The peer sends `data`, and the loop reads it in pieces of these sizes, then as large as they fit."""
        self.inbox += data
        self.read_all(chunks)

    def read_all(self, chunks: Iterable[int] = ()) -> None:
        """The loop reads what is in the inbox, as long as reading is not paused."""
        sizes = iter(chunks)
        while self.read(next(sizes, WHOLE)):
            pass

    def read(self, most: int) -> int:
        """One read of `most` bytes at most, as the loop does it: no more than there are, nor than the buffer holds."""
        if not self.inbox or not self.is_reading():
            return 0
        with self._calling("get_buffer"):
            buffer = self.protocol.get_buffer(-1)
        view = memoryview(buffer)
        if view.nbytes < 1 or view.readonly or view.ndim != 1 or view.itemsize != 1 or not view.c_contiguous:
            self._breach(f"get_buffer returned {view.nbytes} bytes, format {view.format!r}, readonly={view.readonly}")
        n = min(most, view.nbytes, len(self.inbox))
        data = bytes(self.inbox[:n])
        del self.inbox[:n]
        view[:n] = data
        self.before_update(data)
        with self._calling("buffer_updated"):
            self.protocol.buffer_updated(n)
        return n

    def ends(self) -> None:
        """The peer ends its stream, and the loop, which has read all of it, is told."""
        self._eof_read = True
        keep_open = None
        with self._calling("eof_received"):
            keep_open = self.protocol.eof_received()
        if not keep_open:
            self.close()

    def breaks(self, error: BaseException | None) -> None:
        """The loop finds the connection broken; connection_lost follows in the next turn."""
        self._force_close(error)

    def peer_takes(self, n: float) -> None:
        """The peer reads: there is room for `n` more bytes, and the loop finds the socket writable."""
        self.room += n
        self.writable()

    def writable(self) -> None:
        if not self._held or self._loss_scheduled:
            return
        try:
            while self._held:
                piece = self._held[0]
                sent = self._kernel_send(piece)
                if sent < len(piece):
                    self._held[0] = piece[sent:]
                    break
                self._held.popleft()
        except OSError as error:
            self._drop_held()
            self._force_close(error)
            return
        if self._protocol_paused and not self._held:
            self._protocol_paused = False
            with self._calling("resume_writing"):
                self.protocol.resume_writing()
        if not self._held:
            if self.closing:
                # At once, which is why nothing may close the transport inside resume_writing.
                self._call_connection_lost(None)
            elif self._eof_written:
                self._kernel_shutdown()

    @property
    def is_full(self) -> bool:
        return bool(self._held)

    @property
    def handed(self) -> int:
        """Bytes that are with the kernel for certain: of what the transport still holds a part of, none."""
        return self._handed_before if self._held else self._kernel_has()

    # ---- The kernel ----

    def _kernel_has(self) -> int:
        return len(self.wire)

    def _kernel_send(self, data: memoryview) -> int:
        if self.kernel_error is not None:
            raise self.kernel_error
        n = int(min(len(data), self.room))
        self.wire += data[:n]
        self.room -= n
        return n

    def _kernel_shutdown(self) -> None:
        if self.wire_ended:
            self._breach("the end of the stream was sent twice")
        self.wire_ended = True
        if self.kernel_error is not None:
            raise self.kernel_error

    def _kernel_close(self) -> None:
        pass

    # ---- What the protocol does ----

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._touched("set_write_buffer_limits")
        self._high = 64 * 1024 if high is None else high

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._held))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._touched("write")
        view = memoryview(data)
        if type(view.obj) is not bytes:
            self._breach(f"write() was given memory that can still change: {type(view.obj).__name__}")
        if self._eof_written:
            self._breach("write() after write_eof()")
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._loss_scheduled:
            self.dropped += len(view)
            return
        if not self._held:
            self._handed_before = self._kernel_has()
            try:
                view = view[self._kernel_send(view) :]
            except OSError as error:
                self.dropped += len(view)
                self._force_close(error)
                return
            if not view:
                return
        self._held.append(view)
        if self.get_write_buffer_size() > self._high and not self._protocol_paused:
            self._protocol_paused = True
            with self._calling("pause_writing"):
                self.protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._touched("write_eof")
        if self.closing or self._eof_written:
            return
        self._eof_written = True
        if not self._held:
            self._kernel_shutdown()

    def is_reading(self) -> bool:
        return not (self.reading_paused or self.closing or self._eof_read)

    def pause_reading(self) -> None:
        self._touched("pause_reading")
        self.reading_paused = True

    def resume_reading(self) -> None:
        self._touched("resume_reading")
        self.reading_paused = False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self._touched("close")
        if not self.closing:
            self.closing = True
            if not self._held:
                self._loss_scheduled = True
                self.loop.call_soon(self._call_connection_lost, None)

    def abort(self) -> None:
        self._touched("abort")
        self._force_close(None)

    # ---- Inside ----

    def _force_close(self, error: BaseException | None) -> None:
        if self._loss_scheduled:
            return
        self._loss_scheduled = self.closing = True
        self._drop_held()
        self.loop.call_soon(self._call_connection_lost, error)

    def _drop_held(self) -> None:
        self.dropped += self.get_write_buffer_size()
        self._held.clear()

    def _call_connection_lost(self, error: BaseException | None) -> None:
        if self.lost:
            self._breach("connection_lost was called twice")
            return
        self.before_loss()
        self.lost = True
        with self._calling("connection_lost"):
            self.protocol.connection_lost(error)
        self._kernel_close()

    @contextlib.contextmanager
    def _calling(self, callback: str) -> Iterator[None]:
        self._inside.append(callback)
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # asyncio keeps the cause, uvloop forgets it: neither may ever see one.
            self._breach(f"{callback} let out {error!r}")
            self._force_close(error)
        finally:
            self._inside.pop()

    def _touched(self, method: str) -> None:
        self.calls.append(method)
        if "get_buffer" in self._inside:
            self._breach(f"{method}() inside get_buffer; uvloop crashes")
        if "resume_writing" in self._inside and method in ("close", "abort", "write_eof"):
            self._breach(f"{method}() inside resume_writing; asyncio reports the loss twice")
        if self.lost:
            self._breach(f"{method}() after connection_lost")

    def _breach(self, what: str) -> None:
        self.breaches.append(what)


class SocketByHand(TransportByHand):
    """The same on a pair of sockets with small buffers, so that the protocol writes to the kernel directly."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: StreamProtocol) -> None:
        super().__init__(loop, protocol)
        self.sock, self.peer = socket.socketpair()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is: some KiB
        self.sock.setblocking(False)
        self.peer.setblocking(False)
        self.peer_is_gone = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.sock if name == "socket" else default

    def peer_vanishes(self) -> None:
        """The peer closes; the next write meets EPIPE. What it had not read is lost."""
        self.peer_is_gone = True
        self.peer.close()

    def peer_takes(self, n: float) -> None:
        with contextlib.suppress(OSError):
            self.wire += self.peer.recv(min(int(n), 1 << 20) if n < math.inf else 1 << 20)
        self.writable()

    def _kernel_has(self) -> int:
        if self.lost or self.peer_is_gone:
            return len(self.wire)
        import fcntl  # Windows has neither
        import termios

        unread = fcntl.ioctl(self.peer, termios.FIONREAD, bytes(4))
        return len(self.wire) + int(struct.unpack("i", unread)[0])

    def _kernel_send(self, data: memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def _kernel_shutdown(self) -> None:
        super()._kernel_shutdown()
        self.sock.shutdown(socket.SHUT_WR)

    def _kernel_close(self) -> None:
        # What the kernel has still reaches the peer.
        self.sock.close()
        with contextlib.suppress(OSError):
            while data := self.peer.recv(1 << 20):
                self.wire += data
        self.peer.close()
