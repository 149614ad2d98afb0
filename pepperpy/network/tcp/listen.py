"""From a host or a path to the sockets that listen there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from pepperpy.network.config import NetworkConfig
from pepperpy.network.lookup import AddressInfo, look_up
from pepperpy.network.tcp.connect import set_options

# Connections that the system holds until they are accepted. Linux allows at most net.core.somaxconn, 4096 by default.
BACKLOG = 1024

# How often a free port is chosen that must be free on all addresses of a host. Arbitrary.
_PORTS_TRIED = 10


async def listen_on_host(host: str, port: int, config: NetworkConfig) -> list[socket.socket]:
    """A socket for each address of `host`, all with the same port; 0 lets the system choose it.

    An address that this machine does not have is left out, if there is another one: some systems without IPv6 name ::1
    as localhost.

    Raises:
        OSError: The name is unknown, or an address cannot be used; the text names it.
    """
    try:
        addresses = await look_up(host, port)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"cannot listen on {host}: {error.strerror}") from None
    for tried in range(_PORTS_TRIED):
        try:
            return _listen_on(addresses, port, config)
        except OSError as error:
            # The port that is free on the first address is taken on another one.
            if port or error.errno != errno.EADDRINUSE or tried == _PORTS_TRIED - 1:
                raise
    raise AssertionError("the last one raises")


def _listen_on(addresses: list[AddressInfo], port: int, config: NetworkConfig) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for address in addresses:
            try:
                listener = _bound(address, port, config)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = error
                continue
            listeners.append(listener)
            port = listener.getsockname()[1]
            listener.listen(BACKLOG)
        if missing is not None and not listeners:
            raise missing
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bound(info: AddressInfo, port: int, config: NetworkConfig) -> socket.socket:
    family, kind, proto, _, address = info
    place = f"{address[0]}:{port}"
    try:
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise _named(error, place) from None
    try:
        listener.setblocking(False)
        if os.name == "posix":
            # Connections of an earlier server may hold the port in TIME_WAIT.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Or "::" would take the port of IPv4 too.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Those that are accepted inherit them.
        set_options(listener, family, config)
        listener.bind((address[0], port, *address[2:]))
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise _named(error, place) from None
        raise
    return listener


def listen_on_path(path: str, config: NetworkConfig) -> tuple[socket.socket, os.stat_result | None]:
    """A socket that listens on a path, and its file; None for an abstract socket (Linux), which has none.

    The file of a dead server is replaced.

    Raises:
        OSError: The path cannot be used, or somebody listens there; the text names it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        set_options(listener, socket.AF_UNIX, config)
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _remove_dead(path):
                raise
            listener.bind(path)
        listener.listen(BACKLOG)
        return listener, None if path.startswith("\0") else os.stat(path)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise _named(error, path) from None
        raise


def _remove_dead(path: str) -> bool:
    """Remove the file of a Unix socket on which nobody listens. Returns whether it is gone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if stat.S_ISSOCK(os.stat(path).st_mode) and probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
            return True
    return False


def same_file(path: str, found: os.stat_result) -> bool:
    """Whether there is still this file at the path, and not that of another server that has taken the place."""
    try:
        return os.path.samestat(os.stat(path), found)
    except OSError:
        return False


def _named(error: OSError, place: str) -> OSError:
    return OSError(error.errno, f"cannot listen on {place}: {error.strerror}")
