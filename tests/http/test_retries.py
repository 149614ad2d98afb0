"""What is sent again, when, and how often; and that nothing is sent twice that must not be."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.cancelling import until
from support.http_faults import (
    TRUNCATED,
    answering,
    by_connection,
    closing_after,
    closing_at_once,
    closing_when_reused,
    response,
    silent,
)
from support.http_peer import Connection, Handler, HTTPPeer, http_peer

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    NetworkError,
    NetworkTimeoutError,
    UploadError,
)

pytestmark = pytest.mark.usefixtures("no_waits")

UNAVAILABLE = response(b"try later", status="503 Service Unavailable")
REPEATABLE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")


@contextlib.asynccontextmanager
async def served(handler: Handler, **settings: Any) -> AsyncIterator[tuple[HTTPPeer, HTTPClient]]:
    async with http_peer(handler) as peer, HTTPClient(HTTPConfig(peer.url, **settings)) as client:
        yield peer, client


# ---- After an answer ----


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("method", REPEATABLE)
async def test_an_answer_that_may_pass_is_asked_for_again(method: str, status: int) -> None:
    again = response(b"", status=f"{status} x")
    async with served(answering(again, again, response(b"" if method == "HEAD" else b"ok"))) as (peer, client):
        answer = await client.request(method, "/")
        assert (answer.status, answer.attempts) == (200, 3)
        assert [r.method for r in peer.requests] == [method] * 3
        # The connection was read to its end each time, and used again.
        assert {r.connection for r in peer.requests} == {1}
        assert (client.stats.calls, client.stats.attempts, client.stats.retries) == (1, 3, 2)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_answer_to_post_or_patch_is_final(method: str) -> None:
    async with served(answering(UNAVAILABLE)) as (peer, client):
        with pytest.raises(HTTPStatusError) as caught:
            await client.request(method, "/", json={})
        assert (caught.value.status, caught.value.details["attempt"], len(peer.requests)) == (503, 1, 1)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_idempotency_key_makes_post_and_patch_repeatable(method: str) -> None:
    async with served(answering(UNAVAILABLE, response())) as (peer, client):
        answer = await client.request(method, "/", json={"a": 1}, headers={"Idempotency-Key": "k"})
        assert answer.attempts == 2
        assert [(r.headers["Idempotency-Key"], r.body) for r in peer.requests] == [("k", b'{"a":1}')] * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 500, 501, 505])
async def test_an_answer_that_will_not_pass_is_final(status: int) -> None:
    async with served(answering(response(b"no", status=f"{status} x"))) as (peer, client):
        with pytest.raises(HTTPStatusError):
            await client.get("/")
        assert len(peer.requests) == 1


@pytest.mark.parametrize("where", ["request", "client"])
async def test_504_of_a_cache_that_was_asked_alone_says_that_it_has_nothing_and_is_final(where: str) -> None:
    asked = {"headers": {"Cache-Control": "max-stale, Only-If-Cached"}}
    of_client, of_request = (asked, {}) if where == "client" else ({}, asked)
    for status, attempts in ((504, 1), (503, 2)):
        again = response(b"", status=f"{status} x")
        async with served(answering(again), retries=1, **of_client) as (peer, client):
            with pytest.raises(HTTPStatusError) as caught:
                await client.get("/", **of_request)
            assert (caught.value.status, len(peer.requests)) == (status, attempts)
            assert caught.value.is_transient == (status == 503)
            assert pickle.loads(pickle.dumps(caught.value)).is_transient == (status == 503)


async def test_the_last_answer_is_what_comes_of_retries_in_vain() -> None:
    async with served(answering(UNAVAILABLE), retries=3) as (peer, client):
        with pytest.raises(HTTPStatusError, match="503 Service Unavailable") as caught:
            await client.get("/")
        assert caught.value.details["attempt"] == len(peer.requests) == 4
        assert caught.value.body == b"try later"
        answer = await client.request("GET", "/", raise_for_status=False, retries=1)
        assert (answer.status, answer.text, answer.attempts, len(peer.requests)) == (503, "try later", 2, 6)


async def test_which_answers_are_tried_again_can_be_set() -> None:
    async with served(answering(response(b"", status="500 x"), UNAVAILABLE), retry_statuses=[500]) as (peer, client):
        with pytest.raises(HTTPStatusError) as caught:
            await client.get("/")
        assert (caught.value.status, len(peer.requests)) == (503, 2)


@pytest.mark.parametrize("value", ["0", "1", " 2 "])
async def test_retry_after_is_heeded(value: str) -> None:
    asked = response(b"", f"Retry-After: {value}", status="429 Too Many Requests")
    async with served(answering(asked, response())) as (_, client):
        assert (await client.request("GET", "/")).attempts == 2


async def test_the_wait_is_not_shorter_than_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    sleep = asyncio.sleep

    async def spy(delay: float) -> None:
        if delay:  # the peer gives others their turn
            waits.append(delay)
        await sleep(0)

    monkeypatch.setattr("pepperpy.network.backoff._blocks_without_waits", 0)
    monkeypatch.setattr(asyncio, "sleep", spy)
    asked = response(b"", "Retry-After: 7", status="503 x")
    async with served(answering(asked, UNAVAILABLE, response()), retry_delay=0.5) as (_, client):
        await client.get("/")
        assert 7 <= waits[0] <= 7.5
        assert 0 <= waits[1] <= 1


async def test_a_retry_after_beyond_the_longest_wait_ends_the_retries() -> None:
    asked = response(b"", "Retry-After: 31", status="503 x")
    async with served(answering(asked), max_retry_delay=30) as (peer, client):
        with pytest.raises(HTTPStatusError):
            await client.get("/")
        assert len(peer.requests) == 1


async def test_a_wait_that_the_deadline_does_not_allow_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepperpy.network.backoff._blocks_without_waits", 0)
    asked = response(b"", "Retry-After: 20", status="503 x")
    async with served(answering(asked), deadline=10) as (peer, client):
        with pytest.raises(HTTPStatusError):
            await client.get("/")
        assert len(peer.requests) == 1


# ---- After a failure ----


@pytest.mark.parametrize("method", REPEATABLE)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_lost_before_the_answer_is_tried_again(method: str, reset: bool) -> None:
    handler = by_connection(closing_after(b"", reset=reset), answering(response(b"")))
    async with served(handler) as (peer, client):
        assert (await client.request(method, "/")).attempts == 2
        assert [r.connection for r in peer.requests] == [1, 2]


@pytest.mark.parametrize("place", [place for place in TRUNCATED if "body" in place or "chunk" in place])
async def test_a_body_that_breaks_off_is_asked_for_again(place: str) -> None:
    handler = by_connection(closing_after(TRUNCATED[place]), answering(response(b"whole")))
    async with served(handler) as (_, client):
        assert await client.get("/") == "whole"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("place", TRUNCATED)
async def test_post_and_patch_are_never_sent_twice_once_they_may_have_arrived(method: str, place: str) -> None:
    async with served(closing_after(TRUNCATED[place])) as (peer, client):
        with pytest.raises((ConnectionLostError, IncompleteReadError)) as caught:
            await client.request(method, "/", data=b"x")
        assert (len(peer.requests), caught.value.details["attempt"]) == (1, 1)


async def test_post_is_tried_again_where_nothing_was_sent() -> None:
    """Nobody listens at first: a socket that is bound, and listens after the second attempt."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        attempts = []

        class Begin:
            def pre_request(self, method: str, url: str, **arguments: Any) -> None:
                attempts.append(method)

        async with HTTPClient(HTTPConfig(url, interceptors=[Begin()])) as client:
            with pytest.raises(ConnectError, match="attempt 3") as caught:
                await client.post("/", data=b"x")
            assert caught.value.details["phase"] == "connect"
            # The call is seen once, not each attempt.
            assert (attempts, client.stats.attempts) == (["POST"], 3)
            with pytest.raises(ConnectError, match="attempt 1"):
                await client.post("/", data=b"x", retries=0)


