"""The seam of HTTP: one exchange is one request and its answer.

The policy (`engine.py`) knows redirects, retries, cookies, tokens, deadlines, statuses and rate limits, but no
transport. A transport knows connections and bytes, and none of these. This module has what they give each other.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from multidict import CIMultiDictProxy

from pepperpy.network.http.request import Request

if TYPE_CHECKING:
    from pepperpy.network.events import Observer

# Why an exchange failed. The policy makes an error of this package from it, and decides whether to try again.
#   dns              no address for the host, or for the proxy
#   forbidden        `address_policy` allows none of the host's addresses
#   refused          no connection: refused, unreachable, ...
#   connect_timeout  no connection in time
#   queue_timeout    none of `max_connections` became free in time
#   read_timeout     the server was silent for too long
#   write_timeout    the server took no data for too long
#   tls              the handshake failed, or the certificate is not accepted
#   proxy            the proxy refused, or did not answer as one
#   reset            the connection was lost
#   no_answer        the server closed the connection without a byte of an answer
#   malformed        what came is not HTTP
#   truncated        the body ended before it was complete
#   bad_encoding     the body is not compressed as announced, or in an unknown way
#   closed           the transport was closed meanwhile, or the answer released
#   bad_url          the URL cannot be used, for example its host
#   unsendable       the request cannot be sent as it is
#   body_failed      the source of the request's body failed; `cause` is what it raised
#   other            anything else
Kind = Literal[
    "dns",
    "forbidden",
    "refused",
    "connect_timeout",
    "queue_timeout",
    "read_timeout",
    "write_timeout",
    "tls",
    "proxy",
    "reset",
    "no_answer",
    "malformed",
    "truncated",
    "bad_encoding",
    "closed",
    "bad_url",
    "unsendable",
    "body_failed",
    "other",
]
# What an exchange is doing. `queue`: it waits for a free connection. The policy has further phases.
Phase = Literal["queue", "dns", "connect", "response", "body"]


# The `WireError.text` of a kind, if the transport gives no better one.
_TEXTS: dict[str, str] = {
    "connect_timeout": "timed out (connect_timeout)",
    "queue_timeout": "no connection became free in time",
    "read_timeout": "timed out (read_timeout)",
    "write_timeout": "timed out (write_timeout)",
    "no_answer": "the server closed the connection without an answer",
    "truncated": "the body ended before it was whole",
    "bad_encoding": "the body is not compressed as announced, or in an unknown way",
    "closed": "the stream was left, or the client was closed",
}


class WireError(Exception):
    """The only exception that a transport raises. Its `text` has no secret, and nothing raw of a peer.

    Attributes:
        kind: What happened.
        text: What happened, for the message.
        cause: The exception behind it, or None. It becomes the `__cause__` of the error that the caller gets.
        details: Further `details` of that error: the `status` of a proxy, ...
    """

    def __init__(self, kind: Kind, text: str = "", cause: BaseException | None = None, **details: Any) -> None:
        self.kind: Kind = kind
        self.text: str = text or _TEXTS[kind]
        self.cause = cause
        self.details = details
        super().__init__(self.text)


class Trip:
    """How far the exchanges of one call have got. The transport writes it, the policy reads it.

    Times are those of `time.monotonic()`, and `skipped_s` more.

    Attributes:
        phase: A `Phase`; the policy writes its own between the exchanges.
        request_left: Whether a byte of the request may have reached the server.
        reused: Whether the connection had carried an exchange before.
        heard: Whether a byte of the answer is known to have come. The policy notes it for a head.
        connect_at: When it began to make a connection; 0 for a pooled one.
        connected_at: When it had a connection; 0 before.
        dns_s: Seconds that the lookup took.

        observer: Is told how the connection is made; None: nobody is. The policy's.
        fresh: Whether only a new connection will do, because the last one was stale. The policy's.
        attempt: The number of the call's attempt that this exchange belongs to, from 1; 0 before. The policy's.
        ends_at: When the policy will end the exchange, its body included; infinity: never. The policy's: a transport
            does not look at it.
        skipped_s: Seconds that count as passed, though they did not. Only a stand-in for tests adds to it.
    """

    __slots__ = (
        "attempt",
        "connect_at",
        "connected_at",
        "dns_s",
        "ends_at",
        "fresh",
        "heard",
        "observer",
        "phase",
        "request_left",
        "reused",
        "skipped_s",
    )

    def __init__(self) -> None:
        self.observer: Observer | None = None
        self.attempt: int = 0
        self.fresh: bool = False
        self.ends_at: float = math.inf
        self.skipped_s: float = 0.0
        self.phase: str = "prepare"
        self.begin()

    def begin(self) -> None:
        """Another exchange begins."""
        self.request_left: bool = False
        self.reused: bool = False
        self.heard: bool = False
        self.connect_at: float = 0.0
        self.connected_at: float = 0.0
        self.dns_s: float = 0.0


class Answer(Protocol):
    """The answer of one exchange: its head has come, its body comes as it is read.

    Its owner reads it to the end, or calls `release()` or `abort()`. Until then its connection is not free.
    """

    @property
    def carrier(self) -> str:
        """Who carried it: `core`, `aiohttp` or `mock`."""
        ...

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def version(self) -> str:
        """`1.0` or `1.1`."""
        ...

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers. Bytes of values that are not UTF-8 are surrogates (PEP 383)."""
        ...

    @property
    def fields(self) -> Iterable[tuple[bytes, bytes]]:
        """The headers as bytes, in the order in which they came. Do not change it."""
        ...

    def header(self, name: str) -> str | None:
        """The first value of one header, named in lower case; costs less than `headers` where nobody asks for these."""

    @property
    def trailers(self) -> CIMultiDictProxy[str]:
        """The fields behind a chunked body, in the same form; empty until `ended`."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the body has been read to its end."""
        ...

    @property
    def whole_size(self) -> int | None:
        """Bytes of the decoded body, if all of it has arrived; None while some is still to come."""

    @property
    def wire_bytes(self) -> int:
        """How many bytes of the body have come so far, before decompression."""
        ...

    def take_whole(self, limit: int | None) -> bytes | None:
        """The whole body, if it is on hand and has at most `limit` bytes; then the connection is free for others.

        None: nothing has been taken, and `read()` or `read_some()` gives the body. Raises as `read_some()`.
        """
        ...

    async def read_some(self) -> bytes:
        """The next piece of the body, decompressed if the request says so; empty at its end.

        At the end the connection is free for others. This waits until the request's body has been sent too, or is given
        up.

        Raises:
            WireError: The body broke off. The connection is closed.

        Cancellation: Nothing is lost; the next call goes on.
        """
        ...

    async def read(self) -> bytes:
        """The rest of the body in one piece; for bodies whose size is bounded otherwise. Raises as `read_some()`."""
        ...

    def release(self) -> None:
        """Give up the rest of the body. The connection is used again if the whole body has arrived."""

    def abort(self) -> None:
        """Close the connection, unless the exchange is over."""


class Transport(Protocol):
    """Carries the exchanges of one client. It is made and used inside one running loop."""

    @property
    def default_headers(self) -> Mapping[str, str]:
        """The headers of a request that does not set them: Accept, User-Agent, Accept-Encoding (what it can decode)."""
        ...

    @property
    def session(self) -> Any:
        """An `aiohttp.ClientSession` with the same connections and cookies, for `HTTPClient.session`; or None."""
        ...

    @property
    def open_connections(self) -> int: ...

    @property
    def discarded(self) -> int:
        """How many pooled connections turned out to be unfit for use."""
        ...

    def exchange(self, request: Request, trip: Trip) -> Awaitable[Answer]:
        """Send one request; returns when the head of its answer is there.

        Raises:
            WireError: The exchange failed. The connection is closed.

        Cancellation: The connection is closed; if nothing of the request has left, it may go back to the pool.
        """
        ...

    async def close(self, seconds: float) -> None:
        """End all connections, in order for `seconds`, then at once."""

    def abandon(self) -> None:
        """End all connections without a turn of the loop."""
