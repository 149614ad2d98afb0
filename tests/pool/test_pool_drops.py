"""What is never lent again by a pool: a connection that another user could not begin on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.cancelling import arrived, until
from support.certificates import client_context, server_cert, server_context
from support.line_server import LineServer, ask, is_consistent, server_and_pool
from support.servers import TOO_MUCH

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


@pytest.mark.parametrize(("use", "reason"), DROPS, ids=[use.__name__.strip("_") for use, _ in DROPS])
@pytest.mark.usefixtures("far")
async def test_a_connection_that_another_user_could_not_begin_on_is_never_lent_again(use: Use, reason: str) -> None:
    async with server_and_pool(0, 1) as (server, pool):
        # Once with nobody waiting for it, and once with somebody.
        for turn in (1, 2):
            waiting = None
            address = None
            with contextlib.suppress(ValueError, asyncio.CancelledError):
                async with pool.acquire() as client:
                    if turn == 2:
                        waiting = asyncio.create_task(_exchange(pool))
                        await until(lambda: pool.stats.waiting == 1, "somebody waits")
                    address = client.local_address
                    await use(client, server)
            assert pool.stats.dropped == {reason: turn}
            assert await (waiting or _exchange(pool)) != address
            assert is_consistent(pool)
        while _tasks:
            with contextlib.suppress(ClosedError):
                await _tasks.pop()


async def _exchange(pool: NetworkPool) -> object:
    async with pool.acquire() as client:
        await ask(client)
        return client.local_address
