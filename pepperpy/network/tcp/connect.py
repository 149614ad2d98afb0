"""From a name or a path to a connected socket: lookup, racing, socket options. One attempt, without retries."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from pepperpy.network._core.handover import Handover
from pepperpy.network.address_policy import permitted
from pepperpy.network.config import NetworkConfig
from pepperpy.network.keepalive import Keepalive, keepalive_of
from pepperpy.network.lookup import AddressInfo, forget, look_up
from pepperpy.network.socket_checks import SocketFactory
from pepperpy.network.tcp.made_socket import socket_from
from pepperpy.network.tcp.race import race

if TYPE_CHECKING:
    from pepperpy.network.events import Observer

# Whether to call connect() once more instead of waiting at once. Linux hands a packet for this machine over before the
# call that sent it returns, so a peer on this machine has answered by then; the second call returns 0 or its refusal,
# and EALREADY for any other peer. That saves a turn of the loop and four system calls: 16 % of the instructions of a
# connection that is made, used once and closed (measured, asyncio).
LOOKS_AGAIN = sys.platform == "linux"


class SocketSettings(Protocol):
    """How sockets are made: fields of `NetworkConfig` and of `HTTPConfig`."""

    @property
    def keepalive(self) -> bool | Keepalive: ...
    @property
    def local_address(self) -> tuple[str, int] | None: ...
    @property
    def socket_options(self) -> tuple[tuple[int, int, int | bytes], ...]: ...


# For each (host, port), the addresses that have accepted since a connection last proved itself.
Tried = dict[tuple[str, int], set[Any]]


async def open_tcp(
    config: NetworkConfig,
    host: str,
    port: int,
    tried: Tried | None = None,
    addresses: list[AddressInfo] | None = None,
    observer: Observer | None = None,
) -> socket.socket:
    """Look up, unless `addresses` are given; race all of them, and return the socket that was connected first.

    Given `addresses` are those of `addresses_of()`, or of a proxy that needs no leave of `address_policy`.

    Its address is added to `tried`. An address that is in `tried` already has accepted before, but then TLS,
    `on_connect` or the connection failed. So the other addresses are raced first, and this one comes after them. The
    set is cleared when each address has had its turn, or when the others do not answer.
    """
    loop = asyncio.get_running_loop()
    if addresses is None:
        addresses = await addresses_of(config, host, port, observer)
    local = None if config.local_address is None else await look_up_local(config)
    if len(addresses) > 1:
        return await _race(loop, config, host, port, tried, addresses, local, observer)
    try:
        return await _open(loop, config, addresses[0], local, observer)
    except BaseException:
        forget(host)
        raise


async def addresses_of(
    config: NetworkConfig, host: str, port: int, observer: Observer | None = None
) -> list[AddressInfo]:
    """Where a connection to `host` may lead: its addresses that `address_policy` allows.

    Raises:
        ForbiddenAddressError: There are none.
        OSError: As `look_up()`.
    """
    found = await looked_up(config, host, port, observer)
    policy = config.address_policy
    return found if policy is None else permitted(policy, host, port, found)


async def _race(
    loop: asyncio.AbstractEventLoop,
    config: NetworkConfig,
    host: str,
    port: int,
    tried: Tried | None,
    addresses: list[AddressInfo],
    local: list[AddressInfo] | None,
    observer: Observer | None,
) -> socket.socket:
    async def connect(address: AddressInfo) -> socket.socket:
        return await _open(loop, config, address, local, observer)

    used = set() if tried is None else tried.setdefault((host, port), set())
    fresh = [address for address in addresses if address[4] not in used]
    if not fresh:
        used.clear()
        fresh = addresses
    try:
        sock, (*_, address) = await race(connect, fresh, config.happy_eyeballs_delay)
    except BaseException as error:
        used.clear()
        forget(host)
        if len(fresh) == len(addresses) or not isinstance(error, OSError):
            raise
        rest = [address for address in addresses if address not in fresh]
        sock, (*_, address) = await race(connect, rest, config.happy_eyeballs_delay)
    used.add(address)
    return sock


def looked_up(config: NetworkConfig, host: str, port: int, observer: Observer | None) -> Awaitable[list[AddressInfo]]:
    """As `look_up()`, by the resolver of `config`."""
    looking = look_up(host, port, 0, config.resolver)
    if observer is None:
        return looking
    from pepperpy.network.events import LookupDone, lookup_facts

    return observer.timed(looking, LookupDone, lookup_facts, host=host, port=port)


async def look_up_local(settings: SocketSettings) -> list[AddressInfo] | None:
    """The addresses to connect from; None: any. Raises: OSError, which names the setting."""
    if settings.local_address is None:
        return None
    try:
        return await look_up(*settings.local_address)
    except OSError as error:
        if error.errno is None:
            # A loop's own getaddrinfo has raised it; its class may take other arguments.
            raise
        kind = socket.gaierror if isinstance(error, socket.gaierror) else OSError
        raise kind(error.errno, f"{error.strerror}: local_address {settings.local_address}") from None


def _open(
    loop: asyncio.AbstractEventLoop,
    config: NetworkConfig,
    address: AddressInfo,
    local: list[AddressInfo] | None,
    observer: Observer | None,
) -> Awaitable[socket.socket]:
    if config.socket_factory is None:
        connecting = _connected(loop, new_socket(config, address, local), address[4])
    else:
        connecting = _connected_by_factory(loop, config, config.socket_factory, address, local)
    return _observed(connecting, address[4], observer)


def _observed(
    connecting: Coroutine[Any, Any, socket.socket], address: Any, observer: Observer | None
) -> Awaitable[socket.socket]:
    if observer is None:
        return connecting
    from pepperpy.network.events import ConnectDone

    host, port = address[:2] if isinstance(address, tuple) else (address, 0)
    return observer.timed(connecting, ConnectDone, address=str(host), port=port)


async def _connected_by_factory(
    loop: asyncio.AbstractEventLoop,
    config: NetworkConfig,
    factory: SocketFactory,
    address: AddressInfo,
    local: list[AddressInfo] | None,
) -> socket.socket:
    sock, is_connected = await socket_from(factory, address)
    prepare(sock, sock.family, config, None if is_connected else local)
    if not is_connected:
        return await _connected(loop, sock, address[4])
    sock.setblocking(False)
    return sock


async def _connected(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> socket.socket:
    try:
        if sock.gettimeout() != 0.0:
            sock.setblocking(False)
        if os.name == "posix":
            await connect_socket(loop, sock, address)
        else:
            await loop.sock_connect(sock, address)
        if isinstance(address, tuple) and sock.getsockname()[1] == address[1]:
            _refuse_itself(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_itself(sock: socket.socket, address: Any) -> None:
    # If nobody listens on a port of the ephemeral range, the system may choose that same port to connect from. Then the
    # socket is connected to itself, by a simultaneous open (RFC 9293, section 3.5). Go's net refuses that as well.
    try:
        itself = sock.getsockname()[:2] == sock.getpeername()[:2]
    except OSError as error:
        # The ports of two machines are equal by chance, and the peer has reset the connection already.
        raise ConnectionResetError(errno.ECONNRESET, f"Connection reset by {address}") from error
    if itself:
        # It is closed without TIME_WAIT, so that a server can use the port at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"Nobody listens on {address}: connected to itself")


async def connect_socket(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket. Raises: OSError.

    In place of `loop.sock_connect()`: uvloop's takes a thread to look up an address that is a number already, and
    asyncio's takes the EAGAIN of a Unix socket with a full backlog for a connection under way.
    """
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS and LOOKS_AGAIN:
        code = sock.connect_ex(address)
    if code in (errno.EINPROGRESS, errno.EALREADY):
        await _writable(loop, sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, f"Connect call failed {address}: {os.strerror(code)}")


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready = Handover(loop)
    # The descriptor, not the socket: for a socket, asyncio formats its repr for a KeyError, twice (selectors.get_key).
    descriptor = sock.fileno()
    loop.add_writer(descriptor, _set_done, ready)
    try:
        await ready
    finally:
        # Before the descriptor is closed: the next socket that is opened gets the same number.
        loop.remove_writer(descriptor)


