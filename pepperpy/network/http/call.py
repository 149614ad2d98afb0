"""`Call`: one logical request, from the arguments to the outcome. Knows what to send, and how far it got.

It is also what aiohttp's connector reports to while it looks for a connection (see `connector.py`), which is how an
error can say in which phase it happened, and a retry whether anything was sent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.errors import NetworkError
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.redact import redact_url
from pepperpy.network.http.redirects import Hop

if TYPE_CHECKING:
    from pepperpy.network.http.body import Body

Error = TypeVar("Error", bound=NetworkError)

# RFC 9110, section 9.2.2, and RFC 10008 (QUERY): sending them twice does what sending them once does.
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a call went, in seconds.

    Attributes:
        retries: Before the last attempt: earlier attempts and the waits between them.
        queue: Until one of `max_connections` was free.
        dns: Looking up the name; next to nothing if that was done in the last seconds.
        connect: Making the connection, TLS included; 0 for a pooled one.
        first_byte: From the connection until the head of the response had arrived.
        body: Reading the body; 0 for a stream.
    """

    retries: float
    queue: float
    dns: float
    connect: float
    first_byte: float
    body: float


class Call:
    """One logical request. All times are those of `time.monotonic()`, in seconds."""

    __slots__ = (
        "_create_at",
        "_dns_at",
        "attempt",
        "attempt_at",
        "body",
        "config",
        "connected",
        "connected_at",
        "cookies",
        "deadline_at",
        "dns_s",
        "done_at",
        "dropped_headers",
        "ends_at",
        "extra_attempts",
        "follow_redirects",
        "head_at",
        "headers",
        "history",
        "hop",
        "host",
        "method",
        "options",
        "params",
        "phase",
        "raise_for_status",
        "reauthorized",
        "retries",
        "reused",
        "started_at",
        "timeout",
        "total",
        "url",
    )

    def __init__(
        self,
        config: HTTPConfig,
        method: str,
        url: URL,
        options: dict[str, Any],
        total: float | None,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self.config = config
        self.method = method
        self.url = url
        self.host = url.raw_host or ""
        self.started_at = monotonic()
        self.deadline_at: float | None = None
        # What the wire takes beside method, URL, headers, cookies, body and timeout.
        self.options = options
        self.total = total  # seconds for one attempt
        self.ends_at: float | None = None  # when this attempt at a stream ends, its body included
        self.timeout = timeout  # the other limits of an attempt
        self.params: list[tuple[str, str]] | None = None  # added to the URL
        self.cookies: Mapping[str, str] | None = None
        self.follow_redirects = config.max_redirects > 0
        self.headers: CIMultiDict[str] | None = None
        self.body: Body | None = None
        self.dropped_headers: Collection[str] = ()
        self.retries = config.retries
        self.raise_for_status = config.raise_for_status
        self.attempt = 0
        self.extra_attempts = 0  # attempts that do not count against `retries`
        self.reauthorized = False
        self.done_at = 0.0
        self.phase = "prepare"

    # ---- What happened ----

    def begin_attempt(self) -> None:
        self.attempt += 1
        self.attempt_at = monotonic()
        self.connected = False
        self.reused = False
        self.dns_s = 0.0
        self.connected_at = self.head_at = self._create_at = self._dns_at = 0.0
        self.history: Sequence[Any] = ()  # the redirects so far: answers of the wire
        self.phase = "queue"

    @property
    def repeatable(self) -> bool:
        """Whether sending the request again does no more than sending it once."""
        return self.method in IDEMPOTENT_METHODS or (self.headers is not None and "Idempotency-Key" in self.headers)

    @property
    def elapsed(self) -> float:
        """Seconds since the call began, or that it took."""
        return (self.done_at or monotonic()) - self.started_at

    @property
    def time_left(self) -> float | None:
        """Seconds to the deadline, 0 or less if it has passed; None without one."""
        return None if self.deadline_at is None else self.deadline_at - monotonic()

    @property
    def timings(self) -> Timings:
        # A pooled connection costs nothing once it is free; a new one is looked up and made after the wait.
        ready_at = self.connected_at or self.attempt_at
        free_at = self._create_at or ready_at
        return Timings(
            retries=self.attempt_at - self.started_at,
            queue=free_at - self.attempt_at,
            dns=self.dns_s,
            connect=ready_at - free_at - self.dns_s,
            first_byte=(self.head_at or ready_at) - ready_at,
            body=self.done_at - self.head_at if self.done_at and self.head_at else 0.0,
        )

    def begin_hop(self) -> None:
        """Set up the first request of an attempt. Its headers are complete by now."""
        url = self.url if self.params is None else self.url.extend_query(self.params)
        self.hop = Hop(self.method, url, self.headers, self.body, self.cookies, self.dropped_headers)

    def time_left_of_stream(self, ends_at: float) -> aiohttp.ClientTimeout:
        """The limits of the next request and of the body, both of which end at that time.

        Raises:
            TimeoutError: No time is left.
        """
        given = self.timeout
        left = ends_at - monotonic()
        if left <= 0:
            raise TimeoutError
        return aiohttp.ClientTimeout(
            total=left,
            connect=given.connect,
            sock_connect=given.sock_connect,
            sock_read=given.sock_read,
            # aiohttp rounds limits above this many seconds up to whole ones.
            ceil_threshold=math.inf,
        )

    def facts(self) -> dict[str, Any]:
        """What the `details` of each error of this call say, without secrets."""
        return {
            "method": self.method,
            "url": redact_url(str(self.url)),
            "host": self.host,
            "port": self.url.port,
            "phase": self.phase,
            "attempt": self.attempt,
            "elapsed": self.elapsed,
        }

    def error(self, kind: type[Error], text: str, cause: BaseException | None = None, **details: Any) -> Error:
        """An error of this call: what happened, where and when, without secrets."""
        facts = self.facts()
        where = f"(phase {self.phase}, attempt {self.attempt}, {facts['elapsed']:.3g} s)"
        message = f"{self.method} {facts['url']}: {text} {where}"
        # Not the repr of a UnicodeError: it holds the whole body.
        if cause is not None and "://" in (str(cause) if isinstance(cause, UnicodeError) else f"{cause} {cause!r}"):
            # A traceback would show it.
            cause = aiohttp.ClientError(f"{type(cause).__name__} (its text held a URL)")
        return kind(message, facts | details, cause)

    # ---- What aiohttp's connector reports (the methods of aiohttp's Trace) ----

    async def send_connection_queued_start(self) -> None:
        self.phase = "queue"

    async def send_connection_queued_end(self) -> None:
        pass

    async def send_connection_create_start(self) -> None:
        self.phase = "connect"
        self._create_at = monotonic()

    async def send_connection_create_end(self) -> None:
        pass

    async def send_connection_reuseconn(self) -> None:
        self.reused = True

    async def send_dns_resolvehost_start(self, host: str) -> None:
        self.phase = "dns"
        self._dns_at = monotonic()

    async def send_dns_resolvehost_end(self, host: str) -> None:
        self.phase = "connect"
        self.dns_s = monotonic() - self._dns_at


# The call that the running task is making; what aiohttp calls back into has no other way to know.
current_call: ContextVar[Call | None] = ContextVar("pepperpy.network.http.call", default=None)
