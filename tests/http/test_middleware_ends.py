"""Failures in and under a middleware; middlewares on the mock, and as a setting."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import pickle
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, Request, http_peer

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    HTTPRequest,
    HTTPResponse,
    Send,
    each_exchange,
)
from pepperpy.network.testing import MockHTTP

OK = response(b"ok")


def client_of(*middlewares: Any, **settings: Any) -> HTTPClient:
    return HTTPClient(HTTPConfig(middlewares=middlewares, retry_delay=0, **settings))


# ---- Failures ----


@pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])
async def test_it_sees_failures_and_may_answer_instead(mark: Any) -> None:
    seen: list[Any] = []

    @mark
    async def save(request: HTTPRequest, send: Send) -> HTTPResponse:
        try:
            return await send(request)
        except ConnectError as error:
            seen.append((error.details["url"], error.__cause__ is not None))
            return request.respond(200, b"saved")

    async with client_of(save, retries=0) as client:
        assert await client.get("http://127.0.0.1:1/x") == "saved"
        async with client.stream("GET", "http://127.0.0.1:1/x") as stream:
            assert await stream.read() == b"saved"
    assert seen == [("http://127.0.0.1:1/x", True)] * 2


async def test_a_post_that_may_have_arrived_is_not_retried_because_a_later_exchange_did_not_connect() -> None:
    @each_exchange
    async def elsewhere(request: HTTPRequest, send: Send) -> HTTPResponse:
        await send(request)
        request.url = request.url.with_port(1)
        return await send(request)

    async with http_peer(answering(OK)) as peer, client_of(elsewhere, retries=2) as client:
        with pytest.raises(ConnectError):
            await client.post(peer.url, json=1)
        assert len(peer.requests) == 1


async def test_what_is_raised_or_returned_wrongly_is_told() -> None:
    async def nothing(request: HTTPRequest, send: Send) -> Any:
        await send(request)

    async def other(request: HTTPRequest, send: Any) -> Any:
        return await send("request")

    async with http_peer(answering(OK)) as peer, HTTPClient() as client:
        for middleware, words in ((nothing, "must return a response, not NoneType: .*nothing"), (other, "not str")):
            with pytest.raises(TypeError, match=words):
                await client.get(peer.url, middlewares=[middleware])
            with pytest.raises(TypeError, match=words):
                await client.get(peer.url, middlewares=[each_exchange(functools.partial(middleware))])


async def test_an_exchange_that_waits_too_long_ends_by_the_timeout_of_the_attempt() -> None:
    @each_exchange
    async def slow(request: HTTPRequest, send: Send) -> HTTPResponse:
        await asyncio.Event().wait()
        return await send(request)

    async with client_of(slow, timeout=0.05) as client:
        with pytest.raises(TimeoutError):
            await client.get("http://127.0.0.1:1/")


async def test_a_broken_connection_in_a_middleware_is_retried_as_without_it() -> None:
    async def breaks_once(connection: Connection) -> None:
        await connection.read_request()
        if connection.number > 1:
            await connection.send(OK)

    @each_exchange
    async def passes(request: HTTPRequest, send: Send) -> HTTPResponse:
        return await send(request)

    async with http_peer(breaks_once) as peer, client_of(passes) as client:
        got = await client.request("GET", peer.url)
        assert (got.text, got.attempts) == ("ok", 2)
        with pytest.raises(ConnectionLostError):
            await client.get(peer.url, retries=0, middlewares=[drops(peer.requests)])


async def test_the_events_tell_of_each_attempt_that_a_middleware_sends() -> None:
    events: list[Any] = []

    async def twice(request: HTTPRequest, send: Send) -> HTTPResponse:
        await send(request)
        return await send(request)

    busy = response(b"", status="503 x")
    async with http_peer(answering(busy, OK)) as peer, client_of(twice, retries=0, on_event=events.append) as client:
        assert await client.get(peer.url) == "ok"
    told = [(type(event).__name__, event.attempt) for event in events if type(event).__name__.startswith(("Att", "Ca"))]
    assert told == [("CallStarted", 0), ("AttemptDone", 1), ("AttemptDone", 2), ("CallDone", 2)]
    assert [event.status for event in events if type(event).__name__ == "AttemptDone"] == [503, 200]


def drops(requests: list[Request]) -> Any:
    async def middleware(request: HTTPRequest, send: Send) -> HTTPResponse:
        await send(request)
        raise ConnectionLostError(f"after {len(requests)} requests")

    return middleware


# ---- With the mock, and as a setting ----


async def test_the_mock_runs_middlewares_as_the_wire_does() -> None:
    @each_exchange
    async def sign(request: HTTPRequest, send: Send) -> HTTPResponse:
        request.headers["X-Sign"] = (await request.digest()).hex()[:4]
        answer = await send(request)
        assert await answer.read() == b"hello"
        return answer

    with MockHTTP("http://api.test") as mock:
        route = mock.put("/x", headers={"X-Sign": hashlib.sha256(b"1").hexdigest()[:4]}).reply(text="hello")
        async with client_of(sign) as client:
            assert await client.put("http://api.test/x", json=1) == "hello"
        assert len(route.calls) == 1


class Recorder:
    async def record(self, request: HTTPRequest, send: Send) -> HTTPResponse:
        return await send(request)


@each_exchange
async def of_a_module(request: HTTPRequest, send: Send) -> HTTPResponse:
    return await send(request)


def test_a_mark_stays_with_functions_methods_and_in_a_pickle() -> None:
    for middleware in (of_a_module, each_exchange(Recorder().record)):
        [copy] = pickle.loads(pickle.dumps(HTTPConfig(middlewares=[middleware]))).middlewares
        assert copy.each_exchange
    with pytest.raises(TypeError, match="middleware must be callable, not int"):
        each_exchange(1)  # type: ignore[type-var]


def test_a_repr_shows_names_only() -> None:
    config = HTTPConfig(middlewares=[of_a_module, functools.partial(of_a_module, "secret")])
    assert "middlewares=('of_a_module', 'partial')" in repr(config) and "secret" not in repr(config)
