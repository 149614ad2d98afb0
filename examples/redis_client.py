"""A Redis client over `NetworkPool`: `python examples/redis_client.py [HOST] [PORT]`, for a start of your own.

It needs a Redis, at 127.0.0.1:6379 if nothing else is given. A command that fails or is cancelled half-way costs its
connection, so that no other command can get its late replies.
"""

import argparse
import asyncio

from pepperpy.network import ConnectError, NetworkClient, NetworkConfig, NetworkPool, ProtocolError

Reply = bytes | int | None | list["Reply"] | Exception


class RedisError(Exception):
    """The server refused a command."""


class Redis(NetworkPool):
    async def execute(self, *words: bytes | str | int) -> Reply:
        (reply,) = await self.pipeline([words])
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def pipeline(self, commands: list[tuple[bytes | str | int, ...]]) -> list[Reply]:
        """Send all commands in one write, and return their replies; a refused command has a RedisError as its reply."""
        async with self.acquire() as connection:
            await connection.send_many([encoded(words) for words in commands])
            return [await receive_reply(connection) for _ in commands]


async def receive_reply(connection: NetworkClient) -> Reply:
    # RESP2: a line begins with the type; for strings and arrays it has their length.
    line = await connection.receive_until(b"\r\n")
    match line[:1], line[1:-2]:
        case b"+", text:
            return text
        case b"-", text:
            return RedisError(text.decode())
        case b":", number:
            return int(number)
        case b"$" | b"*", b"-1":
            return None
        case b"$", size:
            return (await connection.receive_exactly(int(size) + 2))[:-2]
        case b"*", count:
            return [await receive_reply(connection) for _ in range(int(count))]
    raise ProtocolError(f"not a reply of Redis: {line[:40]!r}")


def encoded(words: tuple[bytes | str | int, ...]) -> bytes:
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


async def main(host: str, port: int) -> None:
    async with Redis(NetworkConfig(host, port, retries=0)) as redis:
        print("SET", await redis.execute("SET", "greeting", "Hello"))
        print("GET", await redis.execute("GET", "greeting"))
        commands = [("INCRBY", "count", number) for number in range(1000)]
        *counts, refused = await redis.pipeline([*commands, ("LPUSH", "greeting", "x")])
        print(f"1000 INCRBY in one pipeline: {len(counts)} replies")
        print("LPUSH", refused)
        await redis.execute("DEL", "greeting", "count")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", type=int, default=6379)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port))
    except ConnectError as error:
        parser.exit(2, f"this example needs a Redis that can be reached: {error}\n")
