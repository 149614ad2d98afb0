"""What a client answers before, while and after it is connected, in other threads and loops, and when it is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import socket
import threading
import warnings
import weakref

import pytest
from support.cancelling import arrived
from support.servers import TOO_MUCH, client_of, echo_server, peer_and_client

from pepperpy.network import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    NotConnectedError,
    UsageError,
)

CALLS = {
    "send": lambda c: c.send(b"x"),
    "send_many": lambda c: c.send_many([b"x"]),
    "send_eof": lambda c: c.send_eof(),
    "flush": lambda c: c.flush(),
    "receive": lambda c: c.receive(),
    "receive_into": lambda c: c.receive_into(bytearray(1)),
    "receive_exactly": lambda c: c.receive_exactly(1),
    "receive_until": lambda c: c.receive_until(b"x"),
    "receive_line": lambda c: c.receive_line(),
    "receive_lines": lambda c: c.receive_lines(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_before_connect_says_so(name: str) -> None:
    client = client_of(1)
    with pytest.raises(NotConnectedError, match="connect"):
        await CALLS[name](client)
    await client.disconnect()
    client.abort()


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_after_disconnect_says_so(name: str) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"unread\n")
        await arrived(client, 7)
        await client.disconnect()
        with pytest.raises(ClosedError):
            await CALLS[name](client)
        assert client.stats.bytes_buffered == 0


async def test_a_client_can_be_made_outside_a_loop_and_connected_again() -> None:
    client = await asyncio.to_thread(lambda: client_of(1))
    async with echo_server() as port:
        client = NetworkClient(client.config.replace(port=port))
        for number in range(3):
            async with client:
                await client.send(b"%d" % number)
                assert await client.receive() == b"%d" % number
        assert client.stats.connects == 3
        assert client.stats.bytes_received == 3


async def test_connecting_twice_keeps_the_connection() -> None:
    async with echo_server() as port, client_of(port) as client:
        address = client.local_address
        await client.connect()
        assert client.local_address == address


async def test_two_tasks_cannot_connect_one_client() -> None:
    async with echo_server() as port:
        client = client_of(port)
        results = await asyncio.gather(client.connect(), client.connect(), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), BusyError]
        await client.disconnect()


async def test_a_task_that_waits_for_the_connection_of_a_plain_client_is_told_that_it_failed() -> None:
    go = asyncio.Event()

    async def fails(connection: NetworkClient) -> None:
        await go.wait()
        raise ConnectionRefusedError("not today")

    async with echo_server() as port:
        client = client_of(port, retries=0, on_connect=fails)
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        # Only now the client gets what tells of changes.
        waiting = asyncio.create_task(client.wait_connected(None))
        await asyncio.sleep(0)
        go.set()
        for task in (connecting, waiting):
            with pytest.raises(ConnectError, match="not today"):
                await task


async def test_disconnect_is_idempotent_also_from_two_tasks() -> None:
    async with peer_and_client() as (_, client):
        await asyncio.gather(client.disconnect(), client.disconnect())
        await client.disconnect()


async def test_a_reader_that_waits_is_told_of_disconnect_and_abort() -> None:
    for close in (NetworkClient.disconnect, NetworkClient.abort):
        async with peer_and_client() as (_, client):
            reading = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            result = close(client)
            if result is not None:
                await result
            with pytest.raises(ClosedError):
                await reading


async def test_connect_after_a_loss_makes_a_new_connection_with_none_of_the_old_bytes() -> None:
    async with echo_server() as port:
        async with peer_and_client() as (peer, client):
            await peer.send(b"old")
            await arrived(client, 3)
            peer.reset()
            assert await client.receive(1) == b"o"
            with pytest.raises(ConnectionLostError):
                await client.receive_exactly(100)
            old_reader = client.receive()
            client.config = client.config.replace(port=port)
            await client.connect()
            await client.send(b"new")
            assert await old_reader == b"new"


async def test_a_waiting_reader_does_not_get_the_bytes_of_the_next_connection() -> None:
    async with echo_server() as port, client_of(port) as client:
        reading = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
        client.abort()
        await client.connect()
        await client.send(b"for the new reader")
        with pytest.raises(ClosedError):
            await reading
        assert await client.receive() == b"for the new reader"


@pytest.mark.parametrize("name", CALLS)
async def test_another_thread_is_refused(name: str) -> None:
    async with peer_and_client() as (_, client):

        def elsewhere() -> BaseException | None:
            try:
                asyncio.run(CALLS[name](client))
            except BaseException as error:
                return error
            return None

        error = await asyncio.to_thread(elsewhere)
        assert isinstance(error, UsageError)
        assert "thread" in str(error)


def test_another_loop_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1])
        first = asyncio.new_event_loop()
        first.run_until_complete(client.connect())
        second = asyncio.new_event_loop()
        for call in (*CALLS.values(), NetworkClient.connect, NetworkClient.disconnect):
            with pytest.raises(UsageError, match="loop"):
                second.run_until_complete(call(client))
        second.close()
        first.run_until_complete(client.disconnect())
        first.close()


async def test_a_forked_process_is_refused_and_sends_nothing() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"first")
        await client.send(b"queued at the fork")
        child = os.fork()
        if not child:
            status = 1
            try:
                for call in (client.abort, lambda: client._sender.send(b"from the child")):
                    with pytest.raises(UsageError, match="parent process"):
                        call()
                warnings.simplefilter("ignore")
                del client
                gc.collect()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        await client.send_eof()
        assert await peer.receive_all() == b"firstqueued at the fork"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_a_dropped_client_warns_and_closes_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        dropped = client_of(listener.getsockname()[1])
        await dropped.connect()
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted, pytest.warns(ResourceWarning, match="unclosed NetworkClient"):
            del dropped
            gc.collect()
            accepted.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(accepted, 1) == b""


@pytest.mark.usefixtures("far")
async def test_a_client_that_is_dropped_right_after_it_was_aborted_was_not_left_unclosed() -> None:
    async with echo_server() as port:
        client = client_of(port)
        await client.connect()
        client.abort()
        # A ResourceWarning would fail this test.
        del client
        gc.collect()


async def test_nothing_keeps_a_closed_client_alive() -> None:
    async with echo_server() as port:
        client = client_of(port)
        async with client:
            await client.send(b"x\n")
            assert await client.receive_line(timeout=1000) == b"x\n"
        protocol = weakref.ref(client)
        gc.collect()
        gc.disable()
        try:
            del client
            assert protocol() is None
        finally:
            gc.enable()


async def test_an_error_in_the_block_is_not_hidden_by_one_of_closing(caplog: pytest.LogCaptureFixture) -> None:
    async with peer_and_client(close_timeout=0.05) as (_, client):
        with pytest.raises(ZeroDivisionError):
            async with client:
                await client.send(TOO_MUCH)
                raise ZeroDivisionError
        assert "did not take" in caplog.text


def test_closing_the_loop_under_a_client_leaves_one_warning_and_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.connect())
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed"):
            del client
            gc.collect()


def test_a_client_dropped_in_another_thread_is_closed_in_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def main() -> None:
            client = client_of(listener.getsockname()[1])
            await client.connect()
            box = [client]
            del client
            with pytest.warns(ResourceWarning, match="unclosed"):
                await asyncio.to_thread(box.clear)
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(accepted.recv, 1) == b""

        asyncio.run(main())
        assert threading.active_count() >= 1


async def test_what_has_connections_says_what_to_pickle_in_its_place() -> None:
    config = NetworkConfig("host.example", 1)
    for client in (NetworkClient(config), NetworkPool(config)):
        for twice in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(
                TypeError, match=f"{type(client).__name__} cannot be pickled or copied: pickle its config"
            ):
                twice(client)
