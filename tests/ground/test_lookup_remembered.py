"""The answer of a name lookup is used again for seconds, and forgotten when it misleads."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.limits import end_limits
from support.names import HangingNames
from support.names import names as name_table
from support.processes import reserved_ports
from support.servers import echo_server

from pepperpy.network import (
    ConnectError,
    HTTPClient,
    HTTPConfig,
    NetworkClient,
    NetworkConfig,
    ProxyError,
    TLSConfig,
    TLSError,
    lookup,
)

OK = answering(response())


async def test_an_answer_is_remembered_for_tcp_and_for_http_and_for_every_port(names: HangingNames) -> None:
    async with http_peer(OK) as peer, echo_server() as port, HTTPClient() as client:
        for _ in range(2):
            assert await client.get(f"http://host.test:{peer.port}/", headers={"Connection": "close"}) == "ok"
            async with NetworkClient(NetworkConfig("host.test", port)):
                pass
            async with NetworkClient(NetworkConfig("host.test", peer.port)):
                pass
    assert names.asked == ["host.test"]


async def test_an_answer_is_forgotten_after_some_seconds(names: HangingNames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "REMEMBERED_S", 0)
    for _ in range(2):
        await lookup.look_up("host.test", 1)
    assert names.asked == ["host.test"] * 2
    monkeypatch.setattr(lookup, "REMEMBERED_S", 60)
    monkeypatch.setattr(lookup, "MAX_NAMES", 2)
    for number in (1, 2, 3, 2, 1):
        await lookup.look_up(f"host{number}.test", 1)
    assert names.asked[2:] == ["host1.test", "host2.test", "host3.test", "host1.test"]


async def test_an_answer_is_forgotten_when_connecting_to_it_fails(names: HangingNames) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for _ in range(2):
            with pytest.raises(ConnectError):
                await NetworkClient(NetworkConfig("host.test", port, retries=0)).connect()
        assert names.asked == ["host.test"] * 2
        async with HTTPClient(HTTPConfig(retries=0)) as client:
            for options in ({}, {"proxy": f"http://proxy.test:{port}"}):
                names.asked.clear()
                for _ in range(2):
                    with pytest.raises(ConnectError):
                        await client.get(f"http://host.test:{port}", **options)
                assert names.asked == ["proxy.test" if options else "host.test"] * 2


async def test_an_answer_is_forgotten_when_what_accepts_there_is_not_the_server(names: HangingNames) -> None:
    def refuse(_: NetworkClient) -> None:
        raise ConnectionError("not the primary")

    async with echo_server() as port:
        for settings, error in (
            ({"tls": TLSConfig(ca_file=ca_file())}, TLSError),
            ({"on_connect": refuse}, ConnectError),
            ({"proxy": f"http://proxy.test:{port}"}, ProxyError),
        ):
            names.asked.clear()
            for _ in range(2):
                with pytest.raises(error):
                    await NetworkClient(NetworkConfig("host.test", port, retries=0, timeout=5, **settings)).connect()
            assert len(names.asked) == 2
        names.asked.clear()
        async with HTTPClient(HTTPConfig(retries=0, tls=TLSConfig(ca_file=ca_file()))) as client:
            for _ in range(2):
                with pytest.raises(ConnectError):
                    await client.get(f"https://host.test:{port}")
        assert names.asked == ["host.test"] * 2


async def test_after_a_failure_connecting_begins_with_the_next_address() -> None:
    accepted: list[str] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append("silent")
        await reader.read()
        writer.close()

    async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append("good")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"ok", "Connection: close"))
        writer.close()

    with reserved_ports(1) as [port], name_table({"localhost": ["127.0.0.1", "127.0.0.2"]}):
        first = await asyncio.start_server(silent, "127.0.0.1", port)
        second = await asyncio.start_server(good, "127.0.0.2", port, ssl=server_context(server_cert()))
        async with first, second:
            config = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), connect_timeout=60, retries=1, retry_delay=0)
            async with HTTPClient(config) as client:
                for attempts in (2, 1):
                    asking = asyncio.create_task(client.request("POST", f"https://localhost:{port}/", data=b""))
                    if attempts == 2:
                        await until(lambda: accepted == ["silent"], "the first has accepted")
                        # Now the time to connect is over.
                        end_limits()
                    answer = await asking
                    assert (answer.text, answer.attempts) == ("ok", attempts)
    assert accepted == ["silent", "good", "good"]


async def test_an_address_that_is_in_its_handshake_has_not_failed() -> None:
    accepted: list[str] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer.get_extra_info("sockname")[0])
        await reader.read()
        writer.close()

    with reserved_ports(1) as [port], name_table({"localhost": ["127.0.0.1", "127.0.0.2"]}):
        first = await asyncio.start_server(silent, "127.0.0.1", port)
        second = await asyncio.start_server(silent, "127.0.0.2", port)
        async with first, second, HTTPClient() as client:
            asking = []
            for count in (1, 2):
                asking.append(asyncio.create_task(client.get(f"https://localhost:{port}/")))
                await until(lambda count=count: len(accepted) == count, "it has accepted")
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    assert accepted == ["127.0.0.1"] * 2
