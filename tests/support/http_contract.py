"""What the contract of a transport is tested with: a world of one transport and one server, the same for each.

A case asks its world for what a server does (`Say`, `Fail`, `Raw`), makes exchanges through the transport, and looks at
what came. The world plays it by a real server on loopback, or by a `MockHTTP`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from multidict import CIMultiDict
from yarl import URL

from pepperpy.network import HTTPConfig
from pepperpy.network.http.aiohttp_transport.wire import AiohttpTransport
from pepperpy.network.http.body import make_body
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.request import Defaults, Limits, Request
from pepperpy.network.http.transport import Answer, Transport, Trip, WireError
from pepperpy.network.http.transports import make_transport
from pepperpy.network.json_codec import default_codec
from pepperpy.network.testing import Failure, MockHTTP, Reply
from pepperpy.network.testing.http_wire import MockTransport
from support.cancelling import until
from support.http_peer import Connection, http_peer

# What opens a transport that talks to servers. A further one is one line here.
REAL: dict[str, Callable[[HTTPConfig], Transport]] = {
    "aiohttp": lambda config: AiohttpTransport(config, CookieJar({})),
    "h1": lambda config: make_transport(config.replace(transport="auto"), CookieJar({})),
}
TRANSPORTS = (*REAL, "mock")
# Seconds that are over soon, for what must run into a limit; and that never are, for what must not.
SOON, NEVER = 0.05, 60.0


@dataclass
class Say:
    """An answer. In `body`, an event is silence until the test sets it.

    Attributes:
        chunked: In chunks instead of with a length; a body in pieces is always in chunks.
        delay: Silence before the head.
        cut: The connection ends in order behind the body given so far, which is announced as longer.
    """

    status: int = 200
    body: bytes | list[bytes | asyncio.Event] = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunked: bool = False
    delay: asyncio.Event | None = None
    cut: bool = False

    @property
    def in_chunks(self) -> bool:
        return self.chunked or isinstance(self.body, list) or self.cut

    @property
    def pieces(self) -> list[bytes | asyncio.Event]:
        return self.body if isinstance(self.body, list) else [self.body] if self.body else []


@dataclass
class Fail:
    """Instead of an answer: what the names of `Failure` say ("disconnect", "reset", "protocol")."""

    kind: str


@dataclass
class Raw:
    """Bytes, as no `MockHTTP` can say them. Then "keep", "close" or "reset"; with `early`, before the body is read."""

    data: bytes
    then: str = "keep"
    early: bool = False


# Cases that a transport cannot play, by the names of their tests, and why.
CANNOT: dict[str, dict[str, str]] = {
    "h1": {},
    "aiohttp": {
        "test_trailers_are_kept_apart": "aiohttp drops them",
        "test_the_last_one_to_come_back_is_the_first_one_to_go": "aiohttp takes the longest idle one (its #9672)",
    },
    "mock": {
        **dict.fromkeys(
            (
                "test_bytes_of_a_header_that_are_no_utf8_are_surrogates",
                "test_the_version_is_told",
                "test_interim_answers_are_skipped",
                "test_a_body_without_a_length_ends_with_its_connection",
                "test_trailers_are_kept_apart",
                "test_a_compressed_body_is_unpacked_and_what_came_is_counted",
                "test_a_body_that_is_not_compressed_as_announced_is_an_error",
                "test_what_is_malformed_ends_the_connection",
                "test_half_a_head",
                "test_a_body_with_a_length_that_is_cut_off",
                "test_a_body_that_a_reset_ends",
            ),
            "a `Reply` is no bytes: it has no version, interim answers, trailers, compression, wrong framing",
        ),
        **dict.fromkeys(
            (
                "test_nobody_speaks_tls",
                "test_a_proxy_that_refuses",
                "test_a_url_whose_host_is_none",
                "test_no_connection_becomes_free_in_time",
                "test_who_waits_gets_what_becomes_free_first_come_first_served",
                "test_a_body_that_was_read_leaves_its_connection_to_others",
                "test_a_connection_is_free_when_the_end_of_the_body_was_read_and_not_before",
                "test_released_with_its_body_there_a_connection_is_used_again",
                "test_given_back_with_more_to_come_a_connection_is_closed",
                "test_given_back_behind_its_end_a_connection_stays",
                "test_connection_close_is_obeyed",
                "test_a_request_that_closes_its_connection",
                "test_bytes_behind_an_answer_are_nobodys",
                "test_a_connection_that_the_server_has_closed_is_not_used",
                "test_the_last_one_to_come_back_is_the_first_one_to_go",
                "test_no_more_connections_than_allowed",
                "test_the_connections_of_a_host_are_counted_by_port_and_apart_for_what_is_not_verified",
                "test_close_ends_who_waits_for_a_connection",
                "test_close_closes_idle_connections",
                "test_a_connection_that_breaks_while_a_body_is_sent",
                "test_cancelled_in_the_queue_one_leaves_it_to_the_others",
                "test_cancelled_when_a_connection_has_just_become_free_it_goes_to_the_next",
            ),
            "there are no connections: none to be made, pooled, waited for or counted",
        ),
        **dict.fromkeys(
            (
                "test_an_early_answer_is_given_while_the_body_is_sent",
                "test_an_early_answer_is_whole_whether_the_rest_of_the_body_is_sent_or_given_up",
            ),
            "a mock has all of a body before it answers",
        ),
        "test_one_who_reads_slowly_holds_the_server_up": "a `Reply` is there as a whole, in the test's own memory",
    },
}


def contract(test: Any) -> Any:
    """A decorator: the test is a case of the contract, to be played by each transport that can."""
    names = [name for name in TRANSPORTS if test.__name__ not in CANNOT.get(name, {})]
    return pytest.mark.parametrize("transport", names)(test)


Does = Say | Fail | Raw | Callable[[Connection], Awaitable[None]]


@dataclass
class Received:
    """A request as the server got it."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    connection: int = 0