async def test_a_connection_reset_before_a_byte_was_read_is_not_known_to_be_unsent() -> None:
    async with served(closing_at_once(reset=True)) as (peer, client):
        with pytest.raises(NetworkError) as caught:
            await client.post("/", data=b"x")
        assert isinstance(caught.value, ConnectionLostError | ConnectError)
        assert len(peer.connections) == (1 if isinstance(caught.value, ConnectionLostError) else 3)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_stale_connection_is_one_retry_at_once_that_counts_by_itself(reset: bool) -> None:
    async with served(closing_when_reused(reset=reset), retries=1) as (peer, client):
        assert await client.get("/") == "ok"
        answer = await client.request("GET", "/")
        assert (answer.status, answer.attempts) == (200, 2)
        assert (client.stats.stale_retries, client.stats.retries) == (1, 0)
        assert [r.connection for r in peer.requests] == [1, 1, 2]


async def test_post_on_a_stale_connection_fails() -> None:
    async with served(closing_when_reused()) as (peer, client):
        await client.get("/")
        with pytest.raises(ConnectionLostError):
            await client.post("/", data=b"x")
        assert (len(peer.requests), client.stats.stale_retries) == (2, 0)


# What servers send before they close a connection that has been idle for too long (haproxy).
IDLE_TOO_LONG = response(b"bye", "Connection: close", status="408 Request Time-out")


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_a_408_for_a_pooled_connection_is_its_end_and_no_answer_of_any_request(transport: Any) -> None:
    # It has left before the request came: only then a server says this, and closes.
    handler = by_connection(answering(response(b"one"), IDLE_TOO_LONG), answering(response(b"two")))
    async with served(handler, retries=1, transport=transport) as (peer, client):
        assert await client.get("/") == "one"
        assert await client.post("/", data=b"x") == "two"
        assert (client.stats.stale_retries, client.stats.retries) == (1, 0)
        assert [r.connection for r in peer.requests] == [1, 1, 2]


