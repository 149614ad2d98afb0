"""Digest authentication: the examples of RFC 7616, challenges as servers write them, and a real server's."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, Request, http_peer
from support.lighttpd import PASSWORD, USER, digest_server

from pepperpy.network import DigestAuth, HTTPClient, HTTPConfig, HTTPStatusError
from pepperpy.network.digest import Challenge, challenge_of
from pepperpy.network.testing import MockHTTP, MockRequest, Reply

# ---- Challenges and answers ----


@pytest.mark.parametrize("control", "\n\r\0\x1f\x7f")
@pytest.mark.parametrize("field", ["realm", "nonce", "opaque"])
def test_a_challenge_with_a_control_character_gets_no_answer(field: str, control: str) -> None:
    """The answer repeats it: a line break would begin another header."""
    parameters = {"opaque": "o", "realm": "r", "nonce": "n"}
    for value in (f'"a{control}X-Evil: 1"', f'"a\\{control}b"', f"a{control}b"):
        fields = (f"{name}={value if name == field else text}" for name, text in parameters.items())
        challenge = challenge_of([f"Digest {', '.join(fields)}"])
        assert challenge is None or control not in challenge.answer("GET", "/", "user", "password", None)
    assert challenge_of(['Digest realm="a\tb", nonce=n']) is not None


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_the_rfc(algorithm: str, expected: str) -> None:
    """RFC 7616, section 3.9.1."""
    nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
    opaque = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
    header = f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="{nonce}"'
    challenge = challenge_of([f'{header}, opaque="{opaque}"'])
    assert challenge is not None and challenge.qop == "auth"
    challenge.cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    value = challenge.answer("GET", "/dir/index.html", "Mufasa", "Circle of Life", None)
    assert f'response="{expected}"' in value and f'opaque="{opaque}"' in value and "nc=00000001" in value
    assert value.startswith('Digest username="Mufasa", realm="http-auth@example.org"')
    assert "nc=00000002" in challenge.answer("GET", "/", "Mufasa", "", None)


def test_a_user_is_hashed_or_encoded_as_the_rfc_has_it() -> None:
    """The values are those of RFC 7616, section 3.9.2; the digest of the name follows from section 3.4.4."""
    nonce = "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK"
    header = f'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, nonce="{nonce}", userhash=true'
    challenge = challenge_of([header])
    assert challenge is not None
    value = challenge.answer("GET", "/doe.json", "J\xe4s\xf8n Doe", "Secret, or not?", None)
    name = hashlib.new("sha512_256", "J\xe4s\xf8n Doe:api@example.org".encode()).hexdigest()
    assert f'username="{name}"' in value and "userhash=true" in value
    utf8 = challenge_of(['Digest realm="r", nonce="n", charset=UTF-8'])
    assert utf8 is not None
    for encoding in ("utf-8", "latin-1"):
        value = utf8.answer("GET", "/", "J\xe4s\xf8n", "", None, encoding)
        assert value.startswith("Digest username*=UTF-8''J%C3%A4s%C3%B8n, ")
    plain = challenge_of(['Digest realm="r", nonce="n"'])
    assert plain is not None
    assert plain.answer("GET", "/", 'a"b', "", None).startswith('Digest username="a\\"b", ')


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (['Digest realm="a", nonce="b"'], ("a", "b", None, None)),
        (["digest REALM=a,nonce=b , qop=auth"], ("a", "b", None, "auth")),
        (['Basic realm="x"', 'Digest realm="a", nonce="b", algorithm="MD5"'], ("a", "b", "MD5", None)),
        (['Basic realm="x, Digest realm=y", Digest realm="a, b", nonce="c", qop=auth'], ("a, b", "c", None, "auth")),
        (['Digest realm="a", nonce="b", qop="auth-int"'], ("a", "b", None, "auth-int")),
        (['Negotiate, Digest realm="a\\"b", nonce="c"'], ('a\\"b', "c", None, None)),
        (['Digest realm="a", nonce="b", algorithm=TIGER, Digest realm="c", nonce="d"'], ("c", "d", None, None)),
        (['Digest realm="a", nonce="b", algorithm=MD5-sess, qop="auth"'], ("a", "b", "MD5-sess", "auth")),
        (['Digest realm="a"'], None),
        (['Digest realm="a", nonce="b", qop="other"'], None),
        (["Digest"], None),
        (["Digest " + "a" * 100_000], None),
        (["Digest realm=" + '"\\' * 50_000], None),
        ([""], None),
        ([], None),
    ],
)  # fmt: skip
def test_a_challenge_is_found_among_what_servers_write(headers: list[str], found: Any) -> None:
    challenge = challenge_of(headers)
    made = challenge and (challenge.realm, challenge.nonce, challenge.algorithm, challenge.qop)
    assert made == found


# ---- With a server by the RFC ----


def digest_peer(
    challenge: str, *, uses: int = 1000, body: bytes = b"ok"
) -> tuple[Callable[[Connection], Any], list[str]]:
    """A handler that checks each answer as RFC 7616 has it, nonce count included; and the counts that came."""
    counts: list[str] = []
    nonces = [0]

    def right(request: Request) -> bool:
        given = {
            name: quoted or token for name, quoted, token in FIELD.findall(request.headers.get("Authorization", ""))
        }
        if given.get("nonce") != f"n{nonces[0]}" or given.get("uri") != request.target:
            return False
        name = given.get("algorithm", "MD5").lower()

        def hashed(*parts: str) -> str:
            kind = {"md5": "md5", "sha-256": "sha256"}[name.removesuffix("-sess")]
            return hashlib.new(kind, ":".join(parts).encode()).hexdigest()

        secret = hashed("user", "r", "p:w")
        if name.endswith("-sess"):
            secret = hashed(secret, given["nonce"], given["cnonce"])
        inner = [request.method, request.target]
        if given.get("qop") == "auth-int":
            inner.append(hashlib.new("md5" if name.startswith("md5") else "sha256", request.body).hexdigest())
        if "qop" in given:
            counts.append(given["nc"])
            middle = [given["nc"], given["cnonce"], given["qop"]]
            return given["response"] == hashed(secret, given["nonce"], *middle, hashed(*inner))
        return given["response"] == hashed(secret, given["nonce"], hashed(*inner))

    async def handle(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            if right(request) and len(counts) % (uses + 1) < uses:
                await connection.send(response(body))
                continue
            stale = ", stale=true" if "Authorization" in request.headers else ""
            nonces[0] += 1
            line = f'WWW-Authenticate: Digest realm="r", nonce="n{nonces[0]}"{challenge}{stale}'
            await connection.send(response(b"no" * 500, line, status="401 Unauthorized"))

    return handle, counts


FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        ', qop="auth"',
        ', qop="auth", algorithm=MD5-sess',
        ", qop=auth, algorithm=SHA-256",
        ', qop="auth,auth-int", algorithm=SHA-256-sess',
        ', qop="auth-int"',
        ', qop="auth-int", algorithm=SHA-256',
    ],
)
@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_one_challenge_serves_all_requests_and_the_nonce_is_counted(challenge: str, transport: Any) -> None:
    handler, counts = digest_peer(challenge)
    auth = DigestAuth("user", "p:w")
    async with http_peer(handler) as peer:
        async with HTTPClient(HTTPConfig(peer.url, auth=auth, retries=0, transport=transport)) as client:
            assert await client.post("/a?b=c d", json=[1]) == "ok"
            assert await client.post("/a", data=io.BytesIO(b"file")) == "ok"
            assert await client.get("/a", params={"x": "1"}) == "ok"
            async with client.stream("GET", "/s") as stream:
                assert await stream.read() == b"ok"
            assert client.stats.attempts == 5
        assert len(peer.requests) == 5 and {request.connection for request in peer.requests} == {1}
        assert counts == (["00000001", "00000002", "00000003", "00000004"] if "qop" in challenge else [])


async def test_a_nonce_that_the_server_has_forgotten_is_replaced() -> None:
    handler, _ = digest_peer(', qop="auth"', uses=2)
    async with http_peer(handler) as peer:
        async with HTTPClient(HTTPConfig(peer.url, auth=DigestAuth("user", "p:w"), retries=0)) as client:
            assert [await client.get(f"/{number}") for number in range(6)] == ["ok"] * 6
        assert len(peer.requests) > 7


async def test_a_wrong_password_is_refused_after_one_answer() -> None:
    line = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'
    async with http_peer(answering(response(b"", line, status="401 x"))) as peer:
        async with HTTPClient(HTTPConfig(peer.url, auth=DigestAuth("user", "no"))) as client:
            for _ in range(2):
                with pytest.raises(HTTPStatusError, match="401"):
                    await client.get("/")
        assert len(peer.requests) == 3  # the second call has the answer at once


async def test_a_redirect_is_answered_with_its_own_digest_and_another_origin_gets_none() -> None:
    async with http_peer(answering(response(b"away"))) as other:
        digests = []

        async def handle(connection: Connection) -> None:
            while True:
                request = await connection.read_request()
                if "Authorization" not in request.headers:
                    line = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'
                    await connection.send(response(b"", line, status="401 x"))
                    continue
                digests.append((request.target, *re.findall(r'uri="([^"]*)"', request.headers["Authorization"])))
                to = "/b" if request.target == "/a" else other.url
                await connection.send(response(b"", f"Location: {to}", status="302 x"))

        async with http_peer(handle) as peer, HTTPClient(HTTPConfig(auth=DigestAuth("user", "p"))) as client:
            assert await client.get(peer.url + "/a") == "away"
        assert digests == [("/a", "/a"), ("/b", "/b")]
    assert "Authorization" not in other.requests[0].headers


async def test_a_header_that_the_caller_leaves_out_is_not_sent() -> None:
    handler, _ = digest_peer("")
    async with http_peer(handler) as peer:
        async with HTTPClient(HTTPConfig(peer.url, auth=DigestAuth("user", "p:w"))) as client:
            await client.get("/")
            with pytest.raises(HTTPStatusError, match="401"):
                await client.get("/", headers={"authorization": None})
        assert "Authorization" not in peer.requests[-1].headers


async def test_the_mock_is_asked_as_a_server_is() -> None:
    def answer(request: MockRequest) -> Reply:
        if "Authorization" in request.headers:
            return Reply(text=request.headers["Authorization"][:6])
        return Reply(401, headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})

    with MockHTTP("http://cam.test") as mock:
        mock.get("/jpg").call(answer)
        async with HTTPClient(HTTPConfig("http://cam.test", auth=DigestAuth("user", "p"))) as client:
            assert await client.get("/jpg") == "Digest"


def test_nothing_of_it_is_shown_and_it_can_travel() -> None:
    auth = DigestAuth("user", "s3cret")
    assert repr(auth) == "DigestAuth(***)" and "s3cret" not in repr(HTTPConfig(auth=auth))
    assert isinstance(pickle.loads(pickle.dumps(auth)), DigestAuth)
    with pytest.raises(TypeError, match="password must be a str, not bytes"):
        DigestAuth("user", b"s3cret")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="user must hold no control characters"):
        DigestAuth("a\nb", "")
    assert isinstance(Challenge("r", "n", None, None, None, False, False, False).cnonce, str)


# ---- With a real server ----


@pytest.mark.needs_server
async def test_lighttpd_accepts_what_is_sent() -> None:
    with digest_server() as url:
        async with HTTPClient(HTTPConfig(url, auth=DigestAuth(USER, PASSWORD), retries=0)) as client:
            for path in ("/md5/file", "/sha256/file", "/both/file", "/md5/file?a=b"):
                assert await client.get(path) == "picture"
        async with HTTPClient(HTTPConfig(url, auth=DigestAuth(USER, "wrong"), retries=0)) as client:
            with pytest.raises(HTTPStatusError, match="401"):
                await client.get("/md5/file")


def test_a_challenge_that_goes_on_with_another_nonce_is_another_one() -> None:
    challenge = challenge_of(['Digest realm="r", nonce="a", qop="auth", algorithm=MD5-sess'])
    assert challenge is not None
    challenge.answer("GET", "/", "user", "p", None)
    following = challenge.going_on_with("b")
    assert (following.nonce, following.first_nonce, following.count) == ("b", "a", 0)
    # A call may be about to answer it.
    assert (challenge.nonce, challenge.count) == ("a", 1)
