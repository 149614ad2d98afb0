"""Sockets that `socket_factory` makes: for a network of its own, AF_VSOCK, a tunnel."""

from __future__ import annotations

import inspect
import socket
import ssl

from pepperpy.network.checks import shown
from pepperpy.network.lookup import AddressInfo
from pepperpy.network.socket_checks import SocketFactory


async def socket_from(factory: SocketFactory, address: AddressInfo) -> tuple[socket.socket, bool]:
    """What the factory gives for this address, and whether it is connected already.

    Raises:
        TypeError, ValueError: It is no stream socket; nothing of it is closed.
        Exception: What the factory raises. An `OSError` means that this address cannot be connected to.
    """
    made = factory(address)
    sock = stream_socket("what socket_factory returns", await made if inspect.isawaitable(made) else made)
    try:
        return sock, is_connected(sock)
    except BaseException:
        sock.close()
        raise


def unconnected_socket_from(factory: SocketFactory, address: AddressInfo) -> socket.socket:
    """The same for who cannot wait, and connects the socket himself. Raises ValueError if it is connected, or async."""
    made = factory(address)
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise ValueError("socket_factory must be a plain function where aiohttp carries the request (transport)")
    if is_connected(sock := stream_socket("what socket_factory returns", made)):
        sock.close()
        raise ValueError("socket_factory must not connect where aiohttp carries the request (transport)")
    return sock


def stream_socket(name: str, value: object) -> socket.socket:
    """Accept an open stream socket that speaks no TLS. Raises: TypeError, ValueError, which begin with `name`."""
    if not isinstance(value, socket.socket):
        raise TypeError(f"{name} must be a socket.socket, not {shown(value)}")
    if isinstance(value, ssl.SSLSocket):
        raise TypeError(
            f"{name} must be a plain socket, not an ssl.SSLSocket: NetworkConfig(tls=...) speaks TLS over it"
        )
    if value.fileno() < 0:
        raise ValueError(f"{name} must be open, and is closed")
    if value.type != socket.SOCK_STREAM:
        raise ValueError(f"{name} must be a stream socket (SOCK_STREAM), not {value.type!r}")
    return value


def is_connected(sock: socket.socket) -> bool:
    """Whether the socket has a peer."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
