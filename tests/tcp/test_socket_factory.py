"""`socket_factory` makes the sockets: for a tunnel, another network, AF_VSOCK."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.names import names
from support.servers import client_of, echo_server

from pepperpy.network import (
    ConnectError,
    HTTPClient,
    HTTPConfig,
    InvalidRequestError,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
)

Address = tuple[int, int, int, str, Any]


async def test_a_socket_that_it_makes_is_connected_and_has_the_options() -> None:
    asked: list[Address] = []

    def make(address: Address) -> socket.socket:
        asked.append(address)
        return socket.socket(address[0], address[1], address[2])

    options = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 12345),)
    async with echo_server() as port:
        async with client_of(
            port, socket_factory=make, socket_options=options, local_address=("127.0.0.7", 0)
        ) as client:
            await client.send(b"hello")
            assert await client.receive_exactly(5) == b"hello"
            sock = client.extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 12345
            assert client.local_address[0] == "127.0.0.7"
    assert asked == [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]


@pytest.mark.parametrize("waits", [False, True], ids=["plain", "async"])
async def test_the_end_of_a_tunnel_is_used_as_it_is_and_a_lost_one_is_made_anew(waits: bool) -> None:
    far: list[socket.socket] = []

    def pair(address: Address) -> socket.socket:
        near, other = socket.socketpair()
        far.append(other)
        return near

    async def later(address: Address) -> socket.socket:
        await asyncio.sleep(0)
        return pair(address)

    factory: Callable[[Address], Any] = later if waits else pair
    client = client_of(1, socket_factory=factory, reconnect=True, retry_delay=0)
    async with client:
        await client.send(b"to the other end")
        assert far[0].recv(100) == b"to the other end"
        far[0].close()
        while len(far) < 2:
            with pytest.raises(ConnectionError):
                await client.receive()
            await client.wait_connected()
        far[1].send(b"again")
        assert await client.receive() == b"again"
    for sock in far:
        sock.close()


async def test_a_pool_and_http_use_it() -> None:
    made = 0

    def make(address: Address) -> socket.socket:
        nonlocal made
        made += 1
        return socket.socket(*address[:3])

    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port, socket_factory=make)) as pool:
        async with pool.acquire() as client:
            await client.send(b"x")
            assert await client.receive_exactly(1) == b"x"
    assert made == 1
    for transport in ("auto", "aiohttp"):
        async with http_peer(answering(response(b"body"))) as peer:
            async with HTTPClient(HTTPConfig(socket_factory=make, transport=transport)) as http:
                assert await http.get(peer.url) == "body"
    assert made == 3


async def test_where_aiohttp_connects_a_connected_socket_and_an_async_factory_are_refused() -> None:
    async def later(address: Address) -> socket.socket:
        raise AssertionError("nobody waits for it")

    def connected(address: Address) -> socket.socket:
        near, far = socket.socketpair()
        far.close()
        return near

    for factory, words in ((later, "plain function"), (connected, "must not connect")):
        async with HTTPClient(HTTPConfig(socket_factory=factory, transport="aiohttp")) as http:
            with pytest.raises(InvalidRequestError, match=words):
                await http.get("http://127.0.0.1:1/")


async def test_an_oserror_is_a_failure_of_that_address_and_the_next_one_is_tried() -> None:
    def make(address: Address) -> socket.socket:
        if address[4][0] == "127.0.0.2":
            raise PermissionError(errno.EPERM, "not from here")
        return socket.socket(*address[:3])

    async with echo_server() as port:
        with names({"two.test": ["127.0.0.2", "127.0.0.1"]}):
            config = NetworkConfig("two.test", port, retries=0, socket_factory=make, happy_eyeballs_delay=60)
            async with NetworkClient(config) as client:
                assert client.remote_address[0] == "127.0.0.1"
        with pytest.raises(ConnectError, match="not from here") as caught:
            await NetworkClient(NetworkConfig("127.0.0.2", port, socket_factory=make)).connect()
    assert isinstance(caught.value, PermissionError) and caught.value.details["attempt"] == 1


async def test_a_socket_on_which_an_option_cannot_be_set_is_closed() -> None:
    made: list[socket.socket] = []

    def make(address: Address) -> socket.socket:
        made.append(socket.socket(*address[:3]))
        return made[-1]

    options = ((socket.SOL_SOCKET, 9999, 1),)
    with pytest.raises(ConnectError, match="socket_options"):
        await client_of(1, socket_factory=make, socket_options=options).connect()
    for transport in ("auto", "aiohttp"):
        config = HTTPConfig(socket_factory=make, socket_options=options, transport=transport, retries=0)
        async with HTTPClient(config) as http:
            with pytest.raises(ConnectError, match="socket_options"):
                await http.get("http://127.0.0.1:1/")
    assert [sock.fileno() for sock in made] == [-1, -1, -1]


def closed(address: Address) -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (lambda address: None, "what socket_factory returns must be a socket.socket, not None"),
        (closed, "must be open, and is closed"),
    ],
)
async def test_what_is_no_socket_is_named(factory: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        await client_of(1, socket_factory=factory).connect()


async def test_a_datagram_socket_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="stream socket"):
            await client_of(1, socket_factory=lambda address: datagrams).connect()


def test_what_is_no_callable_and_what_contradicts_it_is_refused_and_the_repr_shows_a_name_only() -> None:
    with pytest.raises(TypeError, match="socket_factory must be callable, not str"):
        NetworkConfig("h", 1, socket_factory="canary")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="socket_factory must be left out with unix_path"):
        NetworkConfig(unix_path="/x", socket_factory=closed)
    with pytest.raises(TypeError, match="socket_factory must be callable"):
        HTTPConfig(socket_factory=5)  # type: ignore[arg-type]
    assert repr(NetworkConfig("h", 1, socket_factory=closed)).endswith("socket_factory=closed)")
    assert repr(HTTPConfig(socket_factory=closed)) == "HTTPConfig(socket_factory=closed)"


async def test_the_connection_keeps_nothing_alive_that_the_factory_belongs_to() -> None:
    class Owner:
        def make(self, address: Address) -> socket.socket:
            return socket.socket(*address[:3])

    async with echo_server() as port:
        owner: Any = Owner()
        owner.client = client_of(port, socket_factory=owner.make)
        await owner.client.connect()
        protocol, gone = owner.client._link.protocol, weakref.ref(owner.make.__self__)
        await owner.client.disconnect()
        assert protocol.receiver is not None
        del owner
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("mode", Mode)
async def test_cancelling_leaves_no_socket(mode: Mode) -> None:
    async def later(address: Address) -> socket.socket:
        sock = socket.socket(*address[:3])
        try:
            await asyncio.sleep(0)
        except BaseException:
            sock.close()
            raise
        return sock

    before = open_sockets()
    async with echo_server() as port:
        serving = open_sockets()
        for number in range(1, 12):
            client = client_of(port, socket_factory=later)
            outcome = await cancelled_at(client.connect(), number, mode)
            client.abort()
            if not outcome.cancelled:
                break
        assert number > 2
        assert serving
    for _ in range(5):
        await asyncio.sleep(0)
    assert open_sockets() == before