class World:
    """One transport and one server. `does` is what the server does to each request, the last one to all that follow."""

    def __init__(self, config: HTTPConfig) -> None:
        self.config = config
        self.does: list[Does] = [Say()]
        self.url = "http://127.0.0.1"
        self.transport: Transport
        self.trip = Trip()
        self.bodies: list[Any] = []

    @property
    def requests(self) -> list[Received]:
        """What has arrived."""
        raise NotImplementedError

    def next_one(self) -> Does:
        return self.does.pop(0) if len(self.does) > 1 else self.does[0]

    async def end(self) -> None:
        await self.transport.close(1)
        for body in self.bodies:
            await body.close()

    # ---- Asking ----

    def request(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        data: Any = None,
        url: str = "",
        proxy: str | None = None,
        **given: Any,
    ) -> Request:
        """A request, complete as the policy makes it."""
        body = make_body(data, None, None, default_codec())
        limits = given.pop("limits", None) or Limits(None, NEVER, NEVER)
        defaults = Defaults(self.config.headers, self.transport.default_headers)
        own = CIMultiDict(given.pop("headers", {}))
        if body is not None:
            own.update(body.headers)
        request = Request(method, URL(url or self.url + path), own or None, body, defaults, limits)
        if body is not None:
            request.payload = body.payload()
            self.bodies.append(body)
        request.proxy = proxy
        for name, value in given.items():
            setattr(request, name, value)
        return request

    async def exchange(self, *arguments: Any, **given: Any) -> Answer:
        """The answer to one more request; `trip` is that of this exchange."""
        self.trip = Trip()
        return await self.transport.exchange(self.request(*arguments, **given), self.trip)

    async def body(self, *arguments: Any, **given: Any) -> bytes:
        """The body of one more answer."""
        return await (await self.exchange(*arguments, **given)).read()

    async def fails(self, *arguments: Any, **given: Any) -> WireError:
        """How one more exchange fails, its body included."""
        try:
            answer = await self.exchange(*arguments, **given)
            await answer.read()
        except WireError as error:
            return error
        raise AssertionError(f"answered {answer.status}")

    async def still_works(self) -> None:
        """Whatever has happened: the next exchange gets its own answer."""
        self.does = [Say(body=b"still there")]
        async with asyncio.timeout(30):  # what waits for ever fails soon
            assert await self.body("GET", "/next") == b"still there"
        assert self.requests[-1].target == "/next"


