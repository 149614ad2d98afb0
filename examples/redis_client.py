"""A Redis client over `NetworkClient`: `python examples/redis_client.py [host] [port]`, for a start of your own.

A command that fails or is cancelled half-way closes the connection, for its replies would be taken for those of the
next one; the next command connects again.
"""

from __future__ import annotations

import asyncio
import sys

from pepperpy.network import NetworkClient, NetworkConfig, ProtocolError

Reply = bytes | int | None | list["Reply"] | Exception


class RedisError(Exception):
    """What the server says of a command that it refuses."""


class Redis:
    def __init__(self, config: NetworkConfig) -> None:
        self._client = NetworkClient(config)
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Redis:
        await self._client.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()

    async def execute(self, *words: bytes | str | int) -> Reply:
        (reply,) = await self.pipeline([words])
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def pipeline(self, commands: list[tuple[bytes | str | int, ...]]) -> list[Reply]:
        """All commands in one write, and their replies; a RedisError stands in the place of its reply."""
        async with self._turn:
            await self._client.connect()  # does nothing while it is connected
            try:
                await self._client.send_many([encoded(words) for words in commands])
                return [await self._reply() for _ in commands]
            except BaseException:
                self._client.abort()
                raise

    async def _reply(self) -> Reply:
        # RESP2: a line that begins with the type; strings and arrays give their length in it.
        line = await self._client.receive_until(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else (await self._client.receive_exactly(int(rest) + 2))[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [await self._reply() for _ in range(int(rest))]
        raise ProtocolError(f"not a reply of Redis: {line[:40]!r}")


def encoded(words: tuple[bytes | str | int, ...]) -> bytes:
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


async def main(host: str = "127.0.0.1", port: str = "6379") -> None:
    async with Redis(NetworkConfig(host, int(port))) as redis:
        print("SET", await redis.execute("SET", "greeting", "Hello"))
        print("GET", await redis.execute("GET", "greeting"))
        counts = await redis.pipeline([("INCRBY", "count", number) for number in range(1000)])
        print("1000 INCRBY in one pipeline:", len(counts), "replies")
        try:
            await redis.execute("LPUSH", "greeting", "x")
        except RedisError as error:
            print("LPUSH", error)
        await redis.pipeline([("DEL", "greeting"), ("DEL", "count")])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
