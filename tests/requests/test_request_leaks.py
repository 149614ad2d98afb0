"""No request ever gets the reply of another, however many are cancelled, time out, or lose their server.

The scenario is that of redis-py's CVE-2023-28858 (redis-py#2624, #2665): a server that answers late, callers that do
not wait for it, one connection for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from support.late_server import Users, late_server
from support.servers import Peer, client_behind_faults, client_of

from pepperpy.network import (
    ConnectionLostError,
    IncompleteReadError,
    NetworkClient,
)
from pepperpy.network.testing import Faults


async def line(client: NetworkClient) -> bytes:
    return await client.receive_until(b"\n")


async def test_without_request_the_scenario_hands_out_the_replies_of_others() -> None:
    async with late_server(random.Random(1)) as server, client_of(server.port) as client:
        await client.send(b"mine\n")
        # Not a time limit of 0: what comes in the last turns of the loop counts as in time.
        impatient = asyncio.create_task(client.receive_line())
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        assert impatient.cancelled()
        await client.send(b"yours\n")
        assert await client.receive_line() == b"mine\n"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_each_of_thousands_of_requests_gets_its_own_reply_or_an_error(seed: int) -> None:
    rng = random.Random(seed)
    async with late_server(rng) as server:
        client = client_of(server.port)

        async def ask(text: bytes, timeout: float) -> bytes:
            return await client.request(text, line, timeout)

        outcomes = await Users(4, 200, client.connect, ask, server, rng).run()
        await client.disconnect()
    # The last: who waited for a turn when the connection was dropped.
    for name in ("reply", "CancelledError", "NetworkTimeoutError", "ClosedError"):
        assert outcomes[name], outcomes


REQUEST, REPLY = b"request 1\n", b"reply 1\n"


@pytest.mark.parametrize("fault", ["close_after", "reset_after"])
@pytest.mark.parametrize("direction", ["to the server", "to the client"])
async def test_a_connection_that_is_lost_at_any_byte_of_an_exchange_gives_the_reply_or_an_error(
    fault: str, direction: str
) -> None:
    there = direction == "to the server"
    for at in range(len(REQUEST if there else REPLY) + 1):
        way = {"to_server" if there else "to_client": Faults(**{fault: at})}
        async with client_behind_faults(**way) as (peer, client, _):

            async def serve(peer: Peer = peer) -> bytes:
                got = b""
                with contextlib.suppress(ConnectionError):
                    got = await peer.receive(len(REQUEST))
                    if got == REQUEST:
                        await peer.send(REPLY)
                    got += await peer.receive(1)
                return got

            serving = asyncio.create_task(serve())
            tasks = [asyncio.create_task(client.request(REQUEST, line)) for _ in range(3)]
            first, *waiting = await asyncio.gather(*tasks, return_exceptions=True)
            if not there and at == len(REPLY):
                assert first == REPLY
            elif not (at == len(REQUEST) and first == REPLY):  # the server may have been faster than the fault
                assert isinstance(first, (ConnectionLostError, IncompleteReadError)), (at, first)
            assert all(isinstance(error, (ConnectionLostError, IncompleteReadError)) for error in waiting)
            # Who waits has its turn when the first has its reply, and not before.
            allowed = REQUEST * (2 if first == REPLY else 1)
            assert allowed.startswith(await serving), "sent again, or out of turn"
