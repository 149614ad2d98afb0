"""What is never lent again by a pool: a connection that another user could not begin on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.cancelling import arrived, until
from support.certificates import client_context, server_cert, server_context
from support.line_server import LineServer, ask, is_consistent, server_and_pool
from support.servers import TOO_MUCH, client_of, wait_for_the_kernel
from support.tls_peer import TLSPeer

from pepperpy.network import ClosedError, ConnectionLostError, NetworkClient, NetworkPool, TLSConfig


async def _fail(client: NetworkClient, server: LineServer) -> None:
    raise ValueError("a matter of the user's own")


async def _be_cancelled(client: NetworkClient, server: LineServer) -> None:
    await client.send(b"answer to nobody\n")
    raise asyncio.CancelledError


async def _leave_the_answer(client: NetworkClient, server: LineServer) -> None:
    before = client.stats.bytes_received
    await client.send(b"one\ntwo\n")
    await client.receive_exactly(len(b"one\n"))
    await arrived(client, before + len(b"one\ntwo\n"))


async def _leave_the_answer_in_the_kernel(client: NetworkClient, server: LineServer) -> None:
    await ask(client)
    os.write(server.open[-1].get_extra_info("socket").fileno(), b"unasked\n")
    wait_for_the_kernel(client.extra_info("socket"))


async def _give_up_a_receive(client: NetworkClient, server: LineServer) -> None:
    with pytest.raises(TimeoutError):
        await client.receive_line(timeout=0)


async def _give_up_a_large_receive(client: NetworkClient, server: LineServer) -> None:
    before = client.stats.bytes_received
    receiving = asyncio.create_task(client.receive_exactly(1 << 20))
    await client.send(b"part\n")
    await arrived(client, before + len(b"part\n"))
    receiving.cancel()
    await asyncio.wait([receiving])


async def _go_on_receiving(client: NetworkClient, server: LineServer) -> None:
    receiving = asyncio.create_task(client.receive())
    await asyncio.sleep(0)
    receiving.add_done_callback(lambda task: task.exception())
    _tasks.add(receiving)


async def _go_on_sending(client: NetworkClient, server: LineServer) -> None:
    server.open[-1].transport.pause_reading()
    sending = asyncio.create_task(client.send_many([TOO_MUCH, b"\n"]))
    await sending
    held_back = asyncio.create_task(client.send(b"more"))
    await asyncio.sleep(0)
    held_back.add_done_callback(lambda task: task.exception())
    _tasks.add(held_back)


async def _end_the_sending_side(client: NetworkClient, server: LineServer) -> None:
    await client.send_eof()


async def _go_on_with_tls(client: NetworkClient, server: LineServer) -> None:
    await ask(client)
    tls = TLSConfig(context=client_context(), server_hostname="localhost")
    await asyncio.gather(server.open[-1].start_tls(server_context(server_cert())), client.start_tls(tls))
    await ask(client)


async def _disconnect(client: NetworkClient, server: LineServer) -> None:
    await client.disconnect()


async def _connect_anew(client: NetworkClient, server: LineServer) -> None:
    client.abort()
    await client.connect()
    await ask(client)


async def _be_left(client: NetworkClient, server: LineServer) -> None:
    server.drop_all()
    with pytest.raises(ConnectionLostError):
        while await client.receive():
            pass
        raise ConnectionLostError


async def _be_left_unseen(client: NetworkClient, server: LineServer) -> None:
    # The kernel knows of it, and the loop does not yet.
    with socket.socket(fileno=os.dup(server.open[-1].get_extra_info("socket").fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    wait_for_the_kernel(client.extra_info("socket"))


_tasks: set[asyncio.Task[Any]] = set()
Use = Callable[[NetworkClient, LineServer], Awaitable[None]]
DROPS: list[tuple[Use, str]] = [
    (_fail, "failed"),
    (_be_cancelled, "cancelled"),
    (_leave_the_answer, "unread"),
    (_leave_the_answer_in_the_kernel, "unread"),
    (_give_up_a_receive, "unfinished"),
    (_give_up_a_large_receive, "unread"),
    (_go_on_receiving, "unfinished"),
    (_go_on_sending, "unfinished"),
    (_end_the_sending_side, "unfinished"),
    (_go_on_with_tls, "unfinished"),
    (_disconnect, "closed"),
    (_connect_anew, "closed"),
    (_be_left, "lost"),
    (_be_left_unseen, "lost"),
]
# The kernel alone knows of it. It is asked when the connection is lent, or goes to somebody who waits.
UNSEEN = (_leave_the_answer_in_the_kernel, _be_left_unseen)


@pytest.mark.parametrize(("use", "reason"), DROPS, ids=[use.__name__.strip("_") for use, _ in DROPS])
async def test_a_connection_that_another_user_could_not_begin_on_is_never_lent_again(use: Use, reason: str) -> None:
    async with server_and_pool(0, 1) as (server, pool):
        # Once with nobody waiting for it, and once with somebody.
        for turn in (1, 2):
            waiting = None
            address = None
            with contextlib.suppress(ValueError, asyncio.CancelledError):
                async with pool.acquire() as client:
                    await ask(client)  # so the server has accepted it
                    if turn == 2:
                        waiting = asyncio.create_task(_exchange(pool))
                        await until(lambda: pool.stats.waiting == 1, "somebody waits")
                    address = client.local_address
                    await use(client, server)
            if waiting is not None or use not in UNSEEN:
                assert pool.stats.dropped == {reason: turn}
            assert await (waiting or _exchange(pool)) != address
            assert pool.stats.dropped == {reason: turn}
            assert is_consistent(pool)
        while _tasks:
            with contextlib.suppress(ClosedError):
                await _tasks.pop()


@pytest.mark.parametrize(
    ("use", "reason"),
    [(use, reason) for use, reason in DROPS if use in UNSEEN],
    ids=[use.__name__.strip("_") for use in UNSEEN],
)
async def test_what_the_loop_reads_first_after_the_block_ends_the_connection_though_nobody_asks_for_one(
    use: Use, reason: str
) -> None:
    async with server_and_pool(0, 1) as (server, pool):
        async with pool.acquire() as client:
            await ask(client)
            await use(client, server)
        await until(lambda: pool.stats.size == 0, "it is dropped")
        assert pool.stats.dropped == {reason: 1}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
async def test_a_signal_that_interrupts_the_question_to_the_kernel_costs_no_connection() -> None:
    # With some 6 of 100 signals, poll() failed with EINTR, which counted as input that nobody had asked for.
    # The kernel's own timer sends them while this process runs, and needs no other one that has to get the processor.
    signals = 0

    def count(number: int, frame: object) -> None:
        nonlocal signals
        signals += 1

    async with server_and_pool(0, 1) as (_, pool):
        await _exchange(pool)
        # pytest-timeout's.
        limit = signal.setitimer(signal.ITIMER_REAL, 0)
        handler = signal.signal(signal.SIGALRM, count)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
            while signals < 500:
                async with pool.acquire():
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *limit)
        assert (pool.stats.created, pool.stats.dropped) == (1, {})


async def _exchange(pool: NetworkPool) -> object:
    async with pool.acquire() as client:
        await ask(client)
        return client.local_address


async def test_who_was_given_a_connection_that_ends_before_its_task_runs_gets_another_before_all_others() -> None:
    loop = asyncio.get_running_loop()
    order = []

    async def use(pool: NetworkPool, name: bytes) -> bytes:
        async with pool.acquire() as client:
            await client.send(name)
            order.append(name)
            return await client.receive_exactly(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        config = client_of(listening.getsockname()[1], tls=TLSConfig(context=client_context())).config
        async with NetworkPool(config, max_size=1) as pool:
            tasks = [asyncio.create_task(use(pool, name)) for name in (b"1", b"2", b"3")]
            for name in (b"1", b"2", b"3"):
                sock, _ = await loop.sock_accept(listening)
                sock.setblocking(False)
                server = TLSPeer(sock, server_context(server_cert()))
                await server.handshake()
                assert await server.receive(1) == name
                # Both come in one read.
                await loop.sock_sendall(sock, server.encrypted(name) + server.close_notify())
                server.close()
            assert await asyncio.gather(*tasks) == [b"1", b"2", b"3"] == order
            assert (pool.stats.created, pool.stats.dropped) == (3, {"lost": 3})
