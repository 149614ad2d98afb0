"""Proxies of HTTP: of the environment, NO_PROXY, `no_proxy`, `proxy=False`; and ~/.netrc. On both transports."""

from __future__ import annotations

import functools
import logging
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import ca_file
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.nginx import TEXT, Nginx
from support.proxies import Tinyproxy
from yarl import URL

from pepperpy.network import (
    ForbiddenAddressError,
    HTTPClient,
    HTTPConfig,
    HTTPRequest,
    HTTPResponse,
    InvalidRequestError,
    ProxyError,
    PublicOnly,
    Send,
    TLSConfig,
    each_exchange,
)

Make = Callable[..., HTTPConfig]
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(params=["aiohttp", "auto"])
def config(request: pytest.FixtureRequest) -> Make:
    """Makes a configuration for each of the transports."""
    return functools.partial(HTTPConfig, transport=request.param, retries=0, tls=TLSConfig(ca_file=ca_file()))


def count(proxy: Tinyproxy) -> int:
    return len(proxy.requests())


async def test_each_scheme_has_its_variable_and_all_proxy_has_the_rest(
    web: Nginx, proxy: Tinyproxy, socks: int, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", NOWHERE)
    monkeypatch.setenv("ALL_PROXY", proxy.url.removeprefix("http://"))
    before = count(proxy)
    async with HTTPClient(config(trust_env=True)) as client:
        assert await client.get(web.url("/text")) == TEXT
        with pytest.raises(ProxyError):
            await client.get(web.https_url("/text"))
    assert count(proxy) == before + 1
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{socks}")
    async with HTTPClient(config(trust_env=True)) as client:
        for url in (web.url("/text"), web.https_url("/text")):
            assert await client.get(url) == TEXT
            response = await client.request("GET", url)
            assert response.transport == ("aiohttp" if config().transport == "aiohttp" else "core")


@pytest.mark.parametrize("rule", ["127.0.0.1", "127.0.0.0/8", "127.0.0.1:{port}", "a.test, 127.0.0.1", "*"])
async def test_what_no_proxy_covers_goes_directly(
    web: Nginx, config: Make, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = rule.format(port=web.http_port)
    monkeypatch.setenv("http_proxy", NOWHERE)
    monkeypatch.setenv("NO_PROXY", rule)
    async with HTTPClient(config(trust_env=True)) as client:
        assert await client.get(web.url("/text")) == TEXT
    monkeypatch.delenv("NO_PROXY")
    # The same for what the environment says, and for a proxy that is configured.
    for settings in ({"trust_env": True}, {"proxy": NOWHERE}):
        async with HTTPClient(config(no_proxy=rule, **settings)) as client:
            assert await client.get(web.url("/text")) == TEXT
            with pytest.raises(ProxyError):
                # A request's own is used for all.
                await client.get(web.url("/text"), proxy=NOWHERE)
    async with HTTPClient(config(no_proxy="other.test", proxy=NOWHERE)) as client:
        with pytest.raises(ProxyError):
            await client.get(web.url("/text"))


async def test_a_redirect_goes_by_the_proxy_of_its_own_url(web: Nginx, config: Make, proxy: Tinyproxy) -> None:
    before = count(proxy)
    async with http_peer(answering(response(b"", f"Location: {web.url('/text')}", status="302 Found"))) as peer:
        async with HTTPClient(config(proxy=proxy.url, no_proxy=f"127.0.0.1:{peer.port}")) as client:
            assert await client.get(peer.url) == TEXT
    assert count(proxy) == before + 1


async def test_a_url_that_a_middleware_sets_goes_by_its_own_proxy(web: Nginx, config: Make, proxy: Tinyproxy) -> None:
    @each_exchange
    async def elsewhere(request: HTTPRequest, send: Send) -> HTTPResponse:
        request.url = URL(web.url("/text"))
        return await send(request)

    before = count(proxy)
    async with HTTPClient(config(proxy=proxy.url, no_proxy="direct.test", middlewares=[elsewhere])) as client:
        assert await client.get("http://direct.test/") == TEXT
    assert count(proxy) == before + 1


async def test_one_request_can_do_without_any_proxy(web: Nginx, config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", NOWHERE)
    for settings in ({"trust_env": True}, {"proxy": NOWHERE}):
        async with HTTPClient(config(**settings)) as client:
            assert await client.get(web.url("/text"), proxy=False) == TEXT
            async with client.stream("GET", web.url("/text"), proxy=False) as stream:
                assert await stream.read() == TEXT.encode()
            with pytest.raises(ProxyError):
                await client.get(web.url("/text"))
            for wrong in (True, 0, b"x"):
                with pytest.raises(TypeError, match="proxy must be a str"):
                    await client.get(web.url("/text"), proxy=wrong)


async def test_the_configured_proxy_comes_before_the_environment(
    web: Nginx, config: Make, proxy: Tinyproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", NOWHERE)
    monkeypatch.setenv("no_proxy", "*")
    before = count(proxy)
    async with HTTPClient(config(proxy=proxy.url, trust_env=True)) as client:
        assert await client.get(web.url("/text")) == TEXT
    assert count(proxy) == before + 1


async def test_the_environment_is_read_when_the_client_opens(
    web: Nginx, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = HTTPClient(config(trust_env=True))
    monkeypatch.setenv("http_proxy", NOWHERE)
    async with client:
        monkeypatch.delenv("http_proxy")
        with pytest.raises(ProxyError):
            await client.get(web.url("/text"))
    async with client:
        assert await client.get(web.url("/text")) == TEXT


async def test_a_variable_that_names_no_proxy_is_named_without_its_secret(
    web: Nginx, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:canary@proxy.test")
    async with HTTPClient(config(trust_env=True)) as client:
        assert await client.get(web.https_url("/text")) == TEXT
        with pytest.raises(InvalidRequestError, match="the variable HTTP_PROXY must name a proxy") as caught:
            await client.get(web.url("/text"))
        assert "canary" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"
    monkeypatch.setenv("HTTP_PROXY", "http://%E4:canary@proxy.test")
    async with HTTPClient(config(trust_env=True)) as client:
        with pytest.raises(InvalidRequestError, match="the variable HTTP_PROXY names no proxy") as caught:
            await client.get(web.url("/text"))
        assert "canary" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"


async def test_a_proxy_of_the_environment_is_checked_by_the_policy_and_one_in_code_is_not(
    web: Nginx, config: Make, proxy: Tinyproxy, socks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = PublicOnly(allow=("127.0.0.1",))
    url = web.url("/text").replace("127.0.0.1", "127.0.0.1")
    for name in (proxy.url, f"socks5h://127.0.0.1:{socks}"):
        proxy_2 = name.replace("127.0.0.1", "127.0.0.2")
        monkeypatch.setenv("ALL_PROXY", proxy_2)
        for target in (url, web.https_url("/text")):
            async with HTTPClient(config(trust_env=True, address_policy=policy)) as client:
                with pytest.raises(ForbiddenAddressError, match=r"'127\.0\.0\.2' is forbidden"):
                    await client.get(target)
                # Nobody listens there, but it was tried.
                with pytest.raises(ProxyError):
                    await client.get(target, proxy=proxy_2)


# ---- ~/.netrc ----


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    file = tmp_path / ".netrc"
    file.write_text("machine 127.0.0.1 login me password secret\n")
    file.chmod(0o600)
    return file


async def test_netrc_has_the_credentials_of_a_request_without_any(web: Nginx, config: Make, netrc: Path) -> None:
    async with HTTPClient(config(trust_env=True)) as client:
        assert (await client.get_json(web.url("/echo")))["authorization"] == basic("me", "secret")
        for options, sent in (
            ({"auth": ("you", "other")}, basic("you", "other")),
            ({"headers": {"authorization": "Bearer mine"}}, "Bearer mine"),
            ({"headers": {"Authorization": None}}, ""),
        ):
            assert (await client.get_json(web.url("/echo"), **options))["authorization"] == sent
        url = web.url("/echo").replace("127.0.0.1", "localhost")
        assert (await client.get_json(url))["authorization"] == ""
    async with HTTPClient(config(headers={"Authorization": "Bearer all"}, trust_env=True)) as client:
        assert (await client.get_json(web.url("/echo")))["authorization"] == "Bearer all"
    async with HTTPClient(config()) as client:
        assert (await client.get_json(web.url("/echo")))["authorization"] == ""


async def test_a_redirect_takes_them_to_no_other_origin(web: Nginx, config: Make, netrc: Path) -> None:
    async with HTTPClient(config(trust_env=True)) as client:
        for target, sent in (("same", basic("me", "secret")), ("other-port", ""), ("other-host", "")):
            echo = await client.get_json(web.url(f"/redirect/302/{target}"))
            assert echo["authorization"] == sent, target


async def test_a_file_that_cannot_be_read_is_ignored_and_logged_without_its_text(
    web: Nginx, config: Make, netrc: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    netrc.write_text("machine 127.0.0.1 canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with caplog.at_level(logging.WARNING, "pepperpy.network.http"):
        async with HTTPClient(config(trust_env=True)) as client:
            assert (await client.get_json(web.url("/echo")))["authorization"] == ""
        monkeypatch.setenv("NETRC", str(netrc.parent / "nothing"))
        async with HTTPClient(config(trust_env=True)) as client:
            assert (await client.get_json(web.url("/echo")))["authorization"] == ""
    assert len(caplog.messages) == 2 and "canary" not in caplog.text
    netrc.write_text("machine 127.0.0.1 login a:canary password b\n")
    monkeypatch.delenv("NETRC")
    async with HTTPClient(config(trust_env=True)) as client:
        with pytest.raises(InvalidRequestError, match="the netrc file has an entry") as caught:
            await client.get(web.url("/text"))
        assert "canary" not in str(caught.value)
