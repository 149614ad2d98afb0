"""A client opens and closes, again and again, in the middle of everything, and in one loop after another."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import aiohttp
import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer

from pepperpy.network import ClosedError, HTTPClient, HTTPConfig, NetworkError, NotConnectedError, TLSConfig, UsageError


async def test_a_client_opens_with_the_first_request_and_closes_for_good() -> None:
    async with http_peer(answering(response())) as peer:
        client = HTTPClient()
        assert "new" in repr(client)
        assert await client.get(peer.url) == "ok"
        assert "open" in repr(client)
        await client.close()
        await client.close()
        assert "closed" in repr(client)
        with pytest.raises(ClosedError, match="initialize"):
            await client.get(peer.url)
        assert len(peer.requests) == 1


async def test_initialize_and_cleanup_open_and_close_again_and_again() -> None:
    async with http_peer(answering(response())) as peer:
        client = HTTPClient()
        for _ in range(2):
            await client.initialize()
            await client.initialize()
            assert await client.get(peer.url) == "ok"
            await client.cleanup()
        assert client.stats.calls == 2
        async with client:
            assert await client.get(peer.url) == "ok"


async def test_closing_a_client_that_was_never_opened_does_nothing() -> None:
    await HTTPClient().close()


async def test_nothing_is_left_to_wait_for_after_closing(web: Any) -> None:
    """No sleep: the descriptors are gone when close() returns, TLS and plain."""
    from conftest import open_descriptors
    from support.certificates import ca_file

    before = open_descriptors()
    client = HTTPClient(HTTPConfig(tls=TLSConfig(ca_file=ca_file())))
    urls = [web.url("/text"), web.https_url("/text")] * 5
    await asyncio.gather(*(client.get(url) for url in urls))
    assert client.stats.open_connections > 1
    await client.close()
    sockets = {what for _, what in open_descriptors() - before if what.startswith("socket:")}
    assert not sockets
    assert client.stats.open_connections == 0


async def test_closing_ends_requests_under_way_with_closed_error() -> None:
    arrived = asyncio.Event()

    async def silent(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.wait_closed()

    async with http_peer(silent) as peer:
        client = HTTPClient()
        request = asyncio.create_task(client.get(peer.url))
        await arrived.wait()
        await client.close()
        with pytest.raises(ClosedError, match="the client was closed"):
            await request
        assert (client.stats.attempts, client.stats.in_flight) == (1, 0)


async def test_closing_ends_those_who_wait_for_the_rest_of_a_body() -> None:
    arrived = asyncio.Event()

    async def half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        arrived.set()
        await connection.wait_closed()

    async def read(client: HTTPClient, url: str) -> None:
        async with client.stream("GET", url) as stream:
            await stream.read()

    async with http_peer(half) as peer:
        for call in (HTTPClient.get, read):
            client = HTTPClient()
            arrived.clear()
            task = asyncio.ensure_future(call(client, peer.url))
            await arrived.wait()
            for _ in range(20):
                await asyncio.sleep(0)  # the client may have got it now, or not: it must not matter
            await client.close()
            async with asyncio.timeout(30):
                with pytest.raises(ClosedError):
                    await task


async def test_closing_ends_requests_that_wait_for_a_connection() -> None:
    arrived = asyncio.Event()

    async def silent(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.wait_closed()

    async with http_peer(silent) as peer:
        client = HTTPClient(HTTPConfig(max_connections=1))
        requests = [asyncio.create_task(client.get(peer.url)) for _ in range(3)]
        await arrived.wait()
        await client.close()
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert [type(result) for result in results] == [ClosedError] * 3


async def test_a_cancelled_close_closes_all_the_same() -> None:
    async with http_peer(answering(response())) as peer:
        client = HTTPClient()
        await client.get(peer.url)
        task = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The server's end is gone when its handler has ended.
        await asyncio.wait_for(asyncio.gather(*peer.handlers), 30)
        assert client.stats.open_connections == 0


def test_a_client_can_be_made_outside_a_loop_and_used_in_one_after_another() -> None:
    client = HTTPClient()

    async def use() -> str:
        async with http_peer(answering(response())) as peer, client:
            return await client.get(peer.url)

    assert asyncio.run(use()) == "ok"
    assert asyncio.run(use()) == "ok"


def test_a_client_that_is_open_in_another_loop_says_so() -> None:
    client = HTTPClient()

    async def open_only() -> None:
        await client.initialize()

    async def use() -> None:
        with pytest.raises(UsageError, match=r"another event loop, which is not running; await client\.close\(\) here"):
            await client.get("http://127.0.0.1:1")
        await client.close()

    with asyncio.Runner() as first:
        first.run(open_only())
        asyncio.run(use())


async def test_a_client_that_is_dropped_unclosed_warns_and_closes_its_connections() -> None:
    async with http_peer(answering(response())) as peer:
        client = HTTPClient()
        await client.get(peer.url)
        with pytest.warns(ResourceWarning, match="unclosed HTTPClient") as caught:
            del client
            gc.collect()
        assert len(caught) == 1
        # The handler waits for the next request, and ends when the connection does.
        await asyncio.wait_for(asyncio.gather(*peer.handlers), 30)


async def test_the_session_is_the_live_one_while_the_client_is_open() -> None:
    client = HTTPClient(HTTPConfig(headers={"X-Mine": "1"}))
    with pytest.raises(NetworkError, match="before initialize"):
        _ = client.session
    async with http_peer(answering(response())) as peer:
        async with client:
            assert isinstance(client.session, aiohttp.ClientSession)
            async with client.session.get(peer.url) as answer:
                assert await answer.text() == "ok"
            session = client.session
        assert session.closed
        with pytest.raises(NotConnectedError):
            _ = client.session
        assert peer.requests[0].headers["X-Mine"] == "1"
