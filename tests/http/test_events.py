"""What `HTTPConfig.on_event` is told, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import ca_file, server_cert
from support.http_faults import (
    TRUNCATED,
    answering,
    by_connection,
    closing_after,
    closing_when_reused,
    response,
    silent,
)
from support.http_peer import Handler, HTTPPeer, http_peer
from support.proxies import PROXY_CREDENTIALS, Tinyproxy
from support.seen import Seen, failing

from pepperpy.network import (
    AttemptDone,
    CallDone,
    CallStarted,
    ConnectDone,
    ConnectError,
    ConnectionLostError,
    Event,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    LookupDone,
    NetworkError,
    NetworkTimeoutError,
    PoolWaitDone,
    ResponseStarted,
    TLSConfig,
    TLSDone,
)
from pepperpy.network.testing import MockHTTP

pytestmark = pytest.mark.usefixtures("no_waits")

UNAVAILABLE = response(b"", status="503 Service Unavailable")
BROKEN_OFF = TRUNCATED["in a Content-Length body"]
FIRST = ["CallStarted", "LookupDone", "ConnectDone", "ResponseStarted", "AttemptDone", "CallDone"]
NEXT = ["CallStarted", "ResponseStarted", "AttemptDone", "CallDone"]


@contextlib.asynccontextmanager
async def observed(handler: Handler, **settings: Any) -> AsyncIterator[tuple[HTTPPeer, HTTPClient, Seen]]:
    seen = Seen()
    async with http_peer(handler) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=seen, **settings)) as client:
            yield peer, client, seen


async def test_a_call_is_told_step_by_step_and_each_step_says_when_where_and_how_long() -> None:
    before = time.monotonic()
    async with observed(answering(response())) as (peer, client, seen):
        await client.get("/path?q=canary#canary")
        assert seen.names == FIRST
        assert len({event.id for event in seen.events}) == 1
        assert {(event.host, event.port) for event in seen.events} == {("127.0.0.1", peer.port)}
        assert [event.attempt for event in seen.events] == [0, 1, 1, 1, 1, 1]
        times = [event.at for event in seen.events]
        assert before <= times[0] and times == sorted(times) and times[-1] <= time.monotonic()
        started, call, answer = seen.one(CallStarted), seen.one(CallDone), seen.one(ResponseStarted)
        url = f"{peer.url}/path?q=***"
        assert [(e.method, e.url) for e in (started, call, answer)] == [("GET", url)] * 3
        assert (call.status, answer.status, seen.one(AttemptDone).status) == (200, 200, 200)
        assert (answer.reused, answer.version) == (False, "1.1")
        assert 0 < answer.seconds <= call.seconds <= time.monotonic() - before
        assert "canary" not in repr(seen.events)
        seen.take()
        await client.get("/")
        assert seen.one(ResponseStarted).reused
        assert seen.names == NEXT


async def test_the_carrier_aiohttp_tells_the_same_but_connecting_in_one() -> None:
    async with observed(answering(response()), transport="aiohttp") as (_, client, seen):
        await client.get("/")
        assert seen.take() == [name for name in FIRST if name != "LookupDone"]
        await client.get("/")
        assert seen.take() == NEXT
        with pytest.raises(ConnectError):
            await client.get("http://127.0.0.1:1/", retries=0)
        assert isinstance(seen.one(ConnectDone).error, OSError)


async def test_over_a_stand_in_calls_and_attempts_are_told() -> None:
    seen = Seen()
    with MockHTTP() as mock:
        mock.get("http://h.test/").reply(503).reply(200)
        async with HTTPClient(HTTPConfig(on_event=seen)) as client:
            await client.get("http://h.test/")
    assert seen.names == ["CallStarted", *["ResponseStarted", "AttemptDone"] * 2, "CallDone"]


async def test_tls_is_told() -> None:
    seen = Seen()
    async with http_peer(answering(response()), certificate=server_cert()) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=seen, tls=TLSConfig(ca_file=ca_file()))) as client:
            await client.get("/")
    assert seen.names == [*FIRST[:3], "TLSDone", *FIRST[3:]]
    assert seen.one(TLSDone).version.startswith("TLSv1")


async def test_an_attempt_after_a_status_is_told_with_the_wait_before_the_next() -> None:
    async with observed(answering(UNAVAILABLE, response())) as (_, client, seen):
        await client.get("/")
        first, second = seen.all(AttemptDone)
        assert (first.attempt, first.status, first.error, first.retry_in) == (1, 503, None, 0.0)
        assert (second.attempt, second.status, second.error, second.retry_in) == (2, 200, None, None)
        assert (seen.one(CallDone).attempt, seen.one(CallDone).status) == (2, 200)


async def test_a_status_that_is_an_error_ends_a_call_that_has_not_failed() -> None:
    async with observed(answering(response(status="404 x"))) as (_, client, seen):
        with pytest.raises(HTTPStatusError):
            await client.get("/")
        done = seen.one(CallDone)
        assert (done.status, done.error) == (404, None)


async def test_an_attempt_that_breaks_off_is_told_with_its_error_and_without_a_status_of_an_earlier_one() -> None:
    handler = by_connection(answering(UNAVAILABLE), silent)
    async with observed(handler, read_timeout=0.05, retries=1) as (_, client, seen):
        with pytest.raises(NetworkTimeoutError) as caught:
            await client.get("/", headers={"Connection": "close"})
        first, second = seen.all(AttemptDone)
        assert (first.status, second.status) == (503, None)
        assert second.error is caught.value and second.retry_in is None
        assert (seen.one(CallDone).error, seen.one(CallDone).status) == (caught.value, None)


async def test_a_stale_connection_is_told_as_an_attempt_of_its_own() -> None:
    async with observed(closing_when_reused()) as (_, client, seen):
        await client.get("/")
        seen.take()
        await client.get("/")
        first, second = seen.all(AttemptDone)
        assert isinstance(first.error, ConnectionLostError) and first.retry_in == 0.0
        assert second.error is None


async def test_each_redirect_is_told_with_its_place() -> None:
    async with http_peer(answering(response(b"there"))) as other:
        moved = response(b"", f"Location: {other.url}/there?key=canary", status="302 Found")
        async with observed(answering(moved)) as (peer, client, seen):
            await client.get("/here")
            first, second = seen.all(ResponseStarted)
            assert (first.status, first.port, first.url) == (302, peer.port, f"{peer.url}/here")
            assert (second.status, second.port, second.url) == (200, other.port, f"{other.url}/there?key=***")
            assert seen.one(CallDone).url == f"{peer.url}/here"
            assert [event.port for event in seen.all(ConnectDone)] == [peer.port, other.port]


async def test_a_refused_connection_is_told() -> None:
    seen = Seen()
    async with HTTPClient(HTTPConfig(on_event=seen, retries=0)) as client:
        with pytest.raises(ConnectError) as caught:
            await client.get("http://user:canary@127.0.0.1:1/")
    assert isinstance(seen.one(ConnectDone).error, ConnectionRefusedError)
    assert seen.one(AttemptDone).error is seen.one(CallDone).error is caught.value
    assert "canary" not in repr(seen.events)


async def test_a_wait_for_a_connection_is_told() -> None:
    async with observed(answering(response()), max_connections=1) as (_, client, seen):
        await asyncio.gather(client.get("/"), client.get("/"))
        wait = seen.one(PoolWaitDone)
        assert wait.error is None and wait.seconds > 0
        assert wait.id == seen.all(CallDone)[1].id


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_a_wait_that_takes_too_long_is_told(transport: str) -> None:
    settings: dict[str, Any] = {"max_connections": 1, "pool_timeout": 0.02, "transport": transport}
    async with observed(silent, **settings) as (_, client, seen):
        first = asyncio.create_task(client.get("/"))
        while not seen.all(ConnectDone):
            await asyncio.sleep(0)
        with pytest.raises(NetworkTimeoutError):
            await client.get("/")
        assert seen.one(PoolWaitDone).error is not None
        first.cancel()
        await asyncio.wait([first])
        assert isinstance(seen.all(CallDone)[1].error, asyncio.CancelledError)


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_the_password_of_a_proxy_is_in_no_event(locked_proxy: Tinyproxy, transport: str) -> None:
    user, _ = PROXY_CREDENTIALS
    for port in (locked_proxy.port, 1):
        seen = Seen()
        proxy = f"http://{user}:canary@127.0.0.1:{port}"
        async with HTTPClient(HTTPConfig(on_event=seen, proxy=proxy, transport=transport, retries=0)) as client:
            with pytest.raises(NetworkError):
                await client.get("https://h.test/")
        assert seen.one(CallDone).error is not None
        assert "canary" not in repr(seen.events)


# ---- Streams and downloads ----


async def test_a_stream_ends_when_its_block_does() -> None:
    async with observed(answering(response())) as (_, client, seen):
        async with client.stream("GET", "/") as stream:
            assert seen.names == FIRST[:-2]
            await stream.read()
            assert seen.names == FIRST[:-2]
        assert seen.names == FIRST
        assert seen.one(CallDone).error is None


async def test_a_stream_that_breaks_off_ends_with_the_error_and_what_its_block_raises_is_none_of_the_call() -> None:
    async with observed(closing_after(BROKEN_OFF)) as (_, client, seen):
        with pytest.raises(IncompleteReadError) as caught:
            async with client.stream("GET", "/") as stream:
                await stream.read()
        assert seen.one(CallDone).error is caught.value
        seen.take()
        with pytest.raises(ZeroDivisionError):
            async with client.stream("GET", "/") as stream:
                raise ZeroDivisionError
        assert (seen.one(CallDone).error, seen.one(CallDone).status) == (None, 200)


async def test_a_stream_that_is_refused_by_its_status_has_ended() -> None:
    async with observed(answering(response(status="404 x"))) as (_, client, seen):
        with pytest.raises(HTTPStatusError):
            async with client.stream("GET", "/"):
                pass
        assert seen.names == FIRST
        assert seen.one(CallDone).status == 404


async def test_a_download_ends_when_the_file_is_in_place_and_each_of_its_attempts_is_told(tmp_path: Path) -> None:
    async with observed(by_connection(closing_after(BROKEN_OFF), answering(response(b"whole")))) as (_, client, seen):
        await client.download("/", tmp_path / "file")
        first, second = seen.all(AttemptDone)
        assert isinstance(first.error, IncompleteReadError) and first.retry_in is not None
        assert second.error is None
        assert seen.names[-2:] == ["AttemptDone", "CallDone"]
        assert seen.one(CallDone).error is None


# ---- Headers that on_event adds ----


async def test_headers_of_the_first_event_are_sent_with_every_request_of_the_call() -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, CallStarted):
            event.headers["traceparent"] = f"00-{event.id}"

    async with http_peer(answering(UNAVAILABLE, response())) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=on_event)) as client:
            await client.get("/", headers={"Traceparent": "replaced", "Other": "kept"})
            await client.get("/")
    sent = [request.headers.getall("traceparent") for request in peer.requests]
    assert sent[0] == sent[1] != sent[2] and all(len(values) == 1 for values in sent)
    assert [request.headers.get("Other") for request in peer.requests] == ["kept", "kept", None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b", "x"),
        ("a", "x\r\nb: c"),
        ("Content-Length", "9"),
        ("transfer-encoding", "chunked"),
        ("Host", "h"),
        ("a", 1),
    ],
)
async def test_headers_that_cannot_be_sent_are_reported_and_left_out(name: str, value: Any) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def on_event(event: Event) -> None:
        if isinstance(event, CallStarted):
            event.headers[name] = value

    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=on_event)) as client:
            assert await client.get("/") == "ok"
    assert [type(context["exception"]) in (ValueError, TypeError) for context in reported] == [True]
    assert set(peer.requests[0].headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent"}


# ---- Nothing depends on it ----


async def test_an_on_event_that_raises_changes_nothing_and_is_reported_to_the_loop() -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with http_peer(answering(UNAVAILABLE, response())) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=failing)) as client:
            assert await client.get("/") == "ok"
            async with client.stream("GET", "/") as stream:
                assert await stream.read() == b"ok"
            assert client.stats.in_flight == 0
    assert {type(context["exception"]) for context in reported} == {ValueError}


async def test_a_client_without_on_event_makes_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    from pepperpy.network import events

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(events.Observer, "__init__", refuse)
    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        assert await client.get("/") == "ok"


def test_the_setting_is_checked_and_shows_nothing_of_what_it_holds() -> None:
    class Secret:
        def __repr__(self) -> str:
            return "canary"

        def __call__(self, event: Event) -> None:
            pass

    assert repr(HTTPConfig(on_event=Secret())) == "HTTPConfig(on_event=Secret)"
    with pytest.raises(TypeError, match="on_event must be callable, not int"):
        HTTPConfig(on_event=1)  # type: ignore[arg-type]

    async def later(event: Event) -> None:
        pass

    with pytest.raises(TypeError, match="on_event must be a plain function"):
        HTTPConfig(on_event=later)
    assert isinstance(LookupDone, type)
