"""No reply in a pipeline ever reaches another request, however many are cancelled, time out, or lose their server.

As test_request_leaks.py, with many requests in flight: in order, and by id from a server that answers in any order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest
from support.late_server import Users, late_server
from support.servers import Peer, client_behind_faults, client_of

from pepperpy.network import ConnectionLostError, Delimited, NetworkClient, UsageError
from pepperpy.network.requests.pipeline import Pipeline
from pepperpy.network.testing import Faults

LINES = Delimited(b"\n")


class Connection:
    """A client with a pipeline, both made again when the connection is gone."""

    def __init__(self, port: int, **options: Any) -> None:
        self.client: NetworkClient = client_of(port)
        self.pipelines = 0
        self._options = options
        self._pipeline: Pipeline[bytes] | None = None

    async def connect(self) -> None:
        if not self.client.is_connected:
            await self.close()
            await self.client.connect()
            self._pipeline = await self.client.pipeline(LINES, **self._options).__aenter__()
            self.pipelines += 1

    async def close(self) -> None:
        if self._pipeline is not None:
            await self._pipeline.__aexit__(None, None, None)
            assert self._pipeline.abandoned == 0
        await self.client.disconnect()

    async def ask(self, text: bytes, timeout: float) -> bytes:
        if self._pipeline is None:
            raise UsageError
        return await self._pipeline.request(text[:-1], timeout) + b"\n"


@pytest.mark.parametrize("max_abandoned", [0, 2])
@pytest.mark.parametrize("by_id", [False, True], ids=["in order", "by id"])
async def test_each_of_thousands_of_requests_gets_its_own_reply_or_an_error(by_id: bool, max_abandoned: int) -> None:
    rng = random.Random(max_abandoned)
    async with late_server(rng, ordered=not by_id) as server:
        key = (lambda line: line) if by_id else None
        connection = Connection(server.port, key=key, max_in_flight=5, max_abandoned=max_abandoned)
        outcomes = await Users(8, 100, connection.connect, connection.ask, server, rng).run()
        await connection.close()
    assert outcomes["reply"], outcomes
    assert outcomes["CancelledError"], outcomes
    if max_abandoned:
        assert connection.pipelines < outcomes["CancelledError"], "late replies are dropped, not connections"
    else:
        assert outcomes["ClosedError"], outcomes


ASKED = 4
REQUEST, REPLY = b"request %d\n", b"reply %d\n"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["close_after", "reset_after"])
@pytest.mark.parametrize("direction", ["to the server", "to the client"])
async def test_a_connection_that_is_lost_at_any_byte_gives_the_replies_that_came_and_errors(
    fault: str, direction: str
) -> None:
    there = direction == "to the server"
    for at in range(0, ASKED * (len(REQUEST if there else REPLY) - 1) + 1, 3):
        way = {"to_server" if there else "to_client": Faults(**{fault: at})}
        async with client_behind_faults(**way) as (peer, client, _), client.pipeline(LINES) as pipeline:

            async def serve(peer: Peer = peer) -> bytes:
                got = b""
                with contextlib.suppress(ConnectionError):
                    while piece := await peer.receive(len(REQUEST) - 1):
                        got += piece
                        if piece.endswith(b"\n"):
                            await peer.send(REPLY % (got.count(b"\n") - 1))
                return got

            serving = asyncio.create_task(serve())
            requests = (pipeline.request((REQUEST % number)[:-1]) for number in range(ASKED))
            results = await asyncio.gather(*requests, return_exceptions=True)
            replies = [result for result in results if isinstance(result, bytes)]
            assert replies == [b"reply %d" % number for number in range(len(replies))]
            assert all(isinstance(error, ConnectionLostError) for error in results[len(replies) :])
            if not there:
                assert len(replies) <= at // (len(REPLY) - 1)
            everything = b"".join(REQUEST % number for number in range(ASKED))
            assert everything.startswith(await serving), "sent again, or out of order"
