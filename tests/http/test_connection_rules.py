"""What headers do to a request and its connection: left out ones, Connection, Keep-Alive, Expect."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, InvalidRequestError
from pepperpy.network.http.aiohttp_transport import handler as handlers
from pepperpy.network.http.dates import keep_alive_seconds
from pepperpy.network.http.h1 import upload
from pepperpy.network.testing import MockHTTP


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"data": b"x", "headers": {"content-type": None}}, {"json": 1, "headers": {"Content-Type": None}}],
    ids=["no body", "bytes", "JSON"],
)
async def test_no_content_type_goes_out_without_a_body_or_where_it_is_none(
    method: str, arguments: dict[str, Any]
) -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        await client.request(method, peer.url, **arguments)
        assert "Content-Type" not in peer.requests[0].headers
        assert len(peer.requests[0].body) == (1 if arguments else 0)
    with MockHTTP() as mock:
        mock.route(method, "http://h/")
        async with HTTPClient() as client:
            await client.request(method, "http://h/", **arguments)
        assert "Content-Type" not in mock.requests[0].headers


@pytest.mark.parametrize(
    "name", ["Accept", "Accept-Encoding", "User-Agent", "Host", "Authorization", "X-All", "Content-Type"]
)
async def test_none_removes_any_header(name: str) -> None:
    config = HTTPConfig(headers={"X-All": "1"}, auth=("u", "p"))
    async with http_peer(answering(response())) as peer, HTTPClient(config) as client:
        await client.post(peer.url, data=b"x")
        await client.post(peer.url, data=b"x", headers={name: None})
        with_it, without = (set(request.headers) for request in peer.requests)
        assert with_it - without == {name}


async def test_what_tells_the_end_of_a_body_cannot_be_left_out() -> None:
    async def body() -> Any:
        yield b"x"

    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        for name, data in (("Content-Length", b"x"), ("transfer-encoding", body())):
            with pytest.raises(InvalidRequestError, match=f"must not leave out '{name}'"):
                await client.post(peer.url, data=data, headers={name: None})
        await client.post(peer.url, headers={"Content-Length": None})
        assert "Content-Length" not in peer.requests[0].headers


@pytest.mark.parametrize("value", ["close", "Close", "x, close"])
@pytest.mark.parametrize("of_all", [False, True], ids=["of the request", "of the client"])
async def test_a_request_that_says_close_ends_its_connection(value: str, of_all: bool) -> None:
    """Whatever the server says: this one keeps it open."""
    headers = {"Connection": value}
    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(headers=headers if of_all else {}, transport="aiohttp")) as client:
            await client.get(peer.url, headers={} if of_all else headers)
            await client.get(peer.url)
            assert [request.connection for request in peer.requests] == [1, 2]
            if not of_all:
                await client.get(peer.url, headers={"Connection": "keep-alive"})
                async with client.session.get(peer.url, headers=headers) as answer:
                    await answer.read()
                await client.get(peer.url)
                assert [request.connection for request in peer.requests[2:]] == [2, 2, 3]


@pytest.mark.parametrize("body", [b"", b"ok"])
@pytest.mark.parametrize(
    ("value", "seconds"), [("timeout=5, max=100", 4.0), ("TIMEOUT = 1", 0.5), ("timeout=100", 99.0)]
)
async def test_a_connection_is_not_used_after_the_time_that_its_server_keeps_it(
    value: str, seconds: float, body: bytes
) -> None:
    """Less a second, or a half of a short time, in which the end may be on its way."""
    async with http_peer(answering(response(body, f"Keep-Alive: {value}"))) as peer:
        async with HTTPClient(HTTPConfig(keepalive_timeout=1000, transport="aiohttp")) as client:
            began = monotonic()
            await client.get(peer.url)
            handler: Any = next(iter(client.session.connector._open))  # type: ignore[union-attr]
            assert began + seconds <= handler._idle_until <= monotonic() + seconds
            # What the time is does not matter to the rest.
            handler._idle_until = monotonic() + 100
            await client.post(peer.url)
            handler._idle_until = monotonic()
            await client.post(peer.url)
            assert [request.connection for request in peer.requests] == [1, 1, 2]
            assert client.stats.discarded_connections == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("max=5", None),
        ("timeout=", None),
        ("timeout=x", None),
        ("mytimeout=5", None),
        ("timeout=5", 5),
        ("max=10,timeout=0", 0),
        ('timeout="7"', 7),
        ("timeout=999999999999", 999999999),
        ("x" * 300 + ",timeout=5", None),
    ],
)
def test_keep_alive_is_read(value: str | None, seconds: float | None) -> None:
    assert keep_alive_seconds(value) == seconds


class Expecting:
    """Reads the head, and the body if it asks for it or gets it; then answers."""

    def __init__(self, *interim: bytes, status: str = "200 OK", wants_body: bool = True) -> None:
        self._interim = interim
        self._status = status
        self._wants_body = wants_body

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.read_head()
            for answer in self._interim:
                await connection.send(answer)
            if self._wants_body:
                await connection.read_body()
            await connection.send(response(b"answer", status=self._status))


EXPECT = {"Expect": "100-continue"}


@pytest.fixture
def waits_for_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transport sends a body before the server has answered to its head."""
    for module in (handlers, upload):
        monkeypatch.setattr(module, "CONTINUE_WAIT", 60)


