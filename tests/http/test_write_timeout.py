"""An upload to a server that takes none of it ends by `write_timeout`; a source that is slow does not end it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any

import pytest
from support.http_faults import answering_early, response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, NetworkTimeoutError
from pepperpy.network.http.delivery import Delivery
from pepperpy.network.http.request import Limits

# More than all buffers between a client and a server hold.
LARGE = bytes(32_000_000)
both = pytest.mark.parametrize("transport", ["auto", "aiohttp"])


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(500):
        yield LARGE[:65536]


async def unread(connection: Connection) -> None:
    await connection.read_head()
    await asyncio.Event().wait()


@both
@pytest.mark.parametrize("of", ["bytes", "an async iterable"])
async def test_a_server_that_takes_nothing_ends_an_upload(transport: Any, of: str) -> None:
    config = HTTPConfig(transport=transport, retries=0, read_timeout=None, timeout=None, write_timeout=0.1)
    async with http_peer(unread) as peer, HTTPClient(config) as client:
        with pytest.raises(NetworkTimeoutError, match="write_timeout") as caught:
            await client.post(peer.url, data=LARGE if of == "bytes" else pieces())
        assert (caught.value.details["limit"], caught.value.details["phase"]) == ("write_timeout", "response")
        assert client.stats.open_connections == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux tells what its buffer holds")
@both
async def test_an_upload_that_waits_in_the_buffer_of_the_system_ends_likewise(transport: Any) -> None:
    config = HTTPConfig(transport=transport, retries=0, read_timeout=None, timeout=None, write_timeout=0.1)
    # Nobody accepts the connection, so the server takes what its system's buffer holds, which is less than the body.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        async with HTTPClient(config) as client:
            with pytest.raises(NetworkTimeoutError, match="write_timeout"):
                await client.post(url, data=LARGE[:1_000_000])


@both
async def test_an_upload_whose_answer_is_a_stream_ends_likewise(transport: Any) -> None:
    config = HTTPConfig(transport=transport, retries=0, write_timeout=0.1)
    async with http_peer(unread) as peer, HTTPClient(config) as client:
        with pytest.raises(NetworkTimeoutError, match="write_timeout"):
            async with client.stream("POST", peer.url, data=LARGE):
                pass


@both
async def test_a_source_may_be_slow(transport: Any) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0.3)  # three times the limit
        yield b"two"

    async def echo(connection: Connection) -> None:
        request = await connection.read_request()
        await connection.send(response(request.body))

    config = HTTPConfig(transport=transport, read_timeout=0.1, write_timeout=0.1)
    async with http_peer(echo) as peer, HTTPClient(config) as client:
        assert await client.post(peer.url, data=slow()) == "onetwo"


@both
async def test_a_server_that_answers_early_is_not_late(transport: Any) -> None:
    config = HTTPConfig(transport=transport, write_timeout=0.1, raise_for_status=False)
    async with http_peer(answering_early(response(b"no", status="413 X"))) as peer, HTTPClient(config) as client:
        assert await client.post(peer.url, data=LARGE) == "no"


# ---- When a server counts as silent ----


@contextlib.contextmanager
def full() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that takes no more, and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(LARGE)
        yield near, far


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux tells what its buffer holds")
def test_what_the_system_passes_on_is_a_sign_of_life_of_the_server() -> None:
    with full() as (near, far):
        delivery = Delivery(Limits(write=1000.0, read=2000.0), lambda: 10, near)
        long_ago = monotonic() - 5000
        assert delivery.silent_until(long_ago, False) == long_ago + 1000, "nothing was seen to pass yet"
        assert delivery.silent_until(long_ago, False) == long_ago + 1000
        far.setblocking(False)
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                far.recv(1 << 20)
            if delivery.silent_until(long_ago, False) > monotonic():
                break
        else:
            raise AssertionError("the server has read, and counts as silent")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux tells what its buffer holds")
def test_for_a_body_that_the_system_holds_the_shorter_limit_counts() -> None:
    long_ago = monotonic() - 5000
    with full() as (near, _):
        for limits, silent_at, held_up in (
            (Limits(write=1000.0), 1000, True),
            (Limits(write=1000.0, read=2000.0), 1000, True),
            (Limits(write=2000.0, read=1000.0), 1000, False),
            (Limits(read=1000.0), 1000, False),
        ):
            delivery = Delivery(limits, lambda: 0, near)
            assert delivery.silent_until(long_ago, False) == long_ago + silent_at
            assert delivery.held_up is held_up


def test_a_server_that_has_all_of_a_body_has_the_read_timeout() -> None:
    queued = 10
    delivery = Delivery(Limits(write=1000.0, read=2000.0), lambda: queued, None)
    long_ago = monotonic() - 5000
    assert (delivery.silent_until(long_ago, False), delivery.held_up) == (long_ago + 1000, True)
    queued = 0
    assert delivery.silent_until(long_ago, False) > monotonic(), "it has just taken the last of it"
    assert not delivery.held_up
    delivery = Delivery(Limits(write=1000.0, read=2000.0), lambda: queued, None)
    assert delivery.silent_until(long_ago, True) > monotonic(), "there is nothing that it could take"
    assert Delivery(Limits(write=1000.0), lambda: queued, None).silent_until(long_ago, False) <= monotonic() + 1000 / 4
    assert Delivery(Limits(), lambda: queued, None).silent_until(long_ago, False) == math.inf
