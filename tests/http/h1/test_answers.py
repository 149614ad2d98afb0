"""Answers that are odd, hostile or broken off: what is raised, and that their connection carries nothing else."""

from __future__ import annotations

import asyncio

import pytest
from support.cancelling import until
from support.exchanges import exchanges
from support.http_faults import (
    ENDLESS,
    MALFORMED,
    OK_HEAD,
    TRUNCATED,
    answering,
    by_connection,
    chunked_response,
    closing_after,
    closing_at_once,
    closing_when_reused,
    response,
    sending_without_end,
)
from support.http_peer import Connection, http_peer

from pepperpy.network.http.request import Limits
from pepperpy.network.http.transport import WireError


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("where", TRUNCATED)
async def test_an_answer_that_is_cut_off_is_an_error(where: str, reset: bool) -> None:
    async with http_peer(closing_after(TRUNCATED[where], reset=reset)) as peer, exchanges() as one:
        with pytest.raises(WireError) as caught:
            await one.get(peer.url)
        expected = {"reset"} if reset else {"no_answer"}
        if not where.startswith(("before the response", "in the status", "in the head")):
            expected = {"truncated"} if not reset else {"reset", "truncated"}
        assert caught.value.kind in expected
        assert one.trip.request_left
        assert one.pool.slots_taken == 0


