"""`wait_connected(fail_after=N)`: who waits for a client that reconnects need not wait for ever."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest
from support.cancelling import until
from support.mortal import ask, lost, mortal_and_client, reconnecting, told

from pepperpy.network import ConnectError, NetworkTimeoutError
from pepperpy.network.lookup import AddressInfo

# Its servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")


async def test_it_raises_the_error_of_the_failed_attempt_and_reconnecting_goes_on() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        with pytest.raises(ConnectionRefusedError) as caught:
            await client.wait_connected(fail_after=3)
        assert isinstance(caught.value, ConnectError) and caught.value.is_transient
        assert caught.value.details["attempt"] >= 3
        with pytest.raises(ConnectError):
            # That many have failed already: at once.
            await client.wait_connected(0, fail_after=2)
        await server.start()
        await client.wait_connected()
        await ask(client)


async def test_the_count_begins_anew_with_each_loss() -> None:
    may_try = asyncio.Event()
    may_try.set()

    async def when_allowed(address: AddressInfo) -> socket.socket:
        await may_try.wait()
        return socket.socket(*address[:3])

    async with mortal_and_client(socket_factory=when_allowed) as (server, client):
        for _ in range(2):
            may_try.clear()
            await server.kill()
            await lost(client)
            with pytest.raises(NetworkTimeoutError, match="wait_connected timed out"):
                await client.wait_connected(0, fail_after=1)
            may_try.set()
            with pytest.raises(ConnectError):
                await client.wait_connected(fail_after=1)
            await server.start()
            await client.wait_connected(fail_after=100)
            assert client.is_connected


async def test_who_gives_no_number_and_who_sends_wait_on() -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await told(client)
        waiting = [asyncio.create_task(client.wait_connected()), asyncio.create_task(client.send(b"x"))]
        with pytest.raises(ConnectError):
            await client.wait_connected(fail_after=2)
        assert not any(task.done() for task in waiting)
        await server.start()
        await asyncio.gather(*waiting)


async def test_the_failures_do_not_keep_an_unused_client() -> None:
    class Owner:
        def may_pass(self, error: Exception) -> bool:
            self.seen = True
            return True

    async with mortal_and_client() as (server, _):
        owner = Owner()
        client = reconnecting(server.port, may_pass=owner.may_pass)
        await client.connect()
        await server.kill()
        await lost(client)
        with pytest.raises(ConnectError):
            await client.wait_connected(fail_after=1)
        gone = weakref.ref(owner)
        gc.collect()
        gc.disable()
        try:
            client.abort()
            del client, owner
            await until(lambda: gone() is None, "nothing keeps it but the client")
        finally:
            gc.enable()


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (True, TypeError), (1.5, TypeError)])
async def test_a_bad_number_is_named(value: int, error: type[Exception]) -> None:
    async with mortal_and_client() as (server, client):
        await server.kill()
        await lost(client)
        with pytest.raises(error, match="fail_after must be"):
            await client.wait_connected(fail_after=value)
