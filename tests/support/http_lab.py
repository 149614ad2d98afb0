"""Plays the behaviours of `support/behaviours` to a client, each with a request behind it, and says what came of it.

A behaviour is played whole or in pieces: the server sends a piece when the loop has had turns enough to read the one
before. Nothing here waits for time to pass; only a client that hangs does, until `LIMIT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pepperpy.network import (
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    IncompleteReadError,
    NetworkError,
    NetworkTimeoutError,
    ProtocolError,
)
from support.behaviours.model import KINDS, Behaviour, Broken, Whole, broken
from support.http_faults import response
from support.http_peer import Connection, HTTPPeer, http_peer

# What HTTPConfig needs to be served by a transport. A further transport is one line here.
TRANSPORTS: dict[str, dict[str, Any]] = {
    "aiohttp": {"transport": "aiohttp"},
    "h1": {"transport": "auto"},
}
# Seconds after which a client hangs that has not made up its mind. Nothing that is right takes time.
LIMIT = 10.0
# The kinds that end as each error of the public API.
KINDS_OF: dict[type[NetworkError], frozenset[str]] = {
    ProtocolError: frozenset({"malformed", "bad_encoding"}),
    IncompleteReadError: frozenset({"truncated"}),
    ConnectionLostError: frozenset({"reset", "no_answer"}),
}
_WORDS = dict(zip(KINDS_OF.values(), ("refused", "truncated", "lost"), strict=True))
_NEXT = response(b"next", "X-Next: 1")
_SHAPES = {"zstd": ("compression.zstd", "backports.zstd"), "brotli": ("brotli", "brotlicffi")}


@dataclass
class Seen:
    """What a client made of a behaviour.

    Attributes:
        kinds: Of its error, by the class of it; empty if the answer was whole.
        hung: Whether it made up its mind in no time.
        raw: An error that is none of this package's, as text.
        reused: Whether the next request went over the same connection.
        left: Whether something came behind the answer; `play_bare()` alone knows.
        unanswered: What is wrong with the answer to the next request; "" for nothing.
    """

    status: int | None = None
    headers: Any = None
    body: bytes = b""
    trailers: Any = None
    kinds: frozenset[str] = frozenset()
    hung: bool = False
    raw: str = ""
    reused: bool = False
    left: bool = False
    unanswered: str = ""

    def verdict(self, behaviour: Behaviour) -> str:
        """In a word: "right", or what else happened."""
        if self.raw:
            return f"raw {self.raw}"
        if self.unanswered:
            return f"next request: {self.unanswered}"
        if self.hung:
            return "hangs"
        right = right_here(behaviour)
        if self.kinds:
            if self.reused:
                return "reused after an error"
            allowed = right.kinds if isinstance(right, Broken) else frozenset()
            if behaviour.may_refuse:
                allowed |= {"malformed"}
            if not self.kinds & allowed:
                return _WORDS[self.kinds]
            if isinstance(right, Broken) and self.status is not None and right.status not in (None, self.status):
                return f"status {self.status}"
            return "right"
        if isinstance(right, Broken):
            return "answer, reused" if self.reused else "answer"
        if difference := _difference(self, right):
            return difference
        if right.reusable is not None and right.reusable != self.reused:
            return "reused" if self.reused else "not reused"
        return "right"


def right_here(behaviour: Behaviour) -> Whole | Broken:
    """What is right on this machine, which may lack what decompresses a body."""
    if behaviour.needs and not any(_is_there(name) for name in _SHAPES[behaviour.needs]):
        return broken("bad_encoding")
    return behaviour.right


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _difference(seen: Seen, right: Whole) -> str:
    if seen.status != right.status:
        return f"status {seen.status}"
    for shown, expected, what in (
        (seen.headers, right.headers, "headers"),
        (seen.trailers, right.trailers, "trailers"),
    ):
        if shown is not None:
            for name in dict(expected):
                values = [value for other, value in expected if other.lower() == name.lower()]
                if shown.getall(name, []) != values:
                    return what
    return "" if seen.body == right.body else "body"


def cuts_of(behaviour: Behaviour, *, every: bool, salt: str = "") -> Iterable[tuple[int, ...]]:
    """Where to cut what is sent: a few places by a fixed rule, or `every` one; beginning with nowhere."""
    size = len(behaviour.sent)
    yield ()
    if size < 2 or behaviour.then == "repeat":
        return
    if not every:
        yield (1 + zlib.crc32(f"{salt}{behaviour.name}".encode()) % (size - 1),)
    elif size <= 600:
        yield from ((place,) for place in range(1, size))
        yield tuple(range(1, size))  # byte by byte
    else:
        # Head and end in each place, and between them some.
        yield from ((place,) for place in {*range(1, 200), *range(200, size - 50, size // 50), *range(size - 50, size)})


class Lab:
    """A server that plays what it is told, and a client of it."""

    def __init__(self, peer: HTTPPeer, client: HTTPClient) -> None:
        self.peer = peer
        self.client = client

    async def play(self, behaviour: Behaviour, cuts: Sequence[int] = (), limit: float = LIMIT) -> Seen:
        """Send one request, which is answered so, and another one."""
        seen = Seen()
        self._played = behaviour, cuts
        self._sent = asyncio.Event()
        self._answered = asyncio.Event()
        self._connection = 0
        try:
            async with asyncio.timeout(limit):
                await self._ask(behaviour, seen)
        except TimeoutError:
            seen.hung = True
        except NetworkError as error:
            seen.hung = isinstance(error, NetworkTimeoutError)
            seen.kinds = next((kinds for kind, kinds in KINDS_OF.items() if isinstance(error, kind)), frozenset())
            if not seen.kinds and not seen.hung:
                seen.raw = type(error).__name__
        except Exception as error:
            seen.raw = repr(error)
        self._answered.set()
        await self._sent.wait()
        number = self._connection
        try:
            async with asyncio.timeout(LIMIT):
                answer = await self.client.request("GET", f"{self.peer.url}/next")
            seen.unanswered = "" if answer.content == b"next" else f"got {answer.content[:40]!r}"
        except (NetworkError, TimeoutError) as error:
            seen.unanswered = repr(error)
        seen.reused = self.peer.requests[-1].connection == number
        self.peer.requests.clear()
        return seen

    async def _ask(self, behaviour: Behaviour, seen: Seen) -> None:
        stream = self.client.stream(
            behaviour.method, f"{self.peer.url}/play", raise_for_status=False, allow_redirects=False
        )
        async with stream as answer:
            seen.status, seen.headers = answer.status, answer.headers
            seen.body = await answer.read()
            seen.trailers = getattr(answer, "trailers", None)

    # ---- The server ----

    async def handle(self, connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            if request.target == "/next":
                await connection.send(_NEXT)
                continue
            self._connection = connection.number
            sent = self._sent
            try:
                if not await self._answer(connection):
                    return
            finally:
                sent.set()

    async def _answer(self, connection: Connection) -> bool:
        """Send the answer; whether the connection is to be kept."""
        behaviour, cuts = self._played
        start = 0
        for place in (*cuts, len(behaviour.sent)):
            await connection.send(behaviour.sent[start:place])
            start = place
            if place < len(behaviour.sent):
                await turns()
        if behaviour.then == "settle":
            await turns(10)
            if not self._answered.is_set():
                await connection.close_and_wait()
                return False
        if behaviour.later is not None:
            await self._answered.wait()
            await connection.send(behaviour.later)
        if behaviour.then == "reset":
            await connection.reset_and_wait()
        elif behaviour.then == "close":
            await connection.close_and_wait()
        while behaviour.then == "repeat":
            await connection.send(behaviour.block)
        return behaviour.then in ("keep", "settle")


async def turns(count: int = 4) -> None:
    """Let the loop read what is in the kernel, and who waits for it run."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def lab(transport: str, **settings: Any) -> AsyncIterator[Lab]:
    """A lab whose client is served by this transport."""
    # The limit of a call is the lab's.
    fixed: dict[str, Any] = {"retries": 0, "timeout": None, "read_timeout": None, "close_timeout": 1.0}
    config = HTTPConfig(**fixed | TRANSPORTS[transport] | settings)
    made: list[Lab] = []

    async def handle(connection: Connection) -> None:
        await made[0].handle(connection)

    async with http_peer(handle) as peer, HTTPClient(config) as client:
        made.append(Lab(peer, client))
        yield made[0]


assert frozenset().union(*KINDS_OF.values()) <= KINDS
