"""`Call`: one logical request, from the arguments to the outcome. A record; `engine.py` carries it out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network._core.record import copy_of
from pepperpy.network.errors import NetworkError
from pepperpy.network.http.auth import Auth
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.redact import redact_url
from pepperpy.network.http.request import Limits, Request
from pepperpy.network.http.transport import Answer, Trip
from pepperpy.network.json_codec import JSONCodec

if TYPE_CHECKING:
    from pepperpy.network.digest import Challenge
    from pepperpy.network.http.body import Body
    from pepperpy.network.http.conditional import Condition
    from pepperpy.network.http.middleware import Middleware
    from pepperpy.network.http.observing import CallObserver

Error = TypeVar("Error", bound=NetworkError)

# RFC 9110, section 9.2.2, and RFC 10008 (QUERY): sending one of them twice has the same effect as sending it once.
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a call went, in seconds.

    Attributes:
        retries: Earlier attempts, and the waits after them.
        queue: Waiting until one of `max_connections` was free.
        dns: Looking up the name; nearly 0 if that was done in the last seconds.
        connect: Making the connection, TLS included; 0 for a pooled one.
        first_byte: From having a connection until the head of the response had arrived.
        body: Reading the body; 0 for a stream.
    """

    retries: float
    queue: float
    dns: float
    connect: float
    first_byte: float
    body: float


