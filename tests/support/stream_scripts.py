"""Plays one script of calls, and of what the peer does, on asyncio's streams or on ours; tells what came of each step.

After each step the loop runs some turns, so that what a step brings has come before the next one. The peer is a plain
socket in the same thread: what it sends is there when its call returns. Over TCP the client's socket is polled for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import ssl
import struct
import zlib
from types import ModuleType
from typing import Any

from support.certificates import ca_file, server_cert, server_context

TURNS = 8
SEARCHES = ("readline", "next_line", "readuntil")
READS = ("read", "read_all", "readexactly", *SEARCHES)
Step = tuple[Any, ...]  # the name of a method of `Script`, and its arguments
Outcome = tuple[Any, ...]


class PlainPeer:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def send(self, data: bytes) -> None:
        # What the socket's buffer does not take is not sent: the same on both sides.
        with contextlib.suppress(OSError):
            self._sock.send(data)

    def eof(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    def reset(self) -> None:
        # Over TCP; a Unix socket that is closed with unread bytes does the same.
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def receive(self) -> bytes:
        """What is on hand."""
        with contextlib.suppress(OSError):
            return self._sock.recv(1 << 20)
        return b""


class TLSPeer(PlainPeer):
    """The server's end of TLS. It ends the stream with a close_notify, and closes without one."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server_context(server_cert()).wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> bool:
        """One step further; whether that was the last."""
        self._incoming.write(super().receive())
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            super().send(self._outgoing.read())
        return True

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.write(data)
        super().send(self._outgoing.read())

    def eof(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        super().send(self._outgoing.read())

    def receive(self) -> bytes:
        self._incoming.write(super().receive())
        pieces = []
        with contextlib.suppress(ssl.SSLError):
            while piece := self._tls.read(1 << 20):
                pieces.append(piece)
        return b"".join(pieces)


class Script:
    """One connection. `streams` is asyncio, or our module."""

    def __init__(self, streams: ModuleType, kind: str, limit: int) -> None:
        self.streams = streams
        self.kind = kind
        self.limit = limit
        self.outcomes: list[Outcome] = []
        # The calls that wait, with the number of their step.
        self.waiting: list[tuple[int, str, asyncio.Task[Any]]] = []

    async def play(self, steps: list[Step]) -> list[Outcome]:
        await self.open()
        for number, (name, *arguments) in enumerate(steps):
            if name == "receive":
                self.outcomes.append((number, name, await self.receive()))
            else:
                self.call(number, name, arguments)
                await self.turns()
            self.tell_of_those_that_are_done()
        await self.end()
        return self.outcomes

    async def open(self) -> None:
        ours, theirs = tcp_pair() if self.kind == "tcp" else socket.socketpair()
        ours.setblocking(False)
        self.fd = ours.fileno()
        open_connection = self.streams.open_connection
        if self.kind in ("tls", "start_tls"):
            context = ssl.create_default_context(cafile=str(ca_file()))
            self.peer: PlainPeer
            self.peer = peer = TLSPeer(theirs)
            if self.kind == "tls":
                opening = open_connection(sock=ours, limit=self.limit, ssl=context, server_hostname="localhost")
                self.reader, self.writer = await shaken(peer, opening)
            else:
                self.reader, self.writer = await open_connection(sock=ours, limit=self.limit)
                await shaken(peer, self.writer.start_tls(context, server_hostname="localhost"))
        else:
            self.peer = PlainPeer(theirs)
            self.reader, self.writer = await open_connection(sock=ours, limit=self.limit)

    async def end(self) -> None:
        await self.receive()
        self.tell_of_those_that_are_done()
        self.outcomes += [("still waits", name) for _, name, _ in self.waiting]
        for _, _, task in self.waiting:
            task.cancel()
        await asyncio.gather(*(task for *_, task in self.waiting), return_exceptions=True)
        # asyncio's transport forgets that it is closed where it was so with bytes left that went since (CPython 3.11).
        with contextlib.suppress(AttributeError):
            self.writer.transport.abort()
        self.peer.close()
        await self.turns()

    # ---- Telling ----

    def call(self, number: int, name: str, arguments: list[Any]) -> None:
        if name in READS and self.on_hand() and any(waiting in SEARCHES for _, waiting, _ in self.waiting):
            # asyncio would go on searching behind the bytes that this read takes away, and miss a separator.
            return
        try:
            outcome = getattr(self, name)(*arguments)
        except Exception as error:
            outcome = described(error)
        if asyncio.iscoroutine(outcome):
            self.waiting.append((number, name, asyncio.ensure_future(outcome)))
        else:
            self.outcomes.append((number, name, outcome))

    def on_hand(self) -> int:
        """Bytes that have come, and that no read has taken."""
        if self.streams is asyncio:
            return len(self.reader._buffer)
        return int(self.reader._core.unread)

    def tell_of_those_that_are_done(self) -> None:
        for number, name, task in self.waiting:
            if task.done():
                failed = task.cancelled() or task.exception() is not None
                self.outcomes.append((number, name, outcome_of(task) if failed else task.result()))
        self.waiting = [one for one in self.waiting if not one[2].done()]

    async def turns(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    # ---- What the program does ----

    def read(self, size: int) -> Any:
        return self.reader.read(size)

    def read_all(self, size: int) -> Any:
        # Not beside another read: asyncio drops what is on hand when it refuses.
        return None if any(name in READS for _, name, _ in self.waiting) else self.reader.read(size)

    def readline(self) -> Any:
        return self.reader.readline()

    def next_line(self) -> Any:
        return anext(self.reader)

    def readexactly(self, size: int) -> Any:
        return self.reader.readexactly(size)

    def readuntil(self, separator: Any) -> Any:
        return self.reader.readuntil(separator)

    def at_eof(self) -> bool:
        return self.reader.at_eof()

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)

    def writelines(self, pieces: list[bytes]) -> None:
        self.writer.writelines(pieces)

    def write_eof(self) -> None:
        self.writer.write_eof()

    def can_write_eof(self) -> bool:
        return self.writer.can_write_eof()

    def drain(self) -> Any:
        return self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def is_closing(self) -> bool:
        return self.writer.is_closing()

    def wait_closed(self) -> Any:
        return self.writer.wait_closed()

    def info(self, name: str) -> bool:
        return self.writer.get_extra_info(name) is not None

    def cancel(self) -> None:
        """The call that has waited longest. Not a read of all, whose bytes asyncio drops and this package keeps."""
        if self.waiting and self.waiting[0][1] != "read_all":
            self.waiting[0][2].cancel()

    # What asks for the transport comes seldom: from then on nothing is gathered.

    def limits(self, high: int) -> None:
        self.writer.transport.set_write_buffer_limits(high=high)

    def holds(self) -> bool:
        return self.writer.transport.get_write_buffer_size() > 0

    def write_by_transport(self, data: bytes) -> None:
        self.writer.transport.write(data)

    def pause(self) -> None:
        self.writer.transport.pause_reading()

    def resume(self) -> None:
        self.writer.transport.resume_reading()

    def abort(self) -> None:
        self.writer.transport.abort()

    # ---- What the peer does ----

    def peer_sends(self, data: bytes) -> None:
        self.peer.send(data)
        self.arrive()

    def peer_ends(self) -> None:
        self.peer.eof()
        self.arrive()

    def peer_closes(self) -> None:
        self.peer.close()
        self.arrive()

    def peer_resets(self) -> None:
        self.peer.reset()
        self.arrive()

    async def receive(self) -> tuple[int, int]:
        count, check, quiet = 0, 0, 0
        while quiet < 3:
            data = self.peer.receive()
            count, check = count + len(data), zlib.crc32(data, check)
            quiet = 0 if data else quiet + 1
            await self.turns()
        return count, check

    def arrive(self) -> None:
        if self.kind == "tcp" and not self.writer.is_closing():
            poll = select.poll()
            poll.register(self.fd, select.POLLIN | select.POLLRDHUP)
            poll.poll(1000)


def described(error: BaseException) -> Outcome:
    # uvloop names the object that refuses.
    text = re.sub("0x[0-9a-f]+", "...", repr(error))
    return (text, *(getattr(error, name, None) for name in ("partial", "expected", "consumed")))


def outcome_of(task: asyncio.Task[Any]) -> Outcome:
    if task.cancelled():
        return ("cancelled",)
    error = task.exception()
    assert error is not None
    return described(error)


async def shaken(peer: TLSPeer, opening: Any) -> Any:
    task = asyncio.ensure_future(opening)
    done = False
    while not task.done():
        done = done or peer.shake_hands()
        await asyncio.sleep(0)
    return task.result()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs
