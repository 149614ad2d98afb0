"""`HTTPClient.cookies`: what one sees, sets, saves and loads; and domains for which nobody may set cookies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer
from yarl import URL

from pepperpy.network import HTTPClient, HTTPConfig, NotConnectedError
from pepperpy.network.http import public_suffix
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.cookie_store import Cookies
from pepperpy.network.http.cookies import MAX_SIZE
from pepperpy.network.http.public_suffix import is_public_suffix

SET = [
    'a="1=,2"; Path=/; Max-Age=1000',
    "b[0]=2; Domain=shop.example; Path=/x; Secure; HttpOnly",
    "path=3; Path=/; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
]
HOME = URL("https://www.shop.example/x/y")


def filled() -> CookieJar:
    jar = CookieJar()
    jar.update(HOME, SET)
    return jar


async def test_a_client_shows_what_servers_have_set_and_sends_what_its_user_sets() -> None:
    answers = [response(b"", "Set-Cookie: session=secret; Path=/; HttpOnly"), response()]
    async with http_peer(answering(*answers)) as peer, HTTPClient(HTTPConfig(cookies={"given": "1"})) as client:
        await client.get(peer.url)
        assert [(cookie.name, cookie.value, cookie.http_only) for cookie in client.cookies] == [
            ("session", "secret", True)
        ]
        assert "secret" not in repr(list(client.cookies)) + repr(client.cookies)
        client.cookies.set("consent", "yes", peer.url)
        client.cookies.set("other", "no", "http://other.example")
        assert client.cookies.get("session", peer.url) == "secret"
        assert client.cookies.get("other", peer.url) is None
        await client.get(peer.url)
        client.cookies.clear("127.0.0.1")
        await client.get(peer.url)
        assert [cookie.name for cookie in client.cookies] == ["other"]
        sent = [request.headers.get("Cookie") for request in peer.requests]
        assert sent == ["given=1", "session=secret; consent=yes; given=1", "given=1"]


async def test_a_client_that_is_not_open_has_no_cookies() -> None:
    client = HTTPClient()
    with pytest.raises(NotConnectedError, match="no cookies before"):
        _ = client.cookies
    async with client:
        assert len(client.cookies) == 0
    with pytest.raises(NotConnectedError):
        _ = client.cookies


def test_saved_cookies_are_the_same_after_loading_host_only_ones_too() -> None:
    first, second = filled(), CookieJar()
    Cookies(second).load(json.loads(json.dumps(Cookies(first).dump())))
    for url in ("https://www.shop.example/x/", "http://www.shop.example/x/", "https://a.shop.example/x/"):
        assert second.pairs(URL(url), False) == first.pairs(URL(url), False)
    assert Cookies(second).dump() == Cookies(first).dump()
    assert [saved["host_only"] for saved in Cookies(second).dump()] == [True, False, True]


def test_what_is_changed_in_a_copy_changes_nothing() -> None:
    cookies = Cookies(filled())
    next(iter(cookies)).value = "changed"
    assert "changed" not in [cookie.value for cookie in cookies]


def test_a_cookie_that_has_expired_is_not_loaded() -> None:
    saved = Cookies(filled()).dump()
    saved[0]["expires_at"] = 1.0
    cookies = Cookies(CookieJar())
    cookies.load(saved)
    assert sorted(cookie.name for cookie in cookies) == ["b[0]", "path"]


WRONG = [
    ({"value": "a; admin=1"}, ValueError, "must not have the character ';'"),
    ({"value": "a\r\nX: 1"}, ValueError, r"must not have the character '\\r'"),
    ({"name": "a=b"}, ValueError, "must not be empty, nor have '='"),
    ({"name": " "}, ValueError, "must not be empty"),
    ({"path": "x"}, ValueError, "path of a cookie must begin with '/'"),
    ({"value": "v" * MAX_SIZE}, ValueError, f"must have {MAX_SIZE} bytes or fewer"),
    ({"value": 1}, TypeError, "must have str as value"),
    ({"secure": 1}, TypeError, "must have bool as secure"),
    ({"expires_at": True}, TypeError, "must have int or float or NoneType as expires_at"),
    ({"number": 7}, ValueError, "must be a mapping of name, value, domain"),
]


@pytest.mark.parametrize(("change", "kind", "message"), WRONG)
def test_what_dump_did_not_give_is_refused_whole(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    saved = Cookies(filled()).dump()
    saved[2] |= change
    cookies = Cookies(CookieJar())
    with pytest.raises(kind, match=message) as caught:
        cookies.load(saved)
    assert len(cookies) == 0 and "admin" not in str(caught.value)


def test_a_cookie_that_is_set_ends_with_its_age_and_stays_on_https() -> None:
    cookies = Cookies(CookieJar())
    cookies.set("a", "1", "https://h.example/deep", max_age=1000, path="/deep")
    assert cookies.get("a", "https://h.example/deep/er") == "1"
    assert cookies.get("a", "http://h.example/deep") is None and cookies.get("a", "https://h.example/") is None
    cookies.set("a", "1", "https://h.example/", max_age=0, path="/deep")
    assert len(cookies) == 0
    with pytest.raises(ValueError, match="max_age must be"):
        cookies.set("a", "1", "https://h.example/", max_age=-1)
    with pytest.raises(ValueError, match="url must start with"):
        cookies.get("a", "h.example")


# ---- Domains that belong to nobody ----


@pytest.mark.parametrize("domain", ["com", "co.uk", "github.io", "foo.ck", "xn--55qx5d.cn", "localhost", "xn--\udcff"])
def test_a_domain_of_the_list_is_nobodys(domain: str) -> None:
    assert is_public_suffix(domain)


@pytest.mark.parametrize("domain", ["shop.co.uk", "me.github.io", "www.ck", "a.xn--55qx5d.cn", "shop.example"])
def test_a_domain_below_one_of_the_list_is_somebodys(domain: str) -> None:
    assert not is_public_suffix(domain)


async def test_no_server_sets_a_cookie_for_all_of_a_public_suffix() -> None:
    async with HTTPClient() as client:
        engine = client._life.engine
        assert engine is not None
        engine.jar.update(URL("https://shop.co.uk/"), ["a=1; Domain=co.uk", "b=2; Domain=shop.co.uk"])
        assert [cookie.name for cookie in client.cookies] == ["b"]


@pytest.fixture
def without_the_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def import_module(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(public_suffix.importlib, "import_module", import_module)
    public_suffix._rule.cache_clear()
    yield
    public_suffix._rule.cache_clear()


@pytest.mark.usefixtures("without_the_list")
def test_without_the_list_a_domain_without_a_dot_is_nobodys() -> None:
    assert is_public_suffix("com") and not is_public_suffix("co.uk")
