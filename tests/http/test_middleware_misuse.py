"""What a middleware cannot do: send twice at once, return a body that is gone, take credentials to another origin."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig, HTTPRequest, HTTPResponse, Send, UsageError, each_exchange

OK = response(b"ok")
MARKS = pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])


def client_of(*middlewares: Any, **settings: Any) -> HTTPClient:
    return HTTPClient(HTTPConfig(middlewares=middlewares, retry_delay=0, **settings))


@MARKS
@pytest.mark.parametrize("stream", [False, True])
async def test_it_cannot_send_while_another_send_is_under_way(mark: Any, stream: bool) -> None:
    @mark
    async def both(request: HTTPRequest, send: Send) -> HTTPResponse:
        first = asyncio.ensure_future(send(request))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match=r"send\(\) was called while another"):
            await send(request)
        return await first

    async with http_peer(answering(OK)) as peer, client_of(both) as client:
        if stream:
            async with client.stream("GET", peer.url) as answer:
                assert await answer.read() == b"ok"
        else:
            assert await client.get(peer.url) == "ok"
        assert len(peer.requests) == 1


@MARKS
async def test_what_it_leaves_behind_sends_no_more_and_holds_no_connection(mark: Any) -> None:
    left: list[Any] = []
    answered = asyncio.Event()

    async def late(connection: Connection) -> None:
        await connection.read_request()
        await answered.wait()
        await connection.send(response(b"x" * 1_000_000))

    @mark
    async def leaves(request: HTTPRequest, send: Send) -> HTTPResponse:
        left.append((asyncio.ensure_future(send(request)), request, send))
        await asyncio.sleep(0)
        return request.respond(200, b"own")

    async with http_peer(late) as peer, client_of(leaves) as client:
        async with client.stream("GET", peer.url) as stream:
            assert await stream.read() == b"own"
        [(task, request, send)] = left
        with pytest.raises(UsageError, match=r"send\(\) was called after its middleware has returned"):
            await send(request)
        answered.set()
        with pytest.raises(UsageError, match=r"the middleware returned while its send\(\) was under way"):
            await task
        assert client.stats.open_connections == 0


@MARKS
@pytest.mark.parametrize("reads", [False, True])
async def test_an_earlier_response_can_be_returned_if_its_body_was_read(mark: Any, reads: bool) -> None:
    @mark
    async def first_of_two(request: HTTPRequest, send: Send) -> HTTPResponse:
        first = await send(request)
        if reads:
            await first.read()
        await send(request)
        return first

    async with http_peer(answering(response(b"one"), response(b"two"))) as peer, client_of(first_of_two) as client:

        async def read() -> bytes:
            async with client.stream("GET", peer.url) as stream:
                return await stream.read()

        if reads:
            assert await read() == b"one"
        else:
            with pytest.raises(UsageError, match="the body was given up when the request was sent again"):
                await read()


def elsewhere(url: str) -> Any:
    """Sends to where the caller wants it first, then to `url`."""

    async def middleware(request: HTTPRequest, send: Send) -> HTTPResponse:
        await send(request)
        request.url = URL(url)
        return await send(request)

    return middleware


async def test_a_call_that_is_sent_to_another_origin_has_no_credentials_of_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with http_peer(answering(OK)) as first, http_peer(answering(OK)) as other:
        target = other.url.replace("127.0.0.1", "localhost")
        own = {"X-Own": "1"}
        async with client_of(elsewhere(target), base_url=first.url, auth=("me", "secret")) as client:
            assert await client.get("/", headers=own) == "ok"
        async with client_of(elsewhere(target)) as client:
            assert await client.get(first.url.replace("//", "//me:secret@"), headers=own) == "ok"
        async with client_of(elsewhere(target), trust_env=True) as client:
            assert await client.get(first.url, headers=own) == "ok"
        # These go with the call, wherever it is sent.
        async with client_of(elsewhere(target)) as client:
            assert await client.get(first.url, auth=("me", "secret")) == "ok"
    assert all(request.headers["Authorization"].startswith("Basic ") for request in first.requests)
    assert [request.headers.get("Authorization") is None for request in other.requests] == [True] * 3 + [False]
