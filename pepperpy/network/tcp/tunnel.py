"""A connection through a proxy, over a socket that connect.py opens. python-socks speaks SOCKS; CONNECT is spoken here.

It reads no byte behind the proxy's answer. The server may speak first, and its first byte belongs to the transport.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from pepperpy.network.address_policy import target_for_proxy
from pepperpy.network.errors import ForbiddenAddressError
from pepperpy.network.lookup import forget
from pepperpy.network.printable import printable
from pepperpy.network.proxy_rules import EnvironmentProxy
from pepperpy.network.proxy_url import ProxyURL, read_proxy, require_socks
from pepperpy.network.tcp.connect import Tried, addresses_of, looked_up, open_tcp
from pepperpy.network.tcp.http_connect import (
    END_OF_ANSWER,
    MAX_ANSWER,
    Challenged,
    Tunnelling,
    as_proxy_error,
    check_answer,
    hung_up,
    proxy_error,
    too_long,
)
from pepperpy.network.tcp.tls_tunnel import TLSTunnel, connect_over_tls

if TYPE_CHECKING:
    from pepperpy.network.config import NetworkConfig
    from pepperpy.network.events import Observer

Tunnel = socket.socket | TLSTunnel


async def open_tunnel(
    config: NetworkConfig,
    url: str,
    host: str,
    port: int,
    tried: Tried | None = None,
    observer: Observer | None = None,
    *,
    forwards: bool = False,
) -> Tunnel:
    """A socket to `host` through the proxy; through one of `https://`, a `TLSTunnel` in place of a socket.

    With `forwards`, it leads to an HTTP proxy that is asked for no tunnel, and forwards requests: each names its own
    target (RFC 9112, section 3.2.2).

    `tried` remembers the proxy's own addresses, see `open_tcp()`.

    `config.address_policy` is asked about `host`, and about the proxy only if the environment names it.

    Raises:
        ForbiddenAddressError: The policy forbids `host`, or to leave its lookup to this proxy, or the proxy itself.
        TLSError: The handshake with an `https://` proxy failed, or its certificate was refused.
        ProxyError: The proxy cannot be reached, does not answer as one, or refuses; `details["status"]` is its code.
        UsageError: SOCKS needs a package that is not installed; an `ImportError` as well.
        OSError: `host` is no host name; or, for socks4 and socks5, which look up here, it has no address.

    Failure and cancellation: No socket is left open.
    """
    proxy = read_proxy(url)
    _check_name(host)
    if proxy.scheme.startswith("socks"):
        require_socks()
    if proxy.scheme in ("socks4", "socks5"):
        host = await _address_of(config, host, port, proxy.scheme, observer)
    elif config.address_policy is not None:
        host = target_for_proxy(config.address_policy, host, port, proxy.shown)
    tunnelling = None if forwards or not proxy.scheme.startswith("http") else Tunnelling(proxy, host, port)
    while True:
        before = {} if tried is None else {place: set(failed) for place, failed in tried.items()}
        try:
            return await _open(config, url, proxy, host, port, tunnelling, tried, observer)
        except Challenged:
            if tried is not None:
                # The address that has asked has not failed.
                tried.clear()
                tried.update(before)


async def _open(
    config: NetworkConfig,
    url: str,
    proxy: ProxyURL,
    host: str,
    port: int,
    tunnelling: Tunnelling | None,
    tried: Tried | None,
    observer: Observer | None,
) -> Tunnel:
    try:
        # The policy is asked about proxies of the environment only, not about one that is set in code.
        find = addresses_of if isinstance(url, EnvironmentProxy) else looked_up
        addresses = await find(config, proxy.host, proxy.port, observer)
        sock = await open_tcp(config, proxy.host, proxy.port, tried, addresses, observer)
    except ForbiddenAddressError:
        raise
    except OSError as error:
        raise proxy_error(proxy, f"cannot connect to it: {str(error) or type(error).__name__}", cause=error) from error
    try:
        if proxy.scheme == "http" and tunnelling is None:
            return sock
        agreeing = _agree(config, sock, proxy, host, port, tunnelling)
        return await (agreeing if observer is None else _observed(agreeing, proxy, observer))
    except Challenged:
        sock.close()
        raise
    except BaseException:
        sock.close()
        forget(proxy.host)
        raise


async def _agree(
    config: NetworkConfig, sock: socket.socket, proxy: ProxyURL, host: str, port: int, tunnelling: Tunnelling | None
) -> Tunnel:
    if proxy.scheme == "https":
        return await connect_over_tls(config, sock, proxy, tunnelling)
    if tunnelling is None:
        await _connect_socks(sock, proxy, host, port)
    else:
        await _connect_http(sock, proxy, tunnelling)
    return sock


def _observed(agreeing: Awaitable[Tunnel], proxy: ProxyURL, observer: Observer) -> Awaitable[Tunnel]:
    from pepperpy.network.events import ProxyDone

    return observer.timed(agreeing, ProxyDone, proxy=proxy.shown)


def _check_name(host: str) -> None:
    try:
        # SOCKS5 stores its length in one byte (RFC 1928).
        flaw = "longer than 255 bytes" if len(host.encode("idna")) > 255 else None
    except UnicodeError as error:
        flaw = str(error)
    if flaw is not None:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {flaw}")


async def _connect_socks(sock: socket.socket, proxy: ProxyURL, host: str, port: int) -> None:
    python_socks: Any = importlib.import_module("python_socks")
    asyncio_socks: Any = importlib.import_module("python_socks.async_.asyncio")

    kind = python_socks.ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4
    speaker = asyncio_socks.Proxy(
        kind,
        proxy.host,
        proxy.port,
        username=proxy.user,
        password=proxy.password,
        # The proxy or this package looks names up, never python-socks, which takes a thread of the default executor.
        rdns=True,
        # Poses as another proxy on the way, so that python-socks uses our socket.
        forward=_Given(sock),
    )
    with as_proxy_error(proxy):
        try:
            # By default it has 60 seconds; here the caller has the time limit.
            await speaker.connect(host, port, timeout=365 * 86400.0)
        except python_socks.ProxyError as error:
            if type(error.__cause__).__name__ == "IncompleteReadError":
                # By its name, because python-socks does not export that class.
                failure = hung_up(proxy)
                raise failure from failure.__cause__
            # If it has no code, the greeting or the password has failed.
            # As a plain int: python-socks gives an enum of its own.
            raise proxy_error(proxy, printable(str(error)), int(error.error_code or 0), error) from error
        except UnicodeError as error:
            # The proxy's answer contains a name that cannot be decoded.
            raise proxy_error(proxy, "it does not answer as a SOCKS proxy", 0, error) from error


async def _address_of(config: NetworkConfig, host: str, port: int, scheme: str, observer: Observer | None) -> str:
    """An address of `host`; an IPv4 one if there is any, because SOCKS4 has no other and more proxies can reach it."""
    addresses = await addresses_of(config, host, port, observer)
    for family, *_, address in addresses:
        if family == socket.AF_INET:
            return str(address[0])
    if scheme == "socks4":
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no IPv4 address, and SOCKS4 knows no other")
    return str(addresses[0][4][0])


class _Given:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        return self._sock


async def _connect_http(sock: socket.socket, proxy: ProxyURL, tunnelling: Tunnelling) -> None:
    # Not by python-socks, which treats the bytes of one read as the answer. If the answer came in two pieces, the
    # second would count as the server's; if the server's greeting followed at once, it would be lost.
    loop = asyncio.get_running_loop()
    answer = bytearray()
    with as_proxy_error(proxy):
        await loop.sock_sendall(sock, tunnelling.request())
        while not answer.endswith(END_OF_ANSWER):
            # Byte by byte, so that none too many is read: 1 us each, once for each connection.
            try:
                byte = sock.recv(1)
            except BlockingIOError:
                byte = await loop.sock_recv(sock, 1)
            if not byte:
                raise hung_up(proxy)
            answer += byte
            if len(answer) > MAX_ANSWER:
                raise too_long(proxy)
    check_answer(proxy, answer, tunnelling.auth)
