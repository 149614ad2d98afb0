"""Every failure is a NetworkError that says what happened, where and when, and shows no secret."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import traceback
from typing import Any

import pytest
from support.http_faults import (
    ENDLESS,
    MALFORMED,
    TRUNCATED,
    answering,
    answering_early,
    closing_after,
    closing_at_once,
    response,
    sending_without_end,
)
from support.http_peer import Connection, http_peer
from support.own_kind import own_kind

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    InvalidRequestError,
    NetworkError,
    ProtocolError,
    ProxyError,
    RedirectError,
    ResponseTooLargeError,
    TLSError,
)

ONCE = HTTPConfig(retries=0)
DETAILS = {"method", "url", "host", "port", "phase", "attempt", "elapsed"}


async def failure_of(url: str, config: HTTPConfig = ONCE, *, kept: bool = False, **arguments: Any) -> NetworkError:
    async with HTTPClient(config) as client:
        with pytest.raises(NetworkError) as caught:
            await client.request("GET", url, **arguments)
        # After a whole response, the connection is fit for the next one.
        assert client.stats.open_connections == kept
    error = caught.value
    assert error.details.keys() >= DETAILS
    assert error.message.startswith("GET http")
    assert error.__context__ is error.__cause__ or error.__context__ is None
    return error


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("place", TRUNCATED)
async def test_a_response_that_breaks_off_is_never_taken_for_whole(place: str, reset: bool) -> None:
    async with http_peer(closing_after(TRUNCATED[place], reset=reset)) as peer:
        error = await failure_of(peer.url)
    in_body = "body" in place or "chunk" in place or "trailers" in place
    assert own_kind(error) is (IncompleteReadError if in_body else ConnectionLostError)
    assert error.details["phase"] == ("body" if in_body else "response")
    assert error.__cause__ is not None


@pytest.mark.slow
async def test_a_body_is_whole_only_at_each_of_its_lengths() -> None:
    """Content-Length, chunks, and TLS: cut at every offset of a small body, it is an error but at the last."""
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    for end in range(len(whole) + 1):
        async with http_peer(closing_after(whole[:end])) as peer, HTTPClient(ONCE) as client:
            if end == len(whole):
                assert await client.get(peer.url) == "abcde"
            else:
                with pytest.raises((IncompleteReadError, ConnectionLostError)):
                    await client.get(peer.url)


@pytest.mark.parametrize("what", [what for what in ENDLESS if what != "chunk extension"])
async def test_a_response_without_end_is_ended(what: str) -> None:
    async with http_peer(sending_without_end(*ENDLESS[what])) as peer:
        error = await failure_of(peer.url, HTTPConfig(retries=0, max_response_size=100_000))
    in_body = what.startswith(("body", "Content", "chunks"))
    assert own_kind(error) is (ResponseTooLargeError if in_body else ProtocolError)


@pytest.mark.parametrize("what", [what for what in MALFORMED if what != "space before the colon"])
async def test_what_is_not_http_is_a_protocol_error_and_not_quoted(what: str) -> None:
    async with http_peer(answering(MALFORMED[what])) as peer:
        error = await failure_of(peer.url, HTTPConfig(retries=0, read_timeout=5))
    assert own_kind(error) is ProtocolError
    assert "\n" not in error.message and "b'" not in error.message


async def test_what_came_of_a_malformed_response_is_in_no_traceback() -> None:
    bad = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=canary\0\r\nContent-Length: 0\r\n\r\n"
    async with http_peer(answering(bad)) as peer:
        error = await failure_of(peer.url)
    assert "canary" not in "".join(traceback.format_exception(error))


async def test_what_came_of_half_a_head_is_in_no_traceback() -> None:
    async with http_peer(closing_after(b"HTTP/1.1 200 OK\r\nSet-Cookie: id=canary\r\n")) as peer:
        error = await failure_of(peer.url)
    assert own_kind(error) is ConnectionLostError
    assert "canary" not in "".join(traceback.format_exception(error))


async def test_what_came_in_place_of_a_later_chunk_is_in_no_traceback() -> None:
    async def breaking(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await may_break.wait()
        await connection.send(b"canary\r\n")
        await connection.wait_closed()

    may_break = asyncio.Event()
    async with http_peer(breaking) as peer, HTTPClient(ONCE) as client, client.stream("GET", peer.url) as stream:
        chunks = stream.chunks()
        assert await anext(chunks) == b"ab"
        may_break.set()
        with pytest.raises(ProtocolError) as caught:
            await anext(chunks)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = await failure_of(f"http://127.0.0.1:{port}/x")
    assert own_kind(error) is ConnectError and isinstance(error, ConnectionError)
    assert (error.details["phase"], error.details["port"]) == ("connect", port)
    assert isinstance(error.__cause__, OSError)


async def test_no_such_host() -> None:
    error = await failure_of("http://no-such-host.invalid/")
    assert own_kind(error) is ConnectError
    assert "cannot look up 'no-such-host.invalid'" in error.message
    assert error.details["phase"] == "dns"
    assert isinstance(error.__cause__, socket.gaierror)


async def test_closed_and_reset_before_a_request() -> None:
    for reset in (False, True):
        async with http_peer(closing_at_once(reset=reset)) as peer:
            error = await failure_of(peer.url)
        assert own_kind(error) in (ConnectionLostError, ConnectError)


async def test_plain_http_behind_an_https_url() -> None:
    async def plain(connection: Connection) -> None:
        await connection.send(response(b"", status="400 Bad Request"))
        await connection.wait_closed()

    async with http_peer(plain) as peer:
        error = await failure_of(peer.url.replace("http:", "https:"))
    assert own_kind(error) is TLSError
    assert "TLS" in error.message or "plain HTTP" in error.message


async def test_a_proxy_that_is_not_there_is_a_proxy_error() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy = f"http://user:canary@127.0.0.1:{bound.getsockname()[1]}"
        for scheme in ("http", "https"):
            error = await failure_of(f"{scheme}://127.0.0.1/", proxy=proxy)
            assert own_kind(error) is ProxyError and isinstance(error, ConnectError)
            assert "canary" not in "".join(traceback.format_exception(error))


async def test_a_proxy_that_refuses_is_a_proxy_error_with_its_status(web: Any, locked_proxy: Any) -> None:
    error = await failure_of(web.https_url("/text"), proxy=locked_proxy.url)
    assert own_kind(error) is ProxyError
    assert error.details["status"] == 407
    # To a plain request the answer is the proxy's, and cannot be told from a server's.
    error = await failure_of(web.url("/text"), proxy=locked_proxy.url)
    assert isinstance(error, HTTPStatusError) and error.status == 407


async def test_an_early_answer_ends_an_upload_and_is_what_counts() -> None:
    async def endless() -> Any:
        while True:
            yield bytes(65536)
            await asyncio.sleep(0)

    refusal = response(b"too much", "Connection: close", status="413 Too Large")
    async with http_peer(answering_early(refusal)) as peer, HTTPClient() as client:
        async with asyncio.timeout(20):
            with pytest.raises(HTTPStatusError) as caught:
                await client.post(peer.url, data=endless())
        assert (caught.value.status, caught.value.body) == (413, b"too much")
        assert client.stats.open_connections == 0


# ---- Secrets ----

CANARIES = [f"canary{number}" for number in range(8)]


def secretive(port: int) -> dict[str, Any]:
    c = CANARIES
    return {
        "url": f"http://user:{c[0]}@127.0.0.1:{port}/x?key={c[1]}#{c[2]}",
        "params": {"token": c[3]},
        "headers": {"X-API-Key": c[4], "X-Mine": c[5]},
        "cookies": {"session": c[6]},
        "json": {"password": c[7]},
    }


@pytest.mark.parametrize(
    "handler",
    [
        closing_after(b""),
        closing_after(TRUNCATED["in a chunk"]),
        answering(b"SSH-2.0\r\n\r\n"),
        answering(response(b"", status="500 x")),
        answering(response(b"", "Location: http://user:canary0@127.0.0.1:1/?q=canary1", status="302 x")),
        answering(response(b"", "Location: ftp://user:canary0@127.0.0.1/?q=canary1", status="302 x")),
        answering(response(b"", "Location: http://[canary0", status="302 x")),
        answering(response(b"", "Location: /x?key=canary1", status="302 x")),
        answering(response(b"\xff")),
    ],
    ids=["lost", "cut", "not http", "status", "redirect", "ftp", "bad location", "loop", "not text"],
)
async def test_no_secret_is_in_an_error_a_log_a_traceback_or_a_repr(handler: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "pepperpy")
    config = HTTPConfig(retries=1, retry_delay=0, secret_headers=["X-Mine"])
    async with http_peer(handler) as peer, HTTPClient(config) as client:
        arguments = secretive(peer.port)
        with pytest.raises(NetworkError) as caught:
            (await client.request("PUT", arguments.pop("url"), **arguments)).json()
        error = caught.value
        shown = [str(error), repr(error), repr(error.details), repr(client), repr(error.__cause__), caplog.text]
        shown += ["".join(traceback.format_exception(error))]
        for canary in CANARIES:
            assert not [text for text in shown if canary in text]
        assert peer.requests and CANARIES[7] in peer.requests[0].body.decode()


async def test_a_redirect_to_what_is_no_http_url() -> None:
    for location in ("ftp://127.0.0.1/", "http://[bad", "mailto:x@y"):
        moved = response(b"", f"Location: {location}", status="302 x")
        async with http_peer(answering(moved)) as peer:
            error = await failure_of(peer.url, kept=True)
        assert own_kind(error) is RedirectError


async def test_errors_can_be_pickled_with_all_they_hold() -> None:
    async with http_peer(answering(response(b"body", "X-A: 1", status="404 Gone"))) as peer:
        error = await failure_of(peer.url, kept=True)
    same = pickle.loads(pickle.dumps(error))
    assert isinstance(same, HTTPStatusError)
    assert (same.status, same.body, same.headers["X-A"], str(same)) == (404, b"body", "1", str(error))
    async with http_peer(closing_after(b"")) as peer:
        error = await failure_of(peer.url)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_a_cancellation_is_never_wrapped() -> None:
    arrived = asyncio.Event()

    async def silent(connection: Connection) -> None:
        await connection.read_request()
        arrived.set()
        await connection.wait_closed()

    async with http_peer(silent) as peer, HTTPClient() as client:
        task = asyncio.create_task(client.get(peer.url))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats.in_flight == 0


async def test_a_refused_connection_is_called_refused_and_with_its_address() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for config in (ONCE, ONCE.replace(proxy=f"http://127.0.0.1:{port}")):
            error = await failure_of(f"http://127.0.0.1:{port}/x", config)
            assert f"('127.0.0.1', {port}): Connection refused" in error.message


@pytest.mark.parametrize("host", ["127.1", "2130706433"])
async def test_an_address_that_is_not_written_as_one_is_named(host: str) -> None:
    error = await failure_of(f"http://joe:canary@{host}/?key=canary")
    assert own_kind(error) is InvalidRequestError
    assert "its host is not a canonical IPv4 address" in error.message
    assert "canary" not in "".join(traceback.format_exception(error))
    async with http_peer(answering(response(b"", f"Location: http://{host}/", status="302 Found"))) as peer:
        error = await failure_of(peer.url, kept=True)
    assert own_kind(error) is RedirectError
    assert (error.location, [answer.url for answer in error.history]) == (f"http://{host}/", [peer.url])
