"""Redirects: what is sent on, and what must not be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.certificates import ca_file
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import HTTPClient, HTTPConfig, HTTPStatusError, RedirectError, TLSConfig

TRUSTING = HTTPConfig(tls=TLSConfig(ca_file=ca_file()))


async def test_redirects_are_followed_and_remembered(web: Any) -> None:
    async with HTTPClient() as client:
        answer = await client.request("GET", web.url("/chain/3"))
        assert (answer.text, answer.url) == ("Hello from nginx.\n", web.url("/chain/0"))
        assert [r.status for r in answer.history] == [302] * 3
        assert [r.url for r in answer.history] == [web.url(f"/chain/{n}") for n in (3, 2, 1)]
        assert answer.attempts == 1


async def test_redirects_have_a_limit_that_counts_those_followed(web: Any) -> None:
    async with HTTPClient(HTTPConfig(max_redirects=3)) as client:
        assert (await client.request("GET", web.url("/chain/3"))).status == 200
        with pytest.raises(RedirectError, match="more than 3 redirects"):
            await client.get(web.url("/chain/4"))
        with pytest.raises(RedirectError, match="more than 3 redirects"):
            await client.get(web.url("/loop"))
    async with HTTPClient() as client:
        assert (await client.request("GET", web.url("/chain/10"))).status == 200
        with pytest.raises(RedirectError, match="more than 10 redirects"):
            await client.get(web.url("/chain/11"))


async def test_a_redirect_can_be_the_answer(web: Any) -> None:
    async with HTTPClient(HTTPConfig(max_redirects=0)) as client:
        answer = await client.request("GET", web.url("/chain/1"))
        assert (answer.status, answer.headers["Location"]) == (302, "/chain/0")
    async with HTTPClient() as client:
        assert (await client.request("GET", web.url("/chain/1"), allow_redirects=False)).status == 302


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_the_method_and_the_body_after_a_redirect(web: Any, method: str, code: int) -> None:
    async with HTTPClient() as client:
        body = None if method == "GET" else b"12345"
        echo = (await client.request(method, web.url(f"/redirect/{code}/same"), data=body)).json()
    keeps = code in (307, 308) or (code in (301, 302) and method == "PUT")
    expected = method if keeps or method == "GET" else "GET"
    assert (echo["method"], echo["size"]) == (expected, 5 if keeps and body else 0)


CARRIERS: dict[str, dict[str, Any]] = {
    "authorization header": {"headers": {"Authorization": "Bearer canary"}},
    "auth": {"auth": ("user", "canary")},
    "userinfo": {},
    "cookie header": {"headers": {"Cookie": "c=canary"}},
    "cookies": {"cookies": {"c": "canary"}},
    "api key": {"headers": {"X-API-Key": "canary"}},
}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("carrier", CARRIERS)
async def test_credentials_never_cross_origins(carrier: str, code: int) -> None:
    """Another port is another origin, as are another host and another scheme (those are nginx's, below)."""
    arguments = CARRIERS[carrier]
    async with http_peer(answering(response())) as other:
        moved = response(b"", f"Location: {other.url}/there", status=f"{code} x")
        async with http_peer(answering(moved)) as peer, HTTPClient() as client:
            url = peer.url.replace("//", "//user:canary@") if carrier == "userinfo" else peer.url
            await client.get(url, **arguments)
            assert [name for name, _ in peer.requests[0].headers.items() if name in SECRET]
        sent = other.requests[0]
        assert sent.target == "/there"
        assert not [name for name in sent.headers if name in SECRET]
        assert "canary" not in str(sent)


SECRET = {"Authorization", "Cookie", "X-API-Key"}


@pytest.mark.parametrize("target", ["other-port", "other-host", "https"])
async def test_credentials_never_cross_origins_of_nginx(web: Any, target: str) -> None:
    headers = {"Authorization": "Bearer canary", "X-Test": "plain"}
    async with HTTPClient(TRUSTING) as client:
        echo = await client.get_json(web.url(f"/redirect/307/{target}"), headers=headers)
        assert (echo["authorization"], echo["x_test"]) == ("", "plain")
        echo = await client.get_json(web.url("/redirect/307/same"), headers=headers)
        assert echo["authorization"] == "Bearer canary"


async def test_the_auth_of_a_client_does_not_follow_either() -> None:
    async with http_peer(answering(response())) as other:
        moved = response(b"", f"Location: {other.url}", status="302 x")
        async with http_peer(answering(moved)) as peer:
            async with HTTPClient(HTTPConfig(peer.url, auth=lambda: "canary")) as client:
                await client.get("/")
        assert "Authorization" not in other.requests[0].headers


async def test_what_was_dropped_stays_dropped_on_the_way_back() -> None:
    """There and back again: the origin of old is told nothing that another one asked for."""
    async with http_peer(answering(response())) as home:
        back = response(b"", f"Location: {home.url}/back", status="302 x")
        async with http_peer(answering(back)) as away:
            out = response(b"", f"Location: {away.url}", status="302 x")
            async with http_peer(answering(out)) as start, HTTPClient() as client:
                await client.get(start.url, headers={"X-API-Key": "canary", "Authorization": "canary"})
        assert not [name for name in home.requests[0].headers if name in SECRET]


async def test_a_header_that_was_taken_out_stays_out_after_a_redirect(web: Any) -> None:
    async with HTTPClient() as client:
        echo = await client.get_json(web.url("/redirect/302/same"), headers={"Accept": None})
        assert echo["accept"] == ""


async def test_params_are_sent_once(web: Any) -> None:
    async with HTTPClient() as client:
        echo = json.loads(await client.get(web.url("/redirect/302/same"), params={"a": "1"}))
        assert echo["uri"] == "/echo"


async def test_a_body_that_can_be_read_once_is_not_sent_on(web: Any) -> None:
    async def once() -> Any:
        yield b"12345"

    # Answers when it has read the body. One that does not wait may answer before the source is asked; then it can be.
    moved = answering(response(b"", "Location: /second", status="307 x"))
    async with HTTPClient() as client, http_peer(moved) as peer:
        with pytest.raises(RedirectError, match="can be read only once"):
            await client.post(peer.url + "/first", data=once())
        assert [(r.target, r.body) for r in peer.requests] == [("/first", b"12345")]
        echo = json.loads(await client.post(web.url("/redirect/303/same"), data=once()))
        assert (echo["method"], echo["size"]) == ("GET", 0)


async def test_a_retry_begins_at_the_first_url_again() -> None:
    moved = response(b"", "Location: /second", status="302 x")
    answers = answering(moved, response(b"", status="503 x"), moved, response(b"there"))
    async with http_peer(answers) as peer, HTTPClient(HTTPConfig(retry_delay=0)) as client:
        answer = await client.request("GET", peer.url + "/first")
        assert (answer.text, answer.attempts) == ("there", 2)
        assert [r.target for r in peer.requests] == ["/first", "/second", "/first", "/second"]


async def test_an_error_behind_a_redirect_says_where_it_led_without_secrets() -> None:
    there = "/there" * 50
    moved = response(b"", f"Location: {there}?token=canary", status="302 x")
    async with http_peer(answering(moved, response(b"", status="404 x"))) as peer, HTTPClient() as client:
        with pytest.raises(HTTPStatusError) as caught:
            await client.get(f"{peer.url}/here")
    where = f"GET {peer.url}/here, redirected to {peer.url}{there}?token=***"
    assert str(caught.value).startswith(f"{where}: the server answered 404")
    assert caught.value.details["url"] == f"{peer.url}/here"
    assert caught.value.details["redirected_to"] == f"{peer.url}{there}?token=***"


async def test_an_error_about_the_redirect_itself_names_the_first_url_alone() -> None:
    moved = response(b"", "Location: myapp://there", status="302 x")
    async with http_peer(answering(moved)) as peer, HTTPClient() as client:
        with pytest.raises(RedirectError) as caught:
            await client.get(f"{peer.url}/here")
    assert "redirected_to" not in caught.value.details
