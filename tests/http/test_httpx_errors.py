"""Each error of httpx about a transport is raised by ours, over real sockets, with the system's error as its cause."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from support.certificates import client_context, server_cert, server_context
from support.http_faults import response
from support.http_peer import Connection, HTTPPeer, http_peer
from support.httpx_libraries import Library
from support.nginx import Nginx
from support.processes import reserved_ports
from support.servers import full_listener

LARGE = bytes(16 << 20)  # more than the system's buffers take
# httpx has it, but nothing raises it: httpcore, on which its own transport is built, has no such error.
NEVER_RAISED = {"CloseError"}


async def answer(connection: Connection) -> None:
    """What goes wrong is the path of the request."""
    request = await connection.read_head()
    match request.target:
        case "/silent":
            await connection.wait_closed()
        case "/silent-in-body":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await connection.wait_closed()
        case "/takes-nothing":
            await asyncio.Event().wait()
        case "/reset":
            await connection.reset_and_wait()
        case "/reset-in-body":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await connection.reset_and_wait()
        case "/closed":
            pass
        case "/closed-in-head":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-")
        case "/closed-in-body":
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        case "/no-http":
            await connection.send(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        case "/no-chunk":
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        case target if request.method == "CONNECT":
            await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        case target:
            raise AssertionError(target)


@dataclass
class World:
    """What there is for a request that fails; the transport of `client` has one connection at most."""

    library: Library
    client: Any
    peer: HTTPPeer
    web: Nginx


def limits(w: World, **phase: float) -> Any:
    return w.library.Timeout(10, **phase)


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(256):
        yield LARGE[: 1 << 16]


# What provokes the errors: each one awaits a failing request.


async def not_accepted(w: World) -> None:
    """The system answers no SYN when its queue is full."""
    with full_listener() as port:
        await w.client.get(f"http://127.0.0.1:{port}/", timeout=limits(w, connect=0.05))


async def silent_handshake(w: World) -> None:
    await w.client.get(f"https://127.0.0.1:{w.peer.port}/", timeout=limits(w, connect=0.05))


async def nobody_listens(w: World) -> None:
    with reserved_ports(1) as [port]:
        await w.client.get(f"http://127.0.0.1:{port}/")


async def unknown_name(w: World) -> None:
    await w.client.get("http://nowhere.invalid/")


async def untrusted_certificate(w: World) -> None:
    await w.client.get(w.web.https_url("/text"))


async def no_free_connection(w: World) -> None:
    async with w.client.stream("GET", f"{w.peer.url}/silent-in-body"):
        await w.client.get(f"{w.peer.url}/silent", timeout=limits(w, pool=0.05))


async def refused_by_a_proxy(w: World) -> None:
    async with w.library.client(transport=w.library.transport(proxy=w.peer.url)) as proxied:
        await proxied.get("https://example.com/")


async def unfit_header(w: World) -> None:
    await w.client.get(f"{w.peer.url}/silent", headers={"X": "1\r\nInjected: 1"})


async def other_scheme(w: World) -> None:
    await w.client.get("ftp://127.0.0.1/")


async def no_port(w: World) -> None:
    await w.client.get("http://127.0.0.1:99999/")  # where a redirect may lead


def get(path: str, **phase: float) -> Any:
    async def failing(w: World) -> None:
        await w.client.get(w.peer.url + path, timeout=limits(w, **phase))

    failing.__name__ = f"get {path}"
    return failing


def post(path: str, content: Any, **phase: float) -> Any:
    async def failing(w: World) -> None:
        body = content() if callable(content) else content
        await w.client.post(w.peer.url + path, content=body, timeout=limits(w, **phase))

    failing.__name__ = f"post {path} {'pieces' if callable(content) else 'bytes'}"
    return failing


Failing = Callable[[World], Awaitable[None]]
# The error, what is its `__cause__` (None: nothing has happened on a socket), and what raises it.
TABLE: dict[str, list[tuple[type[BaseException] | None, Failing]]] = {
    "ConnectTimeout": [(TimeoutError, not_accepted), (TimeoutError, silent_handshake)],
    "ReadTimeout": [
        (TimeoutError, get("/silent", read=0.05)),
        (TimeoutError, get("/silent-in-body", read=0.05)),
        (TimeoutError, post("/silent", b"some", read=0.05)),
    ],
    "WriteTimeout": [
        (TimeoutError, post("/takes-nothing", LARGE, write=0.05)),
        (TimeoutError, post("/takes-nothing", pieces, write=0.05)),
    ],
    "PoolTimeout": [(TimeoutError, no_free_connection)],
    "ConnectError": [
        (ConnectionRefusedError, nobody_listens),
        (socket.gaierror, unknown_name),
        (ssl.SSLCertVerificationError, untrusted_certificate),
    ],
    "ReadError": [(ConnectionResetError, get("/reset")), (ConnectionResetError, get("/reset-in-body"))],
    "WriteError": [(ConnectionError, post("/reset", pieces))],
    "ProxyError": [(None, refused_by_a_proxy)],
    "UnsupportedProtocol": [(None, other_scheme), (None, no_port)],
    "LocalProtocolError": [(None, unfit_header)],
    "RemoteProtocolError": [
        (Exception, get("/closed")),
        (Exception, get("/closed-in-head")),
        (Exception, get("/closed-in-body")),
        (Exception, get("/no-http")),
        (Exception, get("/no-chunk")),
    ],
}


@pytest.mark.parametrize(
    ("name", "cause", "failing"),
    [(name, *row) for name, rows in TABLE.items() for row in rows],
    ids=[f"{name}: {row[1].__name__}" for name, rows in TABLE.items() for row in rows],  # type: ignore[attr-defined]
)
async def test_a_failure_raises_the_error_of_httpx_with_its_cause(
    library: Library, web: Nginx, name: str, cause: type[BaseException] | None, failing: Failing
) -> None:
    transport = library.transport(limits=library.Limits(max_connections=1))
    async with http_peer(answer) as peer, library.client(transport=transport, timeout=10) as client:
        with pytest.raises(library.TransportError) as caught:
            await failing(World(library, client, peer, web))
        error = caught.value
        assert type(error).__name__ == name, repr(error)
        assert str(error) and error.request.url
        assert error.__cause__ is None if cause is None else isinstance(error.__cause__, cause), repr(error.__cause__)
        assert transport.open_connections == 0


@pytest.mark.parametrize("port", [0, 65536])
async def test_a_port_that_is_none_is_what_the_error_names(library: Library, port: int) -> None:
    async with library.client() as client:
        with pytest.raises(library.UnsupportedProtocol, match=r"(?i)\bport\b"):
            await client.get(f"http://127.0.0.1:{port}/")


class NoException(BaseException):
    """As pytest.fail() raises."""


@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError, NoException])
async def test_what_the_source_of_a_body_raises_ends_its_request_at_once(
    library: Library, kind: type[BaseException]
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"some"
        raise kind

    transport = library.transport()
    async with http_peer(answer) as peer, library.client(transport=transport, timeout=None) as client:
        with pytest.raises(kind):
            await client.post(f"{peer.url}/silent", content=failing())
        assert transport.open_connections == 0


def leaves(kind: type) -> Iterator[str]:
    below = kind.__subclasses__()
    for child in below:
        yield from leaves(child)
    if not below:
        yield kind.__name__


def test_the_table_has_every_error_of_httpx_that_a_transport_can_raise() -> None:
    assert set(leaves(httpx.TransportError)) == {*TABLE, *NEVER_RAISED}


async def test_a_client_certificate_that_is_missing_is_no_failure_to_connect(library: Library) -> None:
    """With TLS 1.3 the server says so when the request may have arrived: nobody may repeat it as one never sent."""
    context = server_context(server_cert())
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            sock, _ = listener.accept()
            with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as secure:
                with contextlib.suppress(ssl.SSLError):
                    secure.do_handshake()
                while socket.socket.recv(secure, 65536):  # as it came, until the client has closed
                    pass

        server = asyncio.create_task(asyncio.to_thread(refuse))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        async with library.client(transport=library.transport(verify=client_context())) as client:
            with pytest.raises(library.ReadError) as caught:
                await client.post(url, content=b"pay")
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        await server


async def test_a_request_that_has_met_a_stale_connection_is_sent_again_on_a_new_one(library: Library) -> None:
    both = asyncio.Barrier(2)

    async def once(connection: Connection) -> None:
        await connection.read_request()
        if connection.number < 3:
            await both.wait()
        await connection.send(response())
        await connection.read_request()

    async with http_peer(once) as peer, library.client() as client, asyncio.timeout(20):
        await asyncio.gather(*(client.get(peer.url) for _ in range(2)))  # now two connections are stale
        assert (await client.get(peer.url)).text == "ok"
        assert [request.connection for request in peer.requests][3:] == [3]
        with pytest.raises(library.RemoteProtocolError):
            await client.post(peer.url)
