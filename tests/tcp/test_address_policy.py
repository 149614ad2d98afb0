"""`address_policy` over TCP: after each lookup, before each connection, through proxies, and never tried again."""

from __future__ import annotations

import asyncio
import pickle
import socket
from typing import Any

import pytest
from support.names import names
from support.proxies import Tinyproxy
from support.servers import echo_server

from pepperpy.network import ForbiddenAddressError, NetworkClient, NetworkConfig, NetworkError, PublicOnly

LOOPBACK_1 = PublicOnly(allow=("127.0.0.1",))


def config_for(host: str, port: int, **settings: Any) -> NetworkConfig:
    return NetworkConfig(host, port, **{"address_policy": PublicOnly(), "retries": 3, "retry_delay": 0} | settings)


async def refusal(config: NetworkConfig) -> ForbiddenAddressError:
    with pytest.raises(ForbiddenAddressError) as caught:
        await NetworkClient(config).connect()
    return caught.value


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost", "0", "0.0.0.0", "::1", "::"),
        *("::ffff:127.0.0.1", "127。0。0。1", "64:ff9b::7f00:1"),
    ],
)
async def test_this_machine_is_not_reached_by_any_spelling(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        error = await refusal(config_for(host, listener.getsockname()[1]))
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert error.details["attempt"] == 1 and error.details["host"] == host
    assert pickle.loads(pickle.dumps(error)).details == error.details


async def test_an_allowed_address_is_connected_to_without_another_lookup() -> None:
    async with echo_server() as port:
        with names({"rebinding.test": ["127.0.0.1"]}) as asked:

            def rebind(host: str, ip: str, port: int) -> bool:
                # Whoever looked the name up again would be led elsewhere.
                socket.getaddrinfo = lambda *_, **__: pytest.fail("looked up again")  # type: ignore[assignment]
                return True

            async with NetworkClient(config_for("rebinding.test", port, address_policy=rebind)) as client:
                await client.send(b"a")
                assert await client.receive() == b"a"
                assert client.remote_address[0] == "127.0.0.1"
            assert asked == {"rebinding.test": 1}


async def test_a_remembered_answer_is_checked_each_time() -> None:
    async with echo_server() as port:
        with names({"name.test": ["127.0.0.1"]}) as asked:
            async with NetworkClient(config_for("name.test", port, address_policy=LOOPBACK_1)):
                pass
            await refusal(config_for("name.test", port))
            assert asked == {"name.test": 1}


async def test_the_forbidden_addresses_of_a_mixed_answer_are_left_out() -> None:
    seen: list[str] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("sockname")[0])
        writer.close()

    async with await asyncio.start_server(hear, "0.0.0.0", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with names({"mixed.test": ["127.0.0.2", "127.0.0.1", "127.0.0.3"]}):
            config = config_for("mixed.test", port, address_policy=LOOPBACK_1, happy_eyeballs_delay=0)
            async with NetworkClient(config) as client:
                assert client.remote_address[0] == "127.0.0.1"
                assert not await client.receive()
            error = await refusal(config_for("mixed.test", port))
    assert seen == ["127.0.0.1"]
    assert error.details["addresses"] == ("127.0.0.2", "127.0.0.1", "127.0.0.3")


async def test_may_pass_and_reconnecting_do_not_try_again() -> None:
    asked = []
    allowed = True

    def policy(host: str, ip: str, port: int) -> bool:
        asked.append(ip)
        return allowed

    config = config_for("127.0.0.1", 1, address_policy=policy, may_pass=lambda error: True)
    allowed = False
    await refusal(config)
    assert len(asked) == 1
    allowed = True
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        config = config.replace(port=server.sockets[0].getsockname()[1], reconnect=True)
        async with NetworkClient(config) as client:
            allowed = False
            for _ in range(3):
                with pytest.raises(NetworkError) as caught:
                    await client.receive()
            assert isinstance(caught.value, ForbiddenAddressError)
    # Once for each connection that was made, and once for the last.
    assert 2 < len(asked) < 10


async def test_the_next_host_has_its_turn() -> None:
    async with echo_server() as port:
        config = config_for("127.0.0.2", port, address_policy=LOOPBACK_1, hosts=(("127.0.0.1", port),))
        async with NetworkClient(config) as client:
            assert client.remote_address[0] == "127.0.0.1"
        error = await refusal(config.replace(address_policy=PublicOnly()))
        assert "127.0.0.2" in str(error) and "127.0.0.1" in str(error)


# ---- Proxies ----


async def test_a_proxy_of_this_machine_is_used_and_its_target_is_checked(socks: int, proxy: Tinyproxy) -> None:
    async with echo_server() as port:
        for url in (f"socks5://127.0.0.1:{socks}", f"socks5h://127.0.0.1:{socks}", proxy.url):
            # The proxy has the same address as the target, but is set in code.
            for host in ("127.0.0.1", "127.1", "::ffff:127.0.0.1"):
                assert "forbids 127.0.0.1" in str(await refusal(config_for(host, port, proxy=url)))
            allowed = config_for("127.1", port, proxy=url, address_policy=LOOPBACK_1)
            async with NetworkClient(allowed) as client:
                await client.send(b"a")
                assert await client.receive() == b"a"


async def test_a_proxy_that_looks_up_by_itself_needs_leave(socks: int, proxy: Tinyproxy) -> None:
    before = len(proxy.requests())
    async with echo_server() as port:
        for url in (f"socks5h://u:secret@127.0.0.1:{socks}", f"socks4a://127.0.0.1:{socks}", proxy.url):
            error = await refusal(config_for("localhost", port, proxy=url, address_policy=LOOPBACK_1))
            assert "looks up names by itself" in str(error) and "secret" not in str(error)
        assert len(proxy.requests()) == before
        with names({"mixed.test": ["127.0.0.2", "127.0.0.1"]}):
            url = f"socks5://127.0.0.1:{socks}"
            async with NetworkClient(config_for("mixed.test", port, proxy=url, address_policy=LOOPBACK_1)) as client:
                await client.send(b"a")
                assert await client.receive() == b"a"
        leave = PublicOnly(proxy_lookup=True)
        async with NetworkClient(config_for("localhost", port, proxy=proxy.url, address_policy=leave)) as client:
            await client.send(b"a")
            assert await client.receive() == b"a"
