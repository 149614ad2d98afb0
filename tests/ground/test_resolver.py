"""`resolver`: a lookup of the user's in place of the system's, for TCP and both transports of HTTP."""

from __future__ import annotations

import asyncio
import functools
import itertools
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from support.nginx import TEXT, Nginx
from support.proxies import Tinyproxy
from support.servers import echo_server

from pepperpy.network import (
    ConnectError,
    ForbiddenAddressError,
    HTTPClient,
    HTTPConfig,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    PublicOnly,
)
from pepperpy.network.lookup import MAX_ADDRESSES, look_up

Make = Callable[..., HTTPConfig]


@pytest.fixture(params=["aiohttp", "auto"])
def config(request: pytest.FixtureRequest) -> Make:
    """Makes a configuration for each of the transports of HTTP."""
    return functools.partial(HTTPConfig, transport=request.param, retries=2, retry_delay=0)


class Names:
    """A resolver that knows names of the tests' own, and notes what it is asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> Iterable[str]:
        self.asked.append((host, port))
        return self.addresses


async def fails(error: Exception) -> Any:
    raise error


def failing(error: Exception) -> Callable[[str, int], Awaitable[Any]]:
    return lambda host, port: fails(error)


async def test_tcp_asks_it_for_names_and_not_for_addresses() -> None:
    names = Names("127.0.0.1")
    async with echo_server() as port:
        for resolver in (names, names.resolve):
            async with NetworkClient(NetworkConfig("server.test", port, resolver=resolver)) as client:
                await client.send(b"a")
                assert await client.receive() == b"a"
        async with NetworkClient(NetworkConfig("127.0.0.1", port, resolver=names)):
            pass
    assert names.asked == [("server.test", port)] * 2


async def test_http_asks_it_for_each_connection(web: Nginx, config: Make) -> None:
    names = Names("127.0.0.1")
    url = f"http://server.test:{web.http_port}/text"
    for _ in range(2):
        async with HTTPClient(config(resolver=names)) as client:
            for _ in range(2):
                assert await client.get(url) == TEXT
    assert names.asked == [("server.test", web.http_port)] * 2


async def test_it_looks_up_proxies_too(web: Nginx, config: Make, proxy: Tinyproxy, socks: int) -> None:
    names = Names("127.0.0.1")
    for scheme, port in (("http", proxy.port), ("socks5h", socks)):
        async with HTTPClient(config(resolver=names)) as client:
            assert await client.get(web.url("/text"), proxy=f"{scheme}://proxy.test:{port}") == TEXT
        assert names.asked.pop() == ("proxy.test", port)
    async with HTTPClient(config(resolver=names)) as client:
        # Who looks up where is as without it.
        url = f"http://server.test:{web.http_port}/text"
        assert await client.get(url, proxy=f"socks5://127.0.0.1:{socks}") == TEXT
        assert names.asked == [("server.test", web.http_port)]


async def test_what_it_gives_is_checked_by_the_policy(web: Nginx, config: Make) -> None:
    async with HTTPClient(config(resolver=Names("127.0.0.1"), address_policy=PublicOnly())) as client:
        with pytest.raises(ForbiddenAddressError):
            await client.get("http://server.test/")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "'server.test' has no address"),
        (["server.test"], "gives what is no IP address: 'server.test'"),
        (["127.1"], "gives what is no IP address: '127.1'"),
        ([b"127.0.0.1"], "gives what is no IP address"),
        ([{"host": "127.0.0.1"}], "gives what is no IP address"),
        (["\x1b[31m"], r"gives what is no IP address: '\\x1b"),
        (itertools.repeat("127.0.0.1"), f"more than {MAX_ADDRESSES} addresses"),
        (None, "resolver .*failed: TypeError"),
    ],
)
async def test_what_is_no_list_of_addresses_fails_the_attempt(given: Any, words: str) -> None:
    async def resolve(host: str, port: int) -> Any:
        return given

    with pytest.raises(socket.gaierror, match=words):
        await look_up("server.test", 1, 0, resolve)


async def test_the_addresses_come_in_its_order_with_their_port() -> None:
    found = await look_up("server.test", 80, 0, Names("::1", "127.0.0.1", "fe80::1%lo"))
    assert [(family, address[:2]) for family, _, _, _, address in found] == [
        (socket.AF_INET6, ("::1", 80)),
        (socket.AF_INET, ("127.0.0.1", 80)),
        (socket.AF_INET6, ("fe80::1", 80)),
    ]


async def test_an_oserror_says_itself_whether_it_may_pass_and_other_errors_are_final(config: Make) -> None:
    for error, attempts in (
        (socket.gaierror(socket.EAI_AGAIN, "later"), 3),
        (socket.gaierror(socket.EAI_NONAME, "never"), 1),
        (LookupError("a library's own"), 1),
    ):
        tcp = NetworkConfig("server.test", 1, resolver=failing(error), retries=2, retry_delay=0)
        with pytest.raises(ConnectError) as caught:
            await NetworkClient(tcp).connect()
        assert caught.value.details["attempt"] == attempts
        async with HTTPClient(config(resolver=failing(error))) as client:
            with pytest.raises(ConnectError) as caught:
                await client.get("http://server.test/")
        assert caught.value.details["attempt"] == attempts
        assert str(error.args[-1]) in str(caught.value)


async def test_its_time_is_that_of_connecting(config: Make) -> None:
    async def hang(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(NetworkTimeoutError):
        await NetworkClient(NetworkConfig("server.test", 1, resolver=hang, connect_timeout=0.02, retries=0)).connect()
    async with HTTPClient(config(resolver=hang, connect_timeout=0.02, retries=0)) as client:
        with pytest.raises(NetworkTimeoutError, match="connect_timeout"):
            await client.get("http://server.test/")


def test_the_settings_are_checked_and_shown() -> None:
    for wrong, words in ((Names, "not the class Names"), ("8.8.8.8", "must be callable, not str")):
        with pytest.raises(TypeError, match=f"resolver {words}|{words}"):
            NetworkConfig("localhost", 1, resolver=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resolver must be left out with unix_path"):
        NetworkConfig(unix_path="/x", resolver=Names())
    assert repr(HTTPConfig(resolver=Names())) == "HTTPConfig(resolver=Names)"
