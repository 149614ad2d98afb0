"""What stands in for aiohttp below `HTTPClient`: carries requests to a `MockHTTP`.

tests/testing/test_agreement.py holds the two together.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import Any, Protocol, TypeVar

import aiohttp
from multidict import CIMultiDict

from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.redirects import Hop
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.testing.http_reply import FAULTS, Delay, Failure, Reply
from pepperpy.network.testing.http_request import MockRequest
from pepperpy.network.testing.http_response import MockResponse

T = TypeVar("T")


class Answers(Protocol):
    """What the wire asks: a `MockHTTP`."""

    real_delays: bool

    async def answer(self, request: MockRequest, arrive: Callable[[], Awaitable[None]]) -> Reply | Failure:
        """What becomes of the request; its body is there after `arrive()`."""


class MockWire:
    """The `Wire` of one client, and what waits in it. No connection is open, pooled or reused."""

    session: aiohttp.ClientSession | None = None
    open_connections = 0
    discarded = 0

    def __init__(self, config: HTTPConfig, mock: Answers) -> None:
        self._config = config
        self._mock = mock
        self.closed = False
        self._waiting: set[asyncio.Timeout] = set()

    async def close(self, timeout: float) -> None:
        self.closed = True
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())
        # So that what was interrupted has ended.
        await asyncio.sleep(0)

    def abandon(self) -> None:
        self.closed = True

    async def send(self, call: Call) -> MockResponse:
        hop = call.hop
        payload: Any = None
        if hop.body is not None:
            try:
                payload = hop.body.payload()
            except OSError as error:
                raise BodyFailed(f"the body's file cannot be opened: {error.strerror}") from error
        request = MockRequest(hop.method, hop.url.with_fragment(None), self._headers(hop, payload), call.attempt)
        return await self._exchange(call, request, payload)

    def _headers(self, hop: Hop, payload: Any) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict({"Host": hop.url.host_port_subcomponent or ""})
        headers.update(self._config.headers)
        headers.update(hop.headers or {})
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            size = 0 if payload is None else len(payload) if isinstance(payload, bytes) else payload.size
            if size is None:
                headers["Transfer-Encoding"] = "chunked"
            elif payload is not None or hop.method not in ("GET", "HEAD", "OPTIONS", "TRACE"):
                headers["Content-Length"] = str(size)
        for name in hop.left_out:
            headers.popall(name, None)
        if hop.cookie is not None:
            headers["Cookie"] = hop.cookie
        return headers

    # ---- One request, one answer ----

    async def _exchange(self, call: Call, request: MockRequest, payload: Any) -> MockResponse:
        arrived = False

        async def arrive() -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                call.connected, call.connected_at, call.phase = True, monotonic(), "response"
                if payload is not None:
                    await _receive(request, payload)

        answer = await self._interruptible(self._mock.answer(request, arrive))
        fault = FAULTS.get(answer.kind) if isinstance(answer, Failure) else None
        if fault is None or fault.connected:
            await self._interruptible(arrive())
        else:
            call.phase, call.connected = fault.phase, False
        await self.silence(call, answer.delay)
        if fault is not None:
            call.reused = fault.reused
            raise fault.make(request)
        reply = Reply(chunks=(), then_fail="incomplete") if isinstance(answer, Failure) else answer
        return MockResponse(self, call, request, reply)

    # ---- Time ----

    async def silence(self, call: Call, delay: Delay) -> None:
        """Wait as for a server that is silent so long, under the limits that are aiohttp's in production.

        The other limits are the engine's, which cancels the task; it knows nothing of time that does not really pass.
        """
        virtual = not self._mock.real_delays and not isinstance(delay, asyncio.Event)
        limit, error = min(_limits(call, virtual), key=lambda pair: pair[0])
        if isinstance(delay, asyncio.Event):
            await self._interruptible(delay.wait(), limit, error)
        elif virtual and min(delay, limit) < math.inf:
            # As if it had passed: what is measured and limited from these times on cannot tell the difference.
            _move_into_the_past(call, min(delay, max(limit, 0.0)))
            await asyncio.sleep(0)
            if delay >= limit:
                raise error
        else:
            # For ever is three years: not all loops take infinity for a time.
            await self._interruptible(asyncio.sleep(min(delay, 1e8)), limit, error)

    async def _interruptible(self, work: Awaitable[T], limit: float = math.inf, error: Exception | None = None) -> T:
        """What `work` gives; raises `error` after `limit` seconds, or what aiohttp raises when it is closed."""
        scope = asyncio.timeout(None if limit == math.inf else limit)
        try:
            async with scope:
                self._waiting.add(scope)
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            if self.closed or error is None:
                error = aiohttp.ClientConnectionError("Connection closed")
            raise error from None
        finally:
            self._waiting.discard(scope)


def _limits(call: Call, virtual: bool) -> Iterator[tuple[float, Exception]]:
    """Seconds from now, and what is raised then."""
    yield math.inf, TimeoutError()
    if call.connected and call.timeout.sock_read:
        yield call.timeout.sock_read, aiohttp.SocketTimeoutError("Timeout on reading data from socket")
    if not call.connected and call.timeout.sock_connect:
        yield call.timeout.sock_connect, aiohttp.ConnectionTimeoutError("Connection timeout")
    if call.ends_at is not None:  # of a stream
        yield call.ends_at - monotonic(), TimeoutError()
    if virtual:
        if call.total is not None:
            yield call.attempt_at + call.total - monotonic(), TimeoutError()
        if call.time_left is not None:
            yield call.time_left, TimeoutError()


def _move_into_the_past(call: Call, seconds: float) -> None:
    call.started_at -= seconds
    call.attempt_at -= seconds
    if call.connected_at:
        call.connected_at -= seconds
    if call.head_at:
        call.head_at -= seconds
    if call.deadline_at is not None:
        call.deadline_at -= seconds
    if call.ends_at is not None:
        call.ends_at -= seconds


async def _receive(request: MockRequest, payload: Any) -> None:
    if isinstance(payload, bytes):
        request.received += payload
        return
    length = request.headers.get("Content-Length", "")
    await payload.write_with_length(_Receiver(request), int(length) if length.isdigit() else None)


class _Receiver:
    """What a payload needs of aiohttp's writer."""

    transport = None

    def __init__(self, request: MockRequest) -> None:
        self._request = request

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._request.received += chunk
