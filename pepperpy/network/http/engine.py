"""The life of a call: attempts, what is retried and when, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.backoff import Backoff, RetryBudget
from pepperpy.network.errors import (
    ClosedError,
    ConnectionLostError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
)
from pepperpy.network.http.aiohttp_transport.translate import FAILURES, may_help, translate
from pepperpy.network.http.aiohttp_transport.wire import Wire
from pepperpy.network.http.auth import Auth
from pepperpy.network.http.call import Call, current_call
from pepperpy.network.http.checks import check_headers
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookies import CookieJar
from pepperpy.network.http.dates import retry_after
from pepperpy.network.http.rate_limit import RateLimiter
from pepperpy.network.http.redirects import Hop, NotFollowed, location_of
from pepperpy.network.http.response import is_known_to_fit, read_body, read_start, redirect_error
from pepperpy.network.watchdog import Watchdog

logger = logging.getLogger("pepperpy.network.http")


@dataclass(slots=True)
class Counters:
    """What the calls of one client did."""

    calls: int = 0
    attempts: int = 0
    retries: int = 0
    stale_retries: int = 0
    budget_refusals: int = 0
    discarded_connections: int = 0


class Engine:
    """Carries calls over a wire, attempt by attempt. One for each open client."""

    def __init__(
        self, config: HTTPConfig, make_wire: Callable[[HTTPConfig, CookieJar], Wire], counters: Counters
    ) -> None:
        self._jar = CookieJar(config.cookies)
        self._cookie_header = CIMultiDict(config.headers).get("Cookie")
        self._cookies_for = None if config.base_url is None else URL(config.base_url).origin()
        self.wire = make_wire(config, self._jar)
        self.counters = counters
        self.closing = False
        self._config = config
        self._watchdog = Watchdog(asyncio.get_running_loop())
        self._total = config.client_timeout(config.timeout).total
        self._backoff = Backoff(config.retry_delay, config.max_retry_delay)
        self._budget = RetryBudget(config.retry_budget)
        self._limiter = None if config.rate_limit is None else RateLimiter(config.rate_limit)  # type: ignore[arg-type]
        self._statuses = frozenset(config.retry_statuses)

    def close(self) -> None:
        """End the calls under way, with `ClosedError`. In the loop that they run in."""
        self.closing = True
        self._watchdog.close()

    async def run(self, call: Call, limit: int | None, auth: Auth | None, *, whole: bool) -> tuple[Any, bytes]:
        """The response, and its body if `whole`; otherwise the caller reads the body, or closes the response.

        May be called once more for a call whose body broke off, after `wait_to_retry()`.
        """
        if not call.attempt:
            self.counters.calls += 1
            self._budget.note_call(call.host, call.started_at)
        while True:
            self.counters.attempts += 1
            call.begin_attempt()
            if self._limiter is not None or auth is not None:
                await self._get_leave(call, auth)
            seconds = call.total if call.deadline_at is None else self._fit_into_deadline(call)
            watched = seconds
            if not whole and seconds is not None:
                # The time runs on while the caller has the stream: there is no task to end, but aiohttp's reading.
                call.ends_at = monotonic() + seconds
                watched = None
            elif not whole and call.body is None:
                # Until the head has come, a server may take as long as for a whole call; an upload takes what it takes.
                watched = self._total
            before = current_call.set(call)
            try:
                with self._watchdog.limit(math.inf if watched is None else watched):
                    call.begin_hop()
                    raw = await self._send(call)
                    if "Set-Cookie" in raw.headers:
                        self._jar.update(call.hop.url, raw.headers.getall("Set-Cookie"))
                    if 300 < raw.status < 309 and call.follow_redirects:
                        raw = await self._follow(call, raw)
                    call.head_at = monotonic()
                    delay = self._delay_after_status(call, raw, auth) if raw.status >= 400 else None
                    if delay is None:
                        if not whole:
                            return raw, b""
                        call.phase = "body"
                        if raw.status >= 400 and call.raise_for_status:
                            content = await read_start(raw, self._config.max_error_body)
                        elif limit is None or is_known_to_fit(raw, call, limit):
                            content = await raw.read()
                        else:
                            content = await read_body(raw, call, limit)
                        call.done_at = monotonic()
                        return raw, content
                    why = f"status {raw.status}"
                    # So that the connection can be used again.
                    await read_start(raw, self._config.max_error_body)
            except FAILURES as error:
                if self.closing:
                    failure: NetworkError = call.error(ClosedError, "the client was closed")
                    delay = None
                else:
                    failure = translate(error, call)
                    delay = self._delay_after_failure(call, failure)
                why = failure.message
            except asyncio.CancelledError:
                # aiohttp's pool, when it is closed, cancels the future that a task waits for, and not the task.
                task = asyncio.current_task()
                if not self.closing or task is None or task.cancelling():
                    raise
                failure, delay, why = call.error(ClosedError, "the client was closed"), None, "closed"
            finally:
                current_call.reset(before)
            if delay is None:
                # Not inside the except block: the failure's __context__ would hold what __cause__ was cleaned of.
                raise failure
            await self._wait(call, delay, why)

    async def read_error(self, raw: Any) -> bytes:
        """The start of a body that explains an error, of a call whose body is not read by `run()`.

        As much as comes within the client's `timeout`: a server may send a byte from time to time, and for ever.
        """
        return await read_start(raw, self._config.max_error_body, self._total)

    def _send(self, call: Call) -> Awaitable[Any]:
        """Send one request, with its cookies."""
        # No coroutine of its own: that would cost each request 0.1 us.
        if self._jar.in_use or call.cookies:
            self._add_cookies(call, call.hop)
        return self.wire.send(call)

    def _add_cookies(self, call: Call, hop: Hop) -> None:
        if any(name.lower() == "cookie" for name in call.dropped_headers):
            return
        text = None if hop.headers is None else hop.headers.get("Cookie")
        if text is None and "cookie" not in hop.left_out:
            text = self._cookie_header
        # What the client was given goes to the origin of its base_url; without one, to that which the caller names.
        given = hop.url.origin() == (self._cookies_for or call.url.origin())
        hop.cookie = self._jar.header(hop.url, text, hop.cookies, given)

    async def _follow(self, call: Call, raw: Any) -> Any:
        """The answer at the end of the redirects; what time is left for all of them is the attempt's."""
        history: list[Any] = []
        while (location := location_of(raw.status, raw.headers)) is not None:
            history.append(raw)
            call.history = history
            raw.release()  # its body is not read
            why = f"more than {self._config.max_redirects} redirects"
            if len(history) <= self._config.max_redirects:
                try:
                    call.hop = call.hop.next(raw.status, location, self._config)
                except NotFollowed as error:
                    why = str(error)
                else:
                    raw = await self._send(call)
                    self._jar.update(call.hop.url, raw.headers.getall("Set-Cookie", ()))
                    continue
            raise redirect_error(why, location, call)
        return raw

    async def wait_to_retry(self, call: Call, failure: NetworkError) -> None:
        """Wait until a call whose body broke off may be run again; raise `failure` if it may not."""
        if self.closing:
            raise call.error(ClosedError, "the client was closed")
        delay = self._delay(call, None) if call.retries and may_help(failure) else None
        if delay is None:
            raise failure
        await self._wait(call, delay, failure.message)

    async def _wait(self, call: Call, delay: float, why: str) -> None:
        logger.debug("%s %s: attempt %d again in %.3f s: %s", call.method, call.host, call.attempt, delay, why)
        call.phase = "retry"
        try:
            with self._watchdog.limit(math.inf):
                await asyncio.sleep(delay)
        except TimeoutError:
            raise call.error(ClosedError, "the client was closed") from None

    def _fit_into_deadline(self, call: Call) -> float:
        """Seconds for this attempt."""
        left = call.time_left
        assert left is not None
        if left <= 0:
            raise call.error(NetworkTimeoutError, "the deadline has passed", limit="deadline")
        return left if call.total is None else min(call.total, left)

    async def _get_leave(self, call: Call, auth: Auth | None) -> None:
        """Wait for the rate limit, which no `timeout` ends, and for a token, which has as long as the attempt."""
        try:
            if self._limiter is not None:
                call.phase = "rate limit"
                with self._watchdog.limit(math.inf):
                    await self._limiter.acquire(call.host, call.deadline_at)
            if auth is not None:
                call.phase = "auth"
                value = auth.fixed
                if value is None:
                    left = call.time_left
                    total = self._total if call.total is None else call.total
                    with self._watchdog.limit(min(math.inf if limit is None else limit for limit in (left, total))):
                        value = await auth.header()
                    if not isinstance(value, str):
                        raise TypeError(f"auth must give a str as the header, not {type(value).__name__}")
                    check_headers("auth", {"Authorization": value}, none=False)
                if call.headers is None:
                    call.headers = CIMultiDict()
                call.headers["Authorization"] = value
        except NetworkError as error:
            details = {"limit": "deadline", **error.details} if isinstance(error, TimeoutError) else error.details
            raise call.error(type(error), error.message, error.__cause__, **details) from error.__cause__
        except TimeoutError as error:
            if self.closing:
                raise call.error(ClosedError, "the client was closed") from None
            left = call.time_left
            limit = "deadline" if left is not None and left <= 0.01 else "timeout"
            raise call.error(NetworkTimeoutError, f"no token in time ({limit})", error, limit=limit) from error
        except ValueError as error:
            raise call.error(InvalidRequestError, str(error), error) from error

    # ---- Whether and when to try again ----

    def _delay_after_status(self, call: Call, raw: Any, auth: Auth | None) -> float | None:
        """Seconds until the next attempt, or None if this answer is final."""
        status = raw.status
        if status == 401 and auth is not None and auth.fixed is None and not call.reauthorized and not call.history:
            sent = "" if call.headers is None else call.headers.get("Authorization", "")
            # Whatever the method: a request that was refused for its token was not carried out. After a redirect it is
            # another request that was refused, perhaps for a token that was not sent there on purpose.
            if auth.refused(sent) and _can_send_again(call):
                call.reauthorized = True
                call.extra_attempts += 1
                return 0.0
            return None
        asked_for = retry_after(raw.headers)
        if asked_for is not None and status in (429, 503) and self._limiter is not None:
            # No longer than this client would wait by itself: a server cannot stop it for good.
            self._limiter.pause(call.host, min(asked_for, self._config.max_retry_delay))
        if status not in self._statuses or not call.repeatable:
            return None
        return self._delay(call, asked_for)

    def _delay_after_failure(self, call: Call, failure: NetworkError) -> float | None:
        if call.retries == 0 or not may_help(failure) or not _can_send_again(call):
            return None
        if call.connected and not call.repeatable:
            # It may have arrived, so sending it again might do twice what was asked for once.
            return None
        if call.reused and isinstance(failure, ConnectionLostError) and not call.extra_attempts:
            # The server closed the pooled connection just when it was chosen: nobody's fault, once.
            if not self._take_from_budget(call):
                return None
            call.extra_attempts += 1
            self.counters.stale_retries += 1
            return 0.0
        return self._delay(call, None)

    def _delay(self, call: Call, asked_for: float | None) -> float | None:
        retry = call.attempt - call.extra_attempts
        if retry > call.retries or not _can_send_again(call):
            return None
        if asked_for is None:
            delay = self._backoff.delay(max(retry, 1))
        elif asked_for <= self._config.max_retry_delay:
            delay = self._backoff.delay_after(max(retry, 1), asked_for)
        else:
            return None
        left = call.time_left
        if left is not None and delay >= left:
            return None
        if not self._take_from_budget(call):
            return None
        self.counters.retries += 1
        return delay

    def _take_from_budget(self, call: Call) -> bool:
        allowed = self._budget.take(call.host, monotonic())
        self.counters.budget_refusals += not allowed
        return allowed


def _can_send_again(call: Call) -> bool:
    return call.body is None or call.body.can_be_sent
