"""`NetworkConfig(trust_env=True)`: ALL_PROXY and NO_PROXY of the environment, through real proxies."""

from __future__ import annotations

import pytest
from support.proxies import PROXY_CREDENTIALS, Tinyproxy
from support.servers import echo_server

from pepperpy.network import ForbiddenAddressError, NetworkClient, NetworkConfig, PublicOnly

USER, PASSWORD = PROXY_CREDENTIALS


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "no_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def echoed(config: NetworkConfig) -> int:
    """The port that the client is connected to."""
    async with NetworkClient(config) as client:
        await client.send(b"a")
        assert await client.receive() == b"a"
        return int(client.remote_address[1])


async def test_the_proxy_of_the_environment_is_used_only_if_asked_for(
    locked_socks: int, proxy: Tinyproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with echo_server() as port:
        config = NetworkConfig("localhost", port, retries=0, trust_env=True)
        assert await echoed(config) == port
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}")
        assert await echoed(config.replace(trust_env=False)) == port
        # It is read at each connection, and NO_PROXY with it.
        assert await echoed(config) == locked_socks
        assert await echoed(config.replace(proxy=proxy.url)) == proxy.port
        monkeypatch.setenv("NO_PROXY", f"localhost:{port}")
        assert await echoed(config) == port
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        assert await echoed(config) == locked_socks
        assert await echoed(config.replace(host="127.0.0.1")) == port


async def test_a_proxy_of_the_environment_is_checked_by_the_policy(socks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{socks}")
    config = NetworkConfig("8.8.8.8", 1, trust_env=True, address_policy=PublicOnly())
    with pytest.raises(ForbiddenAddressError, match=r"'127\.0\.0\.1' is forbidden"):
        await NetworkClient(config).connect()


async def test_a_variable_that_names_no_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://u:canary@127.0.0.1")
    with pytest.raises(ValueError, match="the variable ALL_PROXY must name a proxy") as caught:
        await NetworkClient(NetworkConfig("localhost", 1, trust_env=True)).connect()
    assert "canary" not in str(caught.value)


def test_a_unix_socket_has_no_proxy() -> None:
    with pytest.raises(ValueError, match="trust_env must be left out with unix_path"):
        NetworkConfig(unix_path="/x", trust_env=True)
