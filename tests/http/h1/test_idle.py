"""An idle connection on which anything happens is dropped when that happens, and not when somebody wants to use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.cancelling import until
from support.certificates import self_signed_cert
from support.exchanges import exchanges
from support.http_faults import response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, TLSConfig

OK = response(b"ok")
HAPPENS: dict[str, Callable[[Connection], Awaitable[None]]] = {
    "a byte": lambda connection: connection.send(b"x"),
    "a line end": lambda connection: connection.send(b"\r\n"),
    "half a head": lambda connection: connection.send(OK[:20]),
    "an answer": lambda connection: connection.send(OK),
    "300 KB": lambda connection: connection.send(bytes(300_000)),
    "its end": lambda connection: connection.close_and_wait(),
    "a reset": lambda connection: connection.reset_and_wait(),
}


@pytest.mark.parametrize("happens", HAPPENS)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_an_idle_connection_is_dropped_when_something_happens_on_it(happens: str, secure: bool) -> None:
    now, ended = asyncio.Event(), asyncio.Event()

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(OK)
        if connection.number == 1:
            await now.wait()
            await HAPPENS[happens](connection)
        await connection.wait_closed()
        ended.set()

    config = HTTPConfig(retries=0, max_connections=1, tls=TLSConfig(verify=False))
    async with (
        http_peer(handle, certificate=self_signed_cert() if secure else None) as peer,
        HTTPClient(config) as client,
    ):
        assert await client.get(peer.url) == "ok"
        assert client.stats.open_connections == 1
        now.set()
        await until(lambda: client.stats.open_connections == 0, "the connection is dropped")
        # Its socket is closed, which the server sees without another request.
        await asyncio.wait_for(ended.wait(), 30)
        assert await client.get(peer.url) == "ok"
        assert len(peer.connections) == 2


async def test_bytes_of_an_answer_that_come_while_nobody_reads_are_those_of_the_answer() -> None:
    first, rest = asyncio.Event(), b"b" * 1000

    async def handle(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\na")
            await first.wait()
            for place in range(0, 1000, 100):
                await connection.send(rest[place : place + 100])

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(retries=0)) as client:
        for _ in range(2):
            first.clear()
            async with client.stream("GET", peer.url) as stream:
                chunks = stream.chunks()
                assert await anext(chunks) == b"a"
                first.set()
                await until(lambda: peer.connections[0].bytes_sent % 1042 < 42, "the server has sent all")
                assert await stream.read() == rest
        assert len(peer.connections) == 1


async def test_an_idle_connection_that_the_server_ends_is_dropped_at_once() -> None:
    go_on = asyncio.Event()

    async def once(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await go_on.wait()

    async with http_peer(once) as peer, exchanges() as one:
        await one.get(peer.url)
        assert one.pool.open_connections == 1
        go_on.set()
        await until(lambda: one.pool.slots_taken == 0, "its slot is free")
