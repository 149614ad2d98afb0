"""`NetworkClient.pipeline()`: each reply reaches the request that owns its slot, or nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.cancelling import Mode, arrived, cancel_now
from support.loops import begin_tasks_at_once, needs_eager_tasks
from support.pipelining import LINES, asked, in_flight, word
from support.requesting import outcome
from support.servers import TOO_MUCH, peer_and_client

from pepperpy.network import ClosedError, InvalidRequestError, JSONLines, NetworkTimeoutError

# ---- Handing out ----


async def test_requests_leave_together_and_their_replies_come_in_order() -> None:
    async with peer_and_client() as (peer, client), client.pipeline(LINES) as pipeline:
        tasks = asked(pipeline, *(b"%03d" % number for number in range(64)))
        assert await peer.receive(64 * 4) == b"".join(b"%03d\n" % number for number in range(64))
        assert pipeline.in_flight == 64
        await peer.send(b"".join(b"reply %d\n" % number for number in range(63)))
        assert await asyncio.gather(*tasks[:63]) == [b"reply %d" % number for number in range(63)]
        assert not tasks[63].done()
        await peer.send(b"reply 63\n")
        assert await tasks[63] == b"reply 63"
        assert pipeline.in_flight == 0


@needs_eager_tasks
async def test_where_tasks_begin_at_once_a_push_that_has_come_before_is_handed_out_in_the_block() -> None:
    tasks: list[asyncio.Task[bytes]] = []

    def ask(_: bytes) -> None:
        tasks.append(asyncio.create_task(pipeline.request(b"1 q")))

    begin_tasks_at_once()
    async with peer_and_client() as (peer, client):
        await peer.send(b"push\n")
        await arrived(client, 5)
        async with client.pipeline(LINES, key=word, is_push=b"push".__eq__, on_push=ask) as pipeline:
            assert tasks == []
            assert await peer.receive(4) == b"1 q\n"
            await peer.send(b"1 reply\n")
            assert await tasks[0] == b"1 reply"


async def test_replies_in_any_order_reach_the_requests_with_their_ids() -> None:
    async with peer_and_client() as (peer, client):
        async with client.pipeline(JSONLines(), key=lambda message: message.get("id")) as pipeline:
            tasks = asked(pipeline, *({"id": number, "method": "double"} for number in range(10)))
            await in_flight(pipeline, 10)
            for number in (7, 0, 9, 1, 8, 2, 3, 6, 5, 4):
                await peer.send(b'{"id": %d, "result": %d}\n' % (number, 2 * number))
            assert await asyncio.gather(*tasks) == [{"id": number, "result": 2 * number} for number in range(10)]


async def test_requests_and_replies_may_carry_the_id_in_different_places() -> None:
    async with peer_and_client() as (peer, client):
        async with client.pipeline(LINES, key=lambda reply: reply[-1:], request_key=lambda sent: sent[:1]) as pipeline:
            tasks = asked(pipeline, b"a?", b"b?")
            await in_flight(pipeline, 2)
            await peer.send(b"to b\nto a\n")
            assert await asyncio.gather(*tasks) == [b"to a", b"to b"]


async def test_at_most_so_many_are_in_flight_and_the_others_follow_in_order() -> None:
    async with peer_and_client() as (peer, client), client.pipeline(LINES, max_in_flight=3) as pipeline:
        tasks = asked(pipeline, *(b"%d" % number for number in range(10)))
        assert await peer.receive(6) == b"0\n1\n2\n"
        for number in range(10):
            assert client.stats.sends == min(3 + number, 10)
            await peer.send(b"reply\n")
            assert await tasks[number] == b"reply"
            if number + 3 < 10:
                assert await peer.receive(2) == b"%d\n" % (number + 3)


async def test_a_request_cancelled_before_it_is_sent_has_not_happened_and_frees_its_id() -> None:
    async with peer_and_client() as (peer, client):
        async with client.pipeline(LINES, key=word, max_in_flight=1) as pipeline:
            for mode in Mode:
                first, second, third = asked(pipeline, b"1 q", b"2 q", b"3 q")
                assert await peer.receive(4) == b"1 q\n"
                with pytest.raises(InvalidRequestError, match="id b'2' is in use"):
                    await pipeline.request(b"2 too early")
                assert await cancel_now(second, mode, lambda: peer.sock.send(b"1 reply\n"))
                again = asked(pipeline, b"2 again")[0]
                assert await first == b"1 reply"
                assert await peer.receive(4) == b"3 q\n"
                await peer.send(b"3 reply\n")
                assert await peer.receive(8) == b"2 again\n"
                await peer.send(b"2 reply\n")
                assert [await third, await again] == [b"3 reply", b"2 reply"]
                assert pipeline.abandoned == pipeline.in_flight == 0


async def test_a_request_cancelled_while_it_waits_for_room_has_not_happened() -> None:
    for key in (None, word):
        async with peer_and_client() as (peer, client), client.pipeline(LINES, key=key) as pipeline:
            await client.send(TOO_MUCH)
            first, second = asked(pipeline, b"1 never sent", b"2 sent")
            await in_flight(pipeline, 2)
            assert await cancel_now(first, Mode.WAITING, lambda: None)
            assert pipeline.in_flight == 1
            await peer.receive(len(TOO_MUCH))
            assert await peer.receive(7) == b"2 sent\n"
            await peer.send(b"2 reply\n")
            assert await second == b"2 reply"


# ---- Abandoned requests ----


@pytest.mark.parametrize("key", [None, word], ids=["in order", "by id"])
@pytest.mark.parametrize("mode", Mode)
async def test_the_late_reply_of_a_cancelled_request_reaches_nobody(mode: Mode, key: Any) -> None:
    async with peer_and_client() as (peer, client), client.pipeline(LINES, key=key) as pipeline:
        for part in (b"", b"1", b"1 late", b"1 late\n"):
            first, second = asked(pipeline, b"1 q", b"2 q")
            assert await peer.receive(8) == b"1 q\n2 q\n"
            before = client.stats.bytes_received
            await peer.send(part[:-1])
            await arrived(client, before + len(part[:-1]))
            assert await cancel_now(first, mode, lambda part=part: peer.sock.send(part[-1:]))  # type: ignore[misc]
            third = asked(pipeline, b"3 q")[0]
            assert await peer.receive(4) == b"3 q\n"
            await peer.send(b"1 late\n"[len(part) :] + b"2 reply\n3 reply\n")
            assert [await second, await third] == [b"2 reply", b"3 reply"]
            assert pipeline.abandoned == pipeline.in_flight == 0


async def test_a_request_cancelled_in_the_tick_of_its_reply_takes_nothing_from_the_others() -> None:
    async with peer_and_client() as (peer, client):
        for first_to_go in range(3):

            def cancel(_: bytes, tasks: list[asyncio.Task[bytes]], number: int = first_to_go) -> bool:
                # By the reader, in front of the reply; so the task has been cancelled, and has not yet run.
                tasks[number].cancel()
                return False

            tasks: list[asyncio.Task[bytes]] = []
            async with client.pipeline(
                LINES, is_push=lambda line, tasks=tasks: cancel(line, tasks), on_push=print
            ) as pipeline:
                tasks += asked(pipeline, b"1", b"2", b"3")
                await in_flight(pipeline, 3)
                await peer.send(b"reply 1\nreply 2\nreply 3\n")
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert isinstance(results.pop(first_to_go), asyncio.CancelledError)
                assert results == [b"reply %d" % n for n in (1, 2, 3) if n != first_to_go + 1]
                assert pipeline.abandoned == pipeline.in_flight == 0


async def test_a_request_that_timed_out_keeps_its_place_and_its_id() -> None:
    async with peer_and_client() as (peer, client), client.pipeline(LINES, key=word) as pipeline:
        with pytest.raises(NetworkTimeoutError, match="request timed out after") as caught:
            await pipeline.request(b"1 q", timeout=0.01)
        assert caught.value.details["elapsed"] >= 0.009
        assert (pipeline.in_flight, pipeline.abandoned) == (1, 1)
        with pytest.raises(InvalidRequestError, match="id b'1' is in use"):
            await pipeline.request(b"1 again")
        await peer.send(b"1 late\n")
        await in_flight(pipeline, 0)
        task = asked(pipeline, b"1 again")[0]
        await in_flight(pipeline, 1)
        await peer.send(b"1 reply\n")
        assert await task == b"1 reply"


@pytest.mark.parametrize("key", [None, word], ids=["in order", "by id"])
async def test_a_peer_that_owes_too_many_replies_is_left(key: Any) -> None:
    async with peer_and_client() as (_, client):
        async with client.pipeline(LINES, key=key, max_in_flight=4, max_abandoned=2) as pipeline:
            *given_up, other, waiting = asked(pipeline, b"1 q", b"2 q", b"3 q", b"4 q", b"5 q")
            await in_flight(pipeline, 4)
            for task in given_up[:2]:
                task.cancel()
            await asyncio.wait(given_up[:2])
            assert client.is_connected
            given_up[2].cancel()
            for task in (other, waiting):
                error = await outcome(task)
                assert isinstance(error, ClosedError)
                assert "3 requests were cancelled or timed out" in str(error.__cause__)
            assert not client.is_connected
            assert given_up[2].cancelled() or await outcome(given_up[2])
