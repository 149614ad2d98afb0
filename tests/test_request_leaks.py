"""No request ever gets the reply of another, however many are cancelled, time out, or lose their server.

The scenario is that of redis-py's CVE-2023-28858 (redis-py#2624, #2665): a server that answers late, callers that do
not wait for it, one connection for all.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random

import pytest
from support.fault_proxy import Fault, Way, client_behind_faults
from support.late_server import LateServer, late_server
from support.servers import Peer, client_of

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    IncompleteReadError,
    NetworkClient,
    NetworkTimeoutError,
)

USERS = 4
REQUESTS = 150  # of each user


async def line(client: NetworkClient) -> bytes:
    return await client.receive_until(b"\n")


async def test_without_request_the_scenario_hands_out_the_replies_of_others() -> None:
    async with late_server(random.Random(1)) as server, client_of(server.port) as client:
        await client.send(b"mine\n")
        with pytest.raises(TimeoutError):
            await client.receive_line(timeout=0)
        await client.send(b"yours\n")
        assert await client.receive_line() == b"mine\n"


class Users:
    """Tasks that share a client, connect it again when it is dropped, and give up at random."""

    def __init__(self, client: NetworkClient, server: LateServer, rng: random.Random) -> None:
        self.client = client
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._server = server
        self._rng = rng
        self._connecting = asyncio.Lock()

    async def run(self) -> None:
        await asyncio.gather(*(self._user(number) for number in range(USERS)))

    async def _user(self, user: int) -> None:
        for number in range(REQUESTS):
            async with self._connecting:
                await self.client.connect()
            text = b"%d/%d\n" % (user, number)
            limit = 10.0 if self._rng.random() < 0.9 else self._rng.random() * 0.002
            task = asyncio.create_task(self.client.request(text, line, limit))
            if self._rng.random() < 0.2:
                await self._cancel(task, text)
            try:
                reply = await task
            except (asyncio.CancelledError, NetworkTimeoutError, ClosedError, ConnectionLostError) as error:
                self.outcomes[type(error).__name__] += 1
            else:
                assert reply == text, f"{text!r} got the reply {reply!r}"
                self.outcomes["reply"] += 1

    async def _cancel(self, task: asyncio.Task[bytes], text: bytes) -> None:
        if self._rng.random() < 0.5:
            # Between the arrival of the request at the server, and of its reply here.
            while not self._server.seen[text] and not task.done():
                await asyncio.sleep(0)
        for _ in range(self._rng.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()


def asked_at_most_once(server: LateServer) -> None:
    assert not [text for text, times in server.seen.items() if times > 1]


@pytest.mark.parametrize("seed", range(2))
async def test_each_of_thousands_of_requests_gets_its_own_reply_or_an_error(seed: int) -> None:
    rng = random.Random(seed)
    async with late_server(rng) as server:
        client = client_of(server.port)
        users = Users(client, server, rng)
        await users.run()
        await client.disconnect()
        asked_at_most_once(server)
    outcomes = users.outcomes
    assert outcomes.total() == USERS * REQUESTS
    assert outcomes["reply"] > 100
    assert outcomes["CancelledError"] > 20
    assert outcomes["NetworkTimeoutError"] > 10
    assert outcomes["ClosedError"] > 20, "nobody waited for a turn on a connection that was dropped"


REQUEST, REPLY = b"request 1\n", b"reply 1\n"


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET])
@pytest.mark.parametrize("direction", ["to the server", "to the client"])
async def test_a_connection_that_is_lost_at_any_byte_of_an_exchange_gives_the_reply_or_an_error(
    fault: Fault, direction: str
) -> None:
    there = direction == "to the server"
    for at in range(len(REQUEST if there else REPLY) + 1):
        way = {"to_server" if there else "to_client": Way(fault, at)}
        async with client_behind_faults(**way) as (peer, client, proxy):

            async def serve(peer: Peer = peer) -> bytes:
                got = await peer.receive(len(REQUEST))
                with contextlib.suppress(ConnectionError):
                    if got == REQUEST:
                        await peer.send(REPLY)
                    got += await peer.receive(1)
                return got

            serving = asyncio.create_task(serve())
            tasks = [asyncio.create_task(client.request(REQUEST, line)) for _ in range(3)]
            first, *waiting = await asyncio.gather(*tasks, return_exceptions=True)
            if not there and at == len(REPLY):
                assert first == REPLY
            else:
                assert isinstance(first, (ConnectionLostError, IncompleteReadError)), (at, first)
            assert all(isinstance(error, (ConnectionLostError, IncompleteReadError)) for error in waiting)
            await proxy.stop()
            assert REQUEST.startswith(await serving), "sent again, or one that waited was sent"
