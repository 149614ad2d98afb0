"""The other end of every TCP workload: blocking sockets that never sleep, in a process and on a core of its own.

    python server.py WORKLOAD      prints its port, serves connections until its standard input closes

A server that sleeps costs each wake-up about 20 us on a virtual machine, which would be all that a single-connection
figure shows; so this one polls. It must also outrun every client: it sends prepared blocks of 1 MiB.
"""

import os
import select
import socket
import sys
import threading

LINE = b"x" * 63 + b"\n"
BLOCK = LINE * (1 << 14)  # 1 MiB, for lines, records and bulk alike


def flood(connection: socket.socket) -> None:
    """Send blocks until the client goes away."""
    try:
        while True:
            connection.sendall(BLOCK)
    except OSError:
        pass


def sink(connection: socket.socket) -> None:
    """Read until the end of the stream, then answer with the number of bytes as 8 bytes."""
    connection.setblocking(False)
    memory = bytearray(1 << 20)
    total = 0
    while True:
        try:
            count = connection.recv_into(memory)
        except BlockingIOError:
            continue
        except OSError:
            return
        if not count:
            break
        total += count
    connection.setblocking(True)
    connection.sendall(total.to_bytes(8, "big"))
    connection.close()


def idle(connection: socket.socket) -> None:
    """Hold the connection open."""
    _held.append(connection)


_held: list[socket.socket] = []


def echo(listener: socket.socket) -> None:
    """Send everything back, for any number of connections in one thread."""
    listener.setblocking(False)
    poll = select.epoll() if hasattr(select, "epoll") else select.poll()
    poll.register(listener, select.POLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll(0):
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poll.register(connection, select.POLLIN)
                continue
            connection = connections[fd]
            try:
                data = connection.recv(65536)
                if data:
                    connection.sendall(data)
            except OSError:
                data = b""
            if not data:
                poll.unregister(fd)
                connections.pop(fd).close()


def main(workload: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    # The harness holds our standard input open for as long as it needs us.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    if workload == "echo":
        echo(listener)
    serve = {"flood": flood, "sink": sink, "idle": idle}[workload]
    while True:
        connection, _ = listener.accept()
        serve(connection)
        if serve is not idle:
            connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
