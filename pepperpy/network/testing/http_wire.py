"""`MockTransport`: carries the requests of one `HTTPClient` to a `MockHTTP`.

tests/testing/test_agreement.py holds it to the transport over aiohttp.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Protocol, TypeVar

import aiohttp
from multidict import CIMultiDict

from pepperpy.network.errors import NetworkError
from pepperpy.network.http.aiohttp_transport.translate import wire_error
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip, WireError
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.testing.http_reply import FAULTS, Delay, Failure, Reply
from pepperpy.network.testing.http_request import MockRequest
from pepperpy.network.testing.http_response import MockAnswer

T = TypeVar("T")


class Answers(Protocol):
    """What the transport asks: a `MockHTTP`."""

    real_delays: bool

    async def answer(self, request: MockRequest, arrive: Callable[[], Awaitable[None]]) -> Reply | Failure:
        """What becomes of the request; its body is there after `arrive()`."""
        ...


class MockTransport:
    """The `Transport` of one client, and what waits in it. No connection is open, pooled or reused."""

    # `MockRequest.headers` documents that there are none.
    default_headers: Mapping[str, str] = {}
    session = None
    open_connections = 0
    discarded = 0

    def __init__(self, mock: Answers) -> None:
        self._mock = mock
        self.closed: bool = False
        self._waiting: set[asyncio.Timeout] = set()

    async def close(self, seconds: float) -> None:
        self.closed = True
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())
        # So that what was interrupted has ended.
        await asyncio.sleep(0)

    def abandon(self) -> None:
        self.closed = True

    async def exchange(self, request: Request, trip: Trip) -> MockAnswer:
        if self.closed:
            raise WireError("closed")
        headers = CIMultiDict(request.headers)
        seen = MockRequest(request.method, request.url, headers, trip.attempt)
        arrived = False

        async def arrive() -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                trip.request_left, trip.phase = True, "response"
                trip.connected_at = monotonic() + trip.skipped_s
                if request.payload is not None:
                    await _receive(seen, request.payload)

        try:
            answer = await self._interruptible(self._mock.answer(seen, arrive))
        except (NetworkError, TimeoutError):
            raise
        except (aiohttp.ClientError, OSError) as error:  # a function of the test may raise what the network raises
            raise wire_error(error, request, trip, self.closed) from None
        fault = FAULTS.get(answer.kind) if isinstance(answer, Failure) else None
        if fault is None or fault.connected:
            await self._interruptible(arrive())
        else:
            trip.phase, trip.request_left, trip.connected_at = fault.phase, False, 0.0
        await self.silence(request, trip, answer.delay)
        if fault is not None:
            trip.reused = fault.reused
            raise fault.make(request.url.host or "")
        reply = Reply(chunks=(), then_fail="incomplete") if isinstance(answer, Failure) else answer
        return MockAnswer(self, request, trip, reply)

    # ---- Time ----

    async def silence(self, request: Request, trip: Trip, delay: Delay) -> None:
        """Wait as for a server that is silent so long, under the limits of a transport.

        The other limits are the policy's, which cancels the task; it knows nothing of time that does not really pass.
        """
        virtual = not self._mock.real_delays and not isinstance(delay, asyncio.Event)
        limit, error = min(_limits(request, trip, virtual), key=lambda pair: pair[0])
        if isinstance(delay, asyncio.Event):
            await self._interruptible(delay.wait(), limit, error)
        elif virtual and min(delay, limit) < math.inf:
            # As if it had passed: what is measured and limited from these times on cannot tell the difference.
            trip.skipped_s += min(delay, max(limit, 0.0))
            await asyncio.sleep(0)
            if delay >= limit:
                raise error
        else:
            # For ever is three years: not all loops take infinity for a time.
            await self._interruptible(asyncio.sleep(min(delay, 1e8)), limit, error)

    async def _interruptible(self, work: Awaitable[T], limit: float = math.inf, error: Exception | None = None) -> T:
        """What `work` gives; raises `error` after `limit` seconds, or that the transport was closed."""
        scope = asyncio.timeout(None if limit == math.inf else limit)
        try:
            async with scope:
                self._waiting.add(scope)
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            if self.closed or error is None:
                error = WireError("closed")
            raise error from None
        finally:
            self._waiting.discard(scope)


def _limits(request: Request, trip: Trip, virtual: bool) -> Iterator[tuple[float, Exception]]:
    """Seconds from now, and what is raised then."""
    limits = request.limits
    yield math.inf, TimeoutError()
    if trip.request_left and limits.read is not None:
        yield limits.read, FAULTS["timeout"].make("")
    if not trip.request_left and limits.connect is not None:
        yield limits.connect, FAULTS["connect timeout"].make("")
    if virtual:
        yield trip.ends_at - monotonic() - trip.skipped_s, TimeoutError()  # what the policy would raise


async def _receive(seen: MockRequest, payload: Any) -> None:
    if isinstance(payload, bytes):
        seen.received += payload
        return
    length = seen.headers.get("Content-Length", "")
    try:
        await payload.write_with_length(_Receiver(seen), int(length) if length.isdigit() else None)
    except BodyFailed as error:
        raise WireError("body_failed", str(error), error.__cause__) from None


class _Receiver:
    """What a payload needs of a transport's writer."""

    transport = None

    def __init__(self, request: MockRequest) -> None:
        self._request = request

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._request.received += chunk
