"""A memcached client on asyncio streams, as many libraries have one: what docs/porting.md moves to `NetworkClient`.

`python examples/memcached_streams.py [HOST] [PORT]`; it needs a memcached, at 127.0.0.1:11211 if nothing else is given.
"""

import argparse
import asyncio


class MemcachedError(Exception):
    """The server refused a command, or answered with something else."""


class Memcached:
    def __init__(self, host: str, port: int, timeout: float = 5.0, size: int = 8) -> None:
        self._place = host, port
        self._timeout = timeout
        self._idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._idle.put_nowait(None)

    async def __aenter__(self) -> "Memcached":
        return self

    async def __aexit__(self, *_: object) -> None:
        while not self._idle.empty():
            if (connection := self._idle.get_nowait()) is not None:
                connection[1].close()

    async def get(self, key: str) -> bytes | None:
        return await asyncio.wait_for(self._lent(self._get, key), self._timeout)

    async def set(self, key: str, value: bytes, seconds: int = 0) -> None:
        await asyncio.wait_for(self._lent(self._set, key, value, seconds), self._timeout)

    async def _lent(self, command, *arguments):  # type: ignore[no-untyped-def]
        connection = await self._idle.get()
        try:
            if connection is None or connection[0].at_eof():
                # 64 KiB, the default, would end a value of a megabyte that has no line break.
                connection = await asyncio.open_connection(*self._place, limit=2**20)
            result = await command(*connection, *arguments)
        except BaseException:
            # Its reply may still come, and would be taken for that to the next command.
            if connection is not None:
                connection[1].close()
            self._idle.put_nowait(None)
            raise
        self._idle.put_nowait(connection)
        return result

    async def _get(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> bytes | None:
        writer.write(b"get %s\r\n" % key.encode())
        await writer.drain()
        line = await reader.readline()
        if line == b"END\r\n":
            return None
        if not line.startswith(b"VALUE "):
            raise MemcachedError(line.decode(errors="replace").strip() or "the server closed the connection")
        value = await reader.readexactly(int(line.split()[3]) + 2)
        if await reader.readline() != b"END\r\n":
            raise MemcachedError("END expected")
        return value[:-2]

    async def _set(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, value: bytes, seconds: int
    ) -> None:
        writer.write(b"set %s 0 %d %d\r\n%s\r\n" % (key.encode(), seconds, len(value), value))
        await writer.drain()
        if (line := await reader.readline()) != b"STORED\r\n":
            raise MemcachedError(line.decode(errors="replace").strip() or "the server closed the connection")


async def main(host: str, port: int) -> None:
    async with Memcached(host, port) as cache:
        await cache.set("greeting", b"Hello")
        print("get", await cache.get("greeting"))
        print("get", await cache.get("missing"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", type=int, default=11211)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port))
    except OSError as error:
        parser.exit(2, f"this example needs a memcached that can be reached: {error}\n")
