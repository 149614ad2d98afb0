"""TCP keepalive on the connections of HTTP: set on every way to a server, by the same settings as for TCP."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable

import pytest
from support.certificates import ca_file
from support.http_sockets import socket_of
from support.nginx import TEXT, Nginx
from support.proxies import Tinyproxy

from pepperpy.network import ConnectionLostError, HTTPClient, HTTPConfig, Keepalive, NetworkConfig, TLSConfig

OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def options_of(client: HTTPClient) -> list[int]:
    """Those of the client's only connection."""
    sock = socket_of(client)
    on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return [on, *(sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in OPTIONS)]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("way", ["direct", "http", "socks5h"])
async def test_every_connection_has_what_is_configured(
    web: Nginx, proxy: Tinyproxy, socks: int, way: str, scheme: str
) -> None:
    proxies = {"direct": None, "http": proxy.url, "socks5h": f"socks5h://127.0.0.1:{socks}"}
    config = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), proxy=proxies[way])
    url = web.url("/text") if scheme == "http" else web.https_url("/text")
    for settings, expected in (
        ({}, [1, 15, 15, 9, 150_000]),
        ({"keepalive": Keepalive(idle=7, interval=8, count=3)}, [1, 7, 8, 3, 31_000]),
        ({"keepalive": Keepalive(count=4, user_timeout=1.5)}, [1, 15, 15, 4, 1500]),
    ):
        async with HTTPClient(config.replace(**settings)) as client:
            assert await client.get(url) == TEXT
            assert options_of(client) == expected
    async with HTTPClient(config.replace(keepalive=False)) as client:
        assert await client.get(url) == TEXT
        on, *_, user_timeout = options_of(client)
        assert (on, user_timeout) == (0, 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_a_server_that_takes_no_data_is_given_up_after_the_user_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with HTTPClient(HTTPConfig(retries=0, timeout=None, keepalive=Keepalive(user_timeout=0.1))) as client:
            with pytest.raises(ConnectionLostError, match="user_timeout") as caught:
                await client.post(url, data=bytes(50_000_000))
            assert caught.value.details["limit"] == "user_timeout"
            assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize("make", [HTTPConfig, functools.partial(NetworkConfig, "localhost", 1)])
def test_what_is_no_keepalive_is_refused_by_both_clients_in_the_same_words(make: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"^keepalive must be True, False or a Keepalive, not 1$"):
        make(keepalive=1)


def test_the_defaults_are_those_of_tcp() -> None:
    assert HTTPConfig().keepalive is NetworkConfig("localhost", 1).keepalive is True
