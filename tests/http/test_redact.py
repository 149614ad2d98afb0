"""What people read of a URL or of headers holds no secret, on one line, and as much as can be of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from pepperpy.network.http.redact import MAX_SHOWN, is_secret_header, redact_headers, redact_url

CANARY = "Canary7"

texts = st.text(max_size=15)


def without(characters: str) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters=characters), max_size=15)


def around_canary(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(pieces, pieces).map(CANARY.join)


starts = st.sampled_from(["http://", "https://", "HTTP://", "//", " http://", "ftp://", ""])
hosts = st.sampled_from(["host.example", "host:8080", "[::1]", "[::1]:8080", "127.0.0.1", ""])
paths = st.just("") | without("?#@").map("/".__add__)
queries = st.just("") | without("#").map("?".__add__)


# ---- What is shown ----


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example",
        "https://host.example:8443/a/b;c=d/e%20f",
        "http://[::1]:8080/",
        "http://[fe80::1%25eth0]/",
        "https://b\xfccher.example/\xfc",
        "http://host.example/a//b",
        "/users/1",
        "users/1",
        "http://",
        "",
    ],
)
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert redact_url(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@host/path", "http://***@host/path"),
        ("http://token@host:80", "http://***@host:80"),
        ("http://us@er:p@ss@host/", "http://***@host/"),
        ("http://host/?a=1&b=2#frag", "http://host/?a=***&b=***"),
        ("http://host/?a=b=c&d", "http://host/?a=***&***"),
        ("http://host?token", "http://host?***"),
        ("http://host/#frag", "http://host/"),
        ("http://host/#a?b=c", "http://host/"),
        ("http://host/?a=1?b=2", "http://host/?a=***"),
        ("http://host/?a=1;b=2", "http://host/?a=***"),
        ("http://host/?dG9rZW4=", "http://host/?***"),
        ("http://host/?dG9rZQ==&a=1", "http://host/?***&a=***"),
        ("http://host/?email=joe@example.org", "http://host/?email=***"),
        ("http://host/@scope/package", "http://host/***@scope/package"),
        ("/users?token=1", "/users?token=***"),
        ("?token=1", "?token=***"),
        ("user:pass@host", "***@host"),
        ("user:pass@host//path", "***@host//path"),
        ("http:\\\\user:pass@host/", "***@host/"),
        ("http:/user:pass@host/", "http:/***@host/"),
        ("http://user:pass", "http://user:***"),
        ("http://localhost:80a/x", "http://localhost:***/x"),
        ("mailto:joe", "mailto:***"),
    ],
)
def test_a_secret_place_is_hidden_and_the_rest_is_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize("mark", "/?#")
@pytest.mark.parametrize("rest", ["", "/path", "?a=b", "?email=x@y"])
def test_a_password_with_a_mark_of_urls_in_it_hides_all_that_may_belong_to_it(mark: str, rest: str) -> None:
    for password in (f"{CANARY}{mark}x", f"x{mark}{CANARY}", f"a@b{mark}{CANARY}", f"{CANARY}@b{mark}x"):
        assert CANARY not in redact_url(f"http://user:{password}@host{rest}")


# ---- One line of readable characters ----


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\r", "\\r"),
        ("\n", "\\n"),
        ("\0", "\\x00"),
        ("\x1b", "\\x1b"),
        (" ", "\\x20"),
        ("\x7f", "\\x7f"),
        ("\x85", "\\x85"),
        ("\xa0", "\\xa0"),
        ("\u2028", "\\u2028"),
        ("\u202e", "\\u202e"),
        ("\u200b", "\\u200b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_character_that_changes_what_is_read_is_spelled_out(character: str, shown: str) -> None:
    assert redact_url(f"http://host/a{character}b") == f"http://host/a{shown}b"


@given(texts | st.tuples(starts, texts, hosts, texts).map("".join))
def test_any_string_gives_one_printable_line(text: str) -> None:
    shown = redact_url(text)
    assert shown.isprintable()
    assert " " not in shown
    shown.encode()


@pytest.mark.parametrize("url", ["http://h/" + "x" * 10_000, "http://h/?" + "a=1&" * 10_000, "\n" * 10_000])
def test_a_long_url_is_cut(url: str) -> None:
    shown = redact_url(url)
    assert len(shown) == MAX_SHOWN
    assert shown.endswith("...")


def test_the_longest_url_that_is_shown_whole() -> None:
    url = "http://host/".ljust(MAX_SHOWN, "x")
    assert redact_url(url) == url
    assert redact_url(url + "x") == url[:-3] + "..."


# ---- Canaries ----


@given(starts, around_canary(without("/?#")), hosts, paths, queries)
def test_user_info_never_shows(start: str, user: str, host: str, path: str, query: str) -> None:
    assert CANARY not in redact_url(f"{start}{user}@{host}{path}{query}")


@given(starts, texts, hosts, paths, without("&;=#"), around_canary(without("&#")))
def test_a_query_value_never_shows(start: str, user: str, host: str, path: str, name: str, value: str) -> None:
    for query in (f"{name}={value}", value if "=" not in value.strip("=") else "", f"a=b&{name}={value}&c=d"):
        assert CANARY not in redact_url(f"{start}{host}{path}?{query}")
        assert CANARY not in redact_url(f"{start}{user}@{host}{path}?{query}")


@given(starts, texts, hosts, paths, queries, around_canary(texts))
def test_a_fragment_never_shows(start: str, user: str, host: str, path: str, query: str, fragment: str) -> None:
    assert CANARY not in redact_url(f"{start}{host}{path}{query}#{fragment}")
    assert CANARY not in redact_url(f"{start}{user}@{host}{path}{query}#{fragment}")


# ---- Headers ----


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "apikey", "x-auth-token"),
        *("x-amz-security-token", "private-token", "Ocp-Apim-Subscription-Key", "X-Auth-Key", "X-Secret"),
        "AUTHORIZATION",
        "X-Shopify-Access-Token",
        "Ocp-Apim-Subscription-Key",
        "CF-Access-Client-Secret",
        "X-Session-Id",
        "X-Hub-Signature-256",
        "X-Password",
    ],
)
def test_the_value_of_a_secret_header_is_hidden(name: str) -> None:
    assert redact_headers({name: CANARY}) == [(name, "***")]


def test_other_headers_are_shown_in_their_order_and_number() -> None:
    headers = [("Accept", "text/html"), ("X-Trace", "1"), ("X-Trace", "2"), ("cookie", CANARY), ("Host", "example.org")]
    shown = [(name, "***" if name == "cookie" else value) for name, value in headers]
    assert redact_headers(CIMultiDict(headers)) == shown


def test_names_of_the_users_own_are_secret_as_well() -> None:
    assert redact_headers({"X-Trace": CANARY, "X-Other": "1"}, {"x-trace"}) == [("X-Trace", "***"), ("X-Other", "1")]


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Author", "Accept", "Host", "X-Request-Id", "Range", "If-Range"])
def test_what_is_no_secret_is_shown_and_sent_on(name: str) -> None:
    assert not is_secret_header(name)
    assert is_secret_header(name, {name.lower()})
