"""`MockHTTP`: what replies, failures and functions do to a client, and for which clients that holds."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.own_kind import own_kind

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    IncompleteReadError,
    NetworkError,
    NetworkTimeoutError,
    NotConnectedError,
    PoolTimeoutError,
    ProtocolError,
    ProxyError,
    TLSError,
)
from pepperpy.network.http import transports
from pepperpy.network.testing import Failure, MockHTTP, MockRequest, Reply

API = "https://api.example.com"


# ---- Replies ----

REPLIES: dict[str, tuple[dict[str, Any], bytes, dict[str, str]]] = {
    "nothing": ({}, b"", {"Content-Length": "0"}),
    "json": ({"json": {"a": "ü"}}, '{"a":"ü"}'.encode(), {"Content-Length": "10", "Content-Type": "application/json"}),
    "json null": ({"json": None}, b"null", {"Content-Length": "4", "Content-Type": "application/json"}),
    "text": ({"text": "ü"}, "ü".encode(), {"Content-Length": "2", "Content-Type": "text/plain; charset=utf-8"}),
    "content": ({"content": b"\0"}, b"\0", {"Content-Length": "1"}),
    "chunks": ({"chunks": [b"a", "ü", b"", b"b"]}, "aüb".encode(), {"Transfer-Encoding": "chunked"}),
    "chunks of a length": ({"chunks": ["a", "b"], "headers": {"Content-Length": "2"}}, b"ab", {"Content-Length": "2"}),
    "own headers": (
        {"json": 1, "headers": {"content-type": "x/y", "X-Id": "7"}},
        b"1",
        {"Content-Length": "1", "Content-Type": "x/y", "X-Id": "7"},
    ),
}


@pytest.mark.parametrize("name", REPLIES)
async def test_a_reply_is_what_was_given(name: str) -> None:
    given, content, headers = REPLIES[name]
    with MockHTTP() as mock:
        mock.get(API).reply(201, **given)
        async with HTTPClient() as client:
            response = await client.request("GET", API)
    assert (response.status, response.reason, response.content) == (201, "Created", content)
    assert {key.title(): value for key, value in response.headers.items()} == headers


async def test_a_reply_may_repeat_a_header() -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        async with HTTPClient() as client:
            response = await client.request("GET", API)
            await client.get(API)
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert mock.requests[1].cookies == {"a": "1", "b": "2"}


async def test_a_status_without_a_phrase_is_possible() -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(299)
        async with HTTPClient() as client:
            assert (await client.request("GET", API)).reason == ""


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_that_has_no_body_comes_without(status: int) -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(status, content=b"body")
        async with HTTPClient() as client:
            assert await client.get(API) == ""


@pytest.mark.parametrize(
    ("error", "given", "named"),
    [
        (ValueError, {"status": 199}, "status"),
        (ValueError, {"status": 600}, "status"),
        (TypeError, {"status": "200"}, "status"),
        (ValueError, {"json": 1, "text": "x"}, "only one of json, text, content and chunks"),
        (TypeError, {"json": object()}, "object"),
        (TypeError, {"chunks": [None]}, "each of chunks"),
        (ValueError, {"chunks": [-1.0]}, "each of chunks"),
        (ValueError, {"delay": -1}, "delay must be 0 seconds or more, not -1"),
        (ValueError, {"delay": math.nan}, "delay"),
        (TypeError, {"delay": "1"}, "delay must be seconds or an asyncio.Event"),
        (ValueError, {"headers": {"X-Id": "a\r\nb"}}, "headers"),
        (ValueError, {"then_fail": "connect"}, "then_fail must be one of 'incomplete', 'timeout'"),
        (ValueError, {"times": 0}, "times"),
        (TypeError, {"body": b""}, "body"),
    ],
)
def test_a_reply_that_cannot_be_is_refused(error: type[Exception], given: Any, named: str) -> None:
    with pytest.raises(error, match=named):
        MockHTTP().get(API).reply(**given)


# ---- Failures ----

# The kind, the error, how many of 2 retries are made for a GET, and details of the error.
FAILURES: dict[Any, tuple[type[NetworkError], int, dict[str, Any]]] = {
    "dns": (ConnectError, 0, {"phase": "dns"}),
    "connect": (ConnectError, 2, {"phase": "connect"}),
    ConnectError: (ConnectError, 2, {"phase": "connect"}),
    "connect timeout": (NetworkTimeoutError, 2, {"phase": "connect", "limit": "connect_timeout"}),
    "tls": (TLSError, 0, {"phase": "connect"}),
    TLSError: (TLSError, 0, {"phase": "connect"}),
    "proxy": (ProxyError, 2, {"phase": "connect"}),
    ProxyError: (ProxyError, 2, {"phase": "connect"}),
    "pool timeout": (PoolTimeoutError, 0, {"phase": "queue", "limit": "max_connections"}),
    PoolTimeoutError: (PoolTimeoutError, 0, {"phase": "queue"}),
    "reset": (ConnectionLostError, 2, {"phase": "response"}),
    ConnectionLostError: (ConnectionLostError, 2, {"phase": "response"}),
    "disconnect": (ConnectionLostError, 2, {"phase": "response"}),
    "timeout": (NetworkTimeoutError, 2, {"phase": "response", "limit": "read_timeout"}),
    NetworkTimeoutError: (NetworkTimeoutError, 2, {"phase": "response", "limit": "read_timeout"}),
    "protocol": (ProtocolError, 0, {"phase": "response"}),
    ProtocolError: (ProtocolError, 0, {"phase": "response"}),
    "incomplete": (IncompleteReadError, 2, {"phase": "body"}),
    IncompleteReadError: (IncompleteReadError, 2, {"phase": "body"}),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failure_is_that_of_production(kind: Any) -> None:
    error, retries, details = FAILURES[kind]
    with MockHTTP() as mock:
        mock.get(API).fail(kind)
        async with HTTPClient() as client:
            with pytest.raises(NetworkError) as caught:
                await client.get(API)
            assert client.stats.retries == retries
    assert own_kind(caught.value) is error
    assert caught.value.details.items() >= details.items()


@pytest.mark.parametrize(("kind", "sent_again"), [("connect", True), ("reset", False), ("timeout", False)])
async def test_a_post_is_sent_again_only_if_it_had_not_been_sent(kind: Any, sent_again: bool) -> None:
    with MockHTTP() as mock:
        route = mock.post(API).fail(kind, times=1).reply()
        async with HTTPClient() as client:
            if sent_again:
                await client.post(API, json=1)
            else:
                with pytest.raises(NetworkError):
                    await client.post(API, json=1)
    route.assert_called(times=2 if sent_again else 1)


async def test_no_file_stays_open_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with MockHTTP() as mock:
        mock.put(API).fail("connect")
        async with HTTPClient() as client:
            with pytest.raises(ConnectError):
                await client.put(API, data=tmp_path / "file")
    # That no descriptor is left is what each test is checked for.
    assert len(mock.requests) == 3


async def test_a_stale_connection_does_not_count_as_a_retry() -> None:
    with MockHTTP() as mock:
        mock.get(API).fail("stale").reply(text="ok")
        async with HTTPClient(HTTPConfig(retries=1)) as client:
            assert await client.get(API) == "ok"
            assert (client.stats.retries, client.stats.stale_retries) == (0, 1)


@pytest.mark.parametrize("kind", ["connekt", NetworkError, None, 7])
def test_a_failure_that_there_is_not_is_refused_with_those_that_there_are(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"must be one of 'dns', 'connect', .*'incomplete' or its error class"):
        MockHTTP().get(API).fail(kind)


async def test_each_failure_is_an_exception_of_its_own() -> None:
    with MockHTTP() as mock:
        mock.get(API).fail("tls")
        causes = []
        async with HTTPClient() as client:
            for _ in range(2):
                with pytest.raises(TLSError, match="issuer is unknown") as caught:
                    await client.get(API)
                causes.append(caught.value.__cause__)
    assert causes[0] is not causes[1]


@pytest.mark.parametrize(("kind", "error"), [("incomplete", IncompleteReadError), ("timeout", NetworkTimeoutError)])
async def test_a_body_breaks_off_after_what_was_given(kind: Any, error: type[NetworkError]) -> None:
    with MockHTTP() as mock:
        mock.get(API).reply(text="begun", then_fail=kind)
        async with HTTPClient() as client:
            async with client.stream("GET", API) as stream:
                chunks = stream.chunks()
                assert await anext(chunks) == b"begun"
                with pytest.raises(error):
                    await anext(chunks)


async def test_a_download_goes_on_where_the_mock_broke_off(tmp_path: Path) -> None:
    head = {"ETag": '"1"', "Accept-Ranges": "bytes"}
    with MockHTTP() as mock:
        rest = mock.get(API, headers={"Range": "bytes=5-"}).reply(
            206, text=" world", headers={**head, "Content-Range": "bytes 5-10/11"}
        )
        mock.get(API).reply(text="hello", headers={**head, "Content-Length": "11"}, then_fail="incomplete", times=1)
        async with HTTPClient() as client:
            result = await client.download(API, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "hello world"
    assert (result.resumed, len(rest.calls)) == (1, 1)


# ---- Functions ----


async def test_a_function_makes_the_reply_from_the_request() -> None:
    def plain(request: MockRequest) -> Reply:
        return Reply(json={"got": request.json(), "id": request.path_params["id"]})

    async def slow(request: MockRequest) -> Reply:
        await asyncio.sleep(0)
        return Reply(202, text=request.method)

    with MockHTTP() as mock:
        mock.put(f"{API}/{{id}}").call(plain, times=1).call(slow)
        async with HTTPClient() as client:
            assert (await client.request("PUT", f"{API}/7", json=[1])).json() == {"got": [1], "id": "7"}
            assert (await client.request("PUT", f"{API}/7")).status == 202


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(104, "reset"), ConnectionLostError),
        (aiohttp.ServerDisconnectedError(), ConnectionLostError),
        (TimeoutError(), NetworkTimeoutError),
        (ProtocolError("odd"), ProtocolError),
    ],
)
async def test_an_error_of_the_network_that_a_function_raises_is_translated(
    error: Exception, expected: type[NetworkError]
) -> None:
    def function(request: MockRequest) -> Reply:
        raise error

    with MockHTTP() as mock:
        mock.get(API).call(function)
        async with HTTPClient(HTTPConfig(retries=0)) as client:
            with pytest.raises(expected):
                await client.get(API)


@pytest.mark.parametrize(
    "error", [ValueError("wrong"), RuntimeError("wrong"), KeyError("wrong"), AssertionError("wrong")]
)
async def test_a_mistake_of_a_function_is_not_taken_for_one_of_the_request(error: Exception) -> None:
    def function(request: MockRequest) -> Any:
        raise error

    for options in ({}, {"match": function}):
        with MockHTTP(assert_all_called=False) as mock:
            mock.get(API, **options).call(function)
            async with HTTPClient() as client:
                with pytest.raises((AssertionError, KeyError), match="wrong") as caught:
                    await client.get(API)
                assert not isinstance(caught.value, NetworkError)
        assert len(mock.requests) == 1


async def test_a_function_that_returns_no_reply_is_told_so() -> None:
    with MockHTTP() as mock:
        route = mock.get(API).call(lambda request: None)  # type: ignore[arg-type, return-value]
        async with HTTPClient() as client:
            with pytest.raises(TypeError, match=f"function of {route} must return a Reply or Failure, not NoneType"):
                await client.get(API)
    with pytest.raises(TypeError, match="callable"):
        route.call("reply")  # type: ignore[arg-type]


async def test_a_function_may_return_a_failure() -> None:
    with MockHTTP() as mock:
        route = mock.post(API).call(lambda request: Failure("connect") if request.attempt == 1 else Reply(text="ok"))
        async with HTTPClient() as client:
            assert await client.post(API, json=1) == "ok"
    route.assert_called(times=2)


# ---- The block ----


async def test_nothing_of_a_connection_is_there() -> None:
    with MockHTTP() as mock:
        mock.get(API)
        async with HTTPClient() as client:
            await client.get(API)
            assert (client.stats.open_connections, client.stats.discarded_connections) == (0, 0)
            with pytest.raises(NotConnectedError):
                client.session  # noqa: B018


async def test_a_client_that_was_opened_before_talks_to_the_network() -> None:
    async with http_peer(answering(response(b"real"))) as peer, HTTPClient() as client:
        with MockHTTP() as mock:
            assert await client.get(peer.url) == "real"
    assert mock.requests == []


async def test_the_innermost_mock_answers_the_clients_that_are_opened_in_it() -> None:
    with MockHTTP() as outer:
        outer.get(API).reply(text="outer")
        with MockHTTP() as inner:
            inner.get(API).reply(text="inner")
            async with HTTPClient() as client:
                assert await client.get(API) == "inner"
        async with HTTPClient() as client:
            assert await client.get(API) == "outer"


def test_the_network_is_back_after_the_block_whichever_ends_first() -> None:
    real = transports.make_transport
    one, two = MockHTTP(), MockHTTP()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert transports.make_transport is not real
    two.__exit__(None, None, None)
    assert transports.make_transport is real


def test_the_network_is_back_after_an_error() -> None:
    real = transports.make_transport
    with pytest.raises(LookupError), MockHTTP():
        raise LookupError
    assert transports.make_transport is real


def test_a_mock_is_entered_once_at_a_time_and_may_be_again() -> None:
    mock = MockHTTP()
    for _ in range(2):
        with mock:
            with pytest.raises(RuntimeError, match="active already"):
                mock.__enter__()
    assert repr(mock) == "<MockHTTP not active, 0 routes, 0 requests>"


def test_clients_of_other_threads_are_answered() -> None:
    texts = []

    async def ask() -> None:
        async with HTTPClient() as client:
            texts.append(await client.get(API))

    with MockHTTP() as mock:
        mock.get(API).reply(text="taken")
        thread = threading.Thread(target=lambda: asyncio.run(ask()))
        thread.start()
        thread.join()
    assert texts == ["taken"]