async def test_a_body_is_sent_after_a_while_to_a_server_that_does_not_say_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert handlers.CONTINUE_WAIT == 1.0
    monkeypatch.setattr(handlers, "CONTINUE_WAIT", 0.02)
    async with http_peer(Expecting()) as peer, HTTPClient(HTTPConfig(transport="aiohttp")) as client:
        for _ in range(2):
            assert await client.put(peer.url, data=b"hello", headers=EXPECT) == "answer"
        async with client.session.put(peer.url, data=b"hello", headers=EXPECT) as answer:
            assert await answer.text() == "answer"
        assert [(request.connection, request.body) for request in peer.requests] == [(1, b"hello")] * 3


@pytest.mark.slow
@pytest.mark.usefixtures("waits_for_continue")
async def test_a_body_that_is_asked_for_does_not_wait() -> None:
    async with http_peer(Expecting(b"HTTP/1.1 100 Continue\r\n\r\n")) as peer, HTTPClient() as client:
        for _ in range(2):
            assert await client.put(peer.url, data=b"hello", headers=EXPECT) == "answer"
        assert [(request.connection, request.body) for request in peer.requests] == [(1, b"hello")] * 2


@pytest.mark.usefixtures("waits_for_continue")
@pytest.mark.parametrize("name", ["Expect", "expect"])
async def test_a_body_whose_expect_is_left_out_waits_for_nobody(name: str) -> None:
    async with http_peer(answering(response(b"answer"))) as peer:
        async with HTTPClient(HTTPConfig(headers=EXPECT, retries=0, timeout=5)) as client:
            for _ in range(2):
                assert await client.put(peer.url, data=b"hello", headers={name: None}) == "answer"
        assert [(request.connection, request.body) for request in peer.requests] == [(1, b"hello")] * 2
        assert "Expect" not in peer.requests[0].headers


@pytest.mark.usefixtures("waits_for_continue")
async def test_a_body_that_is_refused_is_not_sent() -> None:
    """The server may take what comes next for either, so the connection is not used again."""
    config = HTTPConfig(raise_for_status=False)
    async with http_peer(Expecting(status="417 No", wants_body=False)) as peer, HTTPClient(config) as client:
        for _ in range(2):
            answer = await client.request("PUT", peer.url, data=b"hello", headers=EXPECT)
            assert (answer.status, answer.text) == (417, "answer")
        assert [(request.connection, request.body) for request in peer.requests] == [(1, b""), (2, b"")]


@pytest.mark.slow
@pytest.mark.usefixtures("waits_for_continue")
async def test_a_body_that_is_asked_for_elsewhere_goes_there_only() -> None:

    async def once() -> Any:
        yield b"hello"

    async with http_peer(Expecting(b"HTTP/1.1 100 Continue\r\n\r\n")) as other:
        moved = response(b"", f"Location: {other.url}/", status="307 Moved")

        async def handle(connection: Connection) -> None:
            await connection.read_head()
            await connection.send(moved)
            await connection.wait_closed()

        async with http_peer(handle) as peer, HTTPClient() as client:
            assert await client.put(peer.url, data=once(), headers=EXPECT) == "answer"
            assert (peer.requests[0].body, other.requests[0].body) == (b"", b"hello")
