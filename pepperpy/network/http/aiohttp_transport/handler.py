"""aiohttp's protocol of one connection, and what this package adds to it. `connector.py` lists the names it needs."""

from __future__ import annotations

import asyncio
import functools
import math
import select
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError, TransferEncodingError

from pepperpy.network.http.content import has_token
from pepperpy.network.http.dates import keep_alive_seconds
from pepperpy.network.http.delivery import Delivery
from pepperpy.network.http.request import Limits
from pepperpy.network.last_turns import after_last_turns
from pepperpy.network.timers import Timer

if TYPE_CHECKING:
    from pepperpy.network.http.aiohttp_transport.connector import GuardedConnector
    from pepperpy.network.http.transport import Trip

# Seconds that a body waits for 100 (Continue). RFC 9110, section 10.1.1: not without end; curl's figure.
CONTINUE_WAIT = 1.0

_feed_data: Any = ResponseHandler.feed_data


class TooManyInterim(aiohttp.ClientPayloadError):
    """More interim (1xx) responses than `ResponseLimits.max_interim`; aiohttp 3.14 reads 200,000 of them."""


class WriteTimeout(aiohttp.SocketTimeoutError):
    """The server took none of a body for too long."""


class GuardedHandler(ResponseHandler):
    """aiohttp's protocol of one connection; ends it when the server only sends interim responses.

    Its read timeout has one timer, which moves itself (timers.py); aiohttp sets one anew for each request and each
    piece of a response (3 us each).
    """

    def __init__(self, connector: GuardedConnector, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._connector = connector
        self.used: bool = False  # whether a response has come on it
        self.trip: Trip | None = None  # of the exchange whose answer has not come; not of the user's requests
        self.may_upgrade = False  # whether the present request asks for another protocol, for its caller to speak
        self._interim_count = 0
        self._head: Any = None  # of the last response
        self._poll: Any = None
        self._silent_since: float | None = None  # None: nobody waits for the server
        self._silence_timer = Timer(loop, self._look_at_silence)
        self._idle_until = math.inf  # when the server may close it
        self._continue: asyncio.Future[bool] | None = None  # done when the body may be sent
        self._continue_timer = Timer(loop, self._go_on)
        self._delivery: Delivery | None = None  # of a body whose answer has not come
        self._body_since = 0.0
        self._delivery_timer = Timer(loop, self._look_at_delivery)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connector.opened(self, cast(asyncio.Transport, transport))
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self._ends_with_connection():
            # aiohttp would take a reset for the end of the body.
            self._break_body(TransferEncodingError("the connection was reset"))
        super().connection_lost(exc)
        self._poll = None
        self._silence_timer.end()
        self._continue_timer.end()
        self._delivery_timer.end()
        self._connector.lost(self)

    def begin(self, request: aiohttp.ClientRequest) -> None:
        """A request that may have `Connection` or `Expect` is about to be sent."""
        if has_token(request.headers.getall("Connection", ()), "close"):
            self.force_close()
        self._continue = getattr(request, "_continue", None)
        if self._continue is not None:
            self._continue_timer.look_by(monotonic() + CONTINUE_WAIT)

    def _go_on(self, now: float) -> float:
        if self._continue is not None and not self._continue.done():
            self._continue.set_result(True)
        return math.inf

    def data_received(self, data: bytes) -> None:
        if self.trip is not None:
            # aiohttp's errors do not tell that of each answer that has begun.
            self.trip.heard = True
        super().data_received(data)

    def close(self) -> None:
        payload = getattr(self, "_payload", None)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            # aiohttp forgets it here, and who waits for the rest of a body would wait for ever.
            payload.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        # Nobody waits for what is still to be sent, and a peer that reads no more would hold the connection for ever.
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()

    def feed_data(self, data: Any, *args: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.used = True
        self._head = data[0]
        code = data[0].code
        if code == 101 and not self.may_upgrade:
            return self._refuse("the server switched to another protocol (101); use client.session for WebSockets")
        if code >= 200:
            self.trip = None
        most = self._connector.max_interim
        if (code >= 200 or code == 101) and self._interim_count <= most:
            self._interim_count = 0
            self._delivery = None
        else:
            self._interim_count += 1
            if self._interim_count > most:
                return self._refuse(f"more than max_interim={most} interim (1xx) responses", TooManyInterim)
        self._idle_until = math.inf
        if code >= 200 and (self._continue is not None or "Keep-Alive" in data[0].headers):
            self._answered(data[0].headers, data[1])
        return _feed_data(self, data, *args)

    def _answered(self, headers: Mapping[str, str], body: aiohttp.StreamReader) -> None:
        if (seconds := keep_alive_seconds(headers.get("Keep-Alive"))) is not None:
            # The server counts from when it sent the last byte, which is earlier than now; and its end of the stream
            # takes time to arrive. So stop a bit sooner.
            margin = min(1.0, seconds / 2)
            body.on_eof(functools.partial(self._begin_idle, seconds - margin))
        if self._continue is not None:
            # A server that answers without a 100 does not want the body: aiohttp gives it up when the answer is whole.
            self._continue = None
            self._continue_timer.end()

    def _begin_idle(self, seconds: float) -> None:
        self._idle_until = monotonic() + seconds

    def set_exception(self, exc: Any, *cause: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(exc, HttpProcessingError):
            # aiohttp tells the task that waits for a head. One that waits for the rest of a body would wait for ever.
            self._break_body(cause[0] if cause and isinstance(cause[0], ContentEncodingError) else exc)
        super().set_exception(exc, *cause)

    def _break_body(self, why: BaseException) -> None:
        body = getattr(self, "_payload", None)
        if body is not None and not body.is_eof() and body.exception() is None:
            error = aiohttp.ClientPayloadError("the body broke off")
            error.__cause__ = why
            body.set_exception(error)

    def _ends_with_connection(self) -> bool:
        head = self._head
        return head is not None and not head.chunked and "Content-Length" not in head.headers

    def _refuse(self, what: str, kind: type[aiohttp.ClientPayloadError] = aiohttp.ClientPayloadError) -> bool:
        """End the connection; the response before this one, if it is whole, can be read all the same."""
        self.set_exception(kind(what))
        # aiohttp never gives back an upgraded connection.
        self._upgraded = False
        # What follows in the same piece is dropped as well.
        self._parser = None
        if self.transport is not None:
            self.transport.close()
        return False

    def has_unasked_bytes(self) -> bool:
        """Whether this idle connection cannot be used: unasked bytes have come, or its end has come or is due."""
        if self.should_close or self._idle_until <= monotonic() or self._has_half_a_head():
            return True
        # What the kernel has and the loop has not read yet. 1 us; urllib3 and httpx ask the same question.
        return self._poll is not None and bool(self._poll.poll(0))

    def _has_half_a_head(self) -> bool:
        # The parser of the last response keeps bytes that may be the beginning of another one. Only feed_eof() tells of
        # them. It ends the parser, but the next request gets a new one.
        parser = getattr(self, "_parser", None)
        try:
            return parser is not None and self.used and parser.feed_eof() is not None
        except Exception:
            return True

    # ---- The write timeout ----

    def watch_body(self, limits: Limits) -> None:
        """A body is about to be sent. It is watched until the head of the answer, which has the read timeout."""
        transport = self.transport
        if limits.write is not None and transport is not None:
            sock = transport.get_extra_info("socket")
            self._delivery = Delivery(Limits(write=limits.write), transport.get_write_buffer_size, sock)
            self._body_since = monotonic()
            self._delivery_timer.look_by(self._body_since + limits.write / 4)

    def _look_at_delivery(self, now: float) -> float:
        delivery, transport = self._delivery, self.transport
        if delivery is None or transport is None:
            return math.inf
        silent = delivery.silent_until(self._body_since, False)
        if silent > now:
            return silent
        queued = transport.get_write_buffer_size()
        after_last_turns(
            self._loop,
            lambda: self._delivery is not delivery or transport.get_write_buffer_size() != queued,
            self._on_write_timeout,
        )
        return now + delivery.pause

    def _on_write_timeout(self) -> None:
        self.set_exception(WriteTimeout("the server took none of the body"))
        self.abort()

    # ---- The read timeout ----

    def _reschedule_timeout(self) -> None:
        timeout = self._read_timeout
        if not timeout:
            self._silent_since = None
            return
        now = self._silent_since = monotonic()
        if now + timeout < self._silence_timer.at:  # less than the call
            self._silence_timer.look_by(now + timeout)

    def _drop_timeout(self) -> None:
        self._silent_since = None

    def _look_at_silence(self, now: float) -> float:
        since = self._silent_since
        if since is None or not self._read_timeout:
            return math.inf
        ends_at = since + self._read_timeout
        if ends_at > now:
            return ends_at
        after_last_turns(self._loop, lambda: self._silent_since != since, self._on_read_timeout)
        return math.inf


def expect_nothing(request: aiohttp.ClientRequest) -> None:
    """Let the body not wait for 100 (Continue): `Expect`, from which aiohttp has concluded that, is left out."""
    request._continue = None
