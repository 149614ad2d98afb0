"""The other end of every TCP workload: sockets that never sleep, in a process of its own.

    python server.py KIND [CERTIFICATE]      prints its port, serves connections until its standard input closes

A server that sleeps costs each wake-up about 20 us on a virtual machine, which would be all that a single-connection
figure shows; so this one polls. It must also outrun every client: it sends prepared blocks of 1 MiB, and where Python
would be too slow, which is echoes without TLS, c_echo.c takes its place. The harness gives it a core of its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import ssl
import sys
import threading

from workloads import EVENT, HEADER_BYTES, LARGE_RECORD, LAST_MESSAGE, LINE

RECORD = len(LINE).to_bytes(HEADER_BYTES, "big") + LINE
BLOCKS = {
    "lines": LINE * (1 << 14),
    "records": RECORD * (1 << 14),
    "large_records": LARGE_RECORD.to_bytes(HEADER_BYTES, "big") + LINE * (LARGE_RECORD // len(LINE)),
}  # 1 MiB each
# A chunk for each event, as servers send them that flush after each one.
_DATA = b"data: " + EVENT + b"\n\n"
EVENTS = (b"%x\r\n" % len(_DATA) + _DATA + b"\r\n") * 64
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def flood(connection: socket.socket, block: bytes) -> None:
    """Send blocks until the client goes away."""
    connection.setblocking(False)
    view = memoryview(block)
    sent = 0
    while True:
        try:
            sent += connection.send(view[sent:])
        except (BlockingIOError, ssl.SSLWantWriteError):
            continue
        except OSError:
            return
        if sent == len(block):
            sent = 0


def sink(connection: socket.socket) -> None:
    """Read up to LAST_MESSAGE, then answer with the number of bytes before it, as 8 bytes."""
    connection.setblocking(False)
    memory = bytearray(1 << 20)
    view = memoryview(memory)
    total = kept = 0
    while True:
        try:
            count = connection.recv_into(view[kept:])
        except (BlockingIOError, ssl.SSLWantReadError):
            continue
        except OSError:
            return
        if not count:
            return
        total += count
        kept += count
        if memory.endswith(LAST_MESSAGE, 0, kept):
            break
        # The start of LAST_MESSAGE may have come by itself.
        end = min(kept, len(LAST_MESSAGE) - 1)
        view[:end] = view[kept - end : kept].tobytes()
        kept = end
    connection.setblocking(True)
    connection.sendall((total - len(LAST_MESSAGE)).to_bytes(8, "big"))
    connection.recv(1)  # until the client closes


class Events:
    """Answers each connection with an endless stream of server-sent events, whatever it asks; all in one thread."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._unsent: dict[socket.socket, memoryview] = {}

    def serve(self) -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                connection, _ = self._listener.accept()
                connection.recv(65536)  # the request, which comes in one piece
                connection.setblocking(False)
                self._unsent[connection] = memoryview(EVENTS_HEAD)
            for connection, data in list(self._unsent.items()):
                try:
                    data = data[connection.send(data) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self._unsent.pop(connection).release()
                    connection.close()
                    continue
                self._unsent[connection] = data or memoryview(EVENTS)


class Echo:
    """Sends everything back, for any number of connections in one thread; none of them makes another one wait.

    Without TLS c_echo.c does the same, where it can be built.
    """

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._context = context
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._poll.register(listener, select.POLLIN)
        self._connections: dict[int, socket.socket] = {}
        # What could not be sent at once; meanwhile nothing is read.
        self._unsent: dict[int, memoryview] = {}

    def serve(self) -> None:
        listening = self._listener.fileno()
        while True:
            for fd, _ in self._poll.poll(0):
                if fd == listening:
                    self._accept()
                elif not self._answer(fd):
                    self._drop(fd)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            try:
                connection = self._context.wrap_socket(connection, server_side=True)
            except OSError:
                return
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _answer(self, fd: int) -> bool:
        """Send back what has come; whether the stream goes on."""
        connection = self._connections[fd]
        unsent = self._unsent.pop(fd, None)
        try:
            # Over TLS a record, of 16 KiB at most: nothing is left where poll cannot see it.
            data = unsent or memoryview(connection.recv(65536))
            if not data:
                return False
            while data:
                data = data[connection.send(data) :]
        except ssl.SSLWantReadError:
            return True  # a part of a record
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._unsent[fd] = data
            self._poll.modify(fd, select.POLLOUT)
            return True
        except OSError:
            return False
        if unsent:
            self._poll.modify(fd, select.POLLIN)
        return True

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        connection = self._connections.pop(fd)
        if isinstance(connection, ssl.SSLSocket):
            # The answer to the client's close_notify, which many wait for.
            with contextlib.suppress(OSError):
                connection.unwrap()
        connection.close()


_held: list[socket.socket] = []


def main(kind: str, certificate: str | None = None) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    # The harness holds our standard input open for as long as it needs us.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    if kind == "echo":
        Echo(listener, context).serve()
    if kind == "events":
        Events(listener).serve()
    while True:
        connection, _ = listener.accept()
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            if kind == "sink":
                sink(connection)
            elif kind == "idle":
                _held.append(connection)
            else:
                flood(connection, BLOCKS[kind])
        except OSError:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
