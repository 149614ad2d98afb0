"""`address_policy` over HTTP, on both transports: literals, names, redirects, pooled connections, proxies."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support.certificates import ca_file
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.http_sockets import socket_of
from support.names import names
from support.nginx import TEXT, Nginx
from support.proxies import Tinyproxy

from pepperpy.network import (
    ConnectError,
    ForbiddenAddressError,
    HTTPClient,
    HTTPConfig,
    InvalidRequestError,
    NetworkError,
    PublicOnly,
    TLSConfig,
)

LOOPBACK_1 = PublicOnly(allow=("127.0.0.1",))
Make = Callable[..., HTTPConfig]


@pytest.fixture(params=["aiohttp", "auto"])
def config(request: pytest.FixtureRequest) -> Make:
    """Makes a configuration for each of the transports, with retries that would be seen."""
    tls = TLSConfig(ca_file=ca_file())
    return functools.partial(
        HTTPConfig, transport=request.param, retries=3, retry_delay=0, tls=tls, address_policy=PublicOnly()
    )


async def refusal(client: HTTPClient, url: str, **options: Any) -> ForbiddenAddressError:
    with pytest.raises(ForbiddenAddressError) as caught:
        await client.get(url, **options)
    assert caught.value.details["attempt"] == 1
    return caught.value


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_this_machine_is_not_reached_by_any_spelling(config: Make, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with HTTPClient(config()) as client:
            for host in (
                *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "0.0.0.0"),
                *(
                    "[::1]",
                    "[::]",
                    "[::ffff:127.0.0.1]",
                    "[0:0:0:0:0:ffff:7f00:1]",
                    "127。0。0。1",
                    "[64:ff9b::7f00:1]",
                ),
            ):
                with pytest.raises((ForbiddenAddressError, InvalidRequestError)) as caught:
                    await client.get(f"{scheme}://{host}:{port}/")
                assert caught.value.details["attempt"] <= 1, host
            error = await refusal(client, f"{scheme}://localhost:{port}/secret?token=canary")
            assert client.stats.open_connections == 0
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert error.details["addresses"] == ("127.0.0.1",) and error.details["host"] == "localhost"
    assert str(error).startswith(f"GET {scheme}://localhost:{port}/secret") and "canary" not in str(error)


async def test_a_redirect_is_asked_about_like_the_first_request(web: Nginx, config: Make) -> None:
    target = f"http://127.0.0.2:{web.http_port}/text"
    answers = [response(b"", f"Location: {target}", status="302 Found") for _ in range(2)]
    async with http_peer(answering(*answers)) as peer:
        async with HTTPClient(config(address_policy=LOOPBACK_1)) as client:
            error = await refusal(client, peer.url)
            assert "127.0.0.2" in str(error)
        async with HTTPClient(config(address_policy=None, retries=0)) as client:
            with pytest.raises(ConnectError, match=r"127\.0\.0\.2.*refused") as caught:
                await client.get(peer.url)
            assert not isinstance(caught.value, ForbiddenAddressError)


async def test_the_forbidden_addresses_of_a_mixed_answer_are_left_out(web: Nginx, config: Make) -> None:
    with names({"mixed.test": ["127.0.0.2", "127.0.0.1", "127.0.0.3"], "forbidden.test": ["127.0.0.2", "127.0.0.3"]}):
        async with HTTPClient(config(address_policy=LOOPBACK_1)) as client:
            for _ in range(2):
                assert await client.get(f"http://mixed.test:{web.http_port}/text") == TEXT
            assert socket_of(client).getpeername()[0] == "127.0.0.1"
            error = await refusal(client, f"http://forbidden.test:{web.http_port}/text")
            assert set(error.details["addresses"]) == {"127.0.0.2", "127.0.0.3"}


async def test_a_name_that_moves_is_looked_up_once_and_a_pooled_connection_stays(web: Nginx, config: Make) -> None:
    table: dict[str, Any] = {"rebinding.test": ["127.0.0.1"]}
    asked: list[str] = []

    def policy(host: str, ip: str, port: int) -> bool:
        asked.append(ip)
        # Whoever looked the name up again before connecting would be led there.
        table["rebinding.test"] = ["127.0.0.2"]
        return ip == "127.0.0.1"

    with names(table) as lookups:
        async with HTTPClient(config(address_policy=policy)) as client:
            url = f"http://rebinding.test:{web.http_port}/text"
            for _ in range(3):
                assert await client.get(url) == TEXT
            assert socket_of(client).getpeername()[0] == "127.0.0.1"
            assert lookups == {"rebinding.test": 1} and set(asked) == {"127.0.0.1"}
        # A connection that is made later is asked about, whether or not the answer is remembered.
        async with HTTPClient(config()) as client:
            await refusal(client, url)


async def test_the_session_for_the_user_obeys(web: Nginx, config: Make) -> None:
    async with HTTPClient(config()) as client:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await client.session.get(web.url("/text"))
        assert isinstance(caught.value.os_error, ForbiddenAddressError)


async def test_a_policy_that_raises_forbids(web: Nginx, config: Make) -> None:
    def policy(host: str, ip: str, port: int) -> bool:
        raise LookupError("no such table")

    async with HTTPClient(config(address_policy=policy)) as client:
        error = await refusal(client, web.url("/text"))
        assert "raised LookupError" in str(error) and isinstance(error.__cause__, LookupError)


async def test_without_an_address_there_is_none_to_ask_about(config: Make) -> None:
    with pytest.raises(ValueError, match="address_policy must be left out with unix_path"):
        config(unix_path="/run/x.sock")


# ---- Proxies ----


@pytest.fixture(params=["http", "socks5h", "socks5"])
def proxy_url(request: pytest.FixtureRequest, proxy: Tinyproxy, socks: int) -> str:
    return proxy.url if request.param == "http" else f"{request.param}://127.0.0.1:{socks}"


async def test_a_proxy_set_in_code_is_used_and_its_target_is_checked(web: Nginx, config: Make, proxy_url: str) -> None:
    for url in (web.url("/text"), web.https_url("/text")):
        async with HTTPClient(config(proxy=proxy_url)) as client:
            assert "forbids 127.0.0.1" in str(await refusal(client, url))
            for host in ("127.1", "2130706433"):
                with pytest.raises((ForbiddenAddressError, InvalidRequestError)):
                    await client.get(url.replace("127.0.0.1", host).replace("localhost", host))
        async with HTTPClient(config(proxy=proxy_url, address_policy=LOOPBACK_1)) as client:
            assert await client.get(url) == TEXT


async def test_a_proxy_that_looks_up_by_itself_needs_leave(web: Nginx, config: Make, proxy_url: str) -> None:
    url = f"http://localhost:{web.http_port}/text"
    looks_up = not proxy_url.startswith("socks5:")
    async with HTTPClient(config(address_policy=LOOPBACK_1)) as client:
        if looks_up:
            assert "looks up names by itself" in str(await refusal(client, url, proxy=proxy_url))
        else:
            assert await client.get(url, proxy=proxy_url) == TEXT
    async with HTTPClient(config(address_policy=PublicOnly(proxy_lookup=True))) as client:
        if looks_up:
            assert await client.get(url, proxy=proxy_url) == TEXT
        else:
            await refusal(client, url, proxy=proxy_url)


async def test_a_form_that_a_proxy_may_read_in_another_way_is_refused(config: Make, proxy: Tinyproxy) -> None:
    before = len(proxy.requests())
    # As octal it is 87.0.0.1, as decimal 127.0.0.1.
    async with HTTPClient(config(address_policy=PublicOnly(proxy_lookup=True))) as client:
        for scheme in ("http", "https"):
            with pytest.raises(NetworkError):
                await client.get(f"{scheme}://0127.0.0.1/", proxy=proxy.url)
    assert len(proxy.requests()) == before
