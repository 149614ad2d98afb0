"""A server that answers late, as redis behind the delay proxy of redis-py#2665, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator


class LateServer:
    """Answers each line with the same line, after 0 to `turns` turns of the loop.

    Attributes:
        port: Where it listens.
        seen: How often each whole line has come, over all connections.
    """

    def __init__(self, rng: random.Random, turns: int, ordered: bool) -> None:
        self.port = 0
        self.seen: collections.Counter[bytes] = collections.Counter()
        self._rng = rng
        self._turns = turns
        self._ordered = ordered
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        tasks: set[asyncio.Task[None]] = set()
        previous: asyncio.Task[None] | None = None
        with contextlib.suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):
                self.seen[line] += 1
                previous = asyncio.create_task(self._answer(writer, line, previous if self._ordered else None))
                tasks.add(previous)
                previous.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()
        writer.close()
        self._writers.discard(writer)

    async def _answer(self, writer: asyncio.StreamWriter, line: bytes, after: asyncio.Task[None] | None) -> None:
        for _ in range(self._rng.randint(0, self._turns)):
            await asyncio.sleep(0)
        if after is not None:
            await after
        # In two pieces, so that a cancellation can come between them. The client may have left meanwhile.
        for piece in (line[:3], line[3:]):
            if not writer.transport.is_closing():
                writer.write(piece)
            await asyncio.sleep(0)

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def late_server(rng: random.Random, turns: int = 6, *, ordered: bool = True) -> AsyncIterator[LateServer]:
    late = LateServer(rng, turns, ordered)
    server = await asyncio.start_server(late.serve, "127.0.0.1", 0)
    late.port = server.sockets[0].getsockname()[1]
    try:
        yield late
    finally:
        server.close()
        await late.close()