async def readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Wait until a socket can be read, or a listening one has somebody to accept. Cancellation: nothing was taken."""
    ready = Handover(loop)
    descriptor = sock.fileno()
    loop.add_reader(descriptor, _set_done, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _set_done(ready: Handover) -> None:
    # If there is no memory for it, the loop calls this again in its next turn.
    if not ready.is_over:
        ready.give(None)


async def open_unix(settings: SocketSettings, path: str, observer: Observer | None = None) -> socket.socket:
    """A socket connected to a Unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        set_options(sock, socket.AF_UNIX, settings)
    except BaseException:
        sock.close()
        raise
    return await _observed(_connected(asyncio.get_running_loop(), sock, path), path, observer)


# Where the system makes sockets that never block, that saves a call.
_NONBLOCKING: int = getattr(socket, "SOCK_NONBLOCK", 0)


def new_socket(settings: SocketSettings, address: AddressInfo, local: list[AddressInfo] | None) -> socket.socket:
    """An unconnected socket with the configured options, which some systems heed only before the connection."""
    family, kind, proto, _, _ = address
    return prepare(socket.socket(family, kind | _NONBLOCKING, proto), family, settings, local)


def prepare(
    sock: socket.socket, family: int, settings: SocketSettings, local: list[AddressInfo] | None
) -> socket.socket:
    """The same socket, of this family, with the configured options, bound to an address of `local`; None: to none.

    Failure: It is closed.
    """
    try:
        set_options(sock, family, settings)
        if local is not None:
            _bind(sock, local)
    except BaseException:
        sock.close()
        raise
    return sock


_TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# Options that only one family of addresses knows.
_FAMILIES = {socket.IPPROTO_IP: socket.AF_INET, socket.IPPROTO_IPV6: socket.AF_INET6}


def set_options(sock: socket.socket, family: int, settings: SocketSettings) -> None:
    """Set the configured options of a socket of this family; on one that is not of TCP, `keepalive` means nothing.

    Raises:
        OSError: The system refuses one of `socket_options`, and the text names it.
    """
    keepalive = keepalive_of(settings.keepalive)
    if keepalive is not None and family in _TCP_FAMILIES:
        for level, option, number in keepalive.options:
            sock.setsockopt(level, option, number)
    for level, option, value in settings.socket_options:
        if _FAMILIES.get(level, family) != family:
            continue
        try:
            sock.setsockopt(level, option, value)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: socket_options ({level}, {option}, {value!r})") from None


def _bind(sock: socket.socket, local: list[AddressInfo]) -> None:
    failure = OSError(errno.EAFNOSUPPORT, "local_address is of another family than the address to connect to")
    for family, _, _, _, address in local:
        if family != sock.family:
            continue
        try:
            if address[1] and os.name == "posix":
                # An earlier connection may hold the fixed port in TIME_WAIT. On Windows, this option would let another
                # program take the port from the one that uses it (SO_EXCLUSIVEADDRUSE).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            return
        except OSError as error:
            failure = OSError(error.errno, f"{error.strerror}: local_address {address}")
    raise failure
