"""An `Auth` of one's own: it sees each request as it is sent, for each attempt and redirect, and no other origin."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import (
    Auth,
    HTTPClient,
    HTTPConfig,
    HTTPRequest,
    HTTPResponse,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    RedirectError,
    Send,
    each_exchange,
)

OK = response(b"ok")


class Signing(Auth):
    """Signs target, cookies and body; by a header that no rule knows as secret."""

    async def apply(self, request: HTTPRequest) -> None:
        digest = await request.digest()
        text = f"{request.attempt} {request.url.raw_path_qs} {request.headers.get('Cookie')}".encode()
        request.headers["X-Odd"] = hashlib.sha256(text + digest).hexdigest()
        del request.headers["User-Agent"]


def signature(attempt: int, target: str, cookie: str | None, body: bytes) -> str:
    return hashlib.sha256(f"{attempt} {target} {cookie}".encode() + hashlib.sha256(body).digest()).hexdigest()


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_each_attempt_and_redirect_is_signed_and_another_origin_sees_nothing_of_it(transport: str) -> None:
    async with http_peer(answering(OK)) as other:
        busy = response(b"", "Set-Cookie: c=1", status="503 x")
        moved = response(b"", "Location: /to", status="307 x")
        away = response(b"", f"Location: {other.url}", status="307 x")
        async with http_peer(answering(busy, moved, away)) as peer:
            config = HTTPConfig(auth=Signing(), retry_delay=0, transport=transport)  # type: ignore[arg-type]
            async with HTTPClient(config) as client:
                assert await client.put(peer.url + "/a", data=b"data", params={"b": "c"}) == "ok"
        assert [request.headers["X-Odd"] for request in peer.requests] == [
            signature(1, "/a?b=c", None, b"data"),
            signature(2, "/a?b=c", "c=1", b"data"),
            signature(2, "/to", "c=1", b"data"),
        ]
        assert [request.body for request in (*peer.requests, *other.requests)] == [b"data"] * 4
        assert not any("User-Agent" in request.headers for request in peer.requests)
        assert "X-Odd" not in other.requests[0].headers and "User-Agent" in other.requests[0].headers


async def test_credentials_in_a_location_do_not_replace_those_of_an_auth() -> None:
    async with http_peer(answering(OK)) as peer:
        there = peer.url.replace("//", "//user:password@") + "/to"
        async with http_peer(answering(response(b"", f"Location: {there}", status="302 x"))) as first:
            async with HTTPClient(HTTPConfig(auth=Signing())) as client:
                assert await client.get(first.url) == "ok"
        assert peer.requests[0].headers["Authorization"].startswith("Basic ")

    @each_exchange
    async def redirect(request: HTTPRequest, send: Send) -> HTTPResponse:
        return request.respond(302, b"", {"Location": "http://user:password@host.invalid/to"})

    async with HTTPClient(HTTPConfig(auth=Signing(), middlewares=[redirect])) as client:
        with pytest.raises(RedirectError, match="other credentials"):
            await client.get("http://host.invalid/from")


async def test_what_an_auth_cannot_do_is_an_error_of_the_call() -> None:
    class Bad(Auth):
        async def apply(self, request: HTTPRequest) -> None:
            request.headers["X-A"] = "b\nc"

    class Fails(Auth):
        async def apply(self, request: HTTPRequest) -> None:
            raise NetworkError("no key", {"own": 1})

    class Hangs(Auth):
        async def apply(self, request: HTTPRequest) -> None:
            await asyncio.Event().wait()

    async with http_peer(answering(OK)) as peer, HTTPClient(HTTPConfig(timeout=0.05)) as client:
        with pytest.raises(InvalidRequestError, match=r"GET http.*: headers has the character .*phase auth"):
            await client.get(peer.url, auth=Bad())
        with pytest.raises(NetworkError, match="no key") as caught:
            await client.get(peer.url, auth=Fails())
        assert caught.value.details["own"] == 1 and caught.value.details["phase"] == "auth"
        with pytest.raises(NetworkTimeoutError, match="no token in time"):
            await client.get(peer.url, auth=Hangs())
        assert not peer.requests
