"""`HTTPClient.events()`: a stream of events that ends is opened again, behind the last event, when the server says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.http_faults import by_connection, chunked_response, closing_after, closing_at_once, response, silent
from support.http_peer import Handler, HTTPPeer, http_peer
from support.limits import longer_and_longer

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    DecodeError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    NetworkTimeoutError,
    ServerSentEvent,
)
from pepperpy.network.http import engine

GONE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def stream_of(*events: bytes) -> bytes:
    return chunked_response(events, "Content-Type: text/event-stream", "Connection: close")


def broken_off(*events: bytes) -> bytes:
    """The same, without the end of the body."""
    return stream_of(*events).removesuffix(b"0\r\n\r\n")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have waited."""
    waited: list[float] = []

    async def pause(self: Any, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(engine.Engine, "pause", pause)
    return waited


@contextlib.asynccontextmanager
async def site(*answers: bytes | Handler, **settings: Any) -> AsyncIterator[tuple[HTTPPeer, HTTPClient]]:
    """A server that gives one answer to each connection, and closes it."""
    handlers = [closing_after(answer) if isinstance(answer, bytes) else answer for answer in answers]
    async with http_peer(by_connection(*handlers)) as peer:
        async with HTTPClient(HTTPConfig(peer.url, **{"retries": 0, "retry_delay": 0} | settings)) as client:
            yield peer, client


def sent_ids(peer: HTTPPeer) -> list[str | None]:
    return [request.headers.get("Last-Event-ID") for request in peer.requests]


async def test_a_stream_that_ends_or_breaks_off_goes_on_behind_its_last_event(waits: list[float]) -> None:
    answers = [
        stream_of(b"retry: 2500\nid: 1\ndata: a\n\n", b"data: b\n\n"),
        broken_off(b"id: 2\ndata: c\n\n", b"id: 3\n\n", b"data: lost"),
        stream_of(b"data: d\n\n", b"id:\ndata: e\n\n"),
        stream_of(b"data: f\n\n"),
        GONE,
    ]
    async with site(*answers) as (peer, client):
        events = [event async for event in client.events("/", headers={"X-Mine": "1"}, params={"q": "a"})]
        assert [(event.data, event.id) for event in events] == [
            *[("a", "1"), ("b", "1"), ("c", "2"), ("d", "3"), ("e", ""), ("f", "")]
        ]
        assert sent_ids(peer) == [None, "1", "3", None, None]
        assert waits == [2.5] * 4
        first = peer.requests[0]
        assert (first.target, first.headers["Accept"], first.headers["Cache-Control"], first.headers["X-Mine"]) == (
            *("/?q=a", "text/event-stream", "no-store", "1"),
        )


async def test_one_may_begin_behind_an_event_of_an_earlier_run(waits: list[float]) -> None:
    async with site(stream_of(b"data: a\n\n"), GONE) as (peer, client):
        assert [event.id async for event in client.events("/", last_event_id="\u00e4 41")] == ["\u00e4 41"]
        # The test's server reads what comes in UTF-8, as the standard says, as Latin-1.
        assert sent_ids(peer) == ["\u00e4 41".encode().decode("latin-1")] * 2
        assert waits == [3.0]


async def test_a_stream_that_falls_silent_is_opened_again(waits: list[float]) -> None:
    hanging = asyncio.Event()

    async def falls_silent(connection: Any) -> None:
        await connection.read_request()
        await connection.send(broken_off(b"id: 9\ndata: a\n\n"))
        await connection.wait_closed()
        hanging.set()

    async with site(falls_silent, GONE) as (peer, client):
        assert [event.data async for event in client.events("/", read_timeout=0.05)] == ["a"]
        assert sent_ids(peer) == [None, "9"]
        await hanging.wait()


async def test_streams_without_an_event_are_asked_for_less_and_less_often(waits: list[float]) -> None:
    nothing = stream_of(b": nothing\n\n")
    answers = [*[nothing] * 6, stream_of(b"data: a\n\n"), nothing, GONE]
    async with site(*answers, retry_delay=0.001, max_retry_delay=1000) as (_, client):
        assert [event.data async for event in client.events("/")] == ["a"]
    # Random, up to twice as long each time, on top of what the server asks for.
    assert all(3.0 <= wait <= 3.0 + 0.001 * 2**number for number, wait in enumerate(waits[:6]))
    assert all(3.0 <= wait <= 3.001 for wait in waits[6:])
    assert len(waits) == 8


async def test_a_server_cannot_ask_for_an_endless_wait(waits: list[float]) -> None:
    async with site(stream_of(b"retry: 999999999999999999\n\n"), GONE) as (_, client):
        assert [event async for event in client.events("/")] == []
    assert waits == [86_400]


async def test_a_server_cannot_have_a_client_ask_again_without_a_wait(waits: list[float]) -> None:
    async with site(*[stream_of(b"retry: 0\ndata: a\n\n")] * 3, GONE, max_retry_delay=0) as (_, client):
        assert [event.data async for event in client.events("/")] == ["a"] * 3
    assert waits == [0.5] * 3


ENDS: list[tuple[bytes, type[Exception]]] = [
    (response(b"no", "Connection: close", status="404 Not Found"), HTTPStatusError),
    (response(b"{}", "Content-Type: application/json", "Connection: close"), DecodeError),
]


@pytest.mark.parametrize(("answer", "kind"), ENDS)
async def test_an_answer_that_is_no_event_stream_ends_it(
    waits: list[float], answer: bytes, kind: type[Exception]
) -> None:
    async with site(stream_of(b"data: a\n\n"), answer) as (_, client):
        events = client.events("/")
        assert (await anext(events)).data == "a"
        with pytest.raises(kind):
            await anext(events)
        assert len(waits) == 1


async def test_a_request_for_the_next_stream_that_fails_as_often_as_it_may_ends_it(waits: list[float]) -> None:
    hang_up = closing_at_once(reset=True)
    async with site(stream_of(b"data: a\n\n"), hang_up, hang_up, retries=1) as (peer, client):
        events = client.events("/")
        assert (await anext(events)).data == "a"
        with pytest.raises(ConnectionLostError):
            await anext(events)
        assert len(peer.connections) == 3


async def test_the_deadline_is_that_of_all_streams_together(waits: list[float]) -> None:
    for deadline in longer_and_longer(0.2):
        got = []
        async with site(stream_of(b"data: a\n\n"), silent) as (_, client):
            with pytest.raises(NetworkTimeoutError, match="deadline"):
                async for event in client.events("/", deadline=deadline):
                    got.append(event.data)
            with pytest.raises(ValueError, match="deadline must be"):
                client.events("/", deadline=0)
        if got:
            break
    assert got == ["a"]


async def test_closing_the_client_ends_the_wait_for_the_next_stream() -> None:
    async with site(stream_of(b"retry: 80000000\ndata: a\n\n")) as (_, client):
        events = client.events("/")
        assert (await anext(events)).data == "a"
        waiting = asyncio.ensure_future(anext(events))
        while client.stats.in_flight or client.stats.open_connections:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ClosedError):
            await waiting


