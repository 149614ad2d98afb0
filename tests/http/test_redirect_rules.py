"""Redirects: rules for what a server can write in Location, and for what goes along to where it leads."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, HTTPResponse, NetworkTimeoutError, RedirectError
from pepperpy.network.testing import MockHTTP


def moved(location: str | bytes, *headers: str, status: int = 302) -> bytes:
    answer = response(b"", "Location: ***", *headers, status=f"{status} Moved")
    return answer.replace(b"***", location.encode() if isinstance(location, str) else location)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (
            b"/wiki/Spider-Man_%26_Silk?sig=%2F0%2B9%3D%7E+%20&x=%41",
            "/wiki/Spider-Man_%26_Silk?sig=%2F0%2B9%3D%7E+%20&x=%41",
        ),
        (b"/a b/\xc3\xa9/\xe9", "/a%20b/%C3%A9/%E9"),
        (b"there?x={1}#part", "/a/there?x=%7B1%7D"),
        (b"  ../there ", "/there"),
    ],
)
async def test_location_is_followed_as_it_stands(location: bytes, target: str) -> None:
    async with http_peer(answering(moved(location), response(b"there"))) as peer, HTTPClient() as client:
        answer = await client.request("GET", peer.url + "/a/b")
        assert (answer.text, peer.requests[1].target) == ("there", target)
        assert answer.url == peer.url + target


@pytest.mark.parametrize("with_length", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303])
async def test_what_described_a_body_is_not_sent_without_it(status: int, with_length: bool) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Language": "de", "Content-Digest": "x", "Digest": "y", "X-Own": "1"}
    if with_length:
        headers["Content-Length"] = "2"
    config = HTTPConfig(headers={"Content-Disposition": "inline", "X-All": "2"})
    async with http_peer(answering(moved("/2", status=status), response())) as peer, HTTPClient(config) as client:
        await client.post(peer.url, data=b"{}", headers=headers)
        first, second = peer.requests
        assert (first.method, first.body, second.method) == ("POST", b"{}", "GET")
        assert [name for name in second.headers if name.lower().startswith(("content", "digest"))] == []
        assert (second.headers["X-Own"], second.headers["X-All"]) == ("1", "2")


async def test_what_describes_a_body_goes_with_it() -> None:
    async with http_peer(answering(moved("/2", status=307), response())) as peer, HTTPClient() as client:
        await client.post(peer.url, data=b"{}", headers={"Content-Encoding": "gzip"})
        second = peer.requests[1]
        assert (second.method, second.body, second.headers["Content-Encoding"]) == ("POST", b"{}", "gzip")


STAYS_HOME = [
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "X-API-Key",
    "DPoP",
    "X-CSRF-Token",
    "X-XSRF-TOKEN",
    "X-CSRFToken",
    "X-CSRF",
    "OAuth-Client-Attestation-PoP",
    "X-GitHub-OTP",
    "Signature-Input",
    "X-Bapi-Sign",
    "OK-Access-Passphrase",
]


@pytest.mark.parametrize("of_all", [False, True], ids=["of the request", "of the client"])
async def test_secrets_proofs_and_the_host_of_the_caller_stay_with_their_origin(of_all: bool) -> None:
    headers = {**dict.fromkeys(STAYS_HOME, "canary"), "X-Plain": "1"}
    if of_all:
        headers["Host"] = "canary.example"
    config = HTTPConfig(headers=headers if of_all else {})
    own = {} if of_all else {**headers, "Host": "canary.example"}
    async with http_peer(answering(moved("/3"), response())) as other:
        async with http_peer(answering(moved("/2"), moved(other.url))) as peer, HTTPClient(config) as client:
            await client.get(peer.url, headers=own)
            for request in peer.requests:
                assert request.headers["Host"] == "canary.example"
                assert [name for name in STAYS_HOME if name not in request.headers] == []
            for request in other.requests:
                assert request.headers["Host"] == other.url.removeprefix("http://")
                assert "canary" not in str(request)
                assert request.headers["X-Plain"] == "1"


@pytest.mark.parametrize(
    "location",
    [
        "http://]x[@",
        "//]x[@",
        "http://[::1/",
        "http://:80/",
        "http:///path",
        "http://h:0/",
        "http://h:99999/",
        "ftp://example.com/",
        "http://" + "a" * 64 + ".com/",
        "http://" + "\u4e2d" * 2000 + "/",
        "http://\u2100.example/",
        "http://user:p%7F@host/",
    ],
)
async def test_a_location_that_leads_to_no_http_url_is_the_servers_fault(location: str) -> None:
    async with http_peer(answering(moved(location), response(b"next"))) as peer:
        async with HTTPClient(HTTPConfig(max_connections=1)) as client:
            with pytest.raises(RedirectError, match="redirected to") as caught:
                await client.get(peer.url)
            assert caught.value.location == location
            assert location not in str(caught.value)
            assert await client.get(peer.url) == "next"  # the connection came back


async def test_a_location_has_a_limit() -> None:
    with MockHTTP() as mock:
        mock.get("http://h/").reply(302, headers={"Location": "/" + "x" * 16_000})
        async with HTTPClient() as client:
            with pytest.raises(RedirectError, match="to a URL of 16001 characters; 16000 are followed"):
                await client.get("http://h/")


async def test_the_error_has_where_a_redirect_led_and_how_it_came_there() -> None:
    app = "myapp://callback?code=SECRET"
    answers = answering(moved("/consent", "X-Id: 7"), moved(app, "Set-Cookie: s=1"))
    async with http_peer(answers) as peer, HTTPClient() as client:
        with pytest.raises(RedirectError, match="no HTTP URL") as caught:
            await client.get(peer.url + "/login")
    error = caught.value
    assert error.location == app
    assert all(type(answer) is HTTPResponse for answer in error.history)
    assert [(answer.status, answer.url) for answer in error.history] == [
        (302, peer.url + "/login"),
        (302, peer.url + "/consent"),
    ]
    assert error.history[0].headers["X-Id"] == "7"
    assert "SECRET" not in f"{error} {error!r} {error.details}"
    again = pickle.loads(pickle.dumps(error))
    assert (again.location, again.history, str(again)) == (app, (), str(error))


async def test_each_answer_of_a_history_has_its_own() -> None:
    async with http_peer(answering(moved("/2"), moved("/3"), response())) as peer, HTTPClient() as client:
        answer = await client.request("GET", peer.url + "/1")
        assert [len(before.history) for before in (*answer.history, answer)] == [0, 1, 2]


async def test_a_redirect_without_location_is_an_answer() -> None:
    async with http_peer(answering(response(b"where?", status="302 Found"))) as peer, HTTPClient() as client:
        answer = await client.request("GET", peer.url)
        assert (answer.status, answer.text, answer.history) == (302, "where?", ())


async def test_credentials_of_a_location_are_sent_there_and_only_there() -> None:
    async with http_peer(answering(response())) as other:
        answers: list[bytes] = []
        async with http_peer(lambda connection: answering(*answers)(connection)) as peer, HTTPClient() as client:
            answers += [moved(peer.url.replace("//", "//u:p%C3%A4@") + "/2"), moved("/3"), moved(other.url)]
            await client.get(peer.url)
            sent = [request.headers.get("Authorization") for request in (*peer.requests, *other.requests)]
            assert sent == [None, "Basic dTpww6Q=", "Basic dTpww6Q=", None]


async def test_credentials_of_a_location_are_not_sent_where_the_caller_wants_none() -> None:
    answers: list[bytes] = []
    async with http_peer(lambda connection: answering(*answers)(connection)) as peer, HTTPClient() as client:
        answers += [response(b"", f"Location: {peer.url.replace('//', '//u:p@')}/2", status="302 x"), response()]
        await client.get(peer.url, headers={"Authorization": None})
        assert [request.headers.get("Authorization") for request in peer.requests] == [None, None]


async def test_credentials_of_a_location_do_not_replace_those_of_the_request() -> None:
    async with http_peer(lambda connection: answering(moved(peer.url.replace("//", "//u:p@")))(connection)) as peer:
        async with HTTPClient() as client:
            with pytest.raises(RedirectError, match="has other credentials"):
                await client.get(peer.url, auth=("own", "own"))
            with pytest.raises(RedirectError, match="has other credentials"):
                await client.get(peer.url, headers={"Authorization": "own"})


@pytest.mark.parametrize("kind", ["request", "stream"])
async def test_the_time_of_an_attempt_is_that_of_all_its_redirects(kind: str) -> None:
    with MockHTTP(real_delays=False) as mock:
        mock.get("http://h/1").reply(302, headers={"Location": "/2"}, delay=600)
        mock.get("http://h/2").reply(delay=600)
        async with HTTPClient(HTTPConfig(retries=0, read_timeout=None)) as client:
            with pytest.raises(NetworkTimeoutError) as caught:
                if kind == "request":
                    await client.get("http://h/1", timeout=1000)
                else:
                    async with client.stream("GET", "http://h/1", timeout=1000):
                        pass
            assert caught.value.details["limit"] == "timeout"


async def test_the_time_of_a_stream_is_that_of_all_its_redirects_over_a_socket() -> None:
    """Each redirect comes in time, and they never end."""

    async def handle(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await asyncio.sleep(0.02)  # a tenth of the time that there is
            await connection.send(moved("/again"))

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(max_redirects=100)) as client:
        with pytest.raises(NetworkTimeoutError):
            async with client.stream("GET", peer.url, timeout=0.2):
                pass


async def test_the_body_of_a_redirect_is_not_waited_for() -> None:
    async def handle(connection: Connection) -> None:
        await connection.read_request()
        if connection.number == 1:
            await connection.send(moved("/2").replace(b"Content-Length: 0", b"Content-Length: 10"))
            await connection.wait_closed()
        else:
            await connection.send(response(b"there"))

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(max_connections=1)) as client:
        assert await client.get(peer.url) == "there"


@pytest.mark.parametrize("kind", ["request", "stream"])
async def test_a_cancelled_redirect_leaves_nothing_behind(kind: str) -> None:
    waiting = asyncio.Event()

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        if connection.number > 1:
            await connection.send(response(b"next"))
            return
        await connection.send(moved("/2"))
        await connection.read_request()
        waiting.set()
        await connection.wait_closed()

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(max_connections=1)) as client:

        async def ask() -> Any:
            if kind == "request":
                return await client.get(peer.url)
            async with client.stream("GET", peer.url) as stream:
                return await stream.read()

        task = asyncio.create_task(ask())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats.open_connections == 0
        assert await client.get(peer.url) == "next"