@pytest.mark.parametrize(
    ("before", "refusal", "settings"),
    [
        ((), IDLE_TOO_LONG, {}),
        ((response(b""),), response(b"bye", status="408 Request Time-out"), {}),
        ((response(b""),), response(b"bye", "Connection: close", status="400 x"), {}),
        ((response(b""),), IDLE_TOO_LONG, {"retries": 0}),
    ],
    ids=["on a new connection", "without a close", "another status", "without retries"],
)
async def test_any_other_refusal_is_the_answer(before: Any, refusal: bytes, settings: dict[str, Any]) -> None:
    async with served(answering(*before, refusal), **settings) as (peer, client):
        for _ in before:
            await client.get("/")
        with pytest.raises(HTTPStatusError):
            await client.post("/", data=b"x")
        assert len(peer.requests) == len(before) + 1


async def test_a_second_408_is_the_answer() -> None:
    async with served(by_connection(answering(response(b"one"), IDLE_TOO_LONG), answering(IDLE_TOO_LONG))) as (
        peer,
        client,
    ):
        await client.get("/")
        with pytest.raises(HTTPStatusError, match="408"):
            await client.post("/", data=b"x")
        assert len(peer.requests) == 3


async def test_zero_retries_means_none_not_even_of_a_stale_connection() -> None:
    async with served(closing_when_reused(), retries=0) as (peer, client):
        await client.get("/")
        with pytest.raises(ConnectionLostError):
            await client.get("/")
        assert len(peer.requests) == 2
    async with served(answering(UNAVAILABLE), retries=0) as (peer, client):
        with pytest.raises(HTTPStatusError):
            await client.get("/")
        assert len(peer.requests) == 1


