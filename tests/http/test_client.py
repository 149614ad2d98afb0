"""Requests of a client: verbs, responses, statuses, JSON, what the client adds, interceptors, counts."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest
from support.http_faults import answering, chunked_response, response
from support.http_peer import Connection, http_peer

from pepperpy.network import (
    BearerAuth,
    DecodeError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    NetworkError,
    RefreshingAuth,
    ResponseLimits,
)

# ---- Requests and responses ----


async def test_each_verb_sends_its_method_and_gives_the_text() -> None:
    async with http_peer(answering(response("ö".encode(), "Content-Type: text/plain"))) as peer:
        async with HTTPClient(HTTPConfig(peer.url)) as client:
            for name in ("get", "post", "put", "patch", "delete", "options"):
                assert await getattr(client, name)("/x") == "ö"
    assert [r.method for r in peer.requests] == ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    async with http_peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as peer:
        async with HTTPClient(HTTPConfig(peer.url)) as client:
            assert await client.head("/x") == ""
            answer = await client.request("head", "/x")
            assert (answer.headers["content-length"], answer.content) == ("5", b"")
            assert [r.connection for r in peer.requests] == [1, 1]


async def test_json_and_text_bodies_are_sent_by_every_verb_that_takes_one() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        for name in ("post", "put", "patch", "delete"):
            await getattr(client, name)("/", json=[1, None, {"a": "ö"}])
            await getattr(client, name)("/", data="ö")
    assert [r.body for r in peer.requests] == ['[1,null,{"a":"ö"}]'.encode(), "ö".encode()] * 4
    types = {r.headers["Content-Type"] for r in peer.requests}
    assert types == {"application/json", "text/plain; charset=utf-8"}


@pytest.mark.parametrize("value", [0, False, "", [], {}, 1.5, "text", True])
async def test_any_json_value_is_a_body(value: Any) -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        await client.post(peer.url, json=value)
        assert json.loads(peer.requests[0].body) == value
        await client.post(peer.url, json=None)
        assert peer.requests[1].body == b""


async def test_a_response_says_all_about_itself() -> None:
    raw = response(
        b'{"a":1}', "Content-Type: application/json", "X-A: 1", "X-A: 2", "Set-Cookie: c=v", status="201 Made"
    )
    async with http_peer(answering(raw)) as peer, HTTPClient() as client:
        answer = await client.request("PUT", peer.url + "/x?y=1", json={})
        assert (answer.status, answer.reason, answer.ok, answer.method) == (201, "Made", True, "PUT")
        assert (answer.url, answer.content, answer.text) == (peer.url + "/x?y=1", b'{"a":1}', '{"a":1}')
        assert answer.json() == {"a": 1}
        assert answer.headers.getall("x-a") == ["1", "2"]
        assert answer.cookies["c"].value == "v"
        assert (answer.history, answer.attempts) == ((), 1)
        assert repr(answer) == "<HTTPResponse 201 'Made', 7 bytes>"
        timings = dataclasses.asdict(answer.timings)
        assert set(timings) == {"retries", "queue", "dns", "connect", "first_byte", "body"}
        assert all(seconds >= 0 for seconds in timings.values())
        assert timings["connect"] > 0 and 0 < sum(timings.values()) <= answer.elapsed
        again = (await client.request("GET", peer.url)).timings
        assert again.connect == again.dns == 0


async def test_text_is_decoded_as_declared_and_never_guessed() -> None:
    answers = [
        response("ä".encode("latin-1"), "Content-Type: text/plain; charset=iso-8859-1"),
        response("ä".encode(), "Content-Type: text/plain"),
        response("ä".encode(), "Content-Type: text/plain; charset=no-such"),
        response(b"\xff", "Content-Type: text/plain"),
    ]
    async with http_peer(answering(*answers)) as peer, HTTPClient(HTTPConfig(text_errors="strict")) as client:
        for _ in range(3):
            assert await client.get(peer.url) == "ä"
        with pytest.raises(DecodeError, match="not text in utf-8") as caught:
            await client.get(peer.url)
        assert caught.value.content == b"\xff"
        assert caught.value.details["status"] == 200
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        assert (await client.request("GET", peer.url)).content == b"\xff"


@dataclasses.dataclass
class User:
    name: str
    age: int


async def test_json_is_decoded_whatever_its_type_and_into_a_type() -> None:
    body = response(b'{"name":"ada","age":36}', "Content-Type: text/plain")
    async with http_peer(answering(body)) as peer:
        async with HTTPClient() as client:
            assert await client.get_json(peer.url) == {"name": "ada", "age": 36}
            assert await client.get_json(peer.url, type=User) == User("ada", 36)
            assert await client.get_json(peer.url, type=User, headers={"X-A": "1"}) == User("ada", 36)
            with pytest.raises(DecodeError, match=r"not JSON for list\[int\]|not JSON for list"):
                await client.get_json(peer.url, type=list[int])
        async with HTTPClient(HTTPConfig(strict_content_type=True)) as client:
            with pytest.raises(DecodeError, match="declared as 'text/plain', not as JSON"):
                await client.get_json(peer.url)


async def test_what_is_no_json_says_where_and_keeps_the_body() -> None:
    async with http_peer(answering(response(b"<html>", "Content-Type: application/json"))) as peer:
        async with HTTPClient() as client:
            with pytest.raises(DecodeError, match="the body is not JSON") as caught:
                await client.get_json(peer.url)
            assert caught.value.content == b"<html>"
            assert caught.value.__cause__ is not None


async def test_json_that_is_missing_and_a_page_in_place_of_json_are_called_that() -> None:
    page = response(b"<html>", "Content-Type: text/html; charset=utf-8")
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with http_peer(answering(page, none, response(b""))) as peer, HTTPClient() as client:
        with pytest.raises(DecodeError, match="the body is not JSON, and is declared as 'text/html"):
            await client.get_json(peer.url)
        with pytest.raises(DecodeError, match=r"the body is empty \(status 204\), and so not JSON for dict"):
            await client.get_json(peer.url, type=dict)
        with pytest.raises(DecodeError, match=r"the body is empty \(status 200\), and so not JSON: "):
            await client.get_json(peer.url)


# ---- Copies ----


async def test_an_open_client_and_its_responses_say_what_to_pickle_in_their_place() -> None:
    client = HTTPClient(HTTPConfig(retries=7))
    assert pickle.loads(pickle.dumps(client)).config == client.config, "it has no connection yet"
    with pytest.raises(TypeError, match="HTTPClient cannot be pickled or copied"):
        copy.copy(client)
    async with http_peer(answering(response(b"ok"))) as peer, client:
        answer = await client.request("GET", peer.url)
        for twice in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="HTTPClient cannot be pickled or copied: pickle its config"):
                twice(client)
        with pytest.raises(TypeError, match="a response cannot be pickled: take what is needed of it"):
            pickle.dumps(answer)
        assert copy.copy(answer) is answer and copy.deepcopy(answer) is answer


# ---- Statuses ----


async def test_a_status_from_400_on_is_an_error_that_says_all() -> None:
    raw = response(b'{"error":"no"}', "X-Request-Id: 7", status="404 Not Found")
    async with http_peer(answering(raw)) as peer, HTTPClient() as client:
        with pytest.raises(HTTPStatusError, match="404 Not Found") as caught:
            await client.get(peer.url + "/x?token=secret")
        error = caught.value
        assert (error.status, error.reason, error.method) == (404, "Not Found", "GET")
        assert error.url == peer.url + "/x?token=***"
        assert error.headers["x-request-id"] == "7"
        assert error.body == b'{"error":"no"}'
        assert "secret" not in f"{error} {error!r} {error.details}"
        answer = await client.request("GET", peer.url, raise_for_status=False)
        assert (answer.status, answer.ok, answer.content) == (404, False, b'{"error":"no"}')
        assert await client.get(peer.url, raise_for_status=False) == '{"error":"no"}'
        with pytest.raises(HTTPStatusError):
            answer.raise_for_status()


@pytest.mark.parametrize("status", [200, 204, 304, 399])
async def test_a_status_below_400_is_no_error(status: int) -> None:
    async with http_peer(answering(response(b"", status=f"{status} x"))) as peer, HTTPClient() as client:
        assert (await client.request("GET", peer.url)).status == status


async def test_an_error_holds_only_the_start_of_a_large_body() -> None:
    large = chunked_response([bytes(65536)] * 100).replace(b"200 OK", b"500 Oh", 1)
    async with http_peer(answering(large)) as peer:
        async with HTTPClient(HTTPConfig(limits=ResponseLimits(max_error_body=1000))) as client:
            with pytest.raises(HTTPStatusError) as caught:
                await client.get(peer.url)
            assert caught.value.body == bytes(1000)
            with pytest.raises(HTTPStatusError) as caught:
                async with client.stream("GET", peer.url):
                    raise AssertionError("entered")
            assert caught.value.body == bytes(1000)
            answer = await client.request("GET", peer.url, raise_for_status=False)
            assert len(answer.content) == 65536 * 100
            with pytest.raises(HTTPStatusError) as caught:
                answer.raise_for_status()
            assert caught.value.body == bytes(1000)


# ---- What a client adds to its requests ----


async def test_headers_params_and_cookies_of_the_client_go_with_each_request() -> None:
    config = HTTPConfig(headers={"X-A": "1", "X-B": "2"}, params={"p": 1, "q": "2"}, cookies={"c": "v"})
    async with http_peer(answering(response())) as peer, HTTPClient(config) as client:
        await client.get(peer.url)
        await client.get(
            peer.url + "/x?y=0", params={"p": None, "q": [3, 4]}, headers={"X-A": None, "x-b": "3"}, cookies={"d": "w"}
        )
        first, second = peer.requests
        assert (first.target, first.headers["X-A"], first.headers["X-B"]) == ("/?p=1&q=2", "1", "2")
        assert first.headers["Cookie"] == "c=v"
        assert second.target == "/x?y=0&q=3&q=4"
        assert ("X-A" in second.headers, second.headers.getall("X-B")) == (False, ["3"])
        assert set(second.headers["Cookie"].split("; ")) == {"c=v", "d=w"}


async def test_an_automatic_header_can_be_left_out() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        await client.get(peer.url, headers={"User-Agent": None, "Accept-Encoding": None})
        assert not {"User-Agent", "Accept-Encoding"} & set(peer.requests[0].headers)


async def test_cookies_that_a_server_sets_are_sent_back_and_those_of_one_request_are_not_kept() -> None:
    async with http_peer(answering(response(b"", "Set-Cookie: a=1"), response())) as peer:
        async with HTTPClient() as client:
            # Cookies of an IP address are not kept by aiohttp's jar.
            url = peer.url.replace("127.0.0.1", "localhost")
            await client.get(url, cookies={"mine": "2"})
            await client.get(url)
            assert [r.headers.get("Cookie") for r in peer.requests] == ["mine=2", "a=1"]


async def test_auth_goes_to_the_origin_of_the_base_url_only() -> None:
    async with http_peer(answering(response())) as peer, http_peer(answering(response())) as other:
        async with HTTPClient(HTTPConfig(peer.url, auth=("user", "pass"))) as client:
            await client.get("/")
            await client.get(peer.url + "/absolute")
            await client.get(other.url)
            await client.get("/", auth=None)
            await client.get("/", auth=BearerAuth("t"))
            await client.get("/", headers={"Authorization": "Mine"})
        sent = [r.headers.get("Authorization") for r in peer.requests]
        assert sent == ["Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXNz", None, "Bearer t", "Mine"]
        assert [r.headers.get("Authorization") for r in other.requests] == [None]


async def test_a_refused_token_is_fetched_again_once_for_all_and_whatever_the_method() -> None:
    tokens = iter(range(10))

    async def fetch() -> str:
        await asyncio.sleep(0)
        return f"t{next(tokens)}"

    async def guarded(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            if request.headers["Authorization"] == "Bearer t0":
                await connection.send(response(b"", status="401 Unauthorized"))
            else:
                await connection.send(response(request.headers["Authorization"].encode()))

    async with http_peer(guarded) as peer, HTTPClient(HTTPConfig(peer.url, auth=RefreshingAuth(fetch))) as client:
        assert await client.post("/", data=b"x") == "Bearer t1"
        assert await asyncio.gather(*(client.get("/") for _ in range(5))) == ["Bearer t1"] * 5
        assert next(tokens) == 2


async def test_a_token_that_is_refused_again_is_final() -> None:
    async with http_peer(answering(response(b"", status="401 x"))) as peer:
        async with HTTPClient(HTTPConfig(peer.url, auth=lambda: "t")) as client:
            with pytest.raises(HTTPStatusError, match="401"):
                await client.get("/")
            assert len(peer.requests) == 2


async def test_a_failing_fetch_is_an_error_of_the_call() -> None:
    def fetch() -> str:
        raise LookupError("secret")

    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(peer.url, auth=fetch)) as client:
        with pytest.raises(NetworkError, match="no token could be fetched: LookupError") as caught:
            await client.get("/x")
        assert caught.value.details["url"] == peer.url + "/x"
        assert isinstance(caught.value.__cause__, LookupError)
        assert "secret" not in str(caught.value) and not peer.requests


# ---- Interceptors ----


class Upstream:
    """In the form of pepperpy-core's interceptors, which are coroutines."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def pre_request(
        self,
        method: str,
        url: str,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        proxy: str | None = None,
        timeout: Any = None,
        verify_ssl: bool = True,
        json: Any = None,
        data: Any = None,
    ) -> None:
        self.seen.append((method, url, dict(params or {}), json))
        assert headers is not None and params is not None
        headers["X-Trace"] = "1"
        params["added"] = "2"

    async def post_response(self, answer: Any) -> None:
        self.seen.append(answer.status)


