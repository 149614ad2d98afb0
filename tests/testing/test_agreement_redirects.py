"""The mock and a real server: redirects and cookies, over both, have to be the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.agreement import Scenarios, check_agreement, described, sequence, without_words
from support.http_faults import answering, response

from pepperpy.network import HTTPClient

SCENARIOS = Scenarios()
scenario = SCENARIOS.add


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


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_mock_and_a_real_server_give_the_same(name: str) -> None:
    await check_agreement(SCENARIOS[name])
