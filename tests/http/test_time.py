"""Whose limit it was that passed, what came in time though the loop was held up, and error bodies that never end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.cancelling import until
from support.held_up import LIMIT_S, hold_up
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer
from support.names import HangingNames

from pepperpy.network import HTTPClient, HTTPConfig, HTTPStatusError, NetworkTimeoutError


@pytest.mark.parametrize("limit", ["timeout", "deadline", "connect_timeout"])
async def test_a_lookup_that_hangs_is_ended_by_the_limit_that_passed_and_tried_again_only_after_connect_timeout(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    names = HangingNames()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    try:
        async with HTTPClient(HTTPConfig(retries=1, retry_delay=0, **{limit: LIMIT_S})) as client:
            with pytest.raises(NetworkTimeoutError) as caught:
                await client.get("http://hanging.test/")
            details = caught.value.details
            assert (details["limit"], details["phase"]) == (limit, "dns")
            assert details["attempt"] == (2 if limit == "connect_timeout" else 1)
    finally:
        names.go_on.set()


async def test_a_sock_connect_of_0_is_no_limit() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(retries=0)) as client:
        assert await client.get(peer.url, timeout=aiohttp.ClientTimeout(sock_connect=0)) == "ok"


@contextlib.asynccontextmanager
async def by_hand() -> AsyncIterator[tuple[str, socket.socket]]:
    """A server that does nothing by itself: its URL and its listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", listener


@pytest.mark.parametrize("limit", ["read_timeout", "timeout", "deadline"])
async def test_an_answer_that_came_while_the_loop_was_held_up_is_in_time(limit: str) -> None:
    settings: dict[str, Any] = {limit: LIMIT_S}
    async with by_hand() as (url, listener), HTTPClient(HTTPConfig(retries=0, **settings)) as client:
        asking = asyncio.create_task(client.get(url))
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(listener)
        with sock:
            assert await loop.sock_recv(sock, 4096)
            await hold_up(lambda: sock.send(response(b"in time")))
            assert await asking == "in time"


async def test_a_connection_made_while_the_loop_was_held_up_is_in_time() -> None:
    async with by_hand() as (url, listener), HTTPClient(HTTPConfig(retries=0, connect_timeout=LIMIT_S)) as client:
        asking = asyncio.create_task(client.get(url))
        await asyncio.sleep(0)
        await hold_up(lambda: None)
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(listener)
        with sock:
            assert await loop.sock_recv(sock, 4096)
            sock.send(response(b"connected"))
            assert await asking == "connected"


@pytest.mark.parametrize("way", ["stream", "download"])
async def test_an_error_whose_body_drips_is_told_within_the_timeout(way: str, tmp_path: Path) -> None:
    async def drip(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await connection.send(b"x")
            await asyncio.sleep(0.01)  # ten in the time that there is

    async with http_peer(drip) as peer, HTTPClient(HTTPConfig(timeout=0.1)) as client:
        with pytest.raises(HTTPStatusError, match="404") as caught:
            async with asyncio.timeout(5):
                if way == "download":
                    await client.download(peer.url, tmp_path / "file")
                else:
                    async with client.stream("GET", peer.url):
                        pass
        assert set(caught.value.body) <= set(b"x")
        await until(lambda: client.stats.open_connections == 0, "the connection is closed")
