"""What stands in for aiohttp below `HTTPClient`: carries requests to a `MockHTTP`, follows redirects, keeps cookies.

Rules that are aiohttp's in production (which redirect becomes a GET, what another origin does not get) are written down
here once more; tests/test_testing_agreement.py holds the two together.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from http.cookies import SimpleCookie
from time import monotonic
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.http.wire import Cookies
from pepperpy.network.testing.http_reply import FAULTS, Delay, Failure, Reply, request_info
from pepperpy.network.testing.http_request import MockRequest
from pepperpy.network.testing.http_response import MockResponse

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Answers(Protocol):
    """What the wire asks: a `MockHTTP`."""

    real_delays: bool

    async def answer(self, request: MockRequest, arrive: Callable[[], Awaitable[None]]) -> Reply | Failure:
        """What becomes of the request; its body is there after `arrive()`."""


class MockWire:
    """The `Wire` of one client: its cookies, and what waits. No connection is open, pooled or reused."""

    session: aiohttp.ClientSession | None = None
    open_connections = 0
    discarded = 0

    def __init__(self, config: HTTPConfig, mock: Answers) -> None:
        self._config = config
        self._mock = mock
        self._cookies = Cookies(config)
        self._jar = self._cookies.jar
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
        self._cookies.prepare_for(call.url)
        payload: Any = None
        if call.body is not None:
            try:
                payload = call.body.payload()
            except OSError as error:
                raise BodyFailed(f"the body's file cannot be opened: {error.strerror}") from error
        return await self._follow(call, payload)

    # ---- Redirects ----

    async def _follow(self, call: Call, payload: Any) -> MockResponse:
        method, options = call.method, call.options
        url = call.url.extend_query(options.get("params") or [])
        cookies = options.get("cookies") or {}
        headers = CIMultiDict(self._config.headers)
        headers.update(call.headers or {})
        credentials: str | None = None
        history: list[MockResponse] = []
        while True:
            if url.raw_user is not None or url.raw_password is not None:
                credentials = aiohttp.encode_basic_auth(url.user or "", url.password or "", "latin1")
                url = url.with_user(None)
            if credentials is not None and "Authorization" in headers:
                raise ValueError("the request has both an Authorization header and credentials in its URL")
            url = url.with_fragment(None)
            hop = SimpleNamespace(url=url, headers=self._headers(method, url, headers, cookies, credentials, payload))
            call.check_hop(cast(aiohttp.ClientRequest, hop))
            request = MockRequest(method, url, hop.headers, call.attempt)
            response = await self._exchange(call, request, payload)
            self._jar.update_cookies_from_headers(response.headers.getall("Set-Cookie", []), url)
            location = response.headers.get("Location") or response.headers.get("URI")
            redirected = response.status in _REDIRECTS and options.get("allow_redirects", True)
            if redirected:
                history.append(response)
                if len(history) >= options["max_redirects"]:
                    raise aiohttp.TooManyRedirects(request_info(request), tuple(cast(Any, history)))
            if not redirected or location is None:
                response.history = tuple(history)
                return response
            response.close()
            if (response.status == 303 and method != "HEAD") or (response.status in (301, 302) and method == "POST"):
                method, payload = "GET", None
                headers.popall("Content-Length", None)
            elif isinstance(payload, aiohttp.Payload) and payload.consumed:
                # In words of aiohttp's, by which translate() knows it.
                raise aiohttp.ClientPayloadError("Cannot follow redirect with a consumed request body")
            target = _redirect_target(url, location)
            if target.origin() != url.origin():
                credentials, cookies = None, {}
                for name in ("Authorization", "Cookie", "Proxy-Authorization"):
                    headers.popall(name, None)
            url = target

    def _headers(
        self,
        method: str,
        url: URL,
        given: CIMultiDict[str],
        cookies: dict[str, str],
        credentials: str | None,
        payload: Any,
    ) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict({"Host": url.host_port_subcomponent or ""})
        headers.update(given)
        sent = SimpleCookie(headers.get("Cookie", ""))
        sent.update(self._jar.filter_cookies(url))
        for name, value in cookies.items():
            sent[name] = value
        if sent:
            headers["Cookie"] = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in sorted(sent.items()))
        if credentials is not None:
            headers["Authorization"] = credentials
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            size = 0 if payload is None else len(payload) if isinstance(payload, bytes) else payload.size
            if size is None:
                headers["Transfer-Encoding"] = "chunked"
            elif payload is not None or method not in ("GET", "HEAD", "OPTIONS", "TRACE"):
                headers["Content-Length"] = str(size)
        if method in ("POST", "PUT", "PATCH"):
            headers.setdefault("Content-Type", "application/octet-stream")
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
    if call.timeout.total is not None:  # of a stream
        yield call.attempt_at + call.timeout.total - monotonic(), TimeoutError()
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


def _redirect_target(url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location))
        if target.scheme not in ("http", "https"):
            raise aiohttp.NonHttpUrlRedirectClientError(location)
        target.origin()
    except ValueError as error:
        raise aiohttp.InvalidUrlRedirectClientError(location, "not a URL") from error
    return target


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
