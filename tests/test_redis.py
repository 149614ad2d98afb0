"""A real third-party server: redis, spoken over NetworkClient with a client of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.redis import redis_server
from support.servers import client_of

from pepperpy.network import NetworkClient


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    with redis_server() as port:
        yield port


def command(*words: bytes) -> bytes:
    """One command in RESP2, redis's wire format: an array of strings with their lengths."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def reply(client: NetworkClient) -> bytes | int | None:
    line = await client.receive_until(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        if rest == b"-1":
            return None
        value = await client.receive_exactly(int(rest) + 2)
        assert value.endswith(b"\r\n")
        return value[:-2]
    raise AssertionError(f"unexpected reply {line!r}")


async def test_a_pipelined_session_of_100_000_commands_gets_every_reply_in_order(redis_port: int) -> None:
    async with client_of(redis_port) as client:
        await client.send(command(b"FLUSHALL"))
        assert await reply(client) == b"OK"

        async def ask() -> None:
            for number in range(25_000):
                key = b"key:%d" % (number % 1000)
                await client.send(command(b"SET", key, b"%d" % number * 7))
                await client.send(command(b"GET", key))
                await client.send(command(b"INCR", b"counter"))
                await client.send(command(b"ECHO", b"\r\n$-1\r\n%d" % number))

        asking = asyncio.create_task(ask())
        for number in range(25_000):
            assert await reply(client) == b"OK"
            assert await reply(client) == b"%d" % number * 7
            assert await reply(client) == number + 1
            assert await reply(client) == b"\r\n$-1\r\n%d" % number
        await asking
        assert client.stats.bytes_buffered == 0
        assert client.stats.bytes_queued == 0


async def test_large_values_go_and_come_whole(redis_port: int) -> None:
    value = bytes(range(256)) * 40_000  # 10 MB
    async with client_of(redis_port) as client:
        await client.send_many([b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$%d\r\n" % len(value), value, b"\r\n"])
        assert await reply(client) == b"OK"
        await client.send(command(b"GET", b"large"))
        assert await reply(client) == value


async def test_a_blocked_command_can_be_cancelled_by_time_and_its_late_reply_is_not_lost(redis_port: int) -> None:
    async with client_of(redis_port) as client, client_of(redis_port) as other:
        await client.send(command(b"BLPOP", b"queue", b"0"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive_until(b"\r\n"), 0.05)
        await other.send(command(b"RPUSH", b"queue", b"job"))
        assert await reply(other) == 1
        assert await client.receive_until(b"\r\n") == b"*2\r\n"
        assert [await reply(client), await reply(client)] == [b"queue", b"job"]


async def test_the_server_closing_on_quit_is_a_clean_end(redis_port: int) -> None:
    async with client_of(redis_port) as client:
        await client.send(command(b"QUIT"))
        assert await reply(client) == b"OK"
        assert await client.receive() == b""
