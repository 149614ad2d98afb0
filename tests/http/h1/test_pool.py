"""The pool of our own transport: limits, order, idle connections, and a census of slots after cancellations."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.certificates import ca_file, server_cert, server_context
from support.exchanges import Exchanges, exchanges
from support.http_faults import answering, chunked_response, response
from support.http_peer import Connection, HTTPPeer, http_peer
from support.limits import longer_and_longer
from support.tls_peer import TLSPeer

from pepperpy.network import TLSConfig
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.http.h1.origins import Origin
from pepperpy.network.http.request import Limits
from pepperpy.network.http.transport import Trip, WireError


class Gate:
    """A server that answers when it is told to; each answer names its request."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self._may_go = asyncio.Semaphore(0)

    async def handle(self, connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            self.arrived.append(request.target)
            await self._may_go.acquire()
            await connection.send(response(request.target.encode()))

    def let_go(self, count: int = 1) -> None:
        for _ in range(count):
            self._may_go.release()


@asynccontextmanager
async def gated(**config: int) -> AsyncIterator[tuple[Gate, HTTPPeer, Exchanges]]:
    gate = Gate()
    async with http_peer(gate.handle) as peer, exchanges(**config) as one:
        yield gate, peer, one


async def test_more_exchanges_than_connections_wait_and_come_in_their_order() -> None:
    async with gated(max_connections=1) as (gate, peer, one):
        tasks = [asyncio.create_task(one.get(f"{peer.url}/{n}")) for n in range(6)]
        await until(lambda: len(gate.arrived) == 1 and one.pool.waiting == 5, "one is under way, five wait")
        gate.let_go(6)
        assert [await task for task in tasks] == [(200, f"/{n}".encode()) for n in range(6)]
        assert gate.arrived == [f"/{n}" for n in range(6)]
        assert len(peer.connections) == 1


async def test_a_limit_per_host_holds_nobody_else_up() -> None:
    gate, other = Gate(), Gate()
    async with http_peer(gate.handle) as first, http_peer(other.handle) as second:
        async with exchanges(max_connections=3, max_connections_per_host=1) as one:
            tasks = [asyncio.create_task(one.get(f"{first.url}/{n}")) for n in range(3)]
            await until(lambda: one.pool.waiting == 2, "two wait")
            task = asyncio.create_task(one.get(f"{second.url}/x"))
            await until(lambda: other.arrived == ["/x"], "the other host is asked")
            other.let_go()
            gate.let_go(3)
            assert await task == (200, b"/x")
            assert [body for _, body in [await task for task in tasks]] == [b"/0", b"/1", b"/2"]
            assert len(first.connections) == 1


async def test_those_who_wait_for_several_hosts_come_in_their_order_at_each_and_cancelled_ones_hold_nobody_up() -> None:
    choose = random.Random(7)
    gates = [Gate() for _ in range(3)]
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(http_peer(gate.handle)) for gate in gates]
        one = await stack.enter_async_context(exchanges(max_connections=4, max_connections_per_host=2))
        asked: list[tuple[int, asyncio.Task[Any]]] = []
        for number in range(60):
            host = choose.randrange(3)
            asked.append((host, asyncio.create_task(one.get(f"{peers[host].url}/{number}"))))
        await until(lambda: sum(len(gate.arrived) for gate in gates) == 4 and one.pool.waiting == 56, "56 wait")
        left = {number for number in range(60) if choose.random() < 0.3}
        for number in left:
            asked[number][1].cancel()
        for gate in gates:
            gate.let_go(60)
        results = await asyncio.gather(*(task for _, task in asked), return_exceptions=True)
        for number, result in enumerate(results):
            if number in left:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == (200, f"/{number}".encode())
        for gate in gates:
            # Two at a time: the second of them may be the first that arrives.
            arrived = [int(target[1:]) for target in gate.arrived]
            assert all(abs(arrived.index(number) - place) <= 2 for place, number in enumerate(sorted(arrived)))
        assert one.pool.waiting == 0
        assert one.pool.slots_taken == one.pool.open_connections <= 4


@pytest.mark.parametrize("limit", [{"max_connections": 1}, {"max_connections_per_host": 1}], ids=["all", "each host"])
async def test_what_is_looked_at_to_serve_the_next_does_not_grow_with_those_who_wait(limit: dict[str, int]) -> None:
    async with gated(**limit) as (gate, peer, one):
        tasks = []
        lines = []
        for count in (10, 300):
            while len(tasks) < count:
                tasks.append(asyncio.create_task(one.get(f"{peer.url}/{len(tasks)}")))
            await until(lambda count=count: one.pool.waiting == count - 1, "all but one wait")  # type: ignore[misc]
            await until(lambda: len(gate.arrived) == 1, "and that one is under way")
            lines.append(lines_run_by(one.pool.serve))
        assert lines[0] == lines[1] > 0
        gate.let_go(300)
        await asyncio.gather(*tasks)