async def test_a_body_up_to_the_end_of_the_stream_is_whole_unless_that_is_a_reset() -> None:
    async with http_peer(closing_after(OK_HEAD + b"\r\nhello")) as peer, exchanges() as one:
        assert await one.get(peer.url) == (200, b"hello")
        assert one.pool.slots_taken == 0
    arrived = asyncio.Event()

    async def resets(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(OK_HEAD + b"\r\nhello")
        await arrived.wait()
        connection.reset()

    async with http_peer(resets) as peer, exchanges() as one:
        answer = await one.ask("GET", peer.url)
        assert await answer.read_some() == b"hello"
        arrived.set()
        with pytest.raises(WireError) as caught:
            await answer.read_some()
        assert caught.value.kind == "reset"


@pytest.mark.parametrize("what", [name for name in ENDLESS if "body" not in name and name != "chunks"])
async def test_what_has_no_end_is_an_error(what: str) -> None:
    async with http_peer(sending_without_end(*ENDLESS[what])) as peer, exchanges() as one:
        if what == "chunks of one byte":
            answer = await one.ask("GET", peer.url)
            assert set(await answer.read_some()) == {ord("x")}
            answer.abort()
        else:
            with pytest.raises(WireError) as caught:
                await one.get(peer.url)
            assert caught.value.kind == "malformed"
        assert one.pool.slots_taken == 0


@pytest.mark.parametrize("what", MALFORMED)
async def test_what_is_no_answer_is_an_error(what: str) -> None:
    async with http_peer(answering(MALFORMED[what])) as peer, exchanges() as one:
        with pytest.raises(WireError) as caught:
            await one.get(peer.url)
        assert caught.value.kind == ("bad_encoding" if "gzip" in what else "malformed")
        assert one.pool.slots_taken == 0


@pytest.mark.parametrize(
    ("method", "whole", "rest", "body"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n", b""),
        ("DELETE", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", b"ok", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"hello", b""),
        ("HEAD", response(b"")[:-2] + b"\r\n", b"hello", b""),
        ("GET", response(b"ok"), b"!", b"ok"),
        ("GET", response(b"ok"), b"\r\n", b"ok"),
        ("GET", response(b"ok"), response(b"evil"), b"ok"),
        ("GET", chunked_response([b"ok"]), b"x\r\n", b"ok"),
        ("GET", response(b"ok"), b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"ok"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_bytes_behind_a_whole_answer_cost_the_connection_and_not_the_answer(
    method: str, whole: bytes, rest: bytes, body: bytes, together: bool
) -> None:
    sent = asyncio.Event()
    go_on = asyncio.Event()

    async def first(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(whole + rest if together else whole)
        if not together:
            await go_on.wait()
            await connection.send(rest)
        sent.set()
        await connection.wait_closed()

    async with http_peer(by_connection(first, answering(response(b"next")))) as peer, exchanges() as one:
        answer = await one.ask(method, peer.url)
        assert await answer.read() == body
        go_on.set()
        await sent.wait()
        assert await one.get(peer.url) == (200, b"next")
        assert not one.trip.reused
        assert one.pool.open_connections == 1


async def test_101_is_refused_and_gives_its_slot_back() -> None:
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with http_peer(answering(upgrade, response(b"next"))) as peer, exchanges(max_connections=1) as one:
        with pytest.raises(WireError) as caught:
            await one.get(peer.url)
        assert caught.value.kind == "malformed"
        assert await one.get(peer.url) == (200, b"next")


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stale_connection_is_found_before_its_use_or_says_that_it_was_reused(reset: bool) -> None:
    async with http_peer(closing_when_reused(reset=reset)) as peer, exchanges() as one:
        assert (await one.get(peer.url))[0] == 200
        with pytest.raises(WireError) as caught:
            await one.get(peer.url)
        assert caught.value.kind in ("no_answer", "reset")
        assert one.trip.reused
        assert one.trip.request_left
        assert one.pool.slots_taken == 0


async def test_a_connection_that_the_server_has_closed_is_not_used() -> None:
    gone = asyncio.Event()

    async def once(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.abort()
        gone.set()

    async with http_peer(once) as peer, exchanges() as one:
        for _ in range(3):
            assert await one.get(peer.url) == (200, b"ok")
            assert not one.trip.reused
            await gone.wait()
            gone.clear()


async def test_a_server_that_closes_at_once() -> None:
    async with http_peer(closing_at_once()) as peer, exchanges() as one:
        with pytest.raises(WireError) as caught:
            await one.get(peer.url)
        assert caught.value.kind in ("no_answer", "reset")


@pytest.mark.parametrize("sent", [b"", OK_HEAD, OK_HEAD + b"Content-Length: 5\r\n\r\nhel"])
async def test_a_silent_server_is_given_up(sent: bytes) -> None:
    async def silent(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(sent)
        await connection.wait_closed()

    async with http_peer(silent) as peer, exchanges() as one:
        with pytest.raises(WireError) as caught:
            await one.get(peer.url, limits=Limits(read=0.05))
        assert caught.value.kind == "read_timeout"
        assert one.pool.slots_taken == 0


async def test_a_slow_reader_is_no_silent_server() -> None:
    async def pauses(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(OK_HEAD + b"Content-Length: 10\r\n\r\nhello")
        await go_on.wait()
        await connection.send(b"world")
        await connection.wait_closed()

    go_on = asyncio.Event()
    async with http_peer(pauses) as peer, exchanges() as one:
        answer = await one.ask("GET", peer.url, limits=Limits(read=0.05))
        assert await answer.read_some() == b"hello"
        await asyncio.sleep(0.1)  # of its own time
        go_on.set()
        assert await answer.read() == b"world"


async def test_trailers_are_there_at_the_end() -> None:
    whole = chunked_response([b"hello"]).removesuffix(b"\r\n") + b"Digest: x\r\n\r\n"
    async with http_peer(answering(whole)) as peer, exchanges() as one:
        answer = await one.ask("GET", peer.url)
        assert not answer.trailers
        assert await answer.read() == b"hello"
        assert dict(answer.trailers) == {"Digest": "x"}
        assert "Digest" not in answer.headers


async def test_release_keeps_a_connection_whose_answer_is_all_there_and_abort_keeps_none() -> None:
    async with http_peer(answering(response(), response(b"x" * 10_000_000), response(), response())) as peer:
        async with exchanges() as one:
            (await one.ask("GET", peer.url)).release()
            answer = await one.ask("GET", peer.url)
            assert one.trip.reused
            answer.release()  # 10 MB are not on hand
            assert one.pool.open_connections == 0
            answer = await one.ask("GET", peer.url)
            answer.abort()
            answer.abort()
            assert one.pool.open_connections == 0
            with pytest.raises(WireError) as caught:
                await answer.read()
            assert caught.value.kind == "closed"
            await until(lambda: peer.connections[-1]._reader.at_eof(), "the server sees the end")


@pytest.mark.parametrize("answer", [response(b"ab"), chunked_response([b"a", b"b"])], ids=["of known length", "chunks"])
async def test_the_connection_is_free_before_its_user_sees_the_last_piece(answer: bytes) -> None:
    async with http_peer(answering(answer)) as peer, exchanges() as one:
        first = await one.ask("GET", peer.url)
        assert (await first.read_some(), first.ended, one.pool.slots_taken) == (b"ab", True, 1)
        assert await one.get(peer.url) == (200, b"ab")
        assert one.trip.reused
        assert await first.read_some() == b""
