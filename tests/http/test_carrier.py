"""Who carries a request: our own core, or aiohttp what the core does not do."""

from __future__ import annotations

import socket

import pytest

from pepperpy.network import HTTPClient, HTTPConfig, ProxyError
from pepperpy.network.http.transports import carrier_of


@pytest.mark.parametrize(
    ("scheme", "proxy", "carrier"),
    [
        ("http", None, "core"),
        ("https", None, "core"),
        ("http", "socks5h://proxy.test:1080", "core"),
        ("https", "socks4://proxy.test:1080", "core"),
        # Asked for each URL, and not for a tunnel.
        ("http", "http://proxy.test:3128", "aiohttp"),
        ("http", "HTTP://proxy.test:3128", "aiohttp"),
        ("https", "http://user:password@proxy.test:3128/", "core"),
        ("https", "HTTP://proxy.test:3128", "core"),
        # What a tunnel of TCP has no use for, or takes for a mistake.
        ("https", "http://proxy.test", "aiohttp"),
        ("https", "http://proxy.test:3128/path", "aiohttp"),
        ("https", "http://" + "u" * 300 + ":password@proxy.test:3128", "aiohttp"),
        # The one encoding of credentials for both schemes.
        ("https", "http://user:p%C3%A4ss@proxy.test:3128", "aiohttp"),
        ("http", "https://proxy.test:3128", "aiohttp"),
        ("https", "https://proxy.test:3128", "aiohttp"),
        ("https", "HTTPS://proxy.test:3128", "aiohttp"),
    ],
)
def test_a_carrier_is_chosen_by_the_scheme_and_the_proxy(scheme: str, proxy: str | None, carrier: str) -> None:
    assert carrier_of(HTTPConfig(proxy=proxy), scheme, proxy) == carrier


def test_aiohttp_carries_all_where_a_setting_says_so() -> None:
    assert carrier_of(HTTPConfig(transport="aiohttp"), "https", None) == "aiohttp"
    assert carrier_of(HTTPConfig(trust_env=True), "https", None) == "core"


async def test_any_proxy_that_the_configuration_takes_is_asked() -> None:
    # Bound, and not listening: nobody else has the port, and it refuses.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refuses = f"127.0.0.1:{bound.getsockname()[1]}"
        for proxy in (f"http://{refuses}", f"HTTP://{refuses}", f"http://{refuses}/path", f"https://{refuses}"):
            for url in ("http://server.test/", "https://server.test/"):
                async with HTTPClient(HTTPConfig(proxy=proxy, retries=0)) as client:
                    with pytest.raises(ProxyError):
                        await client.get(url)
