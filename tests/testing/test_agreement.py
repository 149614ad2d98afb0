"""The mock and a real server: the same program, over both, has to see the same; without redirects."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.agreement import Scenarios, check_agreement, described, sequence, without_words
from support.http_faults import answering, by_connection, closing_after, response
from support.http_peer import Handler

from pepperpy.network import HTTPClient, NetworkError, RefreshingAuth
from pepperpy.network.testing import MockHTTP

SCENARIOS = Scenarios()
scenario = SCENARIOS.add

JSON = ("Content-Type", "application/json")


@scenario("JSON", *sequence({"content": b'{"a": [1, 2]}', "headers": [JSON, ("X-Id", "7")]}))
async def _(client: HTTPClient, base: str) -> Any:
    response = await client.request("GET", f"{base}/a b/%7Euser?x=%2F", {"q": ["ü", "&"], "n": 1, "flag": True})
    return described(response), response.json(), response.content


@scenario("503 and then 200", *sequence({"status": "503 Busy", "headers": [("Retry-After", "1")]}, {"content": b"ok"}))
async def _(client: HTTPClient, base: str) -> Any:
    return (await client.request("PUT", base, data=b"body")).attempts


@scenario("503 for a POST", *sequence({"status": "503 Service Unavailable", "content": b"later"}))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.post(f"{base}/path", json={"a": 1})


@scenario("404", *sequence({"status": "404 Not Found", "content": b"nothing here", "headers": [("X-Id", "7")]}))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario(
    "404 that is no error", *sequence({"status": "404 Not Found", "content": b"nothing here"}), raise_for_status=False
)
async def _(client: HTTPClient, base: str) -> Any:
    response = await client.request("GET", base)
    return described(response), response.text


@scenario(
    "reset and then 200",
    lambda base: by_connection(closing_after(b"", reset=True), answering(response(b"ok"))),
    lambda mock, base: mock.get().fail("reset").reply(content=b"ok"),
)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario(
    "reset of a POST",
    lambda base: closing_after(b"", reset=True),
    lambda mock, base: mock.post().fail("reset"),
)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.post(base, json=None, data=b"pay")


@scenario("closed without an answer", lambda base: closing_after(b""), lambda mock, base: mock.get().fail("disconnect"))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario(
    "a body that breaks off, and then is whole",
    lambda base: by_connection(
        closing_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
        answering(response(b"whole")),
    ),
    lambda mock, base: mock.get().reply(chunks=[b"ok"], then_fail="incomplete").reply(content=b"whole"),
)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario(
    "a stream that breaks off",
    lambda base: closing_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
    lambda mock, base: mock.get().reply(chunks=[b"ok"], then_fail="incomplete"),
)
async def _(client: HTTPClient, base: str) -> Any:
    got = []
    try:
        async with client.stream("GET", base) as stream:
            async for chunk in stream:
                got.append(chunk)
    except NetworkError as error:
        return got, type(error).__name__, error.details["phase"]


def silent(base: str) -> Handler:
    async def handle(connection: Any) -> None:
        await connection.read_request()
        await connection.wait_closed()

    return handle


def then_silent(base: str) -> Handler:
    async def handle(connection: Any) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.read_request()
        await connection.wait_closed()

    return handle


def mock_then_silent(mock: MockHTTP, base: str) -> None:
    mock.get().reply(text="ok").reply(delay=60)


# The connection is there before the time runs, so that a slow machine does not change the phase.
@scenario("timeout", then_silent, mock_then_silent)
async def _(client: HTTPClient, base: str) -> Any:
    await client.get(base)
    return await client.get(base, timeout=0.05)


@scenario("read_timeout", silent, lambda mock, base: mock.get().reply(delay=60), read_timeout=0.05, retries=1)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario("deadline", then_silent, mock_then_silent)
async def _(client: HTTPClient, base: str) -> Any:
    await client.get(base)
    return await client.get(base, deadline=0.05)


@scenario("timeout of a stream", then_silent, mock_then_silent)
async def _(client: HTTPClient, base: str) -> Any:
    await client.get(base)
    async with client.stream("GET", base, timeout=0.05):
        pass


@scenario("refused", silent, lambda mock, base: mock.get().fail("connect"), requests=False, retries=1)
async def _(client: HTTPClient, base: str) -> Any:
    return await without_words(client.get("http://127.0.0.1:1/"))


@scenario(
    "an answer that is not HTTP",
    lambda base: closing_after(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    lambda mock, base: mock.get().fail("protocol"),
)
async def _(client: HTTPClient, base: str) -> Any:
    return await without_words(client.get(base))


@scenario("a stream", *sequence({"chunks": [b"one\ntw", b"o\nthree"]}))
async def _(client: HTTPClient, base: str) -> Any:
    async with client.stream("GET", base) as stream:
        head = described(stream)
        return head, [line async for line in stream.lines()]


@scenario("a stream that is left early", *sequence({"chunks": [b"x" * 1000] * 50}))
async def _(client: HTTPClient, base: str) -> Any:
    async with client.stream("GET", base) as stream:
        async for chunk in stream:
            return chunk[:1]


@scenario("a stream that is an error", *sequence({"status": "404 Not Found", "content": b"nothing"}))
async def _(client: HTTPClient, base: str) -> Any:
    async with client.stream("GET", base):
        pass


@scenario("a body that is too large", *sequence({"content": b"x" * 11}), max_response_size=10)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario("a body that is too large, in chunks", *sequence({"chunks": [b"x" * 6] * 2}), max_response_size=10)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario(
    "HEAD",
    lambda base: answering(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
    lambda mock, base: mock.head().reply(content=b"content"),
)
async def _(client: HTTPClient, base: str) -> Any:
    response = await client.request("HEAD", base)
    return described(response), response.content


@scenario(
    "another charset",
    *sequence({"content": b"gr\xfc\xdfe", "headers": [("Content-Type", "text/plain; charset=latin-1")]}),
)
async def _(client: HTTPClient, base: str) -> Any:
    response = await client.request("GET", base)
    return response.encoding, response.text


@scenario("not declared as JSON", *sequence({"content": b"{}"}), strict_content_type=True)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get_json(base)


@scenario("no JSON", *sequence({"content": b"{oops", "headers": [JSON]}))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get_json(base)


@scenario("bodies", *sequence({}), headers={"X-Gone": "1", "X-Stays": "2"}, params={"v": 1})
async def _(client: HTTPClient, base: str) -> Any:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    sent: list[Any] = []
    await client.post(base, json={"a": "ü"}, headers={"x-gone": None, "X-Stays": "own"})
    await client.post(base, data={"a": ["1", "2"], "b": "ü &"})
    await client.post(base, data=b"", headers={"Content-Type": "x/y"})
    await client.post(base)
    await client.delete(base)
    await client.put(base, data=body(), progress=lambda *numbers: sent.append(numbers))
    await client.post(base, data=b"x" * 10, progress=lambda *numbers: sent.append(numbers))
    await client.post(base, data={"field": "ü"}, files={"file": ("näme.txt", b"\r\n\0content\r\n", "x/y"), "b": b"raw"})
    return sent


@scenario(
    "a source that fails",
    lambda base: closing_after(b""),
    lambda mock, base: mock.put(),
    requests=False,
)
async def _(client: HTTPClient, base: str) -> Any:
    async def body() -> AsyncIterator[bytes]:
        raise LookupError("no more")
        yield b""

    return await client.put(base, data=body())


@scenario("a length of its own", *sequence({}))
async def _(client: HTTPClient, base: str) -> Any:
    async def body() -> AsyncIterator[bytes]:
        yield b"body"

    return await client.put(base, data=body(), headers={"Content-Length": "4"})


@scenario("a length of its own that is not that of the body", *sequence({}), requests=False)
async def _(client: HTTPClient, base: str) -> Any:
    async def body() -> AsyncIterator[bytes]:
        yield b"body"

    return await client.put(base, data=body(), headers={"Content-Length": "3"})


@scenario("a form of aiohttp's", *sequence({}))
async def _(client: HTTPClient, base: str) -> Any:
    file = io.BytesIO(b"content")
    form = aiohttp.FormData()
    form.add_field("file", file, filename="name", content_type="x/y")
    await client.post(base, data=form)
    return file.closed


@scenario("credentials in the URL", *sequence({}))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base.replace("//", "//user:p%40ss@"))


@scenario("credentials in the URL and a header", *sequence({}))
async def _(client: HTTPClient, base: str) -> Any:
    request = client.get(base.replace("//", "//user:pass@"), headers={"Authorization": "Bearer t"})
    return await without_words(request)


@scenario("a token that is refused", *sequence({"status": "401 Unauthorized"}, {"content": b"ok"}))
async def _(client: HTTPClient, base: str) -> Any:
    tokens = iter(["old", "new"])
    auth = RefreshingAuth(lambda: next(tokens))
    result = await client.get(base, auth=auth)
    await auth.close()
    return result


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_mock_and_a_real_server_give_the_same(name: str) -> None:
    await check_agreement(SCENARIOS[name])
