"""Servers that end connections without a word: a request that a reused one has lost is sent again on a new one."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.cancelling import until
from support.http_faults import answering, by_connection, closing_when_reused, response
from support.http_peer import Connection, Handler, HTTPPeer, http_peer
from support.http_sockets import socket_of

from pepperpy.network import ConnectionLostError, HTTPClient, HTTPConfig
from pepperpy.network.tcp.tcp_info import tcp_info_of

pytestmark = [
    pytest.mark.usefixtures("no_waits"),
    pytest.mark.parametrize("transport", ["auto", "aiohttp"]),
]

CALLS = 50


async def closing_unsaid(connection: Connection) -> None:
    """Answers one request, and closes."""
    await connection.read_request()
    await connection.send(response())


SERVERS = {
    "after each answer": closing_unsaid,
    "at the next request": closing_when_reused(),
    "by a reset": closing_when_reused(reset=True),
}


@contextlib.asynccontextmanager
async def served(handler: Handler, **settings: Any) -> AsyncIterator[tuple[HTTPPeer, HTTPClient]]:
    async with http_peer(handler) as peer, HTTPClient(HTTPConfig(peer.url, **settings)) as client:
        yield peer, client


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS.keys())
@pytest.mark.parametrize("most", [1, 10, 100])
async def test_no_call_fails_where_the_server_closes_each_time(server: Handler, most: int, transport: Any) -> None:
    async with served(server, retries=1, retry_budget=0, max_connections=most, transport=transport) as (peer, client):
        for _ in range(2):
            answers = await asyncio.gather(*(client.request("GET", "/") for _ in range(CALLS)))
            assert {answer.text for answer in answers} == {"ok"}
            assert max(answer.attempts for answer in answers) <= 2
        assert (client.stats.retries, client.stats.budget_refusals) == (0, 0)
        assert len(peer.requests) <= 2 * CALLS + client.stats.stale_retries <= 4 * CALLS


async def test_what_is_not_safe_to_repeat_is_sent_once(transport: Any) -> None:
    async with served(closing_when_reused(), max_connections=5, transport=transport) as (peer, client):
        ends = await asyncio.gather(*(client.post(f"/{n}", data=b"x") for n in range(CALLS)), return_exceptions=True)
        lost = [end for end in ends if isinstance(end, ConnectionLostError)]
        assert 0 < len(lost) == CALLS - ends.count("ok")  # type: ignore[arg-type]
        assert client.stats.stale_retries == 0
        assert sorted(r.target for r in peer.requests) == sorted(f"/{n}" for n in range(CALLS))


async def test_a_key_makes_a_post_safe_to_repeat(transport: Any) -> None:
    async with served(closing_when_reused(), transport=transport) as (peer, client):
        await client.get("/")
        assert await client.post("/", data=b"x", headers={"Idempotency-Key": "k"}) == "ok"
        assert [r.connection for r in peer.requests] == [1, 1, 2]


async def test_a_stale_connection_is_replaced_by_a_new_one_not_by_another_that_may_be_stale(transport: Any) -> None:
    asked = asyncio.Semaphore(0)
    go = asyncio.Event()

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        asked.release()
        await go.wait()
        await connection.send(response())
        await connection.read_request()

    async with served(handle, retries=1, transport=transport) as (peer, client), asyncio.timeout(20):
        both = [asyncio.ensure_future(client.get("/")) for _ in range(2)]
        for _ in both:
            await asked.acquire()
        go.set()
        await asyncio.gather(*both)
        answer = await client.request("GET", "/")
        assert (answer.text, answer.attempts) == ("ok", 2)
        assert (client.stats.stale_retries, client.stats.retries) == (1, 0)
        assert [r.connection for r in peer.requests][2:] in ([1, 3], [2, 3])


INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 O", response()[:25], INTERIM], ids=["line", "head", "interim"])
async def test_an_answer_that_has_begun_is_no_sign_of_a_stale_connection(
    begun: bytes, end: str, transport: Any
) -> None:
    read = asyncio.Event()

    async def half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.read_request()
        await connection.send(begun)
        await read.wait()  # a reset would overtake it
        if end == "reset":
            connection.reset()

    async with served(by_connection(half, answering(response())), transport=transport) as (peer, client):
        await client.get("/")
        second = asyncio.ensure_future(client.get("/"))
        await until(lambda: has_read(client) == len(response() + begun), "the client has read what has come")
        read.set()
        assert await second == "ok"
        assert (client.stats.stale_retries, client.stats.retries) == (0, 1)
        assert [r.connection for r in peer.requests] == [1, 1, 2]


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
async def test_a_body_that_breaks_off_is_no_sign_of_a_stale_connection(status: str, transport: Any) -> None:
    begun = f"HTTP/1.1 {status}\r\n\r\nthe first half".encode()
    read = asyncio.Event()

    async def half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.read_request()
        await connection.send(begun)
        await read.wait()
        connection.reset()

    async with served(by_connection(half, answering(response())), transport=transport) as (peer, client):
        await client.get("/")
        second = asyncio.ensure_future(client.get("/"))
        await until(lambda: has_read(client) == len(response() + begun), "the client has read what has come")
        read.set()
        assert await second == "ok"
        assert (client.stats.stale_retries, client.stats.retries) == (0, 1)
        assert [r.connection for r in peer.requests] == [1, 1, 2]


def has_read(client: HTTPClient) -> int:
    """How many bytes the client has taken from the kernel, on its only connection."""
    import fcntl
    import termios

    sock = socket_of(client)
    info = tcp_info_of(sock)
    assert info is not None
    return info.bytes_received - int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


async def test_each_retry_may_meet_a_stale_connection_of_its_own(transport: Any) -> None:
    """A retry that counts takes a pooled connection again, as any request."""
    unavailable = response(b"", status="503 Service Unavailable")
    handler = by_connection(closing_when_reused(), closing_when_reused(unavailable), closing_when_reused())
    async with served(handler, retries=1, transport=transport) as (peer, client):
        await client.get("/")
        answer = await client.request("GET", "/")
        assert (answer.text, answer.attempts) == ("ok", 4)
        assert (client.stats.stale_retries, client.stats.retries) == (2, 1)
        assert [r.connection for r in peer.requests] == [1, 1, 2, 2, 3]


async def test_a_redirect_that_meets_a_stale_connection_begins_again_on_new_ones_once(transport: Any) -> None:
    async with served(closing_when_reused(), transport=transport) as (target, _):
        moved = response(b"", f"Location: {target.url}", status="302 x")
        async with served(closing_when_reused(moved), retries=0, transport=transport) as (peer, client):
            await client.get("/")  # now both connections are stale
            answer = await client.request("GET", "/", retries=1)
            assert (answer.text, answer.attempts) == ("ok", 2)
            assert [r.connection for r in peer.requests] == [1, 1, 2]
            assert [r.connection for r in target.requests] == [1, 2]
