"""`MockHTTP`: which request gets which reply of which route."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from yarl import URL

from pepperpy.network import HTTPClient
from pepperpy.network.testing import MockHTTP, Reply, UnexpectedRequestError

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
