"""`Request`: which headers one exchange sends. tests/http/test_headers_sent.py holds aiohttp's transport to it."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.http.request import Defaults, Limits, Request

AUTOMATIC = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "tests"}
URL_ = URL("http://example.com:8080/path?query")


class Stream:
    """A payload of a size that may not be known."""

    def __init__(self, size: int | None) -> None:
        self.size = size

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        raise AssertionError("nothing is sent here")


def request(
    method: str = "GET", own: dict[str, str] | None = None, configured: dict[str, str] | None = None, **more: Any
) -> Request:
    made = Request(
        method,
        URL_,
        None if own is None else CIMultiDict(own),
        None,
        Defaults(configured or {}, AUTOMATIC),
        Limits(),
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_request_of_defaults_has_the_host_first_and_those_of_the_transport() -> None:
    assert list(request().headers.items()) == [("Host", "example.com:8080"), *AUTOMATIC.items()]
    assert request().only_defaults


def test_a_configured_header_replaces_that_of_the_transport() -> None:
    made = request(configured={"user-agent": "mine", "X-Key": "1"})
    assert made.headers.getall("User-Agent") == ["mine"]
    assert made.only_defaults
    assert "Host" not in made.defaults.headers
    assert made.defaults.headers["X-Key"] == "1"


def test_an_own_header_replaces_a_configured_one_and_the_host() -> None:
    made = request(own={"x-key": "2", "host": "other", "Accept": "a/b"}, configured={"X-Key": "1"})
    assert made.headers.getall("X-Key") == ["2"]
    assert made.headers.getall("Host") == ["other"]
    assert made.headers.getall("Accept") == ["a/b"]
    assert not made.only_defaults


def test_the_type_of_a_body_replaces_a_configured_one() -> None:
    made = request("POST", {"Content-Type": "text/csv"}, {"Content-Type": "application/json"}, payload=b"x")
    assert made.headers.getall("Content-Type") == ["text/csv"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY"])
def test_a_method_that_may_have_a_body_says_that_there_is_none(method: str) -> None:
    assert request(method).headers["Content-Length"] == "0"
    assert request(method).only_defaults


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_a_method_that_has_no_body_says_nothing(method: str) -> None:
    assert "Content-Length" not in request(method).headers


@pytest.mark.parametrize(("payload", "length"), [(b"", "0"), (b"four", "4"), (Stream(7), "7")])
def test_a_body_of_a_known_size_is_announced(payload: Any, length: str) -> None:
    made = request("GET", payload=payload)
    assert made.headers["Content-Length"] == length
    assert "Transfer-Encoding" not in made.headers
    assert not made.only_defaults


def test_a_body_of_an_unknown_size_goes_out_in_chunks_unless_the_caller_knows_it() -> None:
    assert request("POST", payload=Stream(None)).headers["Transfer-Encoding"] == "chunked"
    made = request("POST", {"Content-Length": "9"}, payload=Stream(None))
    assert made.headers["Content-Length"] == "9"
    assert "Transfer-Encoding" not in made.headers


@pytest.mark.parametrize("name", ["Host", "accept", "User-Agent", "content-length", "Content-Type", "X-Key"])
def test_what_is_left_out_is_not_sent_whoever_would_add_it(name: str) -> None:
    configured = {"X-Key": "1", "Content-Type": "a/b"}
    made = request("POST", configured=configured, left_out=[name])
    assert name not in made.headers
    assert len(made.headers) == 6
    assert made.leaves_out(name.lower())
    assert not made.only_defaults


def test_cookies_go_out_though_the_header_is_left_out() -> None:
    made = request(configured={"Cookie": "old=1"}, left_out=["cookie"], cookie="new=2")
    assert made.headers.getall("Cookie") == ["new=2"]
    assert not made.only_defaults


def test_what_all_requests_share_is_not_changed_by_one() -> None:
    made = request("POST", {"X-Key": "2"}, {"X-Key": "1"}, payload=b"x", cookie="a=b", left_out=["Accept"])
    before = list(made.defaults.headers.items())
    assert made.headers["X-Key"] == "2"
    assert list(made.defaults.headers.items()) == before == [("X-Key", "1"), *AUTOMATIC.items()]
