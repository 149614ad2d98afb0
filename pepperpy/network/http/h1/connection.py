"""One connection, and the one exchange that it carries at a time: sends the request, waits for the answer's head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pepperpy.network._core.http_exchange import HTTPAnswer, HTTPConnection
from pepperpy.network._core.http_reader import ResponseReader
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.http.dates import keep_alive_seconds
from pepperpy.network.http.delivery import Delivery
from pepperpy.network.http.h1.losses import failure_of
from pepperpy.network.http.h1.upload import Upload
from pepperpy.network.http.request import Limits, Request
from pepperpy.network.http.transport import WireError

if TYPE_CHECKING:
    from pepperpy.network.http.h1.origins import Origin
    from pepperpy.network.http.h1.pool import Pool


class Connection(HTTPConnection):
    """One connection. Its base does what each request needs, and names the attributes; here is what happens rarely."""

    __slots__ = ("_failure",)

    pool: Pool
    origin: Origin
    protocol: StreamProtocol
    upload: Upload | None
    delivery: Delivery | None
    server_keeps: float
    look_after: float
    busy: bool
    limits: Limits

    def __init__(self, pool: Pool, origin: Origin, protocol: StreamProtocol) -> None:
        super().__init__(pool, origin, protocol)
        self._failure: WireError | None = None  # what is raised in place of the loss of the connection

    # ---- What its base calls ----

    def send(self, request: Request, head: bytes) -> None:
        """Send a head and its body, or begin to send them."""
        payload = request.payload
        pause = request.limits.pause
        self.look_after = math.inf if pause is None else pause
        if isinstance(payload, bytes) and (not payload or "Expect" not in request.headers):
            self.sender.send_many([head, payload])
        else:
            assert payload is not None, "without one, its base sends the head alone"
            self.sender.send(head)
            self.upload = Upload(self, request, payload)

    def note_keep_alive(self, answer: HTTPAnswer) -> None:
        """Heed what the server says of how long it keeps the connection."""
        if (seconds := keep_alive_seconds(answer.header("keep-alive"))) is not None:
            # The server counts from when it sent the last byte, which is earlier than now; and its end of the stream
            # takes time to arrive. So stop a bit sooner.
            self.server_keeps = seconds - min(1.0, seconds / 2)

    def give_up(self, upload: Upload) -> None:
        """Close it: the answer is whole, the body is not, and the server might take its rest for another request."""
        upload.give_up()
        self.abort()

    # ---- What ends it ----

    def fail(self, error: BaseException, reader: ResponseReader) -> WireError:
        """Close it at once, because of `error`, one of READ_ERRORS. Returns what is to be raised."""
        try:
            heard = self.receiver.bytes_received > self.heard_before
            return self._failure or failure_of(error, reader, heard, self.protocol.tls_of_proxy)
        finally:
            # Also where there is no memory for the failure.
            self.abort()

    def break_off(self, failure: WireError) -> None:
        """Close it at once; whoever waits for the answer gets `failure`."""
        if self._failure is None:
            self._failure = failure
        self.protocol.abort()

    def close(self) -> None:
        """Close it in order."""
        self.busy = False
        try:
            if self.sender.bytes_queued:
                # Nobody waits for these bytes, and a peer that reads no more would keep the connection open.
                self.protocol.abort()
            else:
                self.protocol.close()
        finally:
            self.pool.drop(self)

    def abort(self) -> None:
        """Close it at once."""
        self.busy = False
        upload, self.upload = self.upload, None
        try:
            self.protocol.abort()
            if upload is not None:
                upload.give_up()
        finally:
            self.pool.drop(self)

    def end(self) -> None:
        """The client is closed: what is idle ends in order; an exchange under way fails."""
        if not self.busy:
            self.protocol.close()
        else:
            self.break_off(WireError("closed", "the client was closed"))

    def ended(self, protocol: StreamProtocol) -> None:
        """The peer has ended it, or it is lost; or bytes have come while nobody waited for any."""
        if not self.busy:
            self.pool.discard(self)
            self.pool.serve()
        # Otherwise the task that reads the answer finds out, when it has taken what came before.

    # ---- Silence ----

    @property
    def silent_until(self) -> float:
        """When its silence will have lasted too long; infinity if nobody waits for the server."""
        if not self.waits_since or self._failure is not None:
            return math.inf
        since = max(self.waits_since, self.protocol.last_activity)
        if not self.has_body:
            return math.inf if self.limits.read is None else since + self.limits.read
        if self.delivery is None:
            sender = self.sender
            self.delivery = Delivery(self.limits, lambda: sender.bytes_queued, self.protocol.extra_info("socket"))
        return self.delivery.silent_until(since, self.upload is not None and self.upload.runs)

    def watch_silence(self) -> Callable[[], bool]:
        """Returns a function that tells, later, whether the present silence is over."""
        sender = self.sender
        before = self.exchanges, self.receiver.bytes_received, sender.bytes_queued

        def is_over() -> bool:
            if self.waits_since and before == (self.exchanges, self.receiver.bytes_received, sender.bytes_queued):
                return False
            # With bytes that do not end the wait, another silence begins. Nobody else tells the pool when to look.
            self.pool.look_by(self.silent_until)
            return True

        return is_over

    def time_out(self) -> None:
        """The server has been silent for too long."""
        if self.delivery is not None and self.delivery.held_up:
            self.break_off(WireError("write_timeout", cause=TimeoutError("the server took none of the body")))
        else:
            self.break_off(WireError("read_timeout", cause=TimeoutError("the server was silent")))
