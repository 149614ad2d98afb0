"""`Link`: what it hands over, and what its errors say. How calls behave on it: tests of clients, requests and pools."""

from __future__ import annotations

import gc
import weakref

import pytest
from support.line_server import ask, server_and_pool
from support.mortal import mortal_and_client
from support.servers import peer_and_client

from pepperpy.network import (
    ClosedError,
    Delimited,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    NotConnectedError,
)
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import Default
from pepperpy.network.link import Link, connection_error
from pepperpy.network.tcp.client import link_of

CONFIG = NetworkConfig("db.example", 5432, timeout=3)


class Waiting:
    """Answers as a receiver that has nothing."""

    def take_line(self) -> bytes:
        return b"from the stand-in\n"


async def test_a_client_asks_whoever_its_link_has_put_in_a_direction_and_only_there() -> None:
    async with peer_and_client() as (peer, client):
        link = link_of(client)
        link.swap(receiver=Waiting())  # type: ignore[arg-type]
        assert await client.receive_line() == b"from the stand-in\n"
        await client.send(b"sent\n")
        assert await peer.receive(5) == b"sent\n"
        link.swap(receiver=link.protocol.receiver)
        await peer.send(b"from the peer\n")
        assert await client.receive_line() == b"from the peer\n"


async def test_a_connection_that_is_passed_on_leaves_its_client_unconnected_with_its_counts() -> None:
    async with server_and_pool() as (server, pool):
        client = await pool.acquire()
        await ask(client)
        before = client.stats
        pool.release(client)
        new = await pool.acquire()
        assert link_of(new).client() is new and link_of(new) is not link_of(client)
        assert new.is_connected and not client.is_connected
        with pytest.raises(NotConnectedError):
            await client.send(b"x")
        with pytest.raises(NotConnectedError):
            await client.receive()
        await ask(new)
        assert (new.stats.bytes_sent, new.stats.connects) == (2 * before.bytes_sent, 1)
        assert client.stats.bytes_sent == before.bytes_sent, "what went over it while it had the connection"
        assert client.stats.connects == 1
        pool.release(new)
        assert server.accepted == 1


async def test_a_configuration_that_a_user_gives_his_client_is_not_that_of_the_next_user() -> None:
    async with server_and_pool() as (server, pool):
        async with pool.acquire() as client:
            client.config = client.config.replace(timeout=0.001, close_timeout=0.001)
        async with pool.acquire() as client:
            await ask(client)
            assert client.config is pool.config
        assert server.accepted == 1


async def test_a_pipeline_that_is_forgotten_in_the_block_of_a_pool_does_not_reach_the_next_user() -> None:
    async with server_and_pool() as (server, pool):
        async with pool.acquire() as client:
            # Its reader has not begun yet, but would receive.
            left = await client.pipeline(Delimited(b"\n")).__aenter__()
        async with pool.acquire() as client:
            with pytest.raises(ClosedError):
                await left.wait_ended()
            await ask(client)
        await left.__aexit__(None, None, None)
        assert (server.accepted, pool.stats.dropped) == (2, {"unfinished": 1})


async def test_a_link_keeps_no_client_alive() -> None:
    client = NetworkClient(CONFIG)
    link, gone = link_of(client), weakref.ref(client)
    gc.disable()
    try:
        del client
        assert gone() is None
    finally:
        gc.enable()
    link.use(StreamProtocol(CONFIG))


async def test_a_configuration_given_to_a_client_is_that_of_its_link() -> None:
    client = NetworkClient(CONFIG)
    client.config = other = CONFIG.replace(port=1)
    assert link_of(client).config is other and client.config is other
    with pytest.raises(TypeError, match="not str"):
        client.config = "db.example:5432"  # type: ignore[assignment]
    assert client.config is other


async def test_a_configuration_leaves_the_time_limits_of_the_present_connection_as_they_are() -> None:
    async with mortal_and_client(reconnect=False) as (_, client):
        configured = client.config.timeout
        client.config = client.config.replace(timeout=77)
        assert link_of(client).seconds(Default.TIMEOUT) == configured
        await client.disconnect()
        await client.connect()
        assert link_of(client).seconds(Default.TIMEOUT) == 77


def test_an_error_says_where_in_words_and_in_its_details() -> None:
    cause = OSError("gone")
    error = connection_error(CONFIG, ClosedError, "no more", "use", cause, undelivered=5)
    assert type(error) is ClosedError and str(error) == "db.example:5432: no more"
    assert error.details == {"host": "db.example", "port": 5432, "phase": "use", "undelivered": 5}
    assert error.__cause__ is cause


async def test_a_maker_makes_another_error_each_time() -> None:
    make = Link(CONFIG).error_maker(NetworkTimeoutError, "too late", "request")
    assert make() is not make() and str(make()) == "db.example:5432: too late"


@pytest.mark.parametrize(("timeout", "seconds"), [(None, None), (0, 0), (1.5, 1.5)])
async def test_a_timeout_of_a_call_is_in_seconds(timeout: float | None, seconds: float | None) -> None:
    assert Link(CONFIG).seconds(timeout) == seconds