async def test_leaving_the_loop_closes_the_connection(waits: list[float]) -> None:
    async def endless(connection: Any) -> None:
        await connection.read_request()
        await connection.send(broken_off(b"data: a\n\n"))
        await connection.wait_closed()

    async with site(endless) as (_, client):
        async with contextlib.aclosing(client.events("/")) as events:
            async for event in events:
                assert event.data == "a"
                break
        assert client.stats.open_connections == 0


async def test_a_stream_alone_says_where_to_go_on(waits: list[float]) -> None:
    async with site(stream_of(b"id: 5\nretry: 100\n\n")) as (_, client):
        async with client.stream("GET", "/") as stream:
            assert (stream.last_event_id, stream.reconnection_time) == ("", None)
            assert [event async for event in stream.events()] == []
            assert (stream.last_event_id, stream.reconnection_time) == ("5", 0.1)


@dataclasses.dataclass
class Token:
    text: str


def test_the_data_of_an_event_is_decoded_into_a_type() -> None:
    event = ServerSentEvent('{"text": "Hi"}', event="token")
    assert (event.json(), event.json(Token), event.json(type=dict[str, str])) == (
        *({"text": "Hi"}, Token("Hi"), {"text": "Hi"}),
    )
    for data, kind in (("[DONE]", None), ('{"text": 1}', Token)):
        with pytest.raises(DecodeError, match=r"the event's data is not the expected JSON: .") as caught:
            ServerSentEvent(data, event="token\n").json(kind)
        assert (caught.value.content, caught.value.details["event"]) == (data.encode(), "token\\n")


async def test_a_wait_for_the_next_stream_ends_with_the_deadline(waits: list[float]) -> None:
    for deadline in longer_and_longer(0.3):
        got = []
        async with site(stream_of(b"retry: 80000000\ndata: a\n\n"), silent) as (_, client):
            with pytest.raises(NetworkTimeoutError, match="deadline"):
                async for event in client.events("/", deadline=deadline):
                    got.append(event.data)
        if got and waits:
            break
    assert got == ["a"]
    assert len(waits) == 1 and waits[0] <= deadline
