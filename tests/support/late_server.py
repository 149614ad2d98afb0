"""A server that answers late, as redis behind the delay proxy of redis-py#2665, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from pepperpy.network import ClosedError, ConnectionLostError, NetworkTimeoutError
from support.cancelling import until


class LateServer:
    """Answers each line with the same line, after 0 to `turns` turns of the loop.

    Attributes:
        port: Where it listens.
        seen: How often each whole line has come, over all connections.
        held: The answers to these lines wait until their events are set.
    """

    def __init__(self, rng: random.Random, turns: int, ordered: bool) -> None:
        self.port = 0
        self.seen: collections.Counter[bytes] = collections.Counter()
        self.held: dict[bytes, asyncio.Event] = {}
        self._rng = rng
        self._turns = turns
        self._ordered = ordered
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        tasks: set[asyncio.Task[None]] = set()
        whole = asyncio.Lock()
        previous: asyncio.Task[None] | None = None
        with contextlib.suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):
                self.seen[line] += 1
                previous = asyncio.create_task(self._answer(writer, whole, line, previous if self._ordered else None))
                tasks.add(previous)
                previous.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()
        writer.close()
        self._writers.discard(writer)

    async def _answer(
        self, writer: asyncio.StreamWriter, whole: asyncio.Lock, line: bytes, after: asyncio.Task[None] | None
    ) -> None:
        for _ in range(self._rng.randint(0, self._turns)):
            await asyncio.sleep(0)
        if after is not None:
            await after
        if line in self.held:
            await self.held[line].wait()
        async with whole:
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


class Users:
    """Tasks that share a connection, make it again when it is dropped, and give up at random."""

    def __init__(
        self,
        users: int,
        requests: int,
        connect: Callable[[], Awaitable[None]],
        ask: Callable[[bytes, float], Coroutine[Any, Any, bytes]],
        server: LateServer,
        rng: random.Random,
    ) -> None:
        self._users = users
        # asyncio's debug mode is many times slower than uvloop.
        self._requests = requests // 10 if asyncio.get_running_loop().get_debug() else requests
        self._connect = connect
        self._ask = ask
        self._server = server
        self._rng = rng
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._connecting = asyncio.Lock()

    async def run(self) -> collections.Counter[str]:
        """How often each thing happened: "reply", or the name of an error. A reply to somebody else fails the test."""
        await asyncio.gather(*(self._user(number) for number in range(self._users)))
        await self._each_in_turn()
        assert not [text for text, times in self._server.seen.items() if times > 1], "sent more than once"
        assert self._outcomes.total() == self._users * self._requests + 5
        return self._outcomes

    async def _user(self, user: int) -> None:
        for number in range(self._requests):
            async with self._connecting:
                await self._connect()
            text = b"%d/%d\n" % (user, number)
            limit = 10.0
            if self._rng.random() < 0.1:
                # However fast the machine is, some of the answers are too late.
                limit = self._rng.random() * 0.002
                if self._rng.random() < 0.5:
                    self._server.held[text] = asyncio.Event()
            task = asyncio.create_task(self._ask(text, limit))
            if self._rng.random() < 0.2:
                await self._cancel(task, text)
            await self._end(task, text)

    async def _each_in_turn(self) -> None:
        # Who does not wait long enough; who is cancelled, and who waits behind that; who gets a reply.
        for limit in (0.002, 10.0):
            await self._connect()
            first, second = b"first %g\n" % limit, b"second %g\n" % limit
            self._server.held[first] = asyncio.Event()
            asked = asyncio.create_task(self._ask(first, limit))
            await until(lambda first=first: self._server.seen[first] == 1, "it is asked")  # type: ignore[misc]
            behind = asyncio.create_task(self._ask(second, 10.0))
            await asyncio.sleep(0)
            if limit == 10.0:
                asked.cancel()
            await self._end(asked, first)
            await self._end(behind, second)
        await self._connect()
        await self._end(asyncio.create_task(self._ask(b"last\n", 10.0)), b"last\n")

    async def _end(self, task: asyncio.Task[bytes], text: bytes) -> None:
        try:
            reply = await task
        except (asyncio.CancelledError, NetworkTimeoutError, ClosedError, ConnectionLostError) as error:
            self._outcomes[type(error).__name__] += 1
        else:
            assert reply == text, f"{text!r} got the reply {reply!r}"
            self._outcomes["reply"] += 1
        if text in self._server.held:
            self._server.held[text].set()

    async def _cancel(self, task: asyncio.Task[bytes], text: bytes) -> None:
        if self._rng.random() < 0.5:
            # Between the arrival of the request at the server, and of its reply here.
            while not self._server.seen[text] and not task.done():
                await asyncio.sleep(0)
        for _ in range(self._rng.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
