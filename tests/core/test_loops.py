"""A connection and its loop: one that runs inside of itself, another one, and what is still to run after abort()."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
from support.servers import Peer, client_of, peer_and_client

from pepperpy.network import ClosedError, NetworkClient, UsageError


def run_again(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end inside a running callback or task of asyncio's own loop, as nest_asyncio does."""
    loop: Any = asyncio.get_running_loop()
    outer = asyncio.current_task()
    assert outer is not None
    asyncio.tasks._leave_task(loop, outer)
    try:
        task = loop.create_task(coroutine)
        while not task.done():
            loop._run_once()
    finally:
        asyncio.tasks._enter_task(loop, outer)
    return task.result()


def only_on_asyncio() -> None:
    if not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        pytest.skip("uvloop cannot be run inside of itself")


async def test_a_task_that_was_woken_by_data_may_run_the_loop_again_and_ask_the_same_connection() -> None:
    only_on_asyncio()
    async with peer_and_client(timeout=3) as (peer, client):

        async def ask(question: bytes) -> bytes:
            await peer.send(question)
            return await client.receive_line()

        async def ask_twice() -> tuple[bytes, bytes]:
            first = await client.receive_line()
            # This runs inside of the loop's callback for the data of the first line.
            return first, run_again(ask(b"two\n"))

        task = asyncio.create_task(ask_twice())
        await asyncio.sleep(0)
        await peer.send(b"one\n")
        assert await task == (b"one\n", b"two\n")
        assert await ask(b"three\n") == b"three\n"


async def test_a_loop_that_runs_again_reads_what_comes_unasked() -> None:
    only_on_asyncio()
    async with peer_and_client(timeout=3) as (peer, client):

        async def wait_for_more() -> int:
            await peer.send(b"more\n")
            while not client.stats.bytes_buffered:
                await asyncio.sleep(0)
            return client.stats.bytes_buffered

        async def receive() -> tuple[bytes, int, bytes]:
            first = await client.receive_line()
            return first, run_again(wait_for_more()), await client.receive_line()

        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await peer.send(b"one\n")
        assert await task == (b"one\n", 5, b"more\n")


def test_another_loop_is_refused_also_while_a_flush_is_scheduled_in_the_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, asyncio.Runner() as first, asyncio.Runner() as second:
        client = client_of(listener.getsockname()[1])
        first.run(client.connect())
        sock, _ = listener.accept()
        with sock:

            async def send_and_stop() -> None:
                asyncio.get_running_loop().stop()
                await client.send(b"one ")
                # After a quiet moment, in which the machine may let this process wait, a send leaves at once.
                while not client.stats.bytes_queued:
                    await client.send(b"two ")

            loop = first.get_loop()
            task = loop.create_task(send_and_stop())
            loop.run_forever()
            assert task.done()
            assert client.stats.bytes_queued == 4
            accepted = b"one " + b"two " * (client.stats.sends - 1)
            with pytest.raises(UsageError, match="another event loop"):
                second.run(client.send(b"three "))
            # Nothing of that was accepted, and what was leaves when its loop runs.
            first.run(client.send(b"four"))
            first.run(client.disconnect())
            received = b""
            while data := sock.recv(100):
                received += data
            assert received == accepted + b"four"


async def begin_and_queue(client: NetworkClient) -> bytes:
    """Send until something is gathered, and return what has left: after a quiet moment a send leaves at once."""
    await client.send(b"begin;")
    while not client.stats.bytes_queued:
        await client.send(b"delete;")
    stats = client.stats
    return (b"begin;" + b"delete;" * stats.sends)[: stats.bytes_sent - stats.bytes_queued]


async def all_of(peer: Peer) -> bytes:
    received = b""
    try:
        while data := await peer.receive(1):
            received += data
    except ConnectionResetError:
        # Linux throws away what it has, too, when the reset comes.
        pass
    return received


async def test_nothing_leaves_after_abort() -> None:
    async with peer_and_client() as (peer, client):
        left = await begin_and_queue(client)
        client.abort()
        assert left.startswith(await all_of(peer))
        with pytest.raises(ClosedError):
            await client.send(b"commit;")


async def test_nothing_leaves_after_a_loss() -> None:
    async with peer_and_client() as (peer, client):
        left = await begin_and_queue(client)
        client._link.protocol.lose(OSError("the heartbeat was not answered"))
        assert left.startswith(await all_of(peer))
