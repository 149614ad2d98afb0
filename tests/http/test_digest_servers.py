"""Digest authentication with servers that name the next nonce, or write realms and names in an encoding of before."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from typing import Any

import pytest
from support.http_faults import response
from support.http_peer import Connection, Request, http_peer

from pepperpy.network import (
    Auth,
    DigestAuth,
    HTTPClient,
    HTTPConfig,
    HTTPRequest,
    HTTPResponse,
    HTTPStatusError,
    InvalidRequestError,
)
from pepperpy.network.digest import next_nonce

FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


def given(request: Request) -> dict[str, str]:
    """The fields of its Authorization. The test's server reads headers as Latin-1: one character for each byte."""
    found = FIELD.findall(request.headers.get("Authorization", ""))
    return {name: quoted or token for name, quoted, token in found}


def md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode("latin-1")).hexdigest()


def is_right(request: Request, secret: str) -> bool:
    had = given(request)
    middle = [had.get("nonce", ""), had.get("nc", ""), had.get("cnonce", ""), "auth"]
    return had.get("response") == md5(secret, *middle, md5(request.method, request.target))


class Once:
    """Takes each nonce once, and names the next one with its answer."""

    def __init__(self, algorithm: str = "MD5") -> None:
        self.algorithm = algorithm
        self.nonces = 0
        self.session: str | None = None  # the key of the session, for `-sess`
        self.counts: list[str] = []

    def secret(self, request: Request) -> str:
        secret = md5("user", "r", "p")
        if self.algorithm == "MD5":
            return secret
        had = given(request)
        self.session = self.session or md5(secret, had.get("nonce", ""), had.get("cnonce", ""))
        return self.session

    async def handle(self, connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            had = given(request)
            if had.get("nonce") == f"n{self.nonces}" and is_right(request, self.secret(request)):
                self.counts.append(had["nc"])
                self.nonces += 1
                info = f'Authentication-Info: nextnonce="n{self.nonces}", qop=auth, rspauth="wrong"'
                if request.target == "/moved":
                    await connection.send(response(b"", info, "Location: /", status="302 x"))
                else:
                    await connection.send(response(b"ok", info))
                continue
            self.nonces += 1
            self.session = None
            stale = ", stale=true" if had else ""
            line = f'Digest realm="r", nonce="n{self.nonces}", qop="auth", algorithm={self.algorithm}{stale}'
            await connection.send(response(b"", f"WWW-Authenticate: {line}", status="401 x"))


@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess"])
@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_the_next_nonce_that_a_server_names_is_used(algorithm: str, transport: Any) -> None:
    server = Once(algorithm)
    config = {"auth": DigestAuth("user", "p"), "retries": 0, "transport": transport}
    async with http_peer(server.handle) as peer, HTTPClient(HTTPConfig(peer.url, **config)) as client:
        assert [await client.get("/") for _ in range(3)] == ["ok"] * 3
        async with client.stream("POST", "/", data=b"x") as stream:
            assert await stream.read() == b"ok"
        # Of a redirect, too.
        assert await client.get("/moved") == "ok"
        assert await client.get("/") == "ok"
    assert len(peer.requests) == 1 + 7 and server.counts == ["00000001"] * 7


class OnceAtATime:
    """Takes each nonce once. All requests that came without a right one are answered together, each with its own."""

    def __init__(self, together: int, *lines: str) -> None:
        self.together = asyncio.Barrier(together)
        self.lines = lines  # of each good answer
        self.nonces: set[str] = set()
        self.made = 0
        self.refused = 0

    async def handle(self, connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            nonce = given(request).get("nonce", "")
            if nonce in self.nonces and is_right(request, md5("user", "r", "p")):
                self.nonces.remove(nonce)
                await connection.send(response(b"ok", *self.lines))
                continue
            self.refused += 1
            if self.refused <= self.together.parties:
                await self.together.wait()
            self.made += 1
            self.nonces.add(f"n{self.made}")
            stale = ", stale=true" if nonce else ""
            line = f'Digest realm="r", nonce="n{self.made}", qop="auth"{stale}'
            await connection.send(response(b"", f"WWW-Authenticate: {line}", status="401 x"))


@pytest.mark.parametrize("lines", [(), ('Authentication-Info: nextnonce="of another server"',)])
async def test_calls_that_are_refused_together_answer_each_its_own_challenge(lines: tuple[str, ...]) -> None:
    server = OnceAtATime(8, *lines)
    auth = DigestAuth("user", "p")
    async with http_peer(server.handle) as peer, HTTPClient(HTTPConfig(peer.url, auth=auth, retries=0)) as one:
        async with HTTPClient(HTTPConfig(peer.url, auth=auth, retries=0)) as other:
            first = await asyncio.gather(*[client.get("/") for client in (one, other) for _ in range(4)])
            assert first == ["ok"] * 8 and server.refused == 8
            # And then with a nonce that is stale for all.
            later = await asyncio.gather(*[client.get("/") for client in (one, other) for _ in range(4)])
            assert later == ["ok"] * 8 and server.refused == 16


@pytest.mark.parametrize(("stale", "sent"), [(", stale=true", 4), ("", 2)])
async def test_a_server_that_refuses_every_answer_is_not_asked_for_ever(stale: str, sent: int) -> None:
    async def handle(connection: Connection) -> None:
        for number in itertools.count():
            await connection.read_request()
            line = f'WWW-Authenticate: Digest realm="r", nonce="n{number}", qop="auth"{stale}'
            await connection.send(response(b"", line, status="401 x"))

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(auth=DigestAuth("user", "wrong"))) as client:
        for calls in (1, 2):
            with pytest.raises(HTTPStatusError, match="401"):
                await client.get(peer.url)
            assert len(peer.requests) == calls * sent


async def test_a_call_goes_on_with_a_server_that_restarts_and_forgets_its_nonces() -> None:
    """Many do not say `stale` then: they do not know the nonce at all."""

    async def handle(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            nonce = f"n{connection.number}"  # each connection is another life of the server
            if given(request).get("nonce") != nonce:
                line = f'WWW-Authenticate: Digest realm="r", nonce="{nonce}", qop="auth"'
                await connection.send(response(b"", line, status="401 x"))
            elif connection.number == 1:
                return
            else:
                await connection.send(response(b"ok" if is_right(request, md5("user", "r", "p")) else b"wrong"))

    config = HTTPConfig(auth=DigestAuth("user", "p"), retry_delay=0)
    async with http_peer(handle) as peer, HTTPClient(config) as client:
        assert await client.get(peer.url) == "ok"
        assert [request.connection for request in peer.requests] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("info", "nonce"),
    [
        ('nextnonce="n"', "n"),
        ('qop=auth, rspauth="a", cnonce="b", nc=00000001, NextNonce=n', "n"),
        ('nextnonce=""', None),
        ('rspauth="a, nextnonce=b"', None),
        ("nextnonce", None),
        ("", None),
        ("a" * 100_000 + ', nextnonce="n"', None),
    ],
)
def test_what_is_read_of_authentication_info(info: str, nonce: str | None) -> None:
    assert next_nonce(info) == nonce


async def test_a_server_that_was_sent_no_digest_cannot_name_a_nonce() -> None:
    async def handle(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(response(b"ok", 'Authentication-Info: nextnonce="n"'))

    async with http_peer(handle) as peer:
        async with HTTPClient(HTTPConfig(peer.url, auth=DigestAuth("user", "p"))) as client:
            assert [await client.get("/") for _ in range(2)] == ["ok"] * 2
        assert not any(given(request) for request in peer.requests)


async def test_an_auth_of_ones_own_is_told_of_authentication_info() -> None:
    seen = []

    class Own(Auth):
        async def header(self) -> str:
            return "Own x"

        def informed(self, request: HTTPRequest, response: HTTPResponse) -> None:
            seen.append((request.headers["Authorization"], response.status, response.headers["Authentication-Info"]))

    async def handle(connection: Connection) -> None:
        for lines in (["Authentication-Info: a=b"], []):
            await connection.read_request()
            await connection.send(response(b"ok", *lines))

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(peer.url, auth=Own())) as client:
        assert [await client.get("/") for _ in range(2)] == ["ok"] * 2
    assert seen == [("Own x", 200, "a=b")]


# ---- Beyond ASCII ----


def asking(challenge: bytes, secret: str) -> Any:
    async def handle(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            if is_right(request, secret):
                await connection.send(response(b"ok"))
            else:
                head = b"HTTP/1.1 401 x\r\nContent-Length: 0\r\nWWW-Authenticate: Digest "
                await connection.send(head + challenge + b"\r\n\r\n")

    return handle


async def test_a_realm_in_any_encoding_goes_back_as_it_came() -> None:
    for realm in ("Ger\xe4t".encode("latin-1"), "Ger\xe4t".encode(), b"\xff\xfe"):
        raw = realm.decode("latin-1")
        handle = asking(b'realm="' + realm + b'", nonce="n", qop="auth"', md5("user", raw, "p"))
        async with http_peer(handle) as peer, HTTPClient(HTTPConfig(auth=DigestAuth("user", "p"))) as client:
            assert await client.get(peer.url) == "ok"
            assert given(peer.requests[1])["realm"] == raw


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_user_and_password_are_in_the_encoding_that_a_server_of_before_knows(encoding: str) -> None:
    user, password = "J\xe4s\xf8n", "gr\xfcn"
    in_bytes = [text.encode(encoding).decode("latin-1") for text in (user, password)]
    handle = asking(b'realm="r", nonce="n", qop="auth"', md5(in_bytes[0], "r", in_bytes[1]))
    auth = DigestAuth(user, password, encoding=encoding)
    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(peer.url, auth=auth, retries=0)) as client:
        assert await client.get("/") == "ok"
        assert given(peer.requests[1])["username"] == in_bytes[0]


async def test_a_server_that_asks_for_utf8_gets_it_whatever_was_chosen() -> None:
    in_bytes = [text.encode().decode("latin-1") for text in ("J\xe4s\xf8n", "gr\xfcn")]
    handle = asking(b'realm="r", nonce="n", qop="auth", charset=UTF-8', md5(in_bytes[0], "r", in_bytes[1]))
    auth = DigestAuth("J\xe4s\xf8n", "gr\xfcn", encoding="latin-1")
    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(peer.url, auth=auth, retries=0)) as client:
        assert await client.get("/") == "ok"
        assert "username*=UTF-8''J%C3%A4s%C3%B8n," in peer.requests[1].headers["Authorization"]