async def test_a_connection_closed_while_idle_costs_no_attempt() -> None:
    async def once(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())

    async with served(once, retries=0) as (peer, client):
        for _ in range(3):
            assert await client.get("/") == "ok"
            await peer.connections[-1].abort()
        assert client.stats.attempts == 3


async def test_a_silent_server_is_tried_again_but_the_callers_own_limit_is_final() -> None:
    async with served(by_connection(silent, answering(response())), read_timeout=0.05) as (_, client):
        assert (await client.request("GET", "/")).attempts == 2
    async with served(silent) as (peer, client):
        with pytest.raises(NetworkTimeoutError, match=r"timed out \(timeout\)"):
            await client.get("/", timeout=0.05)
        assert len(peer.requests) == 1


# ---- Bodies ----


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_a_body_that_can_be_read_again_is_sent_whole_each_time(tmp_path: Any) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"from a file")
    async with served(answering(UNAVAILABLE, response(), UNAVAILABLE, response())) as (peer, client):
        await client.put("/", data=path)
        with path.open("rb") as file:
            await client.put("/", data=file)
        assert [r.body for r in peer.requests] == [b"from a file"] * 4


async def test_a_body_that_can_be_read_once_is_sent_once() -> None:
    async with served(answering(UNAVAILABLE)) as (peer, client):
        with pytest.raises(HTTPStatusError):
            await client.put("/", data=chunks(b"a", b"b"))
        assert [r.body for r in peer.requests] == [b"ab"]
    async with served(closing_after(b"")) as (peer, client):
        with pytest.raises(ConnectionLostError):
            await client.put("/", data=chunks(b"a", b"b"))
        assert len(peer.requests) == 1


async def test_a_source_that_fails_is_an_upload_error_with_its_cause() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("mine")

    async with served(answering(response())) as (peer, client):
        with pytest.raises(UploadError, match="the body's source failed: LookupError: mine") as caught:
            await client.post("/", data=failing())
        assert isinstance(caught.value.__cause__, LookupError)
        assert caught.value.details["method"] == "POST"
        # The body of an eager task fails before the peer has accepted.
        await until(lambda: len(peer.connections) == 1, "the peer has seen it")
        assert client.stats.attempts == 1 and client.stats.open_connections == 0


async def test_a_file_that_is_gone_at_a_retry_is_an_upload_error(tmp_path: Any) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x")

    async def remove_and_fail(connection: Connection) -> None:
        await connection.read_request()
        path.unlink()
        await connection.send(UNAVAILABLE)

    async with served(remove_and_fail) as (_, client):
        with pytest.raises(UploadError, match="cannot be opened: No such file") as caught:
            await client.put("/", data=path)
        assert isinstance(caught.value.__cause__, FileNotFoundError)


# ---- The budget ----


@pytest.mark.slow
async def test_an_outage_is_not_multiplied() -> None:
    """Of 200 calls, a fifth and the reserve of ten may be repeated, not each of them five times."""
    async with served(answering(UNAVAILABLE), retries=5) as (peer, client):
        for _ in range(200):
            with pytest.raises(HTTPStatusError):
                await client.get("/")
        assert 200 + 40 <= len(peer.requests) <= 200 + 40 + 10
        assert client.stats.budget_refusals > 0
        assert client.stats.attempts == len(peer.requests)


async def test_the_budget_of_one_host_is_not_spent_by_another() -> None:
    async with served(answering(UNAVAILABLE), retries=5, retry_budget=0) as (peer, client):
        for _ in range(3):
            with pytest.raises(HTTPStatusError):
                await client.get("/")
        assert len(peer.requests) == 3 + 10
        with pytest.raises(HTTPStatusError) as caught:
            await client.get(peer.url.replace("127.0.0.1", "localhost"))
        assert caught.value.details["attempt"] == 6
