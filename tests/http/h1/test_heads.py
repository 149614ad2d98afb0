"""The line of a request: whatever a caller, a base_url or a redirect gives as URL, it is refused or stays one line."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from multidict import CIMultiDict
from support.tiers import by_tier
from yarl import URL

from pepperpy.network import HTTPConfig, InvalidRequestError
from pepperpy.network.http.h1.heads import rest_of
from pepperpy.network.http.prepare import Prepare
from pepperpy.network.http.redirects import NotFollowed, next_request
from pepperpy.network.http.request import Defaults, Limits, Request
from pepperpy.network.http.transport import WireError

BLANK = Request("GET", URL("http://127.0.0.1/a/b"), CIMultiDict(), None, Defaults({}, {}), Limits())
# What ends a line or a part of it, what URLs are made of, and what is no ASCII.
CHARACTERS = [*map(chr, range(33)), *"\x7f\x85\xa0\u2028\ufeff\udc0d\ud800\xe9\uff0f%/?#:@[];=&+.", "%0d%0a", "%", "%2"]
SHAPES = ["{}", "/{}", "/a{}b", "/a?{}", "/a?b={}&c", "//127.0.0.1/{}", "http://127.0.0.1/{}", "http://127.0.0.1:80{}/"]
SHAPES += ["http://user{}:b@127.0.0.1/", "http://127.0.0.1{}", "http://{}127.0.0.1/a", "http{}://127.0.0.1/", "../{}"]


def urls() -> Iterator[str]:
    for shape in SHAPES:
        for character in CHARACTERS:
            yield shape.format(character)
    chance = random.Random(1)
    for _ in range(by_tier(500, nightly=50_000)):
        yield chance.choice(SHAPES).format("".join(chance.choices([*CHARACTERS, "a", "b"], k=chance.randint(1, 5))))


def check_line(request: Request) -> None:
    try:
        # As the core puts it together, which looks at no character of a URL.
        head = f"{request.method} {request.url.raw_path_qs}".encode() + rest_of(request)[0]
    except WireError as error:
        assert error.kind == "unsendable"
        return
    line = head[: head.index(b"\r\n")]
    method, target, version = line.split(b" ")
    assert (method, version) == (b"GET", b"HTTP/1.1")
    assert target.startswith(b"/"), target
    assert not any(byte <= 32 or byte == 127 for byte in target), target
    assert head.count(b"\r\n") == len(request.headers) + 2


def prepared(config: HTTPConfig, url: str | URL, **given: object) -> Request | None:
    try:
        params: Any = given.get("params")
        call = Prepare(config).call("GET", url, params, None, None, None, True, None, {})
        return call.first_request(BLANK)
    except InvalidRequestError:
        return None


@pytest.mark.parametrize("way", ["str", "yarl", "encoded", "below base_url", "as base_url", "params"])
def test_a_callers_url_is_refused_or_one_target(way: str) -> None:
    sent = 0
    for url in urls():
        config, given, params = HTTPConfig(), url, None
        try:
            if way == "as base_url":
                config, given = HTTPConfig(url), "/x"
            elif way == "below base_url":
                config = HTTPConfig("http://127.0.0.1/api")
            elif way == "params":
                given, params = "http://127.0.0.1/", {url: url}
            elif way != "str":
                given = URL(url, encoded=way == "encoded")  # type: ignore[assignment]
        except (ValueError, TypeError):
            continue
        request = prepared(config, given, params=params)
        if request is not None:
            check_line(request)
            sent += 1
    assert sent > 50


def test_the_url_of_a_redirect_is_refused_or_one_target() -> None:
    sent = 0
    for location in urls():
        try:
            following = next_request(BLANK, 302, location, HTTPConfig())
        except NotFollowed:
            continue
        check_line(following)
        sent += 1
    assert sent > 50
