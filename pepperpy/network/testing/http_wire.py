"""What stands in for aiohttp below `HTTPClient`: carries requests to a `MockHTTP`, follows redirects, keeps cookies.

Rules that are aiohttp's in production (which redirect becomes a GET, what another origin does not get) are written down
here once more; tests/test_testing_agreement.py holds the two together.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.message import Message
from http.cookies import SimpleCookie
from time import monotonic
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.testing.http_reply import BODY_FAULTS, FAULTS, Delay, Failure, Reply, request_info
from pepperpy.network.testing.http_request import MockRequest

T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WITHOUT_BODY = frozenset({204, 304})


class Answers(Protocol):
    """What the wire asks: a `MockHTTP`."""

    real_delays: bool

    async def answer(self, request: MockRequest, read_body: Callable[[], Awaitable[None]]) -> Reply | Failure: ...


class MockWire:
    """The `Wire` of one client: its cookies, and what waits. No connection is open, pooled or reused."""

    session: aiohttp.ClientSession | None = None
    open_connections = 0
    discarded = 0

    def __init__(self, config: HTTPConfig, mock: Answers) -> None:
        self._config = config
        self._mock = mock
        self._jar = aiohttp.CookieJar()
        self._jar.update_cookies(config.cookies)
        self._closed = False
        self._waiting: set[asyncio.Timeout] = set()

    async def close(self, timeout: float) -> None:
        self._closed = True
        for scope in self._waiting:
            scope.reschedule(asyncio.get_running_loop().time())
        # So that what was interrupted has ended.
        await asyncio.sleep(0)

    def abandon(self) -> None:
        self._closed = True

    async def send(self, call: Call) -> MockResponse:
        payload: Any = None
        if call.body is not None:
            try:
                payload = call.body.payload()
            except OSError as error:
                raise BodyFailed(f"the body's file cannot be opened: {error.strerror}") from error
        try:
            return await self._follow(call, payload)
        finally:
            if isinstance(payload, aiohttp.Payload):
                await payload.close()

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
                raise aiohttp.ClientPayloadError("the body cannot be sent again to where it was redirected")
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
            headers["Cookie"] = "; ".join(f"{name}={morsel.coded_value}" for name, morsel in sent.items())
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
        call.connected = call.reused = False
        call.phase = "connect"
        unread = payload is not None

        async def read_body() -> None:
            nonlocal unread
            if unread:
                unread = False
                await self._receive(request, payload)

        answer = await self.interruptible(self._mock.answer(request, read_body))
        fault = FAULTS.get(answer.kind) if isinstance(answer, Failure) else None
        if fault is None or fault.connected:
            call.connected, call.connected_at, call.phase = True, monotonic(), "response"
            await read_body()
        await self.silence(call, answer.delay)
        if fault is not None:
            call.phase, call.connected, call.reused = fault.phase, fault.connected, fault.reused
            raise fault.make(request)
        reply = Reply(chunks=(), then_fail="incomplete") if isinstance(answer, Failure) else answer
        return MockResponse(self, call, request, reply)

    async def _receive(self, request: MockRequest, payload: Any) -> None:
        if isinstance(payload, bytes):
            request._received += payload
            return
        length = request.headers.get("Content-Length", "")
        writer = cast(AbstractStreamWriter, _Receiver(request._received))
        await self.interruptible(payload.write_with_length(writer, int(length) if length.isdigit() else None))

    # ---- Time ----

    async def silence(self, call: Call, delay: Delay) -> None:
        """Wait as for a server that is silent so long, under the limits that are aiohttp's in production."""
        waits_for_peer = call.timeout.sock_read if call.connected else call.timeout.sock_connect
        kind = aiohttp.SocketTimeoutError if call.connected else aiohttp.ConnectionTimeoutError
        limits: list[tuple[float, Exception]] = []
        if waits_for_peer:
            limits.append((waits_for_peer, kind("the server was silent")))
        if call.timeout.total is not None:
            limits.append((call.attempt_at + call.timeout.total - monotonic(), TimeoutError()))
        if isinstance(delay, asyncio.Event):
            limit, error = min(limits, key=_seconds, default=(None, None))
            await self.interruptible(delay.wait(), limit, error)
        elif self._mock.real_delays:
            limit, error = min(limits, key=_seconds, default=(None, None))
            # Loops do not all take infinity for a time.
            await self.interruptible(asyncio.sleep(min(delay, 1e8)), limit, error)
        else:
            # The engine's own limits, which its watchdog cannot see.
            if call.total is not None:
                limits.append((call.attempt_at + call.total - monotonic(), TimeoutError()))
            if call.time_left is not None:
                limits.append((call.time_left, TimeoutError()))
            limit, error = min(limits, key=_seconds, default=(math.inf, None))
            _set_clock_forward(call, min(delay, max(limit, 0.0)))
            if delay >= limit and error is not None:
                raise error

    async def interruptible(
        self, work: Awaitable[T], limit: float | None = None, error: Exception | None = None
    ) -> T:
        """Wait for `work`; `error` after `limit` seconds, and what a broken connection raises when the client closes."""
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                self._waiting.add(scope)
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            raise (aiohttp.ClientConnectionError("Connection closed") if self._closed else error) or TimeoutError from None
        finally:
            self._waiting.discard(scope)
