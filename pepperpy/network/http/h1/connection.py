"""One connection, and the one exchange that it carries at a time: sends the request, waits for the answer's head."""

from __future__ import annotations

import math
import select
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.http_reader import ResponseReader
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.http.dates import keep_alive_seconds
from pepperpy.network.http.delivery import Delivery
from pepperpy.network.http.h1.losses import READ_ERRORS, failure_of
from pepperpy.network.http.h1.upload import Upload
from pepperpy.network.http.request import NO_LIMITS, Request
from pepperpy.network.http.transport import Trip, WireError

if TYPE_CHECKING:
    from pepperpy.network._core.receiver import Receiver
    from pepperpy.network.http.h1.origins import Origin
    from pepperpy.network.http.h1.pool import Pool


class Connection:
    """Made with a protocol that is connected.

    Attributes:
        pool, origin: Whose it is.
        protocol, receiver: Of the core.
        idle_since, idle_until: Times of `time.monotonic()`, while it is idle.
        server_keeps: Seconds for which the server keeps it idle, as far as is known.
    """

    __slots__ = (
        "__weakref__",
        "_closes",
        "_delivery",
        "_exchanges",
        "_failure",
        "_has_body",
        "_heard_before",
        "_limits",
        "_look_after",
        "_poll",
        "_reader",
        "_upload",
        "_waits_since",
        "idle_since",
        "idle_until",
        "origin",
        "pool",
        "protocol",
        "receiver",
        "server_keeps",
    )

    def __init__(self, pool: Pool, origin: Origin, protocol: StreamProtocol) -> None:
        self.pool: Pool = pool
        self.origin: Origin = origin
        self.protocol: StreamProtocol = protocol
        self.receiver: Receiver = protocol.receiver
        self.idle_since: float = 0.0
        self.idle_until: float = 0.0
        self.server_keeps: float = math.inf
        self._poll: Any = None
        sock = protocol.extra_info("socket")
        if sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)
        self._exchanges = 0
        # Of the present exchange.
        self._reader: ResponseReader | None = None  # None: there is none
        self._closes = False  # the request says that it is the last one
        self._limits = NO_LIMITS
        self._look_after: float | None = None  # seconds of silence, after which the pool looks at it
        self._heard_before = 0  # bytes
        self._has_body = False
        self._delivery: Delivery | None = None  # None: nobody has looked at it yet
        self._upload: Upload | None = None
        self._waits_since: float | None = None  # None: nobody waits for the server
        self._failure: WireError | None = None  # what is raised in place of the loss of the connection

    @property
    def sends(self) -> bool:
        """Whether a body is sent beside the reading, or was."""
        return self._upload is not None

    # ---- One exchange ----

    async def exchange(self, request: Request, head: bytes, closes: bool, trip: Trip, reader: ResponseReader) -> None:
        """Send one request; returns when the head of its answer is there.

        Args:
            head: What is sent before the body.
            closes: Whether it says that no other request follows.
            reader: A new one, for the answer.

        Raises:
            WireError: It failed. The connection is closed.

        Cancelled: the connection is closed.
        """
        receiver = self.receiver
        self._reader = reader
        self._exchanges += 1
        self._closes = closes
        self._limits = limits = request.limits
        self._look_after = limits.read
        self._has_body = request.payload is not None
        self._delivery = None
        self._heard_before = receiver.bytes_received
        trip.phase = "response"
        trip.connected_at = monotonic()
        trip.request_left = True
        try:
            self._send(request, head)
            while not reader.take_head(receiver):
                await self.wait(reader.wait(receiver))
                if self._upload is not None:
                    self._upload.note(reader)
            if self._upload is not None:
                self._upload.note(reader)
            return
        except READ_ERRORS as error:
            failure = self.fail(error, reader)
        except BaseException:
            self.abort()
            raise
        # Outside of the except block: its __context__ would be shown as well.
        raise failure

    def _send(self, request: Request, head: bytes) -> None:
        payload = request.payload
        sender = self.protocol.sender
        if payload is None:
            sender.send(head)
            return
        self._look_after = request.limits.pause
        if isinstance(payload, bytes) and (not payload or "Expect" not in request.headers):
            sender.send_many([head, payload])
        else:
            sender.send(head)
            self._upload = Upload(self, request, payload)

    async def wait(self, waiter: Awaitable[None]) -> None:
        """Await `waiter`, which the reader gave, as long as the server is not silent for too long."""
        self._waits_since = now = monotonic()
        if self._look_after is not None:
            self.pool.look_by(now + self._look_after)
        try:
            await waiter
        finally:
            self._waits_since = None

    def finish(self, reader: ResponseReader) -> Upload | None:
        """The answer is whole, and taken. What is returned has been given up, and may have to be waited for."""
        upload, self._upload = self._upload, None
        if upload is not None and not upload.complete:
            self._reader = None
            self._give_up(upload)
            return upload
        if (
            reader.reusable
            and not self._closes
            and not self.receiver.bytes_buffered
            # A server may answer without reading: the next request would wait behind that body.
            and not self.protocol.sender.bytes_queued
            and self.protocol.is_open
            and not self.protocol.peer_ended
        ):
            self._reader = None
            value = None if reader.keep_alive is None else reader.header("keep-alive")
            if (seconds := keep_alive_seconds(value)) is not None:
                # The server's clock began when it had sent the last byte, and its end is on its way as long.
                self.server_keeps = seconds - min(1.0, seconds / 2)
            self.pool.release(self)
        else:
            self.close()
        return None

    def _give_up(self, upload: Upload) -> None:
        upload.give_up()
        self.abort()

    # ---- What ends it ----

    def fail(self, error: BaseException, reader: ResponseReader) -> WireError:
        """Close it at once, because of `error`, one of READ_ERRORS. Returns what is to be raised."""
        failure = self._failure or failure_of(error, reader, self.receiver.bytes_received > self._heard_before)
        self.abort()
        return failure

    def break_off(self, failure: WireError) -> None:
        """Close it at once; whoever waits for the answer gets `failure`."""
        if self._failure is None:
            self._failure = failure
        self.protocol.abort()

    def close(self) -> None:
        """Close it in order."""
        self._reader = None
        self.pool.drop(self)
        if self.protocol.sender.bytes_queued:
            # Nobody waits for that, and a peer that reads no more would hold the connection.
            self.protocol.abort()
        else:
            self.protocol.close()

    def abort(self) -> None:
        """Close it at once."""
        self._reader = None
        self.pool.drop(self)
        self.protocol.abort()
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.give_up()

    def end(self) -> None:
        """The client is closed: what is idle ends in order; an exchange under way fails."""
        if self._reader is None:
            self.protocol.close()
        else:
            self.break_off(WireError("closed", "the client was closed"))

    def ended(self, protocol: StreamProtocol) -> None:
        """The peer has ended it, or it is lost."""
        if self._reader is None:
            self.pool.drop(self)
            protocol.abort()
        # Else whoever reads the answer finds out, when what came before is taken.

    def is_fit(self) -> bool:
        """Whether it can carry a request: it is open, and nothing waits on it, such as bytes that nobody asked for."""
        if self.idle_until <= monotonic() or self.receiver.bytes_buffered or not self.protocol.is_open:
            return False
        # What the kernel has and the loop has not read yet. 1 us; urllib3 and httpx ask the same question.
        return self._poll is None or not self._poll.poll(0)

    # ---- Silence ----

    @property
    def silent_until(self) -> float:
        """When the server will have been silent for too long, unless it is heard; infinity: nobody waits for it."""
        if self._waits_since is None or self._failure is not None:
            return math.inf
        since = max(self._waits_since, self.protocol.last_activity)
        if not self._has_body:
            return math.inf if self._limits.read is None else since + self._limits.read
        if self._delivery is None:
            sender = self.protocol.sender
            self._delivery = Delivery(self._limits, lambda: sender.bytes_queued, self.protocol.extra_info("socket"))
        return self._delivery.silent_until(since, self._upload is not None and self._upload.runs)

    def watch_silence(self) -> Callable[[], bool]:
        """Tells, later, whether the silence of now is over."""
        sender = self.protocol.sender
        before = self._exchanges, self.receiver.bytes_received, sender.bytes_queued

        def is_over() -> bool:
            if self._waits_since is not None and before == (
                self._exchanges,
                self.receiver.bytes_received,
                sender.bytes_queued,
            ):
                return False
            # Bytes that do not end the wait begin another silence, of which nobody else tells the pool.
            self.pool.look_by(self.silent_until)
            return True

        return is_over

    def time_out(self) -> None:
        """The server has been silent for too long."""
        if self._delivery is not None and self._delivery.held_up:
            self.break_off(WireError("write_timeout", cause=TimeoutError("the server took none of the body")))
        else:
            self.break_off(WireError("read_timeout", cause=TimeoutError("the server was silent")))