class RealWorld(World):
    def __init__(self, config: HTTPConfig) -> None:
        super().__init__(config)
        self.peer: Any = None
        self.handle_all: Callable[[Connection], Awaitable[None]] | None = None  # instead of what `does` says

    @property
    def requests(self) -> list[Received]:
        return [Received(one.method, one.target, one.headers, one.body, one.connection) for one in self.peer.requests]

    @property
    def connections(self) -> int:
        """How many the server has accepted."""
        return len(self.peer.connections)

    async def handle(self, connection: Connection) -> None:
        if self.handle_all is not None:
            await self.handle_all(connection)
            return
        while True:
            await connection.read_head()
            does = self.next_one()
            if not (isinstance(does, Raw) and does.early) and not callable(does):
                await connection.read_body()
            if callable(does):
                await does(connection)
                return
            if isinstance(does, Fail):
                if does.kind == "protocol":
                    await connection.send(b"hello, world\r\n\r\n")
                elif does.kind == "reset":
                    await connection.reset_and_wait()
                return
            if isinstance(does, Raw):
                await connection.send(does.data)
                if does.then == "reset":
                    await connection.reset_and_wait()
                if does.then != "keep":
                    return
                continue
            await self._say(connection, does)
            if does.cut:
                return

    async def _say(self, connection: Connection, say: Say) -> None:
        if say.delay is not None:
            await say.delay.wait()
        lines = [f"HTTP/1.1 {say.status} X", *(f"{name}: {value}" for name, value in say.headers)]
        bodiless = self.peer.requests[-1].method == "HEAD" or say.status in (204, 304)
        if say.in_chunks:
            lines.append("Transfer-Encoding: chunked")
        elif say.status != 204:
            lines.append(f"Content-Length: {len(b''.join(map(bytes, say.pieces)))}")  # type: ignore[arg-type]
        await connection.send("\r\n".join([*lines, "", ""]).encode())
        if bodiless:
            return
        for piece in say.pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if say.in_chunks else piece)
        if say.in_chunks and not say.cut:
            await connection.send(b"0\r\n\r\n")


class MockWorld(World):
    def __init__(self, config: HTTPConfig, mock: MockHTTP) -> None:
        super().__init__(config)
        self._mock = mock
        self.transport = MockTransport(mock)
        mock.route(None).call(self._answer)

    @property
    def requests(self) -> list[Received]:
        return [
            Received(one.method, one.target.raw_path_qs, CIMultiDict(one.headers), one.body)
            for one in self._mock.requests
        ]

    def _answer(self, request: Any) -> Reply | Failure:
        does = self.next_one()
        if isinstance(does, Fail):
            return Failure(does.kind)  # type: ignore[arg-type]
        assert isinstance(does, Say)
        given: dict[str, Any] = {"headers": does.headers, "delay": does.delay or 0.0}
        if does.in_chunks:
            given |= {"chunks": does.pieces, "then_fail": "incomplete" if does.cut else None}
        elif does.body:
            given["content"] = does.body
        return Reply(does.status, **given)


@contextlib.asynccontextmanager
async def world(transport: str, **settings: Any) -> AsyncIterator[World]:
    """A world of this transport."""
    config = HTTPConfig(**settings)
    if transport == "mock":
        with MockHTTP(assert_all_called=False) as mock:
            made: World = MockWorld(config, mock)
            yield made
            await made.end()
        return
    real = RealWorld(config)
    async with http_peer(real.handle) as real.peer:
        real.url = real.peer.url
        real.transport = REAL[transport](config)
        try:
            yield real
        finally:
            await real.end()


async def all_closed(world: World) -> None:
    """Wait until no connection is open."""
    await until(lambda: world.transport.open_connections == 0, "no connection is open")