class Call(Trip):
    """One logical request, and how far its exchanges have got. All times are those of a `Trip`.

    `Prepare` copies one that has the values of the client's configuration, and sets what is different.
    """

    attempt: int
    # Of the policy's own class, which nobody else sets.
    observer: CallObserver | None  # pyright: ignore[reportIncompatibleVariableOverride]
    __slots__ = (
        "attempt_at",
        "auth",
        "auth_of_url",
        "auth_state",
        "body",
        "codec",
        "condition",
        "config",
        "cookies",
        "deadline_at",
        "decompress",
        "done_at",
        "dropped_headers",
        "exchange_middlewares",
        "extra_attempts",
        "follow_redirects",
        "head_at",
        "headers",
        "history",
        "host",
        "limits",
        "max_size",
        "method",
        "middlewares",
        "params",
        "proxy",
        "proxy_answers",
        "proxy_challenge",
        "raise_for_status",
        "reauthorized",
        "request",
        "retries",
        "routed",
        "stale",
        "started_at",
        "total",
        "url",
        "verify",
    )

    def __init__(self, config: HTTPConfig, codec: JSONCodec, total: float | None, limits: Limits) -> None:
        super().__init__()
        # What is asked for.
        self.config: HTTPConfig = config
        self.codec: JSONCodec = codec
        self.method: str
        self.url: URL  # without user info
        self.host: str
        self.auth: Auth | None = config.auth
        self.auth_of_url: bool = False  # whether it belongs to the host of `url`: from its user info, or from netrc
        self.params: list[tuple[str, str]] | None = None  # added to the URL
        self.headers: CIMultiDict[str] | None = None
        self.dropped_headers: Collection[str] = ()  # names that the caller removed
        self.cookies: Mapping[str, str] | None = None
        self.body: Body | None = None
        self.proxy: str | None = config.proxy
        self.routed: bool = True  # whether the client's `Routes`, if it has any, choose the proxy
        self.verify: bool = True
        self.decompress: bool = config.decompress
        self.condition: Condition | None = None  # which version the caller has
        # The limits.
        self.total: float | None = total  # seconds for one attempt
        self.limits: Limits = limits  # the other limits of an attempt
        self.deadline_at: float | None = None
        self.max_size: int | None = config.max_response_size  # bytes of the body, if all of it is read
        self.retries: int = config.retries
        self.follow_redirects: bool = config.max_redirects > 0
        self.raise_for_status: bool = config.raise_for_status
        # Code of the user: around the call, and around each exchange.
        self.middlewares: Sequence[Middleware] = ()
        self.exchange_middlewares: Sequence[Middleware] = ()
        # What happened.
        self.request: Request  # the present request of the present attempt
        self.history: Sequence[tuple[Request, Answer]] = ()  # the redirects of that attempt so far
        self.started_at: float
        self.done_at: float = 0.0
        self.extra_attempts: int = 0  # attempts that do not count against `retries`
        self.stale: bool = False  # whether the next attempt replaces one that a stale connection has ended
        self.reauthorized: int = 0  # how often it was sent again because of a 401
        self.auth_state: object = None  # see HTTPRequest
        self.proxy_answers: int = 0  # to challenges of proxies
        self.proxy_challenge: Challenge | None = None  # the last of them

    # ---- Its way ----

    def limit_by(self, deadline: float | None) -> None:
        """Set the deadline: seconds from the beginning of the call."""
        self.deadline_at = None if deadline is None else self.started_at + deadline

    def begin_attempt(self) -> None:
        if self.attempt:
            self.begin()
            self.fresh: bool = self.stale
            self.stale = False
        self.attempt += 1
        self.phase = "queue"
        self.attempt_at: float = monotonic() + self.skipped_s
        self.head_at: float = 0.0
        self.history = ()

    def show(self, request: Request) -> None:
        """Middlewares see the call, and the first `request` that it would send."""
        self.request = request
        if not self.attempt:
            # As long as nothing is sent.
            self.attempt_at, self.head_at = self.started_at, 0.0

    def renew(self, failure: NetworkError | None) -> None:
        """A middleware sends the call once more, with as many attempts as before; `failure` ended the first time."""
        if self.observer is not None:
            self.observer.attempt_done(self, failure)
        self.done_at = 0.0
        self.extra_attempts = self.attempt
        self.reauthorized = 0
        self.auth_state = None
        self.proxy_answers = 0
        self.proxy_challenge = None

    @property
    def whole_url(self) -> URL:
        """The URL with the parameters: where the first request goes."""
        return self.url if self.params is None else self.url.extend_query(self.params)

    def first_request(self, blank: Request) -> Request:
        """The request that an attempt begins with, a copy of `blank`. Its headers are complete, except for cookies."""
        request = copy_of(blank)
        request.method = self.method
        request.url = self.whole_url
        request.own = self.headers
        request.body = self.body
        request.limits = self.limits
        request.proxy = self.proxy
        request.verify = self.verify
        request.decompress = self.decompress
        if self.auth is not None and self.auth.fixed is None:
            request.auth = self.auth
        if self.proxy_answers:
            request.proxy_challenge = self.proxy_challenge
        if self.dropped_headers:
            request.left_out = request.removed = self.dropped_headers
        if self.cookies:
            request.cookies = self.cookies
        if self.condition is not None:
            self.condition.apply(request)
        return request

    def forget_body(self) -> None:
        """Drop the body, which is closed. The response, which lives on, does not need it."""
        self.body = None
        if hasattr(self, "request"):  # an attempt may end before it has a request
            self.request.forget_body()

    def note_end(self, error: BaseException | None = None) -> None:
        """Whoever reads the body has read it, or has given it up because of `error`."""
        if self.observer is not None:
            self.observer.ended(self, error)

    # ---- What is known about it ----

    @property
    def now(self) -> float:
        return monotonic() + self.skipped_s

    @property
    def repeatable(self) -> bool:
        """Whether sending again what was sent of this attempt, redirects included, has the same effect as once."""
        names = self.config.key_headers
        return all(
            request.method in IDEMPOTENT_METHODS
            or (request.own is not None and any(name in request.own for name in names))
            for request in (self.request, *(past for past, _ in self.history))
        )

    @property
    def answering_host(self) -> str:
        """The host of the present request, to which a redirect may have led. Rate limits in an answer are about it."""
        return self.request.url.raw_host or ""

    @property
    def elapsed(self) -> float:
        """Seconds since the call began; after its end, the seconds that it took."""
        return (self.done_at or self.now) - self.started_at

    @property
    def time_left(self) -> float | None:
        """Seconds to the deadline, 0 or less if it has passed; None without one."""
        return None if self.deadline_at is None else self.deadline_at - self.now

    @property
    def timings(self) -> Timings:
        # A pooled connection costs nothing when it is free. A new one is looked up and made after the wait.
        ready_at = self.connected_at or self.attempt_at
        free_at = self.connect_at or ready_at
        return Timings(
            retries=self.attempt_at - self.started_at,
            queue=free_at - self.attempt_at,
            dns=self.dns_s,
            connect=ready_at - free_at - self.dns_s,
            first_byte=(self.head_at or ready_at) - ready_at,
            body=self.done_at - self.head_at if self.done_at and self.head_at else 0.0,
        )

    def facts(self) -> dict[str, Any]:
        """The `details` of every error of this call, without secrets."""
        facts = {
            "method": self.method,
            "url": redact_url(str(self.url)),
            "host": self.host,
            "port": self.url.port,
            "phase": self.phase,
            "attempt": self.attempt,
            "elapsed": self.elapsed,
        }
        if self.history and self.request is not self.history[-1][0]:
            facts["redirected_to"] = redact_url(str(self.request.url))
        return facts

    def error(self, kind: type[Error], text: str, cause: BaseException | None = None, **details: Any) -> Error:
        """An error of this call: what happened, where and when, without secrets."""
        facts = self.facts()
        where = f"(phase {self.phase}, attempt {self.attempt}, {facts['elapsed']:.3g} s)"
        place = f"{self.method} {facts['url']}"
        if (target := facts.get("redirected_to")) is not None:
            place += f", redirected to {target}"
        message = f"{place}: {text} {where}"
        # Not the repr of a UnicodeError, which contains the whole body.
        if cause is not None and "://" in (str(cause) if isinstance(cause, UnicodeError) else f"{cause} {cause!r}"):
            # A traceback would show it.
            cause = Exception(f"{type(cause).__name__} (its text held a URL)")
        return kind(message, facts | details, cause)
