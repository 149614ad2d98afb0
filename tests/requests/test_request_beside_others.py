"""A request beside what else happens on its connection: unasked bytes, plain receives, its end and the next one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings

import pytest
from support.cancelling import arrived, until
from support.requesting import asked, line, outcome
from support.servers import TOO_MUCH, peer_and_client

from pepperpy.network import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    IncompleteReadError,
    NetworkClient,
    NotConnectedError,
    ProtocolError,
)

# ---- Bytes that nobody has asked for ----


async def test_bytes_that_no_request_asked_for_are_no_reply() -> None:
    async with peer_and_client() as (peer, client):
        task = asked(client)
        assert await peer.receive(2) == b"q\n"
        await peer.send(b"reply\nand another\n")
        assert await task == b"reply\n"
        with pytest.raises(ProtocolError, match="12 bytes that no request had asked for"):
            await client.request(b"never sent\n", line)
        with pytest.raises(ConnectionLostError):
            await client.request(b"never sent\n", line)
        assert not client.is_connected
        assert await peer.receive_all() == b""


async def test_bytes_that_come_while_a_request_waits_for_room_are_no_reply() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        task = asked(client, b"never sent\n")
        await asyncio.sleep(0)
        await peer.send(b"unasked\n")
        received = b""
        # There is room before the last byte has left. The request ends the connection then, with a reset.
        with contextlib.suppress(ConnectionResetError):
            while piece := await peer.receive(1 << 16):
                received += piece
        assert isinstance(await outcome(task), ProtocolError)
        assert not received.strip(b"\0") and len(received) <= len(TOO_MUCH)


async def test_where_the_peer_may_speak_unasked_the_callable_sorts_it_out() -> None:
    pushes = []

    async def reply(client: NetworkClient) -> bytes:
        while (text := await client.receive_line()).startswith(b"push"):
            pushes.append(text)
        return text

    async with peer_and_client() as (peer, client):
        await peer.send(b"push 1\npush 2\n")
        await arrived(client, 14)
        task = asyncio.create_task(client.request(b"q\n", reply, allow_unasked=True))
        assert await peer.receive(2) == b"q\n"
        await peer.send(b"push 3\nreply\n")
        assert await task == b"reply\n"
        assert pushes == [b"push 1\n", b"push 2\n", b"push 3\n"]


# ---- Other users of the connection ----


async def test_a_plain_receive_and_a_request_do_not_take_each_others_bytes() -> None:
    async with peer_and_client() as (peer, client):
        receiving = asyncio.create_task(client.receive_line())
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="another task is already receiving"):
            await client.request(b"never sent\n", line)
        await peer.send(b"for the receive\n")
        assert await receiving == b"for the receive\n"
        task = asked(client)
        assert await peer.receive(2) == b"q\n"
        with pytest.raises(BusyError):
            await client.receive()
        await peer.send(b"for the request\n")
        assert await task == b"for the request\n"


@pytest.mark.parametrize("part", [b"", b"an unfinished"])
async def test_the_end_of_the_stream_is_no_reply(part: bytes) -> None:
    async with peer_and_client() as (peer, client):
        task = asked(client)
        assert await peer.receive(2) == b"q\n"
        await peer.send(part)
        peer.send_eof()
        error = await outcome(task)
        assert isinstance(error, IncompleteReadError)
        assert error.partial == part
        assert not client.is_connected


async def test_no_byte_at_the_end_of_the_stream_is_no_reply_though_the_callable_says_so() -> None:
    async with peer_and_client() as (peer, client):
        task = asyncio.create_task(client.request(b"q\n", NetworkClient.receive_line))
        assert await peer.receive(2) == b"q\n"
        peer.send_eof()
        assert isinstance(await outcome(task), ConnectionLostError)
        assert not client.is_connected


async def test_a_peer_that_has_ended_its_stream_is_not_asked() -> None:
    async with peer_and_client() as (peer, client):
        peer.send_eof()
        assert await client.receive() == b""
        with pytest.raises(ConnectionLostError, match="no reply can come"):
            await client.request(b"never sent\n", line)
        await client.disconnect()
        assert await peer.receive_all() == b""


async def test_a_request_on_a_client_that_was_never_connected_says_so() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(NotConnectedError):
            await NetworkClient(client.config).request(b"q\n", line)


async def test_disconnect_ends_a_request_but_still_sends_what_it_had_accepted() -> None:
    async with peer_and_client() as (peer, client):
        task, waiting = asked(client, TOO_MUCH), asked(client)
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.disconnect())
        assert len(await peer.receive_all()) == len(TOO_MUCH)
        await closing
        assert isinstance(await outcome(task), ClosedError)
        assert isinstance(await outcome(waiting), ClosedError)


async def test_after_a_dropped_connection_connect_makes_one_that_requests_can_use() -> None:
    async with peer_and_client() as (peer, client), peer_and_client() as (_, other):
        task = asked(client)
        assert await peer.receive(2) == b"q\n"
        task.cancel()
        await asyncio.wait([task])
        await client.disconnect()
        client.config = other.config
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        client.config = client.config.replace(port=server.sockets[0].getsockname()[1])
        await client.connect()
        assert await client.request(b"again\n", line) == b"again\n"
        await client.disconnect()
        server.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (data := await reader.readline()) and not writer.transport.is_closing():
        writer.write(data)
    writer.close()


async def test_a_callable_that_outlives_its_connection_takes_nothing_that_others_then_miss() -> None:
    go_on = asyncio.Event()

    async def slow(client: NetworkClient) -> bytes:
        await go_on.wait()
        return await client.receive_line()

    async with peer_and_client() as (_, client):
        task = asyncio.create_task(client.request(b"q\n", slow))
        await asyncio.sleep(0)
        await client.disconnect()
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        client.config = client.config.replace(port=server.sockets[0].getsockname()[1])
        await client.connect()
        await client.send(b"a plain user's\n")
        await arrived(client, 15)
        go_on.set()
        error = await outcome(task)
        assert isinstance(error, ClosedError)
        # It has read the new connection's line: that one is out of step as well.
        await until(lambda: not client.is_connected, "the new connection is dropped")
        await client.disconnect()
        server.close()


async def test_an_unclosed_client_that_made_requests_is_reported_at_once() -> None:
    async with peer_and_client() as (peer, client):
        task = asked(client)
        assert await peer.receive(2) == b"q\n"
        await peer.send(b"reply\n")
        await task
        del task
        gc.disable()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                forgotten = NetworkClient(client.config)
                forgotten._link.use(client._link.protocol)
                forgotten._link.exchanges = client._link.exchanges
                del forgotten
            assert [warning.category for warning in caught] == [ResourceWarning]
        finally:
            gc.enable()
