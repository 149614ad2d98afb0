"""What ends a pipeline: replies that nobody asked for, a lost connection, leaving it early."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.cancelling import until
from support.pipelining import LINES, asked, in_flight, word
from support.requesting import outcome
from support.servers import client_of, echo_server, peer_and_client

from pepperpy.network import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    InvalidRequestError,
    JSONLines,
    NetworkClient,
    NetworkConfig,
    NotConnectedError,
    ProtocolError,
    UsageError,
)

# ---- What no request had asked for ----


@pytest.mark.parametrize("key", [None, word], ids=["in order", "by id"])
async def test_a_second_reply_ends_the_pipeline(key: Any) -> None:
    async with peer_and_client() as (peer, client), client.pipeline(LINES, key=key) as pipeline:
        first = asked(pipeline, b"1 q")[0]
        await in_flight(pipeline, 1)
        await peer.send(b"1 reply\n1 again\n")
        # It came in time.
        assert await first == b"1 reply"
        await until(lambda: not client.is_connected, "the connection is dropped")
        with pytest.raises(ConnectionLostError) as caught:
            await pipeline.request(b"2 q")
        assert isinstance(caught.value.__cause__, ProtocolError)


async def test_a_reply_with_an_id_that_nobody_used_ends_the_pipeline_for_all() -> None:
    async with peer_and_client() as (peer, client):
        async with client.pipeline(LINES, key=word, max_in_flight=2) as pipeline:
            tasks = asked(pipeline, b"1 q", b"2 q", b"3 waits")
            await in_flight(pipeline, 2)
            # Of a request that waits, nothing has been sent: so this is no reply to it.
            await peer.send(b"3 reply\n")
            for task in tasks:
                error = await outcome(task)
                assert isinstance(error, ConnectionLostError)
                assert isinstance(error.__cause__, ProtocolError)
            assert not client.is_connected


async def test_a_message_whose_id_cannot_be_read_ends_the_pipeline() -> None:
    for message in (b"{}", b"7", b'{"id": []}'):
        async with peer_and_client() as (peer, client):
            async with client.pipeline(JSONLines(), key=lambda message: message["id"]) as pipeline:
                task = asked(pipeline, {"id": 1})[0]
                await in_flight(pipeline, 1)
                await peer.send(message + b"\n")
                error = await outcome(task)
                assert isinstance(error, ConnectionLostError)
                assert "without a usable id" in str(error)


async def test_pushes_go_to_their_callback_and_replies_to_their_requests() -> None:
    pushes: list[bytes] = []
    for options in ({"key": word}, {"is_push": lambda line: line.startswith(b"push")}):
        pushes.clear()
        async with peer_and_client() as (peer, client):
            async with client.pipeline(LINES, on_push=pushes.append, **options) as pipeline:
                await peer.send(b"push1\n")
                await until(lambda: len(pushes) == 1, "a push while nothing is in flight")
                tasks = asked(pipeline, b"1 q", b"2 q")
                await in_flight(pipeline, 2)
                await peer.send(b"push2\n1 reply\npush3\n2 reply\npush4\n")
                assert await asyncio.gather(*tasks) == [b"1 reply", b"2 reply"]
                await until(lambda: len(pushes) == 4, "four pushes")
    assert pushes == [b"push%d" % number for number in range(1, 5)]


async def test_a_callback_that_fails_ends_the_pipeline_and_is_heard_of() -> None:
    def fail(_: bytes) -> None:
        raise LookupError("the callback's own")

    async with peer_and_client() as (peer, client):
        with pytest.raises(LookupError, match="the callback's own"):
            async with client.pipeline(LINES, key=word, on_push=fail) as pipeline:
                task = asked(pipeline, b"1 q")[0]
                await in_flight(pipeline, 1)
                await peer.send(b"push\n")
                error = await outcome(task)
                assert isinstance(error, ClosedError)
                assert isinstance(error.__cause__, LookupError)
                with pytest.raises(ClosedError) as caught:
                    await pipeline.wait_ended()
                assert isinstance(caught.value.__cause__, LookupError)
        assert not client.is_connected
    async with peer_and_client() as (peer, client):
        # The block's own error says more.
        with pytest.raises(ZeroDivisionError):
            async with client.pipeline(LINES, on_push=fail):
                await peer.send(b"push\n")
                await until(lambda: not client.is_connected, "the connection is dropped")
                raise ZeroDivisionError


# ---- The end ----


@pytest.mark.parametrize("how", ["reset", "end", "garbage"])
async def test_all_requests_hear_at_once_of_a_connection_that_is_lost(how: str) -> None:
    async with peer_and_client() as (peer, client), client.pipeline(JSONLines(), max_in_flight=2) as pipeline:
        tasks = asked(pipeline, 1, 2, 3, timeout=None)
        await in_flight(pipeline, 2)
        await peer.send(b'"what came before counts"\n')
        if how == "garbage":
            await peer.send(b"no JSON\n")
        assert await tasks[0] == "what came before counts"
        # After garbage it is this client that ends the connection, and with a reset.
        if how != "garbage":
            peer.reset() if how == "reset" else peer.send_eof()
        for task in tasks[1:]:
            error = await outcome(task)
            assert isinstance(error, ConnectionLostError)
            assert error.__cause__ is not None
        with pytest.raises(ConnectionLostError):
            await pipeline.wait_ended()
        assert not client.is_connected


async def test_disconnect_ends_the_pipeline() -> None:
    async with peer_and_client() as (_, client), client.pipeline(LINES) as pipeline:
        task = asked(pipeline, b"q")[0]
        await in_flight(pipeline, 1)
        await client.disconnect()
        assert isinstance(await outcome(task), ClosedError)
        with pytest.raises(ClosedError):
            await pipeline.request(b"q")


async def test_leaving_with_all_replies_there_leaves_a_connection_that_is_in_step() -> None:
    async with peer_and_client() as (peer, client):
        async with client.pipeline(LINES) as pipeline:
            task = asked(pipeline, b"q")[0]
            await in_flight(pipeline, 1)
            await peer.send(b"reply\nthe begin")
            assert await task == b"reply"
            with pytest.raises(BusyError):
                await client.receive()
            with pytest.raises(BusyError):
                await client.request(b"never sent\n", NetworkClient.receive_line)
        with pytest.raises(ClosedError, match="its block was left"):
            await pipeline.request(b"never sent")
        await peer.send(b"ning\n")
        assert await client.receive_line() == b"the beginning\n"
        async with client.pipeline(LINES) as another:
            task = asked(another, b"q2")[0]
            assert await peer.receive(5) == b"q\nq2\n"
            await peer.send(b"reply 2\n")
            assert await task == b"reply 2"


@pytest.mark.parametrize("given_up", [False, True])
async def test_leaving_with_a_reply_outstanding_drops_the_connection(given_up: bool) -> None:
    async with peer_and_client() as (_, client):
        async with client.pipeline(LINES) as pipeline:
            task = asked(pipeline, b"q")[0]
            await in_flight(pipeline, 1)
            if given_up:
                task.cancel()
                await asyncio.wait([task])
        assert not client.is_connected
        error = await outcome(task)
        assert isinstance(error, asyncio.CancelledError if given_up else ClosedError)


async def test_a_pipeline_does_not_go_on_with_the_next_connection() -> None:
    async with echo_server() as port:
        client, other = client_of(port), client_of(port)
        await client.connect()
        await other.connect()
        async with client.pipeline(LINES) as pipeline:
            # As connect() does when sending has broken: before the reader has run at all.
            client.abort()
            client._link.use(other._link.protocol)
            with pytest.raises(ClosedError, match="has connected again"):
                await pipeline.request(b"never sent")
        assert await client.request(b"plain\n", NetworkClient.receive_line) == b"plain\n"
        await client.disconnect()


async def test_a_pipeline_that_is_used_wrongly_says_how() -> None:
    async with peer_and_client() as (_, client):
        pipeline = client.pipeline(LINES, key=word)
        with pytest.raises(UsageError, match="use `async with`"):
            await pipeline.request(b"1 q")
        async with pipeline:
            with pytest.raises(InvalidRequestError, match="has no id"):
                await pipeline.request(b"none")
            with pytest.raises(ValueError, match="separator"):
                await pipeline.request(b"1 a\nb")
            with pytest.raises(ValueError, match="timeout"):
                await pipeline.request(b"1 a", timeout=-1)
            assert pipeline.in_flight == 0
            assert "0 in flight" in repr(pipeline)
        with pytest.raises(UsageError, match="used once"):
            async with pipeline:
                pass
        for options, message in (
            ({"max_in_flight": 0}, "max_in_flight must be 1 or more"),
            ({"max_in_flight": 4, "max_abandoned": 4}, "max_abandoned must be from 0 to 3"),
            ({"request_key": word}, "request_key needs key"),
            ({"is_push": bool}, "is_push needs on_push"),
        ):
            with pytest.raises((TypeError, ValueError), match=message):
                client.pipeline(LINES, **options)  # type: ignore[arg-type]
        with pytest.raises(NotConnectedError):
            async with NetworkClient(client.config).pipeline(LINES):
                pass


async def test_a_reader_that_somebody_cancels_leaves_no_request_waiting() -> None:
    async with peer_and_client() as (_, client), client.pipeline(LINES) as pipeline:
        task = asked(pipeline, b"q", timeout=None)[0]
        await in_flight(pipeline, 1)
        (reader,) = (other for other in asyncio.all_tasks() if other.get_name().startswith("pipeline reader"))
        reader.cancel()
        assert isinstance(await outcome(task), ClosedError)
        assert not client.is_connected


async def test_a_reader_that_is_cancelled_before_its_first_step_leaves_nobody_waiting() -> None:
    async with peer_and_client() as (_, client):
        pipeline = client.pipeline(LINES)
        await pipeline.__aenter__()
        (reader,) = (other for other in asyncio.all_tasks() if other.get_name().startswith("pipeline reader"))
        reader.cancel()
        with pytest.raises(ClosedError):
            await pipeline.request(b"q", timeout=None)
        with pytest.raises(ClosedError):
            await pipeline.wait_ended()
        await pipeline.__aexit__(None, None, None)


def test_a_pipeline_that_could_take_the_answer_to_the_heartbeat_for_a_reply_is_refused() -> None:
    client = NetworkClient(NetworkConfig("localhost", 1, heartbeat=bool))
    with pytest.raises(ValueError, match="heartbeat needs a pipeline with key or is_push"):
        client.pipeline(LINES)
    client.pipeline(LINES, key=word)
    client.pipeline(LINES, is_push=bool, on_push=bool)