def lines_run_by(call: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


async def test_an_idle_connection_elsewhere_gives_way() -> None:
    async with http_peer(answering(response(b"a"))) as first, http_peer(answering(response(b"b"))) as second:
        async with exchanges(max_connections=1) as one:
            for _ in range(2):
                assert await one.get(first.url) == (200, b"a")
                assert await one.get(second.url) == (200, b"b")
            assert (len(first.connections), len(second.connections)) == (2, 2)
            assert one.pool.open_connections == 1


async def test_the_connection_used_last_is_used_next() -> None:
    async with gated() as (gate, peer, one):
        tasks = [asyncio.create_task(one.get(f"{peer.url}/{n}")) for n in range(3)]
        await until(lambda: len(gate.arrived) == 3, "three are under way")
        gate.let_go(3)
        await asyncio.gather(*tasks)
        last = peer.requests[-1].connection
        for _ in range(3):
            gate.let_go()
            await one.get(peer.url)
            last = last if peer.requests[-1].connection == last else peer.requests[-1].connection
        assert len({request.connection for request in peer.requests[-3:]}) == 1


async def test_whoever_waits_too_long_for_a_connection_is_told_so() -> None:
    async with gated(max_connections=1) as (gate, peer, one):
        task = asyncio.create_task(one.get(f"{peer.url}/0"))
        await until(lambda: gate.arrived == ["/0"], "one is under way")
        with pytest.raises(WireError) as caught:
            await one.get(f"{peer.url}/1", limits=Limits(queue=0.05))
        assert caught.value.kind == "queue_timeout"
        assert one.pool.waiting == 0
        gate.let_go()
        await task
        assert gate.arrived == ["/0"]


async def test_an_idle_connection_is_closed_in_time() -> None:
    async with http_peer(answering(response())) as peer, exchanges(keepalive_timeout=0.05) as one:
        await one.get(peer.url)
        await until(lambda: one.pool.open_connections == 0, "it is closed")
        assert one.pool.slots_taken == 0


async def test_the_servers_own_time_is_heeded() -> None:
    for seconds in longer_and_longer(0.1):
        answers = answering(response(b"ok", f"Keep-Alive: timeout={seconds}, max=5"), response())
        async with http_peer(answers) as peer, exchanges() as one:
            await one.get(peer.url)
            was_kept = one.pool.open_connections == 1
            await until(lambda: one.pool.open_connections == 0, "it is closed")
            if was_kept:
                break


async def test_closing_ends_what_is_under_way_and_what_waits() -> None:
    gate = Gate()
    async with http_peer(gate.handle) as peer:
        async with exchanges(max_connections=1) as one:
            tasks = [asyncio.create_task(one.get(f"{peer.url}/{n}")) for n in range(3)]
            await until(lambda: one.pool.waiting == 2, "two wait")
            await one.transport.close(1.0)
            for task in tasks:
                with pytest.raises(WireError) as caught:
                    await task
                assert caught.value.kind == "closed"
            with pytest.raises(WireError):
                await one.get(peer.url)


async def test_what_comes_between_the_giving_and_the_taking_of_a_connection_is_no_answer() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        async with exchanges(max_connections=1) as one:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            first = asyncio.create_task(one.ask("GET", url))
            server, _ = await loop.sock_accept(listening)
            with server:
                await loop.sock_recv(server, 65536)
                server.sendall(response(b"first"))
                answer = await first
                second = asyncio.create_task(one.get(url))
                await until(lambda: one.pool.waiting == 1, "it waits for the connection")
                assert await answer.read() == b"first"
                # It has been given the connection, and has not run yet.
                assert one.pool.waiting == 0
                server.sendall(response(b"nobody asked", status="408 Request Timeout"))
                server, _ = await loop.sock_accept(listening)
                with server:
                    server.sendall(response(b"second"))
                    assert await second == (200, b"second")
            assert one.transport.discarded == 1


@pytest.mark.parametrize("certificate", [None, server_cert()], ids=["http", "https"])
async def test_after_a_server_that_speaks_first_the_next_request_gets_its_own_answer(
    certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Origin.connect
    made: list[StreamProtocol] = []

    async def connect_and_hear(origin: Origin, limit: float | None, trip: Trip) -> StreamProtocol:
        protocol = await connect(origin, limit, trip)
        made.append(protocol)
        if len(made) == 1:
            await until(lambda: protocol.receiver.bytes_buffered > 0, "the loop has read what the server said")
        return protocol

    async def speak_first(connection: Connection) -> None:
        if connection.number == 1:
            await connection.send(response(b"hello"))
            await connection.read_request()
            await connection.read_request()
            await connection.send(response(b"of the first"))
        await answering(response(b"of the second"))(connection)

    monkeypatch.setattr(Origin, "connect", connect_and_hear)
    async with (
        http_peer(speak_first, certificate=certificate) as peer,
        exchanges(tls=TLSConfig(ca_file=ca_file())) as one,
    ):
        # Servers that answer without reading are known from tests, and curl takes that as well.
        assert await one.get(peer.url) == (200, b"hello")
        assert await one.get(peer.url) == (200, b"of the second")
        assert len(made) == 2


async def test_who_was_given_a_connection_that_ends_before_it_is_used_makes_another_in_its_place() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        settings: Any = {"max_connections": 1, "tls": TLSConfig(ca_file=ca_file())}
        async with http_peer(answering(response(b"third"))) as other, exchanges(**settings) as one:

            async def asked() -> TLSPeer:
                sock, _ = await loop.sock_accept(listening)
                sock.setblocking(False)
                server = TLSPeer(sock, server_context(server_cert()))
                await server.handshake()
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += await server.receive(1)
                return server

            url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
            first = asyncio.create_task(one.get(url))
            server = await asked()
            second = asyncio.create_task(one.get(url))
            await until(lambda: one.pool.waiting == 1, "the second waits")
            third = asyncio.create_task(one.get(other.url))
            await until(lambda: one.pool.waiting == 2, "the third waits")
            # Both come in one read: first the connection is given to the second, then it is at its end.
            await loop.sock_sendall(server.sock, server.encrypted(response(b"first")) + server.close_notify())
            assert await first == (200, b"first")
            again = await asked()
            assert not third.done() and not other.connections, "the second came before the third"
            await again.send(response(b"second"))
            assert await second == (200, b"second")
            assert await third == (200, b"third")
            assert all(one.pool.origins[found.origin.key] is found.origin for found in one.pool.connections)
            server.close()
            again.close()


@pytest.mark.parametrize("early", [b"", response(b"too busy", "Connection: close", status="503 Service Unavailable")])
async def test_a_new_connection_that_the_server_ends_at_once_was_not_closed_by_this_side(
    monkeypatch: pytest.MonkeyPatch, early: bytes
) -> None:
    connect = Origin.connect

    async def connect_and_meet_the_end(origin: Origin, limit: float | None, trip: Trip) -> StreamProtocol:
        protocol = await connect(origin, limit, trip)
        server, _ = await asyncio.get_running_loop().sock_accept(listening)
        with server:
            server.sendall(early)
        # uvloop may read that before the task that connects runs again.
        await until(lambda: protocol.peer_ended, "the end was read")
        return protocol

    monkeypatch.setattr(Origin, "connect", connect_and_meet_the_end)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        async with exchanges() as one:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            if early:
                assert await one.get(url) == (503, b"too busy")
            else:
                with pytest.raises(WireError, match="the server closed the connection without an answer"):
                    await one.get(url)


async def test_an_answer_that_its_owner_loses_gives_its_slot_back() -> None:
    async with http_peer(answering(response(b"lost"), response(b"next"))) as peer, exchanges(max_connections=1) as one:
        answer: Any = await one.ask("GET", peer.url)
        waits = asyncio.create_task(one.get(peer.url))
        await until(lambda: one.pool.waiting == 1, "it waits for the slot")
        del answer
        assert await waits == (200, b"next")
        assert len(peer.connections) == 2


async def test_an_answer_that_is_lost_after_its_connection_gives_its_slot_back() -> None:
    async def handle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response(b"lost")[:-1])
        await head_read.wait()
        await connection.reset_and_wait()

    head_read = asyncio.Event()
    async with http_peer(handle) as peer, exchanges(max_connections=1) as one:
        answer: Any = await one.ask("GET", peer.url)
        head_read.set()
        (connection,) = one.pool.connections
        await until(lambda: connection.protocol.state == "lost", "the connection is lost")
        del answer
        await until(lambda: one.pool.slots_taken == 0, "its slot is free")


# ---- Cancellations ----


async def serve(connection: Connection) -> None:
    while True:
        request = await connection.read_request()
        whole = chunked_response([request.target.encode(), request.body])
        for start in range(0, len(whole), 50):
            await connection.send(whole[start : start + 50])


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("busy", [False, True])
async def test_no_cancellation_loses_a_slot_or_mixes_answers(mode: Mode, busy: bool) -> None:
    async with http_peer(serve) as peer, exchanges(max_connections=1) as one:
        number = 1
        while True:
            others = []
            if busy:
                others = [asyncio.create_task(one.get(f"{peer.url}/other{n}")) for n in range(2)]
                await asyncio.sleep(0)
            outcome = await cancelled_at(one.get(f"{peer.url}/first"), number, mode)
            assert [await task for task in others] == [(200, f"/other{n}".encode()) for n in range(len(others))]
            assert await one.get(f"{peer.url}/second") == (200, b"/second")
            assert one.pool.slots_taken == one.pool.open_connections <= 1
            assert one.pool.waiting == 0
            if not outcome.cancelled:
                assert outcome.value == (200, b"/first")
                break
            number += 1
        assert number > 2


@pytest.mark.slow
async def test_a_storm_of_cancellations_loses_no_slot_and_mixes_no_answers() -> None:
    choose = random.Random(5)
    async with http_peer(serve) as peer, exchanges(max_connections=4) as one:

        async def ask(name: str) -> None:
            assert await one.get(f"{peer.url}/{name}") == (200, f"/{name}".encode())

        for turn in range(60):
            tasks = [asyncio.create_task(ask(f"{turn}-{n}")) for n in range(10)]
            for _ in range(choose.randrange(12)):
                await asyncio.sleep(0)
            for task in tasks:
                if choose.random() < 0.5:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result
            assert one.pool.waiting == 0
            assert one.pool.slots_taken == one.pool.open_connections <= 4
