"""`memory_pair` and `connect_failures`: clients without a network, and with one that fails."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import echo_server

from pepperpy.network import (
    BufferLimits,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    testing,
)
from pepperpy.network.testing import Peer, connect_failures, memory_pair, no_retry_waits, scripted_peer


async def ping(peer: Peer) -> None:
    await peer.expect(b"PING\r\n")
    await peer.send(b"+PONG\r\n")


async def pinging(config: NetworkConfig, request: bytes = b"PING\r\n") -> bytes:
    async with NetworkClient(config) as client:
        await client.send(request)
        return await client.receive_until(b"\r\n")


# ---- Clients in memory ----


async def test_a_pair_in_memory_opens_no_descriptor() -> None:
    from conftest import open_descriptors

    before = open_descriptors()
    async with memory_pair() as (a, b):
        await a.send(b"hello\n")
        assert await b.receive_line() == b"hello\n"
        assert open_descriptors() == before
        assert a.local_address == b.remote_address and b.local_address == a.remote_address


@pytest.mark.parametrize(
    "field", [{"tls": True}, {"proxy": "socks5://proxy:1080"}, {"unix_path": "/socket"}, {"hosts": (("other", 1),)}]
)
async def test_what_means_nothing_in_memory_is_refused_by_name(field: dict[str, Any]) -> None:
    place = {} if "unix_path" in field else {"host": "db", "port": 5432}
    for configs in ([NetworkConfig(**place, **field)], [NetworkConfig("db", 5432), NetworkConfig(**place, **field)]):
        with pytest.raises(ValueError, match=f"^{next(iter(field))} must be left out"):
            async with memory_pair(*configs):
                raise AssertionError


async def test_settings_are_those_of_each_client() -> None:
    async with memory_pair(NetworkConfig("db", 5432, timeout=0.01), NetworkConfig("db", 5432, timeout=7)) as (a, b):
        assert (a.config.timeout, b.config.timeout) == (0.01, 7)
        with pytest.raises(NetworkTimeoutError):
            await a.receive()


async def test_both_connect_again_and_the_code_under_test_makes_its_own_client() -> None:
    async with memory_pair(connect=False) as (a, b):
        assert not a.is_connected
        for number in (1, 2):
            connecting = asyncio.create_task(b.connect())
            assert await asyncio.gather(pinging(a.config, b"PING\r\n"), answer(b, connecting)) == [b"+PONG\r\n", None]
            assert b.stats.connects == number


async def answer(client: NetworkClient, connecting: asyncio.Task[None]) -> None:
    await connecting
    assert await client.receive_line() == b"PING\r\n"
    await client.send(b"+PONG\r\n")
    await client.disconnect()


async def test_who_waits_in_vain_for_the_other_side_times_out_and_leaves_nothing() -> None:
    config = NetworkConfig("memory", 1, connect_timeout=0.01, retries=0)
    async with memory_pair(config, connect=False) as (a, b):
        with pytest.raises(NetworkTimeoutError):
            await a.connect()
        await asyncio.gather(b.connect(), a.connect())
        await a.send(b"x")
        assert await b.receive() == b"x"


async def test_who_is_cancelled_when_the_other_side_has_come_leaves_it_an_ended_connection() -> None:
    async with memory_pair(connect=False) as (a, b):
        connecting = asyncio.create_task(a.connect())
        await asyncio.sleep(0)
        await b.connect()  # does not suspend: the two have met, and the task has not run since
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled() and not a.is_connected
        assert await b.receive() == b""


async def test_a_small_capacity_holds_the_sender_back() -> None:
    config = NetworkConfig("memory", 1, buffers=BufferLimits(receive_high=1, receive_low=0, send_high=1, send_low=0))
    async with memory_pair(config, capacity=10) as (a, b):
        await a.send(b"1")
        while not b.stats.bytes_received:
            await asyncio.sleep(0)
        await a.send(b"x" * 15)
        with pytest.raises(NetworkTimeoutError):
            await a.send(b"more", timeout=0.01)
        assert await b.receive_exactly(16) == b"1" + b"x" * 15
        await a.send(b"more")
        assert await b.receive() == b"more"


async def test_a_name_of_a_pair_means_nothing_after_its_block() -> None:
    async with memory_pair() as (a, _):
        config = a.config
    assert config.host.endswith(".invalid")
    with pytest.raises(ClosedError):
        await a.receive()


# ---- Attempts that fail ----


async def test_the_next_attempts_fail_and_the_retries_are_those_of_production() -> None:
    async with scripted_peer(ping) as server:
        client = NetworkClient(server.config.replace(retries=2))
        with no_retry_waits(), connect_failures(2):
            async with client:
                await client.send(b"PING\r\n")
                assert await client.receive_line() == b"+PONG\r\n"
        assert client.stats.retries == 2


async def test_a_failure_is_what_the_system_would_say() -> None:
    client = NetworkClient(NetworkConfig("127.0.0.1", 9, retries=1, retry_delay=0))
    causes = set()
    for _ in range(2):
        with connect_failures(2), pytest.raises(ConnectError, match=r"Connection refused \(2 attempts") as caught:
            await client.connect()
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        causes.add(caught.value.__cause__)
    assert len(causes) == 2
    unknown = socket.gaierror(socket.EAI_NONAME, "unknown name")
    with connect_failures(1, unknown), pytest.raises(ConnectError, match=r"unknown name \(1 attempt ") as caught:
        await client.connect()
    assert type(caught.value.__cause__) is socket.gaierror and caught.value.__cause__ is not unknown
    with connect_failures(1, TimeoutError()), connect_failures(1), pytest.raises(NetworkTimeoutError):
        await client.connect()


async def test_only_attempts_to_the_address_that_is_given_fail() -> None:
    async with scripted_peer(ping, ping) as server:
        with connect_failures(1, port=server.port), connect_failures(1, host="localhost"):
            assert await pinging(server.config.replace(port=server.port, retries=1, retry_delay=0)) == b"+PONG\r\n"
            config = server.config.replace(host="localhost", retries=1, retry_delay=0)
            assert await pinging(config) == b"+PONG\r\n"


async def test_attempts_that_never_came_fail_the_block_unless_it_has_failed_already() -> None:
    with pytest.raises(AssertionError, match="2 attempts to connect were to fail, only 0 came"), connect_failures(2):
        pass
    with pytest.raises(LookupError), connect_failures(2):
        raise LookupError
    with pytest.raises(ValueError, match="count must be 1 or more, not 0"), connect_failures(0):
        pass
    with pytest.raises(TypeError, match="error must be an OSError"), connect_failures(1, ValueError()):  # type: ignore[arg-type]
        pass


# ---- Examples ----


async def run_example(code: str, **names: object) -> None:
    """Run the code of a docstring as the body of a coroutine, in which `names` are known."""
    body = textwrap.indent(textwrap.dedent(code), "    ")
    scope = dict(names)
    exec(f"async def example():\n{body}", scope)
    await scope["example"]()  # type: ignore[operator]


def indented_code(function: object) -> str:
    """The first indented block of a docstring."""
    match = re.search(r"\n\n((?: {4}.*\n|\n)+)", inspect.getdoc(function) or "")
    assert match is not None
    return match[1]


async def test_the_examples_of_the_docstrings_run() -> None:
    names = {**vars(testing), "NetworkClient": NetworkClient}
    await run_example(indented_code(testing.scripted_peer), **names)
    async with echo_server() as port:
        server = SimpleNamespace(host="127.0.0.1", port=port)
        connect = "        await client.connect()\n        await client.disconnect()\n"
        await run_example(indented_code(testing.FaultProxy) + connect, server=server, **names)


async def test_the_examples_of_the_module_run_with_code_under_test() -> None:
    async def names_of_users() -> list[str]:
        async with HTTPClient(HTTPConfig("https://api.example.com")) as client:
            return [user["name"] for user in (await client.request("GET", "/users")).json()]

    async def patient_ping(config: NetworkConfig) -> bytes:
        try:
            return await pinging(config)
        except ConnectionLostError:
            return await pinging(config)

    doc = testing.__doc__ or ""
    code = doc[doc.index("async def") :] + "\nawait test_users_are_listed()\n"
    code += "await test_ping_survives_a_lost_connection()\n"
    await run_example(code, ping=patient_ping, names_of_users=names_of_users, **vars(testing))
