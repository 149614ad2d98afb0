"""Pools together with the other parts: TLS, Unix sockets, messages, requests and pipelines in the block."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.line_server import ask, line_server, pool_of, server_and_pool
from support.loops import begun_later
from support.mortal import echo, mortal_server

from pepperpy.network import (
    ClosedError,
    JSONLines,
    LengthPrefixed,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    TLSConfig,
)


async def test_a_pool_over_tls_lends_its_connections_again_and_drops_those_that_end() -> None:
    async with mortal_server(echo, server_context(server_cert())) as server:
        config = NetworkConfig("127.0.0.1", server.port, timeout=10, tls=TLSConfig(ca_file=ca_file()), on_connect=ask)
        async with NetworkPool(config, 2, 2) as pool:

            async def work(number: int) -> None:
                async with pool.acquire() as client:
                    assert client.tls is not None
                    await ask(client, b"%d" % number)

            await asyncio.gather(*map(work, range(50)))
            assert (server.accepted, pool.stats.dropped) == (2, {})
            for writer in server.writers:
                writer.close()
            await until(lambda: pool.stats.dropped == {"lost": 2}, "both ends are noticed")
            await asyncio.gather(*map(work, range(50)))
            assert (server.accepted, pool.stats.dropped) == (4, {"lost": 2})


async def test_a_pool_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        accepted = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal accepted
            accepted += 1
            await echo(reader, writer)
            writer.close()

        server = await asyncio.start_unix_server(serve, path)
        async with NetworkPool(NetworkConfig(unix_path=path, timeout=10, on_connect=ask), 0, 3) as pool:

            async def work(number: int) -> None:
                async with pool.acquire() as client:
                    assert client.remote_address == path
                    await ask(client, b"%d" % number)

            await asyncio.gather(*map(work, range(50)))
            async with pool.acquire() as client:
                await client.send(b"unread\n")
                await until(lambda: client.stats.bytes_buffered > 0, "something is unread")
            assert pool.stats.dropped == {"unread": 1}
            await asyncio.gather(*map(work, range(50)))
        assert accepted <= 4
        server.close()
        await server.wait_closed()
        Path(path).unlink(missing_ok=True)


async def test_messages_requests_and_pipelines_in_the_block_leave_the_connection_to_the_next() -> None:
    async with server_and_pool(0, 1) as (server, pool):
        for number in range(3):
            async with pool.acquire() as client:
                framed = client.framed(JSONLines())
                await framed.send([number])
                assert await framed.receive() == [number]
            async with pool.acquire() as client:
                questions = [client.request(b"%d\n" % n, NetworkClient.receive_line) for n in range(5)]
                assert await asyncio.gather(*questions) == [b"%d\n" % n for n in range(5)]
            async with pool.acquire() as client, client.pipeline(JSONLines()) as pipeline:
                assert await asyncio.gather(*map(pipeline.request, range(5))) == list(range(5))
        assert (server.accepted, pool.stats.dropped) == (1, {})


async def test_a_half_received_message_is_not_left_to_the_next() -> None:
    async with server_and_pool(0, 1) as (_, pool):
        async with pool.acquire() as client:
            framed = client.framed(LengthPrefixed(4))
            await client.send(b"\0\0\0\x09half\n")
            receiving = asyncio.create_task(framed.receive())
            await until(lambda: client.stats.bytes_received == 9, "half of it is here")
            receiving.cancel()
            await asyncio.wait([receiving])
        assert sum(pool.stats.dropped.values()) == 1
        async with pool.acquire() as client:
            await ask(client)


async def test_a_connection_with_a_request_under_way_is_not_lent_again() -> None:
    gate = asyncio.Event()

    async def line_and_more(client: NetworkClient) -> bytes:
        found = await client.receive_line()
        reached.set()
        await gate.wait()
        return found + await client.receive_line()

    async with server_and_pool(0, 1) as (_, pool):
        reached = asyncio.Event()
        async with pool.acquire() as client:
            asking = asyncio.create_task(client.request(b"1\n", line_and_more))
            await reached.wait()
        assert pool.stats.dropped == {"unfinished": 1}
        async with pool.acquire() as client:
            await ask(client)
            gate.set()
            with pytest.raises(ClosedError):
                await asking
            await ask(client)


async def test_a_request_whose_turn_comes_after_the_block_is_not_sent() -> None:
    async with line_server() as server, pool_of(server.port, 0, 1) as pool:
        async with pool.acquire() as client:
            second = begun_later(client.request(b"2\n", NetworkClient.receive_line))
            # The first one's: this task does not let the other run between the reply and the end of the block.
            assert await client.request(b"1\n", NetworkClient.receive_line) == b"1\n"
        assert pool.stats.dropped == {}
        async with pool.acquire() as client:
            with pytest.raises(ClosedError, match="given back"):
                await second
            await ask(client)
        assert server.accepted == 1
