"""A real third-party server: redis, spoken over NetworkClient with a client of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from support.cancelling import until
from support.line_server import pool_of
from support.servers import client_of

from pepperpy.network import NetworkClient

REDIS = shutil.which("redis-server")


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """The port of a redis-server without persistence. Needed: `make test` installs it, so its absence is a failure."""
    assert REDIS, "redis-server is not installed; `make test` installs it"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        command = [REDIS, *(word for name, value in options.items() for word in (f"--{name}", value))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            try:
                yield port
            finally:
                process.terminate()
                with contextlib.suppress(ValueError):
                    process.stdout.read()


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


async def ping(client: NetworkClient) -> bool:
    await client.send(command(b"PING"))
    return await reply(client) == b"PONG"


async def test_a_pool_serves_100_tasks_their_own_values_whatever_redis_does_to_its_clients(
    redis_port: int,
) -> None:
    async def work(number: int) -> None:
        async with pool.acquire() as client:
            await client.send(command(b"SET", b"%d" % number, b"value %d" % number))
            assert await reply(client) == b"OK"
        async with pool.acquire() as client:
            await client.send(command(b"GET", b"%d" % number))
            assert await reply(client) == b"value %d" % number

    async with pool_of(redis_port, 2, 10, setup=ping, check=ping, check_after=0) as pool:
        for turn in (1, 2, 3):
            tasks = [asyncio.create_task(work(number)) for number in range(100)]
            for number in range(0, 100, 7):
                if number % 2:
                    await asyncio.sleep(0)
                tasks[number].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            errors = [result for result in results if result and not isinstance(result, asyncio.CancelledError)]
            assert not errors
            # Redis closes all connections that do nothing.
            async with client_of(redis_port) as admin:
                await admin.send(command(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"))
                assert await reply(admin)
            await until(lambda turn=turn: pool.stats.dropped.get("lost", 0) >= turn, "the pool has noticed")  # type: ignore[misc]
        assert pool.stats.failures == 0
        assert pool.stats.reused > 300
