"""What a middleware sees, may change and may answer; each response that it does not return is given up."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import (
    HTTPClient,
    HTTPConfig,
    HTTPRequest,
    HTTPResponse,
    HTTPStatusError,
    InvalidRequestError,
    ResponseTooLargeError,
    Send,
    UsageError,
    each_exchange,
)

OK = response(b"ok")


def client_of(*middlewares: Any, **settings: Any) -> HTTPClient:
    return HTTPClient(HTTPConfig(middlewares=middlewares, retry_delay=0, **settings))


# ---- What it sees and changes ----


@pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])
@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_it_sees_what_will_be_sent_and_changes_it(mark: Any, transport: Any) -> None:
    seen: list[Any] = []

    async def change(request: HTTPRequest, send: Send) -> HTTPResponse:
        seen.append((request.method, str(request.url), dict(request.headers), request.content))
        request.url = request.url.update_query(signed="yes")
        request.headers["X-Added"] = "1"
        request.headers["X-Own"] = "changed"
        del request.headers["X-Client"]
        request.content = b'{"a": 1}'
        return await send(request)

    async with http_peer(answering(OK)) as peer:
        config = {"headers": {"X-Client": "c"}, "cookies": {"c": "1"}, "transport": transport}
        async with client_of(mark(change), **config) as client:
            assert await client.post(peer.url + "/a", params={"q": "1"}, headers={"X-Own": "0"}, json=[1]) == "ok"
    [(method, url, headers, content)] = seen
    assert (method, url, content) == ("POST", peer.url + "/a?q=1", b"[1]")
    assert (
        headers.items()
        >= {
            "Host": peer.url.removeprefix("http://"),
            "X-Client": "c",
            "X-Own": "0",
            "Cookie": "c=1",
            "Content-Type": "application/json",
            "Content-Length": "3",
        }.items()
    )
    [request] = peer.requests
    assert (request.target, request.body) == ("/a?q=1&signed=yes", b'{"a": 1}')
    assert "X-Client" not in request.headers and request.headers["Content-Length"] == "8"
    assert (request.headers["X-Added"], request.headers.getall("X-Own")) == ("1", ["changed"])
    # The rest is as it was.
    assert {name: request.headers[name] for name in ("Cookie", "Host", "Content-Type", "Accept")} == {
        name: headers[name] for name in ("Cookie", "Host", "Content-Type", "Accept")
    }


async def test_the_first_is_outermost_and_those_of_a_request_are_inside() -> None:
    order: list[str] = []

    def named(name: str) -> Any:
        async def middleware(request: HTTPRequest, send: Send) -> HTTPResponse:
            order.append(f"{name} in")
            answer = await send(request)
            order.append(f"{name} out {answer.text}")
            return answer

        return middleware

    async with http_peer(answering(OK)) as peer, client_of(named("a"), named("b")) as client:
        await client.get(peer.url, middlewares=[named("c")])
        assert order == ["a in", "b in", "c in", "c out ok", "b out ok", "a out ok"]
        order.clear()
        await client.get(peer.url)
        assert order == ["a in", "b in", "b out ok", "a out ok"]


async def test_one_around_each_exchange_runs_for_each_attempt_and_each_redirect() -> None:
    seen: list[Any] = []

    @each_exchange
    async def count(request: HTTPRequest, send: Send) -> HTTPResponse:
        seen.append((request.attempt, request.url.path))
        assert "X-Count" not in request.headers, "what an exchange adds is not carried to the next"
        request.headers["X-Count"] = str(len(seen))
        return await send(request)

    async def around(request: HTTPRequest, send: Send) -> HTTPResponse:
        seen.append((request.attempt, "call"))
        return await send(request)

    answers = [response(b"", status="503 x"), response(b"", "Location: /to", status="307 x"), OK]
    async with http_peer(answering(*answers)) as peer, client_of(count, around) as client:
        assert await client.put(peer.url + "/from", json=1) == "ok"
    assert seen == [(0, "call"), (1, "/from"), (2, "/from"), (2, "/to")]
    assert [request.headers["X-Count"] for request in peer.requests] == ["2", "3", "4"]
    assert [request.body for request in peer.requests] == [b"1"] * 3


async def test_a_secret_that_is_added_to_an_exchange_does_not_cross_to_another_origin() -> None:
    @each_exchange
    async def sign(request: HTTPRequest, send: Send) -> HTTPResponse:
        if str(request.url).startswith(first.url):
            request.headers["X-Odd"] = "signed"
        return await send(request)

    async with http_peer(answering(OK)) as other:
        to_other = response(b"", f"Location: {other.url}/", status="302 x")
        async with http_peer(answering(to_other)) as first, client_of(sign) as client:
            assert await client.get(first.url) == "ok"
            assert first.requests[0].headers["X-Odd"] == "signed"
    assert "X-Odd" not in other.requests[0].headers


async def test_the_digest_of_a_body_is_known_before_it_is_sent(tmp_path: Path) -> None:
    data = os.urandom(600_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def digest(request: HTTPRequest, send: Send) -> HTTPResponse:
        request.headers["X-Digest"] = (await request.digest()).hex()
        return await send(request)

    async with http_peer(answering(OK)) as peer:
        for middleware in (digest, each_exchange(functools.partial(digest))):
            async with client_of(middleware) as client:
                for body in (data, path, io.BytesIO(data)):
                    await client.put(peer.url, data=body)
                    assert peer.requests[-1].body == data
                    assert peer.requests[-1].headers["X-Digest"] == hashlib.sha256(data).hexdigest()
                await client.put(peer.url, files={"f": path})
                sent = peer.requests[-1]
                assert sent.headers["X-Digest"] == hashlib.sha256(sent.body).hexdigest() and data in sent.body
                await client.get(peer.url)
                assert peer.requests[-1].headers["X-Digest"] == hashlib.sha256().hexdigest()

                async def once() -> Any:
                    yield b"piece"

                with pytest.raises(UsageError, match="only once"):
                    await client.put(peer.url, data=once())


@pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda request: request.headers.add("X-A", "b\r\nX-C: d"), "character '.r' in the value of 'X-A'"),
        (lambda request: request.headers.update({"Content-Length": "9"}), "must keep Content-Length"),
        (lambda request: request.headers.update({"Transfer-Encoding": "chunked"}), "must keep Transfer-Encoding"),
        (lambda request: setattr(request, "url", request.url.with_scheme("ftp")), "url must start with http"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_a_byte_leaves(mark: Any, change: Any, words: str) -> None:
    @mark
    async def spoil(request: HTTPRequest, send: Send) -> HTTPResponse:
        change(request)
        return await send(request)

    async with http_peer(answering(OK)) as peer, client_of(spoil) as client:
        with pytest.raises(InvalidRequestError, match=words):
            await client.put(peer.url, json=1)
        assert not peer.requests


# ---- What it answers, and sends again ----


@pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])
async def test_an_answer_of_its_own_is_one_for_every_kind_of_call(mark: Any, tmp_path: Path) -> None:
    @mark
    async def answer(request: HTTPRequest, send: Send) -> HTTPResponse:
        status = int(request.url.path.strip("/"))
        return request.respond(status, "own", {"X-A": "b", "Content-Type": "text/plain", "Content-Length": "99"})

    async with client_of(answer, base_url="http://host.invalid/") as client:
        got = await client.request("GET", "/200")
        assert (got.status, got.reason, got.text, got.transport) == (200, "OK", "own", "middleware")
        assert got.headers["X-A"] == "b" and got.headers["Content-Length"] == "3" and got.history == ()
        assert got.timings.connect == 0 and got.elapsed >= 0
        async with client.stream("GET", "/200") as stream:
            assert [line async for line in stream.lines()] == [b"own"]
        assert (await client.download("/200", tmp_path / "file")).size == 3
        assert (tmp_path / "file").read_bytes() == b"own"
        with pytest.raises(HTTPStatusError) as caught:
            await client.get("/404")
        assert (caught.value.status, caught.value.body) == (404, b"own")
        with pytest.raises(HTTPStatusError):
            async with client.stream("GET", "/404"):
                pass
        with pytest.raises(ResponseTooLargeError):
            await client.get("/200", max_response_size=2) if mark is each_exchange else await streamed(client)


async def streamed(client: HTTPClient) -> None:
    async with client.stream("GET", "/200", max_response_size=2) as stream:
        await stream.read()


async def test_an_answer_that_was_kept_serves_other_calls() -> None:
    kept: list[HTTPResponse] = []

    async def keep(request: HTTPRequest, send: Send) -> HTTPResponse:
        if not kept:
            kept.append(await send(request))
        return kept[0]

    async with http_peer(answering(response(b"one"), response(b"two"))) as peer, client_of(keep) as client:
        assert [await client.get(peer.url) for _ in range(3)] == ["one"] * 3
        async with client.stream("GET", peer.url) as stream:
            assert await stream.read() == b"one"
        assert len(peer.requests) == 1


@pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])
@pytest.mark.parametrize("stream", [False, True])
async def test_sending_twice_uses_one_connection_and_returns_the_second(mark: Any, stream: bool) -> None:
    @mark
    async def twice(request: HTTPRequest, send: Send) -> HTTPResponse:
        first = await send(request)
        assert first.status == 409
        return await send(request)

    async with http_peer(answering(response(b"busy" * 1000, status="409 x"), OK)) as peer, client_of(twice) as client:
        if stream:
            async with client.stream("POST", peer.url, json=1) as streamed:
                assert await streamed.read() == b"ok"
        else:
            assert await client.post(peer.url, json=1) == "ok"
        assert [(request.body, request.connection) for request in peer.requests] == [(b"1", 1)] * 2


async def test_a_call_that_is_sent_again_has_all_its_retries() -> None:
    busy = response(b"", status="503 x")

    async def twice(request: HTTPRequest, send: Send) -> HTTPResponse:
        assert (await send(request)).status == 503
        return await send(request)

    async with http_peer(answering(busy, busy, busy, OK)) as peer, client_of(twice, retries=1) as client:
        got = await client.request("GET", peer.url)
        assert (got.text, got.attempts, client.stats.retries) == ("ok", 4, 2)


async def test_a_body_that_can_be_read_once_is_not_sent_twice() -> None:
    async def twice(request: HTTPRequest, send: Send) -> HTTPResponse:
        await send(request)
        return await send(request)

    async def once() -> Any:
        yield b"piece"

    async with http_peer(answering(OK)) as peer, client_of(twice) as client:
        with pytest.raises(InvalidRequestError, match="cannot be sent again"):
            await client.put(peer.url, data=once())
        assert len(peer.requests) == 1


@pytest.mark.parametrize("mark", [lambda middleware: middleware, each_exchange])
async def test_a_response_that_is_not_returned_frees_its_connection(mark: Any) -> None:
    @mark
    async def refuse(request: HTTPRequest, send: Send) -> HTTPResponse:
        await send(request)
        raise LookupError("no")

    async with http_peer(answering(response(b"x" * 1_000_000))) as peer:
        async with client_of(refuse, max_connections=1, timeout=20) as client:
            for _ in range(3):
                with pytest.raises(LookupError):
                    async with client.stream("GET", peer.url):
                        pass
            assert client.stats.in_flight == 0


async def test_a_stream_reaches_its_reader_whole_after_a_middleware_has_read_it() -> None:
    seen: list[bytes] = []

    async def read(request: HTTPRequest, send: Send) -> HTTPResponse:
        answer = await send(request)
        assert request.streamed and repr(answer) == "<HTTPResponse 200 'OK', not read>"
        with pytest.raises(UsageError, match=r"await response\.read"):
            answer.text  # noqa: B018
        seen.append(await answer.read())
        assert answer.text == "a\nb\n"
        return answer

    async with http_peer(answering(response(b"a\nb\n"))) as peer, client_of(read) as client:
        async with client.stream("GET", peer.url) as stream:
            assert [line async for line in stream.lines()] == [b"a", b"b"]
    assert seen == [b"a\nb\n"]
