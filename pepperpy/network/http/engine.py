"""The life of a call: attempts, what is retried and when, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network._core.limit import Limit
from pepperpy.network.errors import (
    ClosedError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    UploadError,
)
from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.failures import failure_of
from pepperpy.network.http.middleware import around_call, around_exchange, authorize
from pepperpy.network.http.middleware_request import HTTPRequest
from pepperpy.network.http.middleware_response import UnreadResponse
from pepperpy.network.http.public_suffix import is_public_suffix
from pepperpy.network.http.quota import quota_of
from pepperpy.network.http.rate_limiter import RateLimiter
from pepperpy.network.http.redirects import NotFollowed, location_of, next_request
from pepperpy.network.http.request import Defaults, Limits, Request
from pepperpy.network.http.response import is_known_to_fit, read_body, read_start, redirect_error
from pepperpy.network.http.retries import Retries
from pepperpy.network.http.routes import Credentials, routes_of
from pepperpy.network.http.stats import Counters
from pepperpy.network.http.timeouts import total_of
from pepperpy.network.http.transport import Answer, Transport, WireError
from pepperpy.network.watchdog import Watchdog

logger = logging.getLogger("pepperpy.network.http")


class Engine:
    """Carries calls over a transport, attempt by attempt. One for each open client."""

    def __init__(
        self, config: HTTPConfig, make_transport: Callable[[HTTPConfig, CookieJar], Transport], counters: Counters
    ) -> None:
        self.jar: CookieJar = CookieJar(config.cookies, is_public_suffix)
        self._cookie_header = CIMultiDict(config.headers).get("Cookie")
        self._cookies_for = None if config.base_url is None else URL(config.base_url).origin()
        self.transport: Transport = make_transport(config, self.jar)
        defaults = Defaults(config.headers, self.transport.default_headers)
        self._blank = Request("GET", URL(), None, None, defaults, Limits())
        self.counters = counters
        self.closing: bool = False
        self._config = config
        self._watchdog = Watchdog(asyncio.get_running_loop())
        self._total = total_of(config.timeout)
        self._limiter = None if config.rate_limit is None else RateLimiter(config.rate_limit)  # type: ignore[arg-type]
        self._retries = Retries(config, counters, self._limiter)
        self._routes = routes_of(config)
        self._credentials = Credentials() if config.trust_env else None

    def close(self) -> None:
        """End the calls under way, with `ClosedError`. In the loop that they run in."""
        self.closing = True
        self._watchdog.close()

    async def run(self, call: Call, *, whole: bool, inside: bool = False) -> tuple[Answer, bytes]:
        """The answer, and its body if `whole`; otherwise the caller reads the body, or aborts the answer.

        May be called once more for a call whose body broke off, after `wait_to_retry()`. What is `inside` of the
        middlewares does not go through them.
        """
        if call.middlewares and not inside:
            return await around_call(partial(Engine.run, self), call, self._first_request(call), whole)
        if not call.attempt:
            self.counters.calls += 1
            self._retries.budget.note_call(call.host, call.started_at)
        if self._credentials is not None and call.auth is None:
            self._credentials.give(call)
        while True:
            self.counters.attempts += 1
            call.begin_attempt()
            request = call.first_request(self._blank)
            if self._limiter is not None or call.auth is not None:
                await self._get_leave(call, request)
            failure: NetworkError | None = None
            try:
                with (limit := self._limit_attempt(call, whole)):
                    answer = await self._send(call, request)
                    self._note(call, answer)
                    if 300 < answer.status < 309 and call.follow_redirects:
                        answer = await self._follow(call, answer, limit)
                    call.head_at = monotonic() + call.skipped_s
                    if self._limiter is not None and self._limiter.adapts and (quota := quota_of(answer)) is not None:
                        self._limiter.heed(call.answering_host, quota)
                    delay = self._retries.after_status(call, answer) if answer.status >= 400 else None
                    if delay is None:
                        if not whole:
                            return answer, b""
                        call.phase = "body"
                        content = answer.take_whole(call.max_size) if answer.status < 400 else None
                        if content is None:
                            content = await self._read(call, answer)
                        call.done_at = monotonic() + call.skipped_s
                        return answer, content
                    why = f"status {answer.status}"
                    # So that the connection can be used again.
                    await read_start(answer, self._config.limits.max_error_body)
            except (WireError, NetworkError, TimeoutError) as error:
                failure = call.error(ClosedError, "the client was closed") if self.closing else failure_of(error, call)
                delay, why = self._retries.after_failure(call, failure), failure.message
            if delay is None:
                # Not inside the except block: the failure's __context__ would hold what __cause__ was cleaned of.
                assert failure is not None
                raise failure
            await self._wait(call, delay, why, failure)

    async def read_error(self, answer: Answer) -> bytes:
        """The start of a body that explains an error, of a call whose body is not read by `run()`.

        As much as comes within the client's `timeout`: a server may send a byte from time to time, and for ever.
        """
        return await read_start(answer, self._config.limits.max_error_body, self._total)

    # ---- One attempt ----

    def _limit_attempt(self, call: Call, whole: bool) -> Limit:
        """The time limit of an attempt; for a stream, until its head has come."""
        seconds = call.total if call.deadline_at is None else self._fit_into_deadline(call)
        if seconds is not None:
            call.ends_at = monotonic() + call.skipped_s + seconds
        elif not whole and call.body is None:
            # A stream: its head may take as long as a whole call. With a body to send, it may take longer.
            seconds = self._total
        return self._watchdog.limit(math.inf if seconds is None else seconds)

    def _fit_into_deadline(self, call: Call) -> float:
        """Seconds for this attempt."""
        left = call.time_left
        assert left is not None
        if left <= 0:
            raise call.error(NetworkTimeoutError, "the deadline has passed", limit="deadline")
        return left if call.total is None else min(call.total, left)

    def _send(self, call: Call, request: Request) -> Awaitable[Answer]:
        """Complete one request, and begin its exchange."""
        # No coroutine of its own: that would cost each request 0.1 us.
        call.request = request
        if (request.body is not None or self.jar.in_use or request.cookies) and not request.shown:
            self._complete(call, request)
        if call.exchange_middlewares:
            return around_exchange(self._exchange, call, request, self._complete)
        if self._routes is not None:
            return self._exchange(request, call)
        return self.transport.exchange(request, call)

    def _exchange(self, request: Request, call: Call) -> Awaitable[Answer]:
        """Begin an exchange by way of the proxy that its URL has; a middleware may have changed that."""
        if self._routes is not None and call.routed:
            try:
                request.proxy = self._routes.proxy_for(request.url)
            except ValueError as error:
                raise call.error(InvalidRequestError, str(error)) from None
        return self.transport.exchange(request, call)

    def _complete(self, call: Call, request: Request) -> None:
        """Add the body to send now, and the cookies."""
        if request.body is not None:
            try:
                request.payload = request.body.payload()
            except OSError as error:
                raise call.error(UploadError, f"the body's file cannot be opened: {error.strerror}", error) from error
        if self.jar.in_use or request.cookies:
            self._add_cookies(call, request)

    def _first_request(self, call: Call) -> Request:
        """What the call would send now."""
        request = call.first_request(self._blank)
        if request.body is None or request.body.can_be_sent:
            self._complete(call, request)
        return request

    def _add_cookies(self, call: Call, request: Request) -> None:
        if any(name.lower() == "cookie" for name in call.dropped_headers):
            return
        text = None if request.own is None else request.own.get("Cookie")
        if text is None and "cookie" not in request.left_out:
            text = self._cookie_header
        # Configured cookies go to the origin of base_url; without one, to the origin that the caller names.
        given = request.url.origin() == (self._cookies_for or call.url.origin())
        request.cookie = self.jar.header(request.url, text, request.cookies, given)

    async def _follow(self, call: Call, answer: Answer, limit: Limit) -> Answer:
        """Follow redirects to the last answer. All of them share the time of the attempt, which ends at `limit`."""
        history: list[tuple[Request, Answer]] = []
        while (location := location_of(answer.status, answer.headers)) is not None:
            request = call.request
            history.append((request, answer))
            call.history = history
            answer.release()  # its body is not read
            why = f"more than {self._config.max_redirects} redirects"
            if len(history) <= self._config.max_redirects:
                try:
                    following = next_request(request, answer.status, location, self._config)
                except NotFollowed as error:
                    why = str(error)
                else:
                    request.forget_body()
                    if call.condition is not None:
                        call.condition.apply(following)
                    if self._limiter is not None:
                        await self._wait_for_pause(call, following, self._limiter, limit)
                    call.begin()
                    if following.auth is not None:
                        await self._authorize(call, following)
                    answer = await self._send(call, following)
                    self._note(call, answer)
                    continue
            raise redirect_error(why, location, call)
        return answer

    def _note(self, call: Call, answer: Answer) -> None:
        """What the head of an answer is to change for later requests."""
        call.heard = True
        request = call.request
        if answer.header("set-cookie") is not None:
            self.jar.update(request.url, answer.headers.getall("Set-Cookie"))
        if request.auth is not None and answer.status != 401 and answer.header("authentication-info") is not None:
            request.auth.informed(HTTPRequest(call, request), UnreadResponse(request, answer, call))

    def _read(self, call: Call, answer: Answer) -> Awaitable[bytes]:
        """The body, or the start of one that explains an error."""
        if answer.status >= 400 and call.raise_for_status:
            return read_start(answer, self._config.limits.max_error_body)
        limit = call.max_size
        if limit is None:
            fits = answer.header("content-encoding") is None
        else:
            fits = is_known_to_fit(answer, call, limit)
        if fits:
            return answer.read()
        return read_body(answer, call, limit)

    # ---- What comes before and between attempts ----

    async def wait_to_retry(self, call: Call, failure: NetworkError) -> None:
        """Wait until a call whose body broke off may run again. Raise `failure` if it may not."""
        if self.closing:
            raise call.error(ClosedError, "the client was closed")
        delay = self._retries.after_broken_body(call, failure)
        if delay is None:
            raise failure
        await self._wait(call, delay, failure.message, failure)

    async def _wait(self, call: Call, delay: float, why: str, failure: NetworkError | None) -> None:
        logger.debug("%s %s: attempt %d again in %.3f s: %s", call.method, call.host, call.attempt, delay, why)
        call.phase = "retry"
        try:
            await self.pause(delay)
        except ClosedError as error:
            raise call.error(ClosedError, error.message) from None

    async def pause(self, seconds: float) -> None:
        """Wait; `ClosedError` if the client is closed meanwhile."""
        try:
            with self._watchdog.limit(math.inf):
                await asyncio.sleep(seconds)
        except TimeoutError:
            raise ClosedError("the client was closed") from None

    async def _get_leave(self, call: Call, request: Request) -> None:
        """Wait for the rate limit, which no `timeout` ends, and for a token, which may take as long as an attempt."""
        try:
            if self._limiter is not None:
                call.phase = "rate limit"
                left = call.time_left
                with self._watchdog.limit(math.inf if left is None else max(left, 0.0)):
                    await self._wait_for_rate(call, self._limiter)
            if request.auth is not None:
                left = call.time_left
                total = self._total if call.total is None else call.total
                with self._watchdog.limit(min(math.inf if limit is None else limit for limit in (left, total))):
                    await self._authorize(call, request)
            elif call.auth is not None:
                # Not into `call.headers`: a middleware may send the call to another origin next.
                request.own = CIMultiDict(request.own or ())
                request.own["Authorization"] = call.auth.fixed or ""
        except NetworkError:
            raise
        except TimeoutError as error:
            if self.closing:
                raise call.error(ClosedError, "the client was closed") from None
            left = call.time_left
            limit = "deadline" if left is not None and left <= 0.01 else "timeout"
            what = "held back by the rate limit" if call.phase == "rate limit" else "no token in time"
            raise call.error(NetworkTimeoutError, f"{what} ({limit})", error, limit=limit) from error

    async def _wait_for_rate(self, call: Call, limiter: RateLimiter) -> None:
        deadline = call.deadline_at
        if deadline is not None:
            deadline -= call.skipped_s
        try:
            await limiter.acquire(call.host, deadline)
        except NetworkError as error:
            raise _of_this_call(error, call) from error.__cause__

    async def _wait_for_pause(self, call: Call, request: Request, limiter: RateLimiter, attempt: Limit) -> None:
        """Wait while the host that a redirect leads to is paused. The wait is no part of the attempt's time."""
        deadline = math.inf if call.deadline_at is None else call.deadline_at - call.skipped_s
        while True:
            try:
                left = limiter.pause_left(request.url.raw_host or "", deadline)
            except NetworkError as error:
                raise _of_this_call(error, call) from None
            if not left:
                return
            call.phase = "rate limit"
            attempt.ends_at = min(attempt.ends_at + left, deadline)
            call.ends_at = min(call.ends_at + left, deadline + call.skipped_s)
            await asyncio.sleep(left)

    async def _authorize(self, call: Call, request: Request) -> None:
        """Let the `Auth` of the request, which is not a fixed value, authorize it."""
        call.phase = "auth"
        self._complete(call, request)
        try:
            await authorize(call, request)
        except NetworkError as error:
            raise _of_this_call(error, call) from error.__cause__
        except ValueError as error:
            raise call.error(InvalidRequestError, str(error), error) from error


def _of_this_call(error: NetworkError, call: Call) -> NetworkError:
    """What was raised below the call, which it knows nothing of."""
    details = {"limit": "deadline", **error.details} if isinstance(error, TimeoutError) else error.details
    return call.error(type(error), error.message, error.__cause__, **details)
