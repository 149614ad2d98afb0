"""A real third-party server: redis, spoken over NetworkClient with a client of the tests' own."""

from __future__ import annotations

import asyncio

import pytest
from support.cancelling import until
from support.framing import RESP
from support.line_server import pool_of
from support.redis import command, reply
from support.resp import RESP3, Push
from support.servers import client_of

from pepperpy.network import ClosedError, NetworkClient, ProtocolError


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


async def test_a_codec_of_a_users_own_speaks_with_redis(redis_port: int) -> None:
    value = bytes(range(256)) * 4000  # 1 MB, in which every separator occurs
    async with client_of(redis_port) as client:
        redis = client.framed(RESP())
        await redis.send([b"FLUSHALL"])
        assert await redis.receive() == b"OK"

        async def ask() -> None:
            for number in range(2000):
                await redis.send_many([[b"RPUSH", b"list", b"%d" % number], [b"LRANGE", b"list", b"-2", b"-1"]])
            await redis.send_many([[b"SET", b"large", value], [b"MGET", b"large", b"none", b"large"], [b"OOPS"]])

        asking = asyncio.create_task(ask())
        replies = []
        while len(replies) < 4002:
            replies += await redis.receive_batch()
        await asking
        assert replies[:4000:2] == list(range(1, 2001))
        assert replies[1] == [b"0"]
        assert replies[3:4000:2] == [[b"%d" % (number - 1), b"%d" % number] for number in range(1, 2000)]
        assert replies[4000:] == [b"OK", [value, None, value]]
        # The codec knows no error replies.
        with pytest.raises(ProtocolError, match="begins with b'-'"):
            await redis.receive()
        assert (await client.receive_line()).startswith(b"-ERR unknown command")
        await redis.send([b"BLPOP", b"queue", b"0"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(redis.receive(), 0.05)
        async with client_of(redis_port) as other:
            await other.framed(RESP()).send([b"RPUSH", b"queue", b"late"])
            assert await redis.receive() == [b"queue", b"late"]
        await redis.send([b"QUIT"])
        assert [reply async for reply in redis] == [b"OK"]


async def test_requests_of_many_tasks_on_one_connection_get_their_own_replies(redis_port: int) -> None:
    async with client_of(redis_port) as client:

        async def ask(number: int) -> None:
            for turn in range(10):
                text = b"%d of %d" % (turn, number)
                assert await client.request(command(b"ECHO", text), reply) == text

        await asyncio.gather(*(ask(number) for number in range(25)))
        assert client.stats.sends == 250


async def test_the_late_reply_to_a_cancelled_request_reaches_nobody(redis_port: int) -> None:
    async with client_of(redis_port) as client, client_of(redis_port) as other:
        blocked = asyncio.create_task(client.request(command(b"BLPOP", b"late", b"0"), reply))
        behind = asyncio.create_task(client.request(command(b"ECHO", b"mine"), reply))
        # redis looks at its connections in no order. What comes is certain only once it has said what it has seen.
        while b"blocked_clients:1" not in await other.request(command(b"INFO", b"clients"), reply):
            pass
        blocked.cancel()
        with pytest.raises(ClosedError):
            await behind
        await client.connect()
        while b"blocked_clients:0" not in await other.request(command(b"INFO", b"clients"), reply):
            pass
        assert await other.request(command(b"RPUSH", b"late", b"job"), reply) == 1
        assert await client.request(command(b"ECHO", b"mine"), reply) == b"mine"
        # redis gave the job to nobody, because the connection that had asked for it was gone.
        assert await client.request(command(b"LPOP", b"late"), reply) == b"job"


async def test_a_pipeline_drops_the_late_reply_and_goes_on(redis_port: int) -> None:
    async with client_of(redis_port) as client, client_of(redis_port) as other:
        async with client.pipeline(RESP3()) as pipeline:
            blocked = asyncio.create_task(pipeline.request([b"BLPOP", b"later", b"0"]))
            behind = [asyncio.create_task(pipeline.request([b"ECHO", b"%d" % number])) for number in range(100)]
            await until(lambda: pipeline.in_flight == 64, "the commands are sent")
            blocked.cancel()
            await asyncio.wait([blocked])
            assert pipeline.abandoned == 1
            assert await other.request(command(b"RPUSH", b"later", b"job"), reply) == 1
            assert await asyncio.gather(*behind) == [b"%d" % number for number in range(100)]
            assert pipeline.abandoned == 0


async def test_a_pipeline_tells_the_pushes_of_resp3_from_the_replies(redis_port: int) -> None:
    pushes: list[Push] = []
    async with client_of(redis_port) as client:
        options = {"is_push": lambda message: isinstance(message, Push), "on_push": pushes.append}
        async with client.pipeline(RESP3(), **options) as pipeline:
            await pipeline.request([b"HELLO", b"3"])
            await pipeline.framed.send([b"SUBSCRIBE", b"channel"])
            messages = [b"%d" % number for number in range(100)]
            tasks = [asyncio.create_task(pipeline.request([b"PUBLISH", b"channel", text])) for text in messages]
            assert await asyncio.gather(*tasks) == [1] * 100
            assert isinstance(await pipeline.request([b"NONSENSE"]), RuntimeError)
    assert pushes == [[b"subscribe", b"channel", 1], *([b"message", b"channel", text] for text in messages)]


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

    async with pool_of(redis_port, 2, 10, check=ping, check_after=0, config={"on_connect": ping}) as pool:
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
