"""`MockHTTP`: which request gets which reply, what is said when none fits, what tests see of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig, NetworkError
from pepperpy.network.testing import MockHTTP, Reply, UnexpectedRequestError, UploadedFile

API = "https://api.example.com"


# ---- Which route ----

MATCHING: dict[str, tuple[Any, dict[str, Any], str]] = {
    "the URL": (f"{API}/users", {}, f"{API}/users"),
    "any query": (f"{API}/users", {}, f"{API}/users?page=2"),
    "any URL": (None, {}, f"{API}/users"),
    "no path": (API, {}, f"{API}/"),
    "another spelling of the host and port": ("HTTPS://API.Example.com:443/users", {}, f"{API}/users"),
    "another quoting": (f"{API}/a b/~c", {}, f"{API}/a%20b/%7Ec"),
    "a quoting of its own": (f"{API}/~c", {}, URL(f"{API}/%7Ec", encoded=True)),
    "user info and fragment": (f"{API}/users", {}, "https://user:pass@api.example.com/users#here"),
    "a part of the path": (f"{API}/users/{{id}}/posts", {}, f"{API}/users/7/posts"),
    "a part of the host": ("https://{area}.example.com/", {}, f"{API}/"),
    "a URL object": (URL(f"{API}/users"), {}, f"{API}/users"),
    "a pattern": (re.compile(r"/users/\d+\?page="), {}, f"{API}/users/7?page=2"),
    "a query": (f"{API}/users?page=2&name=a%20b", {}, f"{API}/users?name=a+b&more=1&page=2"),
    "params": (f"{API}/users", {"params": {"page": 2, "all": True}}, f"{API}/users?page=2&all=true"),
    "repeated params": (f"{API}/users", {"params": {"id": [1, 2]}}, f"{API}/users?id=1&id=2"),
    "params that are absent": (f"{API}/users", {"params": {"page": None}}, f"{API}/users?other=1"),
    "headers": (None, {"headers": {"x-sent": "1", "X-Absent": None}}, f"{API}/"),
    "a function": (None, {"match": lambda request: request.headers["X-Sent"] == "1"}, f"{API}/"),
}

NOT_MATCHING: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "another path": (f"{API}/users", {}, f"{API}/users/", "another URL"),
    "another scheme": (f"{API}/users", {}, "http://api.example.com/users", "another URL"),
    "another port": (f"{API}/users", {}, "https://api.example.com:8443/users", "another URL"),
    "more of the path": (f"{API}/users/{{id}}", {}, f"{API}/users/7/posts", "another URL"),
    "braces of a URL object": (URL(f"{API}/{{id}}"), {}, f"{API}/7", "another URL"),
    "a dot that is none": (f"{API}/a.b", {}, f"{API}/axb", "another URL"),
    "a pattern": (re.compile(r"/users/\d+$"), {}, f"{API}/users/x", "another URL"),
    "another value": (f"{API}/?page=2", {}, f"{API}/?page=3", "params 'page' is '3', not '2'"),
    "no value": (f"{API}/?page=2", {}, f"{API}/", "params 'page' is missing"),
    "one of two": (f"{API}/", {"params": {"id": [1, 2]}}, f"{API}/?id=1", "params 'id' is '1', not '1, 2'"),
    "a param too many": (f"{API}/", {"params": {"page": None}}, f"{API}/?page=1", "params 'page' is there"),
    "a secret param": (f"{API}/?token=a", {}, f"{API}/?token=b", "params 'token' has another value"),
    "another header": (None, {"headers": {"X-Sent": "2"}}, f"{API}/", "headers 'X-Sent' is '1', not '2'"),
    "no header": (None, {"headers": {"X-More": "2"}}, f"{API}/", "headers 'X-More' is missing"),
    "a header too many": (None, {"headers": {"x-sent": None}}, f"{API}/", "headers 'x-sent' is there"),
    "a function": (None, {"match": lambda request: False}, f"{API}/", "match said no"),
}


@pytest.mark.parametrize("name", MATCHING)
async def test_a_route_takes_what_fits(name: str) -> None:
    url, options, asked = MATCHING[name]
    with MockHTTP() as mock:
        route = mock.get(url, **options).reply(text="taken")
        async with HTTPClient() as client:
            assert await client.get(asked, headers={"X-Sent": "1"}) == "taken"
        route.assert_called(times=1)


@pytest.mark.parametrize("name", NOT_MATCHING)
async def test_a_route_that_does_not_fit_is_named_with_the_reason(name: str) -> None:
    url, options, asked, reason = NOT_MATCHING[name]
    with MockHTTP(assert_all_expected=False, assert_all_called=False) as mock:
        mock.get(url, **options)
        async with HTTPClient() as client:
            with pytest.raises(UnexpectedRequestError) as caught:
                await client.get(asked, headers={"X-Sent": "1"})
    assert str(caught.value).endswith(f": {reason}")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"a": [1, {"b": True}], "c": None}, None),
        ({"a": [1, {"b": 1}], "c": None}, r"json differs at \$.a\[1\].b"),
        ({"a": [1], "c": None}, r"json differs at \$.a$"),
        ({"a": [1, {"b": True}]}, r"json differs at \$.c"),
        ({"a": [1, {"b": True}], "c": None, "d": 1}, r"json differs at \$.d"),
        ([], r"json differs at \$$"),
        (None, "the body is no JSON"),
    ],
)
async def test_a_route_may_ask_for_a_json_body(sent: Any, reason: str | None) -> None:
    with MockHTTP(assert_all_expected=False, assert_all_called=False) as mock:
        mock.post(API, json={"a": [1, {"b": True}], "c": None}).reply(text="taken")
        async with HTTPClient() as client:
            if reason is None:
                assert await client.post(API, json=sent) == "taken"
            else:
                with pytest.raises(UnexpectedRequestError, match=reason):
                    await client.post(API, json=sent)


async def test_parts_of_the_url_are_given_decoded_to_the_test() -> None:
    with MockHTTP() as mock:
        by_name = mock.get(f"{API}/users/{{user}}/posts/{{post}}")
        by_group = mock.get(re.compile(r"/files/(?P<name>[^/]+)$"))
        async with HTTPClient() as client:
            await client.get(f"{API}/users/a%20b/posts/7")
            await client.get(f"{API}/files/x.txt")
    assert by_name.calls[0].path_params == {"user": "a b", "post": "7"}
    assert by_group.calls[0].path_params == {"name": "x.txt"}


@pytest.mark.parametrize("path", ["users", "/users", "/users?page=1"])
async def test_the_base_url_begins_what_has_no_scheme(path: str) -> None:
    with MockHTTP(f"{API}/v1/") as mock:
        mock.get(path).reply(text="taken")
        async with HTTPClient() as client:
            assert await client.get(f"{API}/v1/users", {"page": 1}) == "taken"


@pytest.mark.parametrize("name", ["get", "post", "put", "patch", "delete", "head", "options"])
async def test_each_method_has_routes_of_its_own(name: str) -> None:
    method = name.upper()
    with MockHTTP(assert_all_called=False) as mock:
        for other in ("get", "post", "put", "patch", "delete", "head", "options"):
            getattr(mock, other)(API).reply(headers={"X-Route": other})
        any_method = mock.route(None, f"{API}/any")
        async with HTTPClient() as client:
            assert (await client.request(method, API)).headers["X-Route"] == name
            await client.request(method, f"{API}/any")
    assert [request.method for request in any_method.calls] == [method]


async def test_the_route_added_last_answers_until_it_is_used_up() -> None:
    with MockHTTP() as mock:
        usual = mock.get(API).reply(text="usual")
        special = mock.get(API).reply(text="special", times=1)
        async with HTTPClient() as client:
            assert [await client.get(API) for _ in range(3)] == ["special", "usual", "usual"]
    assert (len(usual.calls), len(special.calls)) == (2, 1)


async def test_a_route_that_is_used_up_is_named_so() -> None:
    with MockHTTP(assert_all_expected=False) as mock:
        mock.get(API).reply(times=2)
        async with HTTPClient() as client:
            for _ in range(2):
                await client.get(API)
            with pytest.raises(UnexpectedRequestError, match=f"GET {API}: used up"):
                await client.get(API)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, ("GET", "/users")),
        (ValueError, ("GET", f"{API}/{{a}}/{{a}}")),
        (ValueError, ("G ET", API)),
        (TypeError, ("GET", 7)),
    ],
)
def test_a_route_that_cannot_be_is_refused(error: type[Exception], arguments: Any) -> None:
    with pytest.raises(error, match=r"url|method"):
        MockHTTP().route(*arguments)


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (TypeError, {"unknown": 1}),
        (TypeError, {"match": 1}),
        (TypeError, {"params": {"match": b""}}),
        (TypeError, {"headers": {"match": 1}}),
    ],
)
def test_an_option_that_cannot_be_is_refused(error: type[Exception], options: Any) -> None:
    with pytest.raises(error, match=r"match|unknown"):
        MockHTTP().get(API, **options)


# ---- Sequences ----


async def answers(set_up: Callable[[Any], Any], count: int) -> list[str]:
    with MockHTTP() as mock:
        set_up(mock.get(API))
        async with HTTPClient() as client:
            return [await client.get(API) for _ in range(count)]


async def test_a_route_without_replies_gives_200() -> None:
    assert await answers(lambda route: None, 2) == ["", ""]


async def test_the_last_reply_is_repeated() -> None:
    assert await answers(lambda route: route.reply(text="a").reply(text="b"), 4) == ["a", "b", "b", "b"]


async def test_a_reply_is_given_so_many_times() -> None:
    assert await answers(lambda route: route.reply(text="a", times=2).reply(text="b"), 4) == ["a", "a", "b", "b"]


async def test_replies_may_be_added_between_requests() -> None:
    with MockHTTP() as mock:
        route = mock.get(API).reply(text="a")
        async with HTTPClient() as client:
            assert [await client.get(API) for _ in range(2)] == ["a", "a"]
            route.reply(text="b")
            assert [await client.get(API) for _ in range(2)] == ["b", "b"]


async def test_failures_replies_and_functions_make_one_sequence() -> None:
    with MockHTTP() as mock:
        route = mock.get(API).fail("reset").reply(503).call(lambda request: Reply(text=f"attempt {request.attempt}"))
        async with HTTPClient() as client:
            assert await client.get(API) == "attempt 3"
        route.assert_called(times=3)


# ---- What no route takes ----


async def test_an_unexpected_request_says_what_was_asked_and_which_routes_there_are() -> None:
    with MockHTTP(assert_all_expected=False, assert_all_called=False) as mock:
        mock.get(f"{API}/users")
        mock.post(f"{API}/users", params={"page": 1}, json=[])
        async with HTTPClient() as client:
            with pytest.raises(UnexpectedRequestError) as caught:
                await client.get(f"{API}/user")
    assert str(caught.value).splitlines() == [
        f"GET {API}/user: no route takes it:",
        f"  POST {API}/users with params page and json: another method",
        f"  GET {API}/users: another URL",
    ]
    assert caught.value.request is mock.requests[0]
    assert mock.requests[0].route is None


async def test_no_secret_is_in_what_is_said() -> None:
    secret = "canary"
    url = f"https://{secret}:{secret}@api.example.com/?api_key={secret}&page={secret}"
    texts = []
    with MockHTTP(assert_all_expected=False, assert_all_called=False) as mock:
        taken = mock.get(f"https://{secret}:{secret}@api.example.com/taken?q={secret}")
        mock.get(API, headers={"Authorization": f"Bearer {secret}"})
        mock.post(API, params={"api_key": "other"}, json={"password": "other"})
        mock.get(f"{API}?api_key=other", headers={"X-Api-Key": "other"})
        async with HTTPClient() as client:
            for method in ("GET", "POST"):
                with pytest.raises(UnexpectedRequestError) as caught:
                    await client.request(method, url, headers={"X-Api-Key": secret}, json={"password": secret})
                texts.append(f"{caught.value} {caught.value!r} {caught.value.request!r}")
            await client.get(f"{API}/taken", {"q": secret})
        texts += [repr(mock), repr(taken), repr(mock.requests)]
        with pytest.raises(AssertionError) as failed:
            taken.assert_called(times=5)
        with pytest.raises(AssertionError) as idle:
            mock.assert_all_called()
        texts += [str(failed.value), str(idle.value)]
    assert "api_key" in str(texts)
    assert secret not in str(texts)


async def test_an_unexpected_request_is_not_tried_again_nor_taken_for_a_failure_of_the_network() -> None:
    with MockHTTP(assert_all_expected=False) as mock:
        async with HTTPClient() as client:
            with pytest.raises(UnexpectedRequestError, match="there is none"):
                async for _ in client.map([API]):
                    pass
    assert len(mock.requests) == 1
    assert not issubclass(UnexpectedRequestError, NetworkError)


async def test_an_unexpected_request_that_was_hidden_fails_the_block() -> None:
    with pytest.raises(UnexpectedRequestError, match=f"1 unexpected, the first one: GET {API}: no route takes it"):
        with MockHTTP():
            async with HTTPClient() as client:
                with pytest.raises(AssertionError):
                    await client.get(API)


async def test_a_client_that_outlives_its_mock_does_not_reach_the_network() -> None:
    client = HTTPClient()
    with MockHTTP() as mock:
        mock.get(API)
        await client.get(API)
    with pytest.raises(UnexpectedRequestError, match="not active any more"):
        await client.get(API)
    await client.close()


# ---- Assertions ----


async def test_leaving_the_block_asks_for_a_request_to_each_route() -> None:
    with pytest.raises(AssertionError) as caught:
        with MockHTTP() as mock:
            mock.get(f"{API}/a")
            mock.get(f"{API}/b")
            mock.get(f"{API}/c", optional=True)
            async with HTTPClient() as client:
                await client.get(f"{API}/a")
    assert str(caught.value).splitlines() == ["without a request:", f"  GET {API}/b", "Requests:", f"  GET {API}/a"]


def test_it_does_not_if_told_so() -> None:
    with MockHTTP(assert_all_called=False) as mock:
        mock.get(API)
    assert not mock.requests


async def test_the_error_of_the_block_is_the_one_that_is_seen() -> None:
    with pytest.raises(LookupError):
        with MockHTTP() as mock:
            mock.get(f"{API}/a")
            async with HTTPClient() as client:
                with pytest.raises(UnexpectedRequestError):
                    await client.get(API)
            raise LookupError


async def test_assert_called_lists_what_came() -> None:
    with MockHTTP(assert_all_called=False) as mock:
        route = mock.get(f"{API}/{{name}}")
        with pytest.raises(AssertionError, match="got 0 requests, not any"):
            route.assert_called()
        route.assert_called(times=0)
        async with HTTPClient() as client:
            await client.get(f"{API}/a")
            await client.get(f"{API}/b?c=1")
        route.assert_called()
        route.assert_called(times=2)
        with pytest.raises(AssertionError) as caught:
            route.assert_called(times=1)
    assert str(caught.value).splitlines() == [
        f"GET {API}/{{name}} got 2 requests, not 1:",
        f"  GET {API}/a",
        f"  GET {API}/b?c=***",
    ]


async def test_long_lists_are_cut() -> None:
    with MockHTTP() as mock:
        route = mock.get(re.compile(""))
        async with HTTPClient() as client:
            for number in range(25):
                await client.get(f"{API}/{number}")
        with pytest.raises(AssertionError) as caught:
            route.assert_called(times=1)
    lines = str(caught.value).splitlines()
    assert lines[1:3] == ["  (5 before these)", f"  GET {API}/5"]
    assert len(lines) == 22


# ---- What a test sees of a request ----


async def test_requests_are_listed_in_their_order_with_who_answered() -> None:
    with MockHTTP() as mock:
        moved = mock.get(f"{API}/old").reply(503).reply(302, headers={"Location": "/new"})
        new = mock.get(f"{API}/new")
        async with HTTPClient() as client:
            await client.get(f"{API}/old")
    assert [(request.route, request.attempt) for request in mock.requests] == [(moved, 1), (moved, 2), (new, 2)]
    assert mock.requests == [*moved.calls, *new.calls]


async def test_a_request_has_what_a_server_gets() -> None:
    with MockHTTP() as mock:
        mock.post(API)
        async with HTTPClient(HTTPConfig(API, headers={"X-All": "1"}, cookies={"a": "b c"})) as client:
            await client.post("?q=1&q=2#fragment", json={"name": "ü"}, auth=("user", "pass"))
            await client.post("https://user:pass@api.example.com/")
    request, other = mock.requests
    assert (other.url, other.headers["Authorization"]) == (f"{API}/", "Basic dXNlcjpwYXNz")
    assert (request.method, request.url, request.target) == ("POST", f"{API}/?q=1&q=2", URL(f"{API}/?q=1&q=2"))
    assert request.params.getall("q") == ["1", "2"]
    assert request.headers["x-all"] == "1"
    assert request.headers["Authorization"] == "Basic dXNlcjpwYXNz"
    assert request.headers["Content-Type"] == "application/json"
    assert request.cookies == {"a": "b c"}
    assert request.json() == {"name": "ü"}
    assert request.text == '{"name":"ü"}'
    assert request.body == request.text.encode()
    assert repr(request) == f"<MockRequest POST {API}/?q=***&q=***>"


async def test_forms_are_read() -> None:
    with MockHTTP() as mock:
        mock.post(API)
        async with HTTPClient() as client:
            await client.post(API, data={"a": ["1", ""], "b": "ü &="})
            await client.post(API, data={"a": "ü\r\n\r\n"}, files={"f": ("n ä.txt", b"\r\n--\0\r\n", "x/y"), "g": b"g"})
            await client.post(API, data=b"x")
    urlencoded, multipart, plain = mock.requests
    assert list(urlencoded.form().items()) == [("a", "1"), ("a", ""), ("b", "ü &=")]
    assert list(multipart.form().items()) == [
        ("a", "ü\r\n\r\n"),
        ("f", UploadedFile("n ä.txt", "x/y", b"\r\n--\0\r\n")),
        ("g", UploadedFile("g", "application/octet-stream", b"g")),
    ]
    with pytest.raises(ValueError, match="not as a form"):
        plain.form()


async def test_the_body_is_not_read_for_a_connection_that_is_not_made() -> None:
    reads = []

    async def body() -> AsyncIterator[bytes]:
        reads.append(1)
        yield b"x"

    with MockHTTP() as mock:
        mock.put(API).fail("connect")
        async with HTTPClient() as client:
            with pytest.raises(NetworkError):
                await client.put(API, data=body())
    assert reads == []
    assert mock.requests[0].body == b""
