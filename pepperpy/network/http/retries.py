"""Whether a call is tried again, and after which wait."""

from __future__ import annotations

from time import monotonic

from pepperpy.network.backoff import Backoff, RetryBudget
from pepperpy.network.errors import ConnectionLostError, NetworkError
from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.content import has_token
from pepperpy.network.http.dates import retry_after
from pepperpy.network.http.middleware_request import HTTPRequest
from pepperpy.network.http.middleware_response import UnreadResponse
from pepperpy.network.http.rate_limiter import RateLimiter
from pepperpy.network.http.stats import Counters
from pepperpy.network.http.transport import Answer
from pepperpy.network.proxy_auth import login_of, note_challenge
from pepperpy.network.proxy_url import read_proxy


class Retries:
    """The retries of one open client. Each method returns the seconds until the next attempt, or None for no more.

    Attributes:
        budget: Each call that is noted there raises the number of retries that are allowed.
    """

    def __init__(self, config: HTTPConfig, counters: Counters, limiter: RateLimiter | None) -> None:
        self._max_delay = config.max_retry_delay
        self._statuses = frozenset(config.retry_statuses)
        self._backoff = Backoff(config.retry_delay, config.max_retry_delay)
        self.budget: RetryBudget = RetryBudget(config.retry_budget)
        self._counters = counters
        self._limiter = limiter

    def after_status(self, call: Call, answer: Answer) -> float | None:
        """The server answered with a status of 400 or above."""
        status = answer.status
        request = call.request
        if status == 401 and request.auth is not None and call.reauthorized < request.auth.max_answers:
            response = UnreadResponse(request, answer, call)
            # For any method: the server did not carry out a request whose token it refused. After a redirect, the
            # first request was carried out, and another one was refused: this begins with the first one again.
            again = (not call.history or call.repeatable) and _can_send_again(call)
            if request.auth.challenged(HTTPRequest(call, request), response) and again:
                call.reauthorized += 1
                call.extra_attempts += 1
                return 0.0
            return None
        proxy = request.proxy if request.url.scheme == "http" else None  # else it is not the proxy that answers
        if status == 407 and proxy is not None and (login := login_of(read_proxy(proxy))) is not None:
            # For any method, as above: the proxy has passed nothing on.
            again = (not call.history or call.repeatable) and _can_send_again(call)
            challenges = answer.headers.getall("Proxy-Authenticate", ())
            # Noted even if this call cannot be sent again: the next call answers it.
            may_answer, challenge = note_challenge(login, challenges, call.proxy_answers)
            if may_answer and again:
                call.proxy_answers += 1
                call.proxy_challenge = challenge
                call.extra_attempts += 1
                return 0.0
            return None
        if status == 408 and self._may_be_stale(call) and has_token(answer.headers.getall("Connection", ()), "close"):
            # What haproxy and others send before they close an idle connection: it has crossed the request. For any
            # method, as above: the server says that no request has come (RFC 9110, 15.5.9). Chrome does the same.
            again = call.retries > 0 and (not call.history or call.repeatable) and _can_send_again(call)
            return self._replace_stale(call) if again else None
        asked_for = retry_after(answer.headers)
        if asked_for is not None and status in (429, 503) and self._limiter is not None:
            # No longer than this client would wait by itself, so that a server cannot stop it for good.
            self._limiter.pause(call.answering_host, min(asked_for, self._max_delay))
        if status not in self._statuses or not call.repeatable:
            return None
        if status == 504 and request.only_if_cached:
            # The cache says that it has nothing, and asks nobody.
            return None
        return self._delay(call, asked_for)

    def after_failure(self, call: Call, failure: NetworkError) -> float | None:
        """The attempt failed before its answer was complete."""
        if call.retries == 0 or not failure.is_transient or not _can_send_again(call):
            return None
        if (call.request_left or call.history) and not call.repeatable:
            # The request may have arrived, so sending it again might do twice what was asked for once.
            return None
        if isinstance(failure, ConnectionLostError) and self._may_be_stale(call) and not call.heard:
            return self._replace_stale(call)
        return self._delay(call, None)

    def after_broken_body(self, call: Call, failure: NetworkError) -> float | None:
        """The body broke off while the caller read it."""
        return self._delay(call, None) if call.retries and failure.is_transient else None

    def _may_be_stale(self, call: Call) -> bool:
        """Whether the server may have closed the pooled connection just when it was chosen."""
        return call.reused and not call.fresh

    def _replace_stale(self, call: Call) -> float:
        """Not from the budget: each of these follows an answer on the same connection, so they cannot pile up."""
        # On a new connection, which cannot be stale: so this happens once for each attempt that counts.
        call.stale = True
        call.extra_attempts += 1
        self._counters.stale_retries += 1
        return 0.0

    def _delay(self, call: Call, asked_for: float | None) -> float | None:
        retry = call.attempt - call.extra_attempts
        if retry > call.retries or not _can_send_again(call):
            return None
        if asked_for is None:
            delay = self._backoff.delay(max(retry, 1))
        elif asked_for <= self._max_delay:
            delay = self._backoff.delay_after(max(retry, 1), asked_for)
        else:
            return None
        left = call.time_left
        if left is not None and delay >= left:
            return None
        if not self._take_from_budget(call):
            return None
        self._counters.retries += 1
        return delay

    def _take_from_budget(self, call: Call) -> bool:
        allowed = self.budget.take(call.host, monotonic())
        self._counters.budget_refusals += not allowed
        return allowed


def _can_send_again(call: Call) -> bool:
    return call.body is None or call.body.can_be_sent