class Plain:
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def pre_request(self, method: str, url: str, *, headers: dict[str, str], **arguments: Any) -> None:
        self.seen.append(dict(headers))


async def test_interceptors_see_and_change_each_call_in_order_sync_and_async() -> None:
    upstream = Upstream()
    config = HTTPConfig(interceptors=[upstream, Plain(upstream.seen)], retry_delay=0)
    busy = response(b"", status="503 x")
    async with http_peer(answering(busy, response(b"", status="404 x"))) as peer, HTTPClient(config) as client:
        headers = {"X-Own": "0"}
        with pytest.raises(HTTPStatusError):
            await client.put(peer.url, params={"p": "1"}, headers=headers, json=[1])
        assert upstream.seen == [("PUT", peer.url, {"p": "1"}, [1]), {"X-Own": "0", "X-Trace": "1"}, 404]
        assert headers == {"X-Own": "0"}
        assert [r.headers["X-Trace"] for r in peer.requests] == ["1", "1"]
        assert peer.requests[0].target == "/?p=1&added=2"
        async with client.stream("GET", peer.url, raise_for_status=False) as stream:
            await stream.read()
        assert len(upstream.seen) == 5, "a stream's response is not shown"


async def test_what_an_interceptor_raises_ends_the_call_as_it_is() -> None:
    class Refuses:
        def pre_request(self, method: str, url: str, **arguments: Any) -> None:
            raise LookupError("no")

    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(interceptors=[Refuses()])) as client:
            with pytest.raises(LookupError):
                await client.get(peer.url)
        assert not peer.requests


# ---- Counts ----


async def test_the_counts_add_up() -> None:
    async with http_peer(answering(response(b"", status="503 x"), response())) as peer:
        async with HTTPClient(HTTPConfig(retry_delay=0)) as client:
            await asyncio.gather(*(client.get(peer.url) for _ in range(10)))
            stats = client.stats
            assert (stats.calls, stats.attempts, stats.retries, stats.in_flight) == (10, 11, 1, 0)
            assert stats.open_connections == len(peer.connections)
        assert client.stats.calls == 10


def test_a_config_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="config must be an HTTPConfig, not dict"):
        HTTPClient({})  # type: ignore[arg-type]
