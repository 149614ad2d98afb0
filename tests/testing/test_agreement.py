"""The mock and a real server: the same program, over both, has to see the same."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from support.http_faults import answering, by_connection, chunked_response, closing_after, response
from support.http_peer import Handler, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, NetworkError, RefreshingAuth
from pepperpy.network.testing import MockHTTP, no_retry_waits

Act = Callable[[HTTPClient, str], Awaitable[Any]]

# What aiohttp adds by itself, and MockRequest.headers documents as left out; and what names the port.
NOT_COMPARED = {"host", "accept", "accept-encoding", "user-agent", "connection", "referer"}


@dataclass
class Scenario:
    """`real` answers over a socket what `mock` says of the mock; both are given the base URL by `{base}`."""

    act: Act
    real: Callable[[str], Handler]
    mock: Callable[[MockHTTP, str], object]
    config: dict[str, Any]
    requests: bool  # whether what the server sees of the requests is certain


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str,
    real: Callable[[str], Handler],
    mock: Callable[[MockHTTP, str], object],
    requests: bool = True,
    **config: Any,
) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        SCENARIOS[name] = Scenario(act, real, mock, config, requests)
        return act

    return add


def sequence(*replies: dict[str, Any]) -> tuple[Callable[[str], Handler], Callable[[MockHTTP, str], object]]:
    """Both sides of answering the n-th request, whatever it is, with the n-th of `replies`."""

    def real(base: str) -> Handler:
        answers = []
        for reply in replies:
            status = reply.get("status", "200 OK")
            headers = [f"{name}: {value.replace('{base}', base)}" for name, value in reply.get("headers", ())]
            if "chunks" in reply:
                answers.append(chunked_response(reply["chunks"], *headers))
            else:
                answers.append(response(reply.get("content", b""), *headers, status=status))
        return answering(*answers)

    def mock(mock: MockHTTP, base: str) -> None:
        route = mock.route(None)
        for reply in replies:
            status = int(reply.get("status", "200")[:3])
            headers = [(name, value.replace("{base}", base)) for name, value in reply.get("headers", ())]
            rest = {key: value for key, value in reply.items() if key in ("content", "chunks")}
            route.reply(status, headers=headers, **rest)

    return real, mock


def described(response: Any) -> dict[str, Any]:
    return {
        "status": response.status,
        "reason": response.reason,
        "ok": response.ok,
        "method": response.method,
        "url": re.sub(r":\d+", "", response.url),
        "headers": sorted((name.lower(), re.sub(r":\d+", "", value)) for name, value in response.headers.items()),
        "cookies": {name: morsel.value for name, morsel in response.cookies.items()},
        "history": [(past.status, re.sub(r":\d+", "", past.url)) for past in response.history],
        "attempts": response.attempts,
        "encoding": response.encoding,
    }


async def outcome(client: HTTPClient, base: str, act: Act) -> Any:
    try:
        result = await act(client, base)
    except NetworkError as error:
        message = re.sub(r"\(phase .*\)$", "", re.sub(r":\d+", "", error.message))
        details = {name: error.details.get(name) for name in ("method", "phase", "attempt", "status", "limit")}
        result = type(error).__name__, message, details, type(error.__cause__).__name__, getattr(error, "body", None)
    stats = client.stats
    return result, stats.calls, stats.attempts, stats.retries


async def without_words(request: Awaitable[Any]) -> Any:
    """For errors whose text is aiohttp's or the loop's own."""
    with pytest.raises(NetworkError) as caught:
        await request
    error = caught.value
    return type(error).__name__, error.details["phase"], error.details["attempt"], type(error.__cause__).__name__


def seen(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> Any:
    fields = sorted((name.lower(), value) for name, value in headers if name.lower() not in NOT_COMPARED)
    boundary = re.search(r"boundary=(\w+)", str(fields))
    if boundary is not None:
        fields = [(name, value.replace(boundary[1], "boundary")) for name, value in fields]
        body = body.replace(boundary[1].encode(), b"boundary")
    return method, target, fields, body


async def over_a_socket(it: Scenario) -> Any:
    handler: list[Handler] = []
    async with http_peer(lambda connection: handler[0](connection)) as peer:
        # By name: aiohttp keeps no cookies of addresses.
        base = f"http://localhost:{peer.port}"
        handler.append(it.real(base))
        with no_retry_waits():
            async with HTTPClient(HTTPConfig(**it.config)) as client:
                result = await outcome(client, base, it.act)
        return result, [seen(r.method, r.target, r.headers.items(), r.body) for r in peer.requests]


async def over_the_mock(it: Scenario) -> Any:
    base = "http://localhost:8080"
    with MockHTTP(assert_all_called=False) as mock:
        it.mock(mock, base)
        async with HTTPClient(HTTPConfig(**it.config)) as client:
            result = await outcome(client, base, it.act)
    return result, [seen(r.method, r.target.raw_path_qs, r.headers.items(), r.body) for r in mock.requests]


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


def redirect(status: int, to: str, *more: tuple[str, str]) -> dict[str, Any]:
    return {"status": f"{status} Moved", "headers": [("Location", to), *more]}


for status in (301, 302, 303, 307, 308):
    for method in ("GET", "POST", "PUT", "HEAD"):

        @scenario(f"{method} redirected by {status}", *sequence(redirect(status, "../there?x=1#part"), {}))
        async def _(client: HTTPClient, base: str, method: str = method) -> Any:
            data = b"body" if method in ("POST", "PUT") else None
            response = await client.request(method, f"{base}/a/b", {"q": 1}, {"X-Own": "1"}, data=data)
            return {**described(response), "reason": "", "headers": []}, response.text


def other_origin(base: str) -> str:
    """The same server: an address and its name are two origins."""
    return base.replace("localhost", "127.0.0.1")


@scenario(
    "redirected to another origin and back",
    lambda base: answering(
        response(b"", f"Location: {other_origin(base)}/2", status="307 Moved"),
        response(b"", f"Location: {base}/3", status="307 Moved"),
        response(b"ok"),
    ),
    lambda mock, base: (
        mock.post()
        .reply(307, headers={"Location": f"{other_origin(base)}/2"})
        .reply(307, headers={"Location": f"{base}/3"})
        .reply(content=b"ok")
    ),
    secret_headers=["X-Mine"],
    cookies={"first": "1"},
    headers={"X-Api-Key": "k", "X-All": "all"},
)
async def _(client: HTTPClient, base: str) -> Any:
    headers = {"X-Mine": "m", "Authorization": "Bearer t", "X-Plain": "p"}
    return await client.post(f"{base}/1", headers=headers, json={"a": 1}, cookies={"second": "2"})


def with_user(url: str) -> str:
    return url.replace("//", "//user:pass@")


@scenario(
    "redirected to a URL with credentials, to another origin and back",
    lambda base: answering(
        response(b"", f"Location: {with_user(base)}/2", status="302 Moved"),
        response(b"", "Location: /3", status="302 Moved"),
        response(b"", f"Location: {other_origin(base)}/4", status="302 Moved"),
        response(b"", f"Location: {base}/5", status="302 Moved"),
        response(b"ok"),
    ),
    lambda mock, base: (
        mock.get()
        .reply(302, headers={"Location": f"{with_user(base)}/2"})
        .reply(302, headers={"Location": "/3"})
        .reply(302, headers={"Location": f"{other_origin(base)}/4"})
        .reply(302, headers={"Location": f"{base}/5"})
        .reply(content=b"ok")
    ),
)
async def _(client: HTTPClient, base: str) -> Any:
    return described(await client.request("GET", base))


@scenario(
    "redirected to a URL with credentials, beside a header",
    lambda base: answering(response(b"", f"Location: {with_user(base)}/2", status="302 Moved"), response(b"ok")),
    lambda mock, base: mock.get().reply(302, headers={"Location": f"{with_user(base)}/2"}).reply(content=b"ok"),
)
async def _(client: HTTPClient, base: str) -> Any:
    return await without_words(client.get(base, auth=("user", "pass")))


@scenario("a length of its own, redirected as a GET", *sequence(redirect(303, "/there"), {}))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.post(base, data=b"body", headers={"Content-Length": "4"})


@scenario("too many redirects", *sequence(redirect(302, "/again")), max_redirects=2)
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario("redirects are not followed", *sequence(redirect(302, "/there")))
async def _(client: HTTPClient, base: str) -> Any:
    response = await client.request("GET", base, allow_redirects=False)
    return {**described(response), "reason": ""}, response.text


@scenario("redirected without Location", *sequence({"status": "302 Found", "content": b"where?"}))
async def _(client: HTTPClient, base: str) -> Any:
    response = await client.request("GET", base)
    return described(response), response.text


@scenario("redirected to another protocol", *sequence(redirect(302, "ftp://example.com/")))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario("redirected to no URL", *sequence(redirect(302, "http://[::1/")))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(base)


@scenario("redirected with a body that can be read once", *sequence(redirect(307, "/there"), {}))
async def _(client: HTTPClient, base: str) -> Any:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    return await without_words(client.put(base, data=body()))


SET = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", 'b="two words"; Path=/sub'), ("Set-Cookie", "c=3; Secure")]


@scenario("cookies", *sequence({"headers": SET}, {}, {}, {}), cookies={"d": "4"})
async def _(client: HTTPClient, base: str) -> Any:
    first = await client.request("GET", base)
    await client.get(f"{base}/sub/page")
    await client.get(f"{base}/", cookies={"e": "5", "a": "own"}, headers={"Cookie": "f=6"})
    return described(first)


@scenario("cookies of a redirect", *sequence(redirect(302, "/there", ("Set-Cookie", "a=1; Path=/")), {}))
async def _(client: HTTPClient, base: str) -> Any:
    return await client.get(f"{base}/here")


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
    it = SCENARIOS[name]
    real = await over_a_socket(it)
    mocked = await over_the_mock(it)
    assert mocked[0] == real[0]
    if it.requests:
        assert mocked[1] == real[1]
