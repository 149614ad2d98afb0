"""idle_timeout: a receive fails after silence, however long it may last while bytes come."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.cancelling import arrived
from support.held_up import hold_up
from support.limits import longer_and_longer
from support.servers import client_of, echo_server, peer_and_client

from pepperpy.network import Delimited, LengthPrefixed, NetworkConfig, NetworkPool, NetworkTimeoutError


async def test_silence_ends_a_receive_and_nothing_is_lost() -> None:
    async with peer_and_client(timeout=None, idle_timeout=0.05) as (peer, client):
        await peer.send(b"abc")
        await arrived(client, 3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(NetworkTimeoutError, match=r"no byte came for idle_timeout=0\.05 s") as caught:
            await client.receive_line()
        assert loop.time() - began > 0.035
        assert (caught.value.details["phase"], caught.value.details["idle_timeout"]) == ("receive", 0.05)
        await peer.send(b"d\n")
        assert await client.receive_line() == b"abcd\n"


async def test_silence_behind_bytes_that_came_ends_the_same_receive() -> None:
    for limit in longer_and_longer(0.05):
        async with peer_and_client(timeout=None, idle_timeout=limit) as (peer, client):
            receiving = asyncio.create_task(client.receive_line())
            for _ in range(3):
                await asyncio.sleep(0.6 * limit)
                if in_time := not receiving.done():
                    await peer.send(b"x")
            with pytest.raises(NetworkTimeoutError, match="idle_timeout") as caught:
                await receiving
            if in_time:
                # The seconds of the whole wait.
                assert 2 * limit < caught.value.details["elapsed"] < 60
                assert await client.peek(3) == b"xxx"
                break


@pytest.mark.parametrize("piece", [1, 20_000])
async def test_bytes_that_keep_coming_put_it_off(piece: int) -> None:
    # The larger one fills memory of the receive's own.
    for limit in longer_and_longer(0.6):
        async with peer_and_client(timeout=None, idle_timeout=limit) as (peer, client):
            receiving = asyncio.create_task(client.receive_exactly(10 * piece))
            for number in range(10):
                await peer.send(bytes([number]) * piece)
                await asyncio.sleep(limit / 5)
            with contextlib.suppress(NetworkTimeoutError):
                assert await receiving == b"".join(bytes([number]) * piece for number in range(10))
                break


async def test_a_message_is_limited_too_and_the_limit_of_the_call_still_counts() -> None:
    async with peer_and_client(timeout=None, idle_timeout=0.03) as (peer, client):
        await peer.send(b"\0\0\0\5ab")
        with pytest.raises(NetworkTimeoutError, match="idle_timeout"):
            await client.framed(LengthPrefixed(4)).receive()
        with pytest.raises(NetworkTimeoutError, match="receive timed out after"):
            await client.receive_line(timeout=0.005)
        await peer.send(b"cde")
        assert await client.framed(LengthPrefixed(4)).receive() == b"abcde"


async def test_what_came_while_the_loop_was_held_up_came_in_time() -> None:
    async with peer_and_client(timeout=None, idle_timeout=0.05) as (peer, client):
        receiving = asyncio.create_task(client.receive_line())
        await asyncio.sleep(0)
        await hold_up(lambda: peer.sock.send(b"line\n"))
        assert await receiving == b"line\n"


async def test_a_pipeline_with_nothing_in_flight_may_be_silent() -> None:
    async with echo_server() as port, client_of(port, idle_timeout=0.02) as client:
        async with client.pipeline(Delimited()) as pipeline:
            assert await pipeline.request(b"one") == b"one"
            await asyncio.sleep(0.1)  # five times the limit
            assert await pipeline.request(b"two") == b"two"
        with pytest.raises(NetworkTimeoutError, match="idle_timeout"):
            await client.receive(timeout=None)


async def test_an_idle_connection_of_a_pool_may_be_silent() -> None:
    async with echo_server() as port:
        config = NetworkConfig("127.0.0.1", port, idle_timeout=0.02)
        async with NetworkPool(config, max_size=1) as pool:
            async with pool.acquire() as client:
                first = client.local_address
            await asyncio.sleep(0.1)  # five times the limit
            async with pool.acquire() as client:
                assert client.local_address == first
                with pytest.raises(NetworkTimeoutError, match="idle_timeout"):
                    await client.receive(timeout=None)
