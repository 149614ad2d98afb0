"""A census after a storm of cancellations: no slot of the pool is lost, and nobody got a byte of another's answer.

NIGHTLY=1: 10,000 cancellations for each transport and loop.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.cancelling import until
from support.http_contract import REAL, RealWorld, world
from support.http_peer import Connection
from support.tiers import by_tier

from pepperpy.network.http.transport import Trip, WireError

CANCELLATIONS = by_tier(300, nightly=10_000)
CONNECTIONS = 4
WORKERS = 12


class Server:
    """Says to each request what it was."""

    def __init__(self) -> None:
        self.held = asyncio.Event()

    async def serve(self, connection: Connection) -> None:
        """Says to each request what it was, in one of four ways; or holds the body back."""
        while True:
            request = await connection.read_request()
            body = request.target.encode() + b" " + request.body[:20]
            way = request.headers["X-Way"]
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            if request.method == "HEAD":
                await connection.send(head)
            elif way == "0":
                await connection.send(head + body)
            elif way == "held":
                await connection.send(head)
                await self.held.wait()
                await connection.send(body)
            elif way == "1":
                await connection.send(head)
                await asyncio.sleep(0)
                await connection.send(body[:5])
                await connection.send(body[5:])
            elif way == "2":
                await connection.send(b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for start in range(0, len(body), 10):
                    piece = body[start : start + 10]
                    await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await connection.send(b"0\r\n\r\n")
            else:
                await connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
                return


class Storm:
    """Workers that ask, and are cancelled at any moment."""

    def __init__(self, world: RealWorld, seed: int) -> None:
        self.cancelled = 0
        self.finished = 0
        self._world = world
        self._chance = random.Random(seed)
        self._number = 0

    async def worker(self) -> None:
        while self.cancelled < CANCELLATIONS or not self.finished:
            self._number += 1
            task = asyncio.ensure_future(self._ask(f"/{self._number}"))
            for _ in range(self._chance.randrange(25)):
                await asyncio.sleep(0)
                if task.done():
                    break
            self.cancelled += task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                self.finished += 1
                task.result()

    async def _ask(self, target: str) -> None:
        chance = self._chance
        method, data = chance.choice(
            [("GET", None), ("GET", None), ("HEAD", None), ("PUT", b"data"), ("PUT", _pieces())]
        )
        request = self._world.request(method, target, data=data, headers={"X-Way": str(chance.randrange(4))})
        answer = await self._world.transport.exchange(request, Trip())
        what = chance.randrange(6)
        if what == 0:
            answer.release()
            return
        if what == 1:
            answer.abort()
            return
        body = b""
        try:
            if what == 2:
                body = await answer.read()
            else:
                while piece := await answer.read_some():
                    body += piece
        except asyncio.CancelledError:
            chance.choice([answer.release, answer.abort])()
            raise
        assert body == (b"" if method == "HEAD" else target.encode() + b" " + (b"data" if data else b""))


async def _pieces() -> Any:
    yield b"da"
    await asyncio.sleep(0)
    yield b"ta"


@pytest.mark.slow
@pytest.mark.timeout(by_tier(120, nightly=1800))
@pytest.mark.parametrize("transport", REAL)
async def test_after_a_storm_of_cancellations_every_slot_is_there(transport: str) -> None:
    async with world(transport, max_connections=CONNECTIONS) as w:
        assert isinstance(w, RealWorld)
        storm = Storm(w, 1)
        server = Server()
        w.handle_all = server.serve
        await asyncio.gather(*(storm.worker() for _ in range(WORKERS)))
        assert storm.cancelled >= CANCELLATIONS and storm.finished
        assert w.transport.open_connections <= CONNECTIONS

        # Each slot is held at once, and no more than that.
        answers = [
            await w.transport.exchange(w.request("GET", f"/held/{n}", headers={"X-Way": "held"}), Trip())
            for n in range(CONNECTIONS)
        ]
        waiting = asyncio.ensure_future(w.transport.exchange(w.request(headers={"X-Way": "0"}), Trip()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        server.held.set()
        for number, answer in enumerate(answers):
            assert await answer.read() == f"/held/{number} ".encode()
        assert await (await waiting).read() == b"/ "
        await until(lambda: w.transport.open_connections <= CONNECTIONS, "as many connections as allowed")


@pytest.mark.slow
@pytest.mark.parametrize("transport", REAL)
async def test_cancelled_and_closed_in_one_moment_a_transport_leaves_nothing_open(transport: str) -> None:
    for turns in range(0, 30, 3):
        async with world(transport, max_connections=2) as w:
            assert isinstance(w, RealWorld)
            w.handle_all = Server().serve
            tasks = [asyncio.ensure_future(_one(w, number)) for number in range(6)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await w.transport.close(0.5)
            await asyncio.wait(tasks)
            assert w.transport.open_connections == 0
            for task in tasks:
                assert task.cancelled() or task.result() in ("answered", "closed")


async def _one(world: RealWorld, number: int) -> str:
    try:
        request = world.request("GET", f"/{number}", headers={"X-Way": "2"})
        answer = await world.transport.exchange(request, Trip())
        await answer.read()
    except WireError as error:
        return error.kind
    return "answered"