async def test_what_aiohttp_cannot_send_is_refused_before_it_is_sent() -> None:
    handle = asking(b'realm="Ger\xe4t", nonce="n", qop="auth"', "")
    config = HTTPConfig(auth=DigestAuth("user", "p"), transport="aiohttp")
    async with http_peer(handle) as peer, HTTPClient(config) as client:
        with pytest.raises(InvalidRequestError, match="aiohttp cannot send a header that is not UTF-8: Authorization"):
            await client.get(peer.url)
        assert len(peer.requests) == 1


def test_what_is_no_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="encoding must be one that Python knows, not 'klingon'"):
        DigestAuth("u", "p", encoding="klingon")
    with pytest.raises(ValueError, match="user and password must be of characters that latin-1 has"):
        DigestAuth("u", "\u0107", encoding="latin-1")
    with pytest.raises(TypeError, match="encoding must be a str"):
        DigestAuth("u", "p", encoding=None)  # type: ignore[arg-type]


async def test_raw_headers_are_the_bytes_that_came() -> None:
    async def handle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(
            b"HTTP/1.1 200 OK\r\nX-Name: Ger\xe4t\r\nContent-Length: 0\r\nX-Name: Ger\xc3\xa4t\r\n\r\n"
        )

    async with http_peer(handle) as peer, HTTPClient() as client:
        answer = await client.request("GET", peer.url)
        assert answer.headers.getall("x-name") == ["Ger\xe4t"] * 2
        assert answer.raw_headers == [
            *[(b"X-Name", b"Ger\xe4t"), (b"Content-Length", b"0"), (b"X-Name", b"Ger\xc3\xa4t")]
        ]
