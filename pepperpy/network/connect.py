"""From a name to a connected socket: lookup, racing, socket options. One attempt; retries are tcp.py's."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from typing import Any

import aiohappyeyeballs

from pepperpy.network._stream_protocol import StreamProtocol
from pepperpy.network.config import NetworkConfig
from pepperpy.network.handshake import connect_transport
from pepperpy.network.proxy import open_tunnel
from pepperpy.network.tls import context_of

AddressInfo = tuple[int, int, int, str, Any]  # as getaddrinfo gives them


async def open_connection(config: NetworkConfig) -> StreamProtocol:
    """Set up one connection. No time limit of its own.

    Raises:
        OSError: Of the lookup or of the addresses; where several failed differently, one error names them all.
        ProxyError: The proxy could not be reached, or refused.
        TLSError: The handshake failed, or the certificate was refused.
        ImportError: What the configuration asks for needs a package that is not installed.
        ValueError: A file of the configuration cannot be used.

    Cancellation: No socket is left open.
    """
    context = context_of(config) if config.tls else None
    if config.unix_path is not None:
        sock = await _open_unix(config, config.unix_path)
    elif config.proxy is not None:
        sock = await open_tunnel(config, config.proxy, config.host, config.port)
    else:
        sock = await open_tcp(config, config.host, config.port)
    return await connect_transport(config, sock, context)


async def open_tcp(config: NetworkConfig, host: str, port: int) -> socket.socket:
    """Look up, race all addresses, and return the socket that was connected first."""
    loop = asyncio.get_running_loop()
    addresses = await _look_up(loop, host, port)
    local = None
    if config.local_address is not None:
        local = await _look_up(loop, *config.local_address)
    if len(addresses) == 1 and local is None and os.name == "posix":
        return await _connect_alone(loop, _new_socket(config, addresses[0]), addresses[0][4])
    # On every loop alike: uvloop's create_connection cannot race (uvloop#406).
    return await aiohappyeyeballs.start_connection(
        addresses,
        local_addr_infos=local,
        happy_eyeballs_delay=config.happy_eyeballs_delay,
        socket_factory=lambda address: _new_socket(config, address),
    )


# Not by loop.sock_connect(): uvloop's takes a thread to look up an address that is a number already.
# Nor to a Unix socket: for asyncio's, the EAGAIN of a full backlog is a connection under way, and then made.
async def _connect_alone(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> socket.socket:
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            await _writable(loop, sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, f"Connect call failed {address}: {os.strerror(code)}")
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = loop.create_future()
    # By its descriptor: of a socket, asyncio formats the repr for a KeyError of its own, twice (selectors.get_key).
    descriptor = sock.fileno()
    loop.add_writer(descriptor, _set_done, ready)
    try:
        await ready
    finally:
        # Before the descriptor is closed and given to somebody else.
        loop.remove_writer(descriptor)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _open_unix(config: NetworkConfig, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for level, option, value in config.socket_options:
            sock.setsockopt(level, option, value)
    except BaseException:
        sock.close()
        raise
    return await _connect_alone(asyncio.get_running_loop(), sock, path)


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
    try:
        # An address needs no lookup, hence no thread: a saturated executor cannot delay it (CPython gh-112169).
        version = ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError:
        pass
    else:
        if "%" not in host:
            if version == 6:
                return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))]
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        # Without a free descriptor the resolver cannot read its files and says "unknown name"; opening one tells.
        socket.socket().close()
        raise
    except UnicodeError as error:
        # The idna codec's complaint about a label that is empty or longer than 63 characters.
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {error}") from None


def _new_socket(config: NetworkConfig, address: AddressInfo) -> socket.socket:
    """An unconnected socket with the configured options, which some systems heed only before the connection."""
    family, kind, proto, _, _ = address
    sock = socket.socket(family, kind, proto)
    try:
        if config.keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # macOS calls the idle time TCP_KEEPALIVE.
            _set_where_known(sock, ("TCP_KEEPIDLE", "TCP_KEEPALIVE"), config.keepalive_idle)
            _set_where_known(sock, ("TCP_KEEPINTVL",), config.keepalive_interval)
            _set_where_known(sock, ("TCP_KEEPCNT",), config.keepalive_count)
        if config.user_timeout is not None:
            _set_where_known(sock, ("TCP_USER_TIMEOUT",), max(1, round(config.user_timeout * 1000)))
        for level, option, value in config.socket_options:
            sock.setsockopt(level, option, value)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_where_known(sock: socket.socket, names: tuple[str, ...], value: int) -> None:
    for name in names:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
            return
