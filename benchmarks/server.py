"""The other end of every TCP workload: sockets that never sleep, in a process and on a core of its own.

    python server.py KIND [CERTIFICATE]      prints its port, serves connections until its standard input closes

A server that sleeps costs each wake-up about 20 us on a virtual machine, which would be all that a single-connection
figure shows; so this one polls. It must also outrun every client: it sends prepared blocks of 1 MiB.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import ssl
import sys
import threading

from workloads import HEADER_BYTES, LAST_MESSAGE, LINE

RECORD = len(LINE).to_bytes(HEADER_BYTES, "big") + LINE
BLOCKS = {"lines": LINE * (1 << 14), "records": RECORD * (1 << 14)}  # 1 MiB


def flood(connection: socket.socket, block: bytes) -> None:
    """Send blocks until the client goes away."""
    try:
        while True:
            connection.sendall(block)
    except OSError:
        pass


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


class Echo:
    """Sends everything back, for any number of connections in one thread."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._context = context
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._poll.register(listener, select.POLLIN)
        self._connections: dict[int, socket.socket] = {}

    def serve(self) -> None:
        listening = self._listener.fileno()
        while True:
            for fd, _ in self._poll.poll(0):
                if fd == listening:
                    self._accept()
                elif not self._answer(self._connections[fd]):
                    self._poll.unregister(fd)
                    self._connections.pop(fd).close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            try:
                connection = self._context.wrap_socket(connection, server_side=True)
            except OSError:
                return
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _answer(self, connection: socket.socket) -> bool:
        try:
            data = connection.recv(65536)
            # What TLS has decrypted beyond that is in no socket for poll to see.
            while data and isinstance(connection, ssl.SSLSocket) and (left := connection.pending()):
                data += connection.recv(left)
            if data:
                connection.sendall(data)
        except OSError:
            return False
        return bool(data)


_held: list[socket.socket] = []


def main(kind: str, certificate: str | None = None) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
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
