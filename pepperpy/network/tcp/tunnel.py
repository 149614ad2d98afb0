"""A TCP connection through a proxy: SOCKS by python-socks, HTTP CONNECT here; over a socket that connect.py has opened.

No byte behind the proxy's answer is read: the first one of the server, which may speak first, is the transport's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pepperpy.network.errors import ProxyError
from pepperpy.network.lookup import forget, look_up
from pepperpy.network.printable import printable
from pepperpy.network.proxy_url import ProxyURL, read_proxy, require_socks
from pepperpy.network.tcp.connect import Tried, open_tcp

if TYPE_CHECKING:
    from pepperpy.network.config import NetworkConfig

# Bytes of the answer to CONNECT, of which one line matters. Arbitrary; nginx and tinyproxy need less than 300.
MAX_ANSWER = 16 * 1024

# Answers of a proxy that may be others later: SOCKS5 (RFC 1928: failure, no way to network or host, refused, expired),
# SOCKS4 (91: refused or failed), and gateways' statuses (RFC 9110), by which a proxy says that its way out is gone.
# Anything else, wrong credentials say, is there to stay.
PASSING_STATUSES = frozenset({1, 3, 4, 5, 6, 91, 502, 503, 504})


async def open_tunnel(
    config: NetworkConfig, url: str, host: str, port: int, tried: Tried | None = None
) -> socket.socket:
    """A socket whose other end is `host`, by way of the proxy, whose own addresses `tried` remembers (`open_tcp()`).

    Raises:
        ProxyError: The proxy cannot be reached, does not answer as one, or refuses; `details["status"]` is its code.
        UsageError: SOCKS without the package that speaks it; an `ImportError` as well.
        OSError: `host` is no host name; or it is looked up here, for socks4 and socks5, and has no address.

    Failure and cancellation: No socket is left open.
    """
    proxy = read_proxy(url)
    _check_name(host)
    negotiate = _connect_http if proxy.scheme == "http" else _connect_socks
    if proxy.scheme != "http":
        require_socks()
    try:
        sock = await open_tcp(config, proxy.host, proxy.port, tried)
    except OSError as error:
        raise _error(proxy, f"cannot connect to it: {str(error) or type(error).__name__}", cause=error) from error
    try:
        await negotiate(sock, proxy, host, port)
    except BaseException:
        sock.close()
        forget(proxy.host)
        raise
    return sock


def _check_name(host: str) -> None:
    try:
        # SOCKS5 counts its bytes in one (RFC 1928).
        flaw = "longer than 255 bytes" if len(host.encode("idna")) > 255 else None
    except UnicodeError as error:
        flaw = str(error)
    if flaw is not None:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {flaw}")


async def _connect_socks(sock: socket.socket, proxy: ProxyURL, host: str, port: int) -> None:
    import python_socks
    from python_socks.async_.asyncio import Proxy

    if proxy.scheme in ("socks4", "socks5"):
        host = await _address_of(host, port, proxy.scheme)
    kind = python_socks.ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4
    speaker = Proxy(
        kind,
        proxy.host,
        proxy.port,
        username=proxy.user,
        password=proxy.password,
        # Whoever looks names up, python-socks does not: it would take a thread of the loop's default executor.
        rdns=True,
        # Stands for another proxy on the way, and so lets it speak over a socket of ours.
        forward=_Given(sock),  # type: ignore[arg-type]
    )
    with _as_proxy_error(proxy):
        try:
            # Its own limit would be 60 seconds; the time is the caller's.
            await speaker.connect(host, port, timeout=365 * 86400.0)
        except python_socks.ProxyError as error:
            if type(error.__cause__).__name__ == "IncompleteReadError":
                # python-socks does not export it.
                failure = _hung_up(proxy)
                raise failure from failure.__cause__
            # Without a code it is the greeting or the password that failed.
            raise _error(proxy, printable(str(error)), error.error_code or 0, error) from error
        except UnicodeError as error:
            # Of the name that it says it has bound.
            raise _error(proxy, "it does not answer as a SOCKS proxy", 0, error) from error


async def _address_of(host: str, port: int, scheme: str) -> str:
    """An IPv4 address if there is one: SOCKS4 knows no other, and more proxies have a way there."""
    addresses = await look_up(host, port)
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


async def _connect_http(sock: socket.socket, proxy: ProxyURL, host: str, port: int) -> None:
    # Here, because python-socks takes whatever one read brings for the answer: of one that comes in two pieces it would
    # leave the second to the caller, as the server's, and of one that the server's greeting follows, lose that.
    loop = asyncio.get_running_loop()
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if proxy.user is not None:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    answer = bytearray()
    with _as_proxy_error(proxy):
        await loop.sock_sendall(sock, "".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        while not answer.endswith(b"\r\n\r\n"):
            # One at a time, so that none is read too many; 1 us each, once a connection.
            try:
                byte = sock.recv(1)
            except BlockingIOError:
                byte = await loop.sock_recv(sock, 1)
            if not byte:
                raise _hung_up(proxy)
            answer += byte
            if len(answer) > MAX_ANSWER:
                raise _error(proxy, f"its answer is longer than {MAX_ANSWER} bytes", 0)
    line = answer.partition(b"\r\n")[0].decode("latin-1")
    found = re.fullmatch(r"HTTP/1\.[01] (\d{3})(?: .*)?", line)
    if found is None:
        raise _error(proxy, f"it does not answer as an HTTP proxy: '{printable(line)}'", 0)
    if not 200 <= (status := int(found[1])) < 300:
        raise _error(proxy, printable(line.partition(" ")[2]), status)


@contextlib.contextmanager
def _as_proxy_error(proxy: ProxyURL) -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        if isinstance(error, ProxyError):
            raise
        raise _error(proxy, f"it closed the connection: {str(error) or type(error).__name__}", cause=error) from error


def _hung_up(proxy: ProxyURL) -> ProxyError:
    what = "it closed the connection instead of answering"
    return _error(proxy, what, cause=ConnectionResetError(errno.ECONNRESET, what))


def _error(proxy: ProxyURL, what: str, status: int | None = None, cause: BaseException | None = None) -> ProxyError:
    details: dict[str, object] = {"proxy": proxy.shown}
    if status:
        details["status"] = status
    error = ProxyError(f"proxy {proxy.shown}: {what}", details, cause)
    if status is not None:
        # What backoff.may_pass() goes by.
        error.errno = errno.ECONNREFUSED if status in PASSING_STATUSES else errno.EACCES
    return error
