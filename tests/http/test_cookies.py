"""Cookies: what is kept of Set-Cookie, what goes back and where, and the one jar that the session shares."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig
from pepperpy.network.http.cookie_jar import MAX_COOKIES, MAX_OF_DOMAIN, CookieJar
from pepperpy.network.http.cookies import MAX_SIZE
from pepperpy.network.http.dates import parse_cookie_date

HOME = "https://shop.example.com/a/b?q"


def kept(*lines: str, by: str = HOME, at: str | None = None) -> str | None:
    """The header Cookie for `at` after an answer from `by`."""
    jar = CookieJar()
    jar.update(URL(by), lines)
    return jar.header(URL(at or by), None, None, False)


@pytest.mark.parametrize(
    "pair",
    [
        "b64=a2V5PXZhbHVl/w==",
        "mail=me@example.com",
        'json={"id":1,"x":[2]}',
        'quoted="q"',
        "spaces=a b",
        "utf8=caf\u00e9",
        "pct=%7B%22",
        "empty=",
        "equals==a=b",
        "back\\slash=\\073",
        "na:me/()=odd",
    ],
)
def test_a_cookie_goes_back_as_it_came(pair: str) -> None:
    assert kept(f"  {pair} ; Path=/; SameSite=Lax; Unknown; HttpOnly") == pair


@pytest.mark.parametrize(
    "line", ["", ";", "novalue", "=x", " = ; Path=/", "a\x00=1", "a=1\x7f", "a=1; Path=/\x01", "a=caf\udce9"]
)
def test_what_is_no_cookie_or_cannot_be_sent_is_ignored(line: str) -> None:
    assert kept(line, "b=2") == "b=2"


def test_cookies_have_limits() -> None:
    fits = "a=" + "x" * (MAX_SIZE - 1)
    assert kept(fits, "b=1") == f"{fits}; b=1"
    assert kept(fits + "x", "b=1") == "b=1"
    assert kept("a=" + "\u00e9" * (MAX_SIZE // 2), "b=1") == "b=1"
    assert kept("a=1; Path=/" + "x" * 1024, by="https://h/") == "a=1"  # the attribute alone is ignored
    assert kept("a=1" + ";" * 20_000, "b=1") == "b=1"
    jar = CookieJar()
    for number in range(MAX_OF_DOMAIN + 5):
        jar.update(URL(HOME), [f"c{number}=x"])
    names = [name for name, _ in jar.pairs(URL(HOME), False)]
    assert names == [f"c{number}" for number in range(5, MAX_OF_DOMAIN + 5)]
    for number in range(MAX_COOKIES):
        jar.update(URL(f"https://h{number}.example/"), ["a=1"])
    assert len(list(jar)) == MAX_COOKIES
    assert jar.pairs(URL(HOME), False) == []  # the oldest went


PAST = [
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 01-Jan-1970 00:00:01 GMT",
    "Thursday, 01-Jan-70 00:00:00 GMT",
    "Thu Jan  1 00:00:00 1970",
    "Thu Jan 01 1970 00:00:00 GMT+0100 (CET)",
    "01 January 1999 1:2:3",
    "1:02:03 Jan 1 2001",
    "2001-02-03T04:05:06Z",
    "2001-02-03 04:05:06",
    "Sat, 31 Dec 2005 23:59:60 GMT",
]


@pytest.mark.parametrize("date", PAST)
def test_a_cookie_that_has_expired_is_gone_in_whatever_form_the_date_is(date: str) -> None:
    assert kept("a=1", "b=2", f"a=; Expires={date}") == "b=2"


@pytest.mark.parametrize("max_age", ["0", "-1", "-9999999999"])
def test_max_age_deletes_and_goes_before_expires(max_age: str) -> None:
    assert kept("a=1", f"a=; Max-Age={max_age}; Expires=Fri, 01 Jan 2100 00:00:00 GMT") is None
    assert kept("a=1; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT") == "a=1"
    assert kept("a=1; Max-Age=9999999999999999999") == "a=1"


@pytest.mark.parametrize("date", ["0", "", "never", "Thu, 99 Jan 1970 00:00:00 GMT", "x" * 1000, "1 2 3 4 5 6 7"])
def test_a_date_that_cannot_be_read_is_left_out(date: str) -> None:
    assert kept(f"a=1; Expires={date}") == "a=1"
    assert kept(f"a=1; Max-Age={date}x") == "a=1"


def test_a_cookie_ends_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    jar = CookieJar()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    jar.update(URL(HOME), ["a=1; Max-Age=100"])
    monkeypatch.setattr(time, "time", lambda: now + 99)
    assert jar.pairs(URL(HOME), False) == [("a", "1")]
    monkeypatch.setattr(time, "time", lambda: now + 101)
    assert jar.pairs(URL(HOME), False) == []
    assert list(jar) == []


def test_years_of_two_digits_are_those_of_rfc_6265() -> None:
    assert parse_cookie_date("1:2:3 4 Feb 69") == parse_cookie_date("04 Feb 2069 01:02:03 GMT")
    assert parse_cookie_date("1:2:3 4 Feb 70") == parse_cookie_date("04 Feb 1970 01:02:03 GMT")


@pytest.mark.parametrize(
    ("line", "by", "at", "sent"),
    [
        # Host only, unless it names a domain.
        ("a=1; Path=/", "http://example.com", "http://example.com:8080/x", True),
        ("a=1; Path=/", "http://example.com", "http://www.example.com", False),
        ("a=1; Path=/; Domain=example.com", "http://www.example.com", "http://example.com", True),
        ("a=1; Path=/; Domain=.Example.COM", "http://www.example.com", "http://a.b.example.com", True),
        ("a=1; Path=/; Domain=example.com", "http://www.example.com", "http://badexample.com", False),
        ("a=1; Path=/; Domain=www.example.com", "http://example.com", "http://www.example.com", False),
        ("a=1; Path=/; Domain=other.com", "http://example.com", "http://other.com", False),
        # Nobody's domain, and addresses, which have none.
        ("a=1; Path=/; Domain=com", "http://example.com", "http://other.com", False),
        ("a=1; Path=/; Domain=com", "http://example.com", "http://example.com", False),
        ("a=1; Path=/; Domain=com.", "http://example.com.", "http://other.com.", False),
        ("a=1; Path=/; Domain=com.", "http://com.", "http://other.com.", False),
        ("a=1; Path=/; Domain=example.com.", "http://example.com.", "http://example.com.", True),
        ("a=1; Path=/; Domain=localhost", "http://localhost", "http://localhost", True),
        ("a=1; Path=/; Domain=localhost", "http://localhost", "http://x.localhost", False),
        ("a=1; Path=/", "http://127.0.0.1", "http://127.0.0.1:81/x", True),
        ("a=1; Path=/; Domain=0.0.1", "http://127.0.0.1", "http://127.0.0.1", False),
        ("a=1; Path=/; Domain=127.0.0.1", "http://127.0.0.1", "http://127.0.0.1", True),
        ("a=1; Path=/", "http://[::1]:80/", "http://[::1]:81/", True),
        # Paths.
        ("a=1", "http://h/a/b", "http://h/a/c", True),
        ("a=1", "http://h/a/b", "http://h/a", True),
        ("a=1", "http://h/a/b", "http://h/", False),
        ("a=1", "http://h", "http://h/x", True),
        ("a=1; Path=/sub", "http://h", "http://h/sub/x", True),
        ("a=1; Path=/sub", "http://h", "http://h/sub?q", True),
        ("a=1; Path=/sub", "http://h", "http://h/subway", False),
        ("a=1; Path=/sub/", "http://h", "http://h/sub/x", True),
        ("a=1; Path=sub", "http://h", "http://h/x", True),
        # Secure.
        ("a=1; Path=/; Secure", "https://h", "https://h", True),
        ("a=1; Path=/; Secure", "https://h", "http://h", False),
        ("a=1; Path=/; Secure", "http://h", "https://h", False),
        ("__Secure-a=1; Path=/", "https://h", "https://h", False),
        ("__Secure-a=1; Path=/; Secure", "https://h", "https://h", True),
        ("__host-a=1; Path=/x; Secure", "https://h.example", "https://h.example/x", False),
        ("__Host-a=1; Path=/; Secure; Domain=h.example", "https://h.example", "https://h.example", False),
        ("__Host-a=1; Path=/; Secure", "https://h.example", "https://h.example", True),
    ],
)
def test_a_cookie_goes_where_rfc_6265_says(line: str, by: str, at: str, sent: bool) -> None:
    assert (kept(line, by=by, at=at) is not None) == sent


def test_a_secure_cookie_is_not_replaced_by_who_stands_between() -> None:
    jar = CookieJar()
    jar.update(URL("https://h.example/"), ["a=1; Secure; Domain=h.example"])
    for line in ("a=2", "a=2; Path=/x", "a=; Max-Age=0"):
        jar.update(URL("http://h.example/"), [line])
        jar.update(URL("http://sub.h.example/"), [f"{line}; Domain=h.example"])
    assert jar.header(URL("https://h.example/x"), None, None, False) == "a=1"
    jar.update(URL("https://h.example/"), ["a=3; Domain=h.example"])
    assert jar.header(URL("https://h.example/x"), None, None, False) == "a=3"


@pytest.mark.parametrize("by", ["http://h.example/", "http://sub.h.example/"])
def test_a_secure_cookie_of_a_host_is_not_hidden_by_one_of_its_domain(by: str) -> None:
    jar = CookieJar()
    jar.update(URL("https://app.h.example/"), ["a=1; Secure"])
    jar.update(URL(by), ["a=2; Domain=h.example; Path=/x", "b=3; Domain=h.example; Path=/"])
    assert jar.header(URL("https://app.h.example/x"), None, None, False) == "a=1; b=3"


def test_a_secure_cookie_is_not_pushed_out_by_who_stands_between() -> None:
    jar = CookieJar()
    jar.update(URL("https://h.example/"), [f"a{number}=1; Secure" for number in range(MAX_OF_DOMAIN)])
    before = jar.pairs(URL("https://h.example/"), False)
    jar.update(URL("http://h.example/"), [f"b{number}=2" for number in range(MAX_OF_DOMAIN)])
    assert jar.pairs(URL("https://h.example/"), False) == before
    jar.update(URL("https://h.example/"), ["c=3; Secure"])
    assert jar.pairs(URL("https://h.example/"), False) == [*before[1:], ("c", "3")]


def test_the_longest_path_is_sent_first_and_then_what_was_set_first() -> None:
    lines = ["a=1; Path=/", "b=2; Path=/", "a=3; Path=/x/y", "c=4; Path=/x", "b=5; Path=/"]
    assert kept(*lines, by="http://h/x/y/z") == "a=3; c=4; a=1; b=5"
    assert kept("a=1", "b=2", "a=3") == "a=3; b=2"


def test_a_public_suffix_rule_can_be_given() -> None:
    jar = CookieJar(is_public_suffix=lambda domain: domain == "co.uk")
    jar.update(URL("http://shop.co.uk/"), ["a=1; Domain=co.uk", "b=2; Domain=shop.co.uk"])
    assert jar.header(URL("http://other.co.uk/"), None, None, False) is None
    assert jar.header(URL("http://x.shop.co.uk/"), None, None, False) == "b=2"


def test_cookies_of_the_request_replace_those_of_the_header_and_these_those_of_the_jar() -> None:
    jar = CookieJar({"g": "given", "b": "given"})
    jar.update(URL("http://h/"), ["a=jar", "b=jar", "c=jar"])
    assert jar.header(URL("http://h/"), ' b=h==; d={"x":1};', {"d": "own", "a": "own"}, True) == (
        "b=h==; c=jar; g=given; d=own; a=own"
    )


# ---- Over the wire ----

SET = ("Set-Cookie: b64=a/b==; Path=/", 'Set-Cookie: json={"id":1}; Path=/', "Set-Cookie: gone=1; Path=/; Max-Age=0")


async def test_what_a_server_sets_and_what_is_given_is_sent_byte_for_byte() -> None:
    async with http_peer(answering(response(b"", *SET), response())) as peer, HTTPClient() as client:
        await client.get(peer.url)
        await client.get(peer.url, headers={"Cookie": 'sid=abc==; prefs={"x":1}'}, cookies={"own": "1,2/="})
        await client.get(peer.url, headers={"Cookie": None})
        sent = [request.headers.get("Cookie") for request in peer.requests]
        assert sent == [None, 'sid=abc==; prefs={"x":1}; b64=a/b==; json={"id":1}; own=1,2/=', None]


async def test_cookies_of_the_configuration_go_to_one_origin() -> None:
    async with http_peer(answering(response())) as other:
        moved = response(b"", f"Location: {other.url}/x", "Set-Cookie: set=1; Path=/", status="302 Moved")
        async with http_peer(answering(moved)) as peer:
            for base_url in (peer.url, None):
                async with HTTPClient(HTTPConfig(base_url, cookies={"given": "canary"})) as client:
                    await client.get(peer.url)
                    await client.get(other.url)
        # What the server has set knows no ports; what the configuration gives does.
        assert [request.headers["Cookie"] for request in peer.requests] == ["given=canary"] * 2
        to_other = [request.headers["Cookie"] for request in other.requests]
        assert to_other == ["set=1", "set=1", "set=1", "set=1; given=canary"]


async def test_a_server_can_delete_a_cookie_of_the_configuration() -> None:
    answers = answering(response(b"", "Set-Cookie: a=; Path=/; Expires=Thu, 01-Jan-1970 00:00:00 GMT"), response())
    async with http_peer(answers) as peer, HTTPClient(HTTPConfig(cookies={"a": "1", "b": "2"})) as client:
        await client.get(peer.url)
        await client.get(peer.url)
        assert [request.headers["Cookie"] for request in peer.requests] == ["a=1; b=2", "b=2"]


async def test_a_header_cookie_of_the_configuration_does_not_cross_origins_and_the_jar_does() -> None:
    async with http_peer(answering(response())) as other:
        moved = response(b"", f"Location: {other.url}/x", "Set-Cookie: set=1; Path=/", status="302 Moved")
        async with http_peer(answering(moved)) as peer:
            async with HTTPClient(HTTPConfig(headers={"Cookie": "fixed=canary"})) as client:
                await client.get(peer.url)
        assert peer.requests[0].headers["Cookie"] == "fixed=canary"
        assert other.requests[0].headers["Cookie"] == "set=1"


async def test_the_session_shares_the_cookies() -> None:
    first, third = (response(b"", f"Set-Cookie: {pair}; Path=/") for pair in ("a=x/=", "s={2}"))
    async with (
        http_peer(answering(first, response(), third, response())) as peer,
        HTTPClient(HTTPConfig(peer.url, cookies={"given": "1"})) as client,
    ):
        await client.get("/")
        for _ in range(2):
            async with client.session.get(peer.url) as answer:
                await answer.read()
        await client.get("/")
        sent = [set(request.headers["Cookie"].split("; ")) for request in peer.requests]
        assert sent == [
            {"given=1"},
            {"given=1", "a=x/="},
            {"given=1", "a=x/="},
            {"given=1", "a=x/=", "s={2}"},
        ]


async def test_the_jar_of_the_session_can_be_read_and_changed() -> None:
    async with http_peer(answering(response(b"", *SET), response())) as peer, HTTPClient() as client:
        await client.get(peer.url)
        jar = client.session.cookie_jar
        assert {morsel.key: morsel.value for morsel in jar} == {"b64": "a/b==", "json": '{"id":1}'}
        assert len(jar) == 2
        assert jar.cookies["127.0.0.1", ""]["b64"]["path"] == "/"
        assert ("127.0.0.1", "", "b64") in jar.host_only_cookies
        jar.clear(lambda morsel: morsel.key == "json")
        jar.update_cookies({"mine": "1;2"}, URL(peer.url))
        shared = SimpleCookie("all=3")
        shared["other"] = "4"
        shared["other"]["domain"] = "other.example"
        jar.update_cookies(shared)
        await client.get(peer.url)
        assert set(peer.requests[-1].headers["Cookie"].split("; ")) == {"b64=a/b==", 'mine="1\\0732"', "all=3"}
        jar.clear_domain("other.example")
        assert {morsel.key for morsel in jar} == {"b64", "mine", "all"}
        jar.clear()
        await client.get(peer.url)
        assert "Cookie" not in peer.requests[-1].headers
