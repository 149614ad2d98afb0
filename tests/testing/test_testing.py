"""`MockHTTP`: what is said when no route fits, what must have been called, and what tests see of a request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig, NetworkError
from pepperpy.network.testing import MockHTTP, UnexpectedRequestError, UploadedFile

API = "https://api.example.com"

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
