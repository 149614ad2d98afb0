"""A memcached client over `NetworkPool`: `python examples/memcached_client.py [HOST] [PORT]`.

It needs a memcached, at 127.0.0.1:11211 if nothing else is given. memcached_streams.py is the same on asyncio streams,
and docs/porting.md the way from there to here.
"""

import argparse
import asyncio

from pepperpy.network import ConnectError, NetworkClient, NetworkConfig, NetworkPool, ProtocolError


class MemcachedError(Exception):
    """The server refused a command."""


class Memcached(NetworkPool):
    async def get(self, key: str) -> bytes | None:
        async with self.acquire() as connection:
            await connection.send(b"get %s\r\n" % key.encode())
            line = await connection.receive_until(b"\r\n")
            if line == b"END\r\n":
                return None
            if not line.startswith(b"VALUE "):
                raise refusal(line)
            value = await connection.receive_exactly(int(line.split()[3]) + 2)
            await expect(connection, b"END\r\n")
            return value[:-2]

    async def set(self, key: str, value: bytes, seconds: int = 0) -> None:
        async with self.acquire() as connection:
            await connection.send_many([b"set %s 0 %d %d\r\n" % (key.encode(), seconds, len(value)), value, b"\r\n"])
            await expect(connection, b"STORED\r\n")

    async def incr(self, key: str, by: int = 1) -> int | None:
        async with self.acquire() as connection:
            await connection.send(b"incr %s %d\r\n" % (key.encode(), by))
            line = await connection.receive_until(b"\r\n")
            if line == b"NOT_FOUND\r\n":
                return None
            if not line[:-2].isdigit():
                raise refusal(line)
            return int(line)


async def expect(connection: NetworkClient, answer: bytes) -> None:
    if (line := await connection.receive_until(b"\r\n")) != answer:
        raise refusal(line)


def refusal(line: bytes) -> Exception:
    text = line[:-2].decode(errors="replace")
    if line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR", b"NOT_")):
        return MemcachedError(text)
    return ProtocolError(f"not a reply of memcached: {text[:40]!r}")


async def main(host: str, port: int) -> None:
    async with Memcached(NetworkConfig(host, port, retries=0), max_size=8) as cache:
        await cache.set("greeting", b"Hello")
        print("get", await cache.get("greeting"))
        print("get", await cache.get("missing"))
        await cache.set("count", b"0")
        await asyncio.gather(*(cache.incr("count") for _ in range(100)))
        print("incr", await cache.incr("count"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", type=int, default=11211)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port))
    except ConnectError as error:
        parser.exit(2, f"this example needs a memcached that can be reached: {error}\n")
