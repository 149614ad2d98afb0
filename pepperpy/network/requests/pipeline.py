"""`NetworkClient.pipeline()`: many requests in flight on one connection, and each gets its own reply or none.

A request owns a slot from the moment when its bytes were accepted until its reply has come, whether or not anybody
still waits for it. So the late reply of a cancelled request finds its own slot, and is dropped there. Without ids the
slots are numbered, and the n-th reply answers the n-th request. One task reads, and only hands out what comes. It holds
the receiving side from the first moment of the block to its own end, so that nobody else can take a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Generic, NoReturn

from pepperpy.network._core.frame_reader import END, WAIT, FrameReader
from pepperpy.network._core.handover import Handover
from pepperpy.network.checks import Default, Timeout, check_int
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    EndOfStreamError,
    InvalidRequestError,
    NetworkError,
    ProtocolError,
    UsageError,
)
from pepperpy.network.link import Link
from pepperpy.network.messages.codec_protocols import M
from pepperpy.network.messages.framed import Framed, encoded, framer_and_loads
from pepperpy.network.requests.failures import drop_connection, refusal, request_limit
from pepperpy.network.requests.turns import Refusal, Turns
from pepperpy.network.watchdog import watchdog_of


class Pipeline(Generic[M]):
    """Requests in flight on one connection; `NetworkClient.pipeline()` makes it and describes the settings.

    `async with` begins and ends it. In the block, the pipeline does all receiving of its connection: a plain receive, a
    `request()` of the client and a second pipeline get `BusyError`, and disturb nothing. So does the beginning, while
    another task receives or a `request()` is under way. If the block is left with requests in flight, the connection is
    aborted, and they get `ClosedError`. Otherwise the connection stays usable. With `config.reconnect`, the beginning
    raises the loss that no receive has raised, or waits for the next connection, at most `config.timeout` seconds.

    The pipeline ends earlier with its connection. It also ends, and aborts the connection, if a message cannot be
    decoded or answers no request, or if too many requests are abandoned. All requests in flight, and those that wait
    for their turn, then get `ConnectionLostError` or `ClosedError` at once, with the reason as `__cause__`.

    Attributes:
        framed: The connection's messages. Use its `send()` for messages that get no reply; its receives get
            `BusyError`.
    """

    __slots__ = (
        "_abandoned",
        "_client",
        "_frames",
        "_is_push",
        "_key",
        "_link",
        "_loop",
        "_max_abandoned",
        "_max_in_flight",
        "_on_push",
        "_protocol",
        "_reader",
        "_reason",
        "_refusal",
        "_replies",
        "_request_key",
        "_sent",
        "_slots",
        "_turns",
        "_watchdog",
        "framed",
    )

    def __init__(
        self,
        client: object,  # for the `repr` only
        framed: Framed[M],
        link: Link,
        *,
        key: Callable[[M], Hashable] | None = None,
        request_key: Callable[[M], Hashable] | None = None,
        is_push: Callable[[M], bool] | None = None,
        on_push: Callable[[M], object] | None = None,
        max_in_flight: int = 64,
        max_abandoned: int | None = None,
    ) -> None:
        check_int("max_in_flight", max_in_flight, 1)
        if max_abandoned is None:
            max_abandoned = max_in_flight // 2
        # Fewer than all: otherwise no request could be sent any more to find out that the peer is gone.
        check_int("max_abandoned", max_abandoned, 0, max_in_flight - 1)
        if request_key is not None and key is None:
            raise TypeError("request_key needs key: without it nothing tells which reply has the id")
        if is_push is not None and on_push is None:
            raise TypeError("is_push needs on_push, which gets what it tells")
        if link.config.heartbeat is not None and key is None and is_push is None:
            raise ValueError("heartbeat needs a pipeline with key or is_push: else its answer is taken for a reply")
        self.framed: Framed[M] = framed
        self._client = client
        # Of its own, so that a receive of `framed` is one of somebody else.
        self._frames = FrameReader(*framer_and_loads(framed.codec, link.config.max_message_size))
        self._link = link
        self._key = key
        self._request_key = request_key or key
        self._is_push = is_push
        self._on_push = on_push
        self._max_in_flight = max_in_flight
        self._max_abandoned = max_abandoned
        self._turns = Turns(max_in_flight)
        # By id or number. None until the request was accepted. What is given is its reply, or the refusal.
        self._slots: dict[Hashable, Handover | None] = {}
        self._abandoned: set[Hashable] = set()
        # Without ids: how many requests were accepted, and how many replies have come.
        self._sent = 0
        self._replies = 0
        self._reader: asyncio.Task[None] | None = None
        # Why the pipeline has ended, and the error that its requests get.
        self._reason: BaseException | None = None
        self._refusal: Refusal | None = None

    def __repr__(self) -> str:
        return f"<Pipeline of {self._client!r}, {self.in_flight} in flight, {self.abandoned} of them abandoned>"

    @property
    def in_flight(self) -> int:
        """The number of requests that have their turn and no reply yet, abandoned ones included."""
        return self._max_in_flight - self._turns.free

    @property
    def abandoned(self) -> int:
        """The number of requests that were sent, then cancelled or timed out, and whose reply has not come."""
        return len(self._abandoned)

    async def __aenter__(self) -> Pipeline[M]:
        if self._reader is not None:
            raise self._error(UsageError, "a pipeline is used once; make a new one")
        await self._link.catch_up(Default.TIMEOUT, "pipeline")
        self._protocol = self._link.protocol
        self._protocol.check_user()
        receiver, exchanges = self._protocol.receiver, self._link.exchanges
        if receiver.is_busy:
            raise self._error(BusyError, "another task is already receiving; a pipeline does all receiving itself")
        if exchanges is not None and exchanges.served is not None:
            # It may be between two of its receives, or wait for room to send.
            raise self._error(BusyError, "a request() is under way; a pipeline does all receiving itself")
        self._loop = asyncio.get_running_loop()
        self._watchdog = watchdog_of(self._loop)
        reader = asyncio.create_task(self._read(), name=f"pipeline reader of {self._link.config.address}")
        # A task that is cancelled before its first step does not run its own cleanup.
        reader.add_done_callback(lambda _: self._end(asyncio.CancelledError()))
        self._reader = reader
        # The reader has not begun, but what comes is for it.
        self._frames.hold(receiver)
        # While nothing is in flight, nothing is due; and each request has a limit of its own.
        receiver.silence_allowed = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._reader is not None
        receiver = self._protocol.receiver
        try:
            self._end(self._error(ClosedError, "its block was left"), abort=self.in_flight > 0)
        finally:
            self._reader.cancel()
            receiver.silence_allowed = False
        await asyncio.wait([self._reader])
        if self._protocol.is_open and not (receiver.is_busy or receiver.bytes_buffered):
            # The reader's last receive was given up, and nothing will come for it. End it, for a pool may lend it.
            with contextlib.suppress(EndOfStreamError):
                receiver.take(1)
        if error is None and isinstance(self._reason, Exception) and not isinstance(self._reason, NetworkError):
            # The reason comes from the caller's own functions. Requests have raised it, but there may have been none.
            raise self._reason

    async def wait_ended(self) -> NoReturn:
        """Wait until the pipeline has ended, and raise what its requests get. For programs that only use `on_push`.

        Raises: ConnectionLostError, ClosedError: With the reason as `__cause__`.
        """
        if self._reader is None:
            raise self._error(UsageError, "use `async with` before the pipeline")
        await asyncio.wait([self._reader])
        assert self._refusal is not None
        raise self._refusal()

    # ---- Asking ----

    async def request(self, message: M, timeout: Timeout = Default.TIMEOUT) -> M:
        """Send one message and return its reply. Any number of tasks may call it.

        At most `max_in_flight` requests are under way. Further ones wait for their turn, in the order of their calls.

        Args:
            timeout: Seconds for the whole call: until its turn, for room to send, and for the reply.

        Raises:
            ConnectionLostError, ClosedError: The pipeline has ended, see there. The request may have been sent.
            NetworkTimeoutError: The time was over.
            InvalidRequestError: `request_key` returns no id, or one whose reply is still to come. Nothing was sent.
            UsageError: Called outside of the `async with` block, or from another thread, loop or process.
            Whatever the codec or `request_key` raises about the message. Nothing was sent.

        Cancellation, timeout: If the request was not accepted for sending yet, nothing has happened. Afterwards it is
        abandoned: its reply is dropped when it comes, and until then it counts for `max_in_flight` and `max_abandoned`.
        No other request is affected.
        """
        if self._reader is None:
            raise self._error(UsageError, "use `async with` before the pipeline")
        self._protocol.check_user()
        limit = request_limit(self._watchdog, self._link, timeout)
        reply = Handover(self._loop)
        number = self._reserve(message)
        with limit:
            try:
                await self._send(message)
            except BaseException:
                # This is our own slot: no other request gets this id before it is removed.
                self._slots.pop(number, None)
                raise
            # No other task has run since the message was accepted, so this is its place among the replies.
            try:
                if number is None:
                    number = self._sent
                self._sent += 1
                self._slots[number] = reply
            except BaseException as error:
                # There is no memory for its slot, and the replies behind it would be taken for those before them.
                self._end(error)
                raise
            try:
                await reply
            except BaseException:
                self._abandon(number, reply)
                raise
            if self._refusal is not None and reply.outcome is self._refusal:
                raise self._refusal()
            outcome: M = reply.outcome
            return outcome

    def _reserve(self, message: M) -> Hashable:
        # Reserves the id of the request; None without ids.
        if self._request_key is None:
            return None
        number = self._request_key(message)
        if number is None:
            raise self._error(InvalidRequestError, "the request has no id; `framed.send()` sends what is not answered")
        if number in self._slots:
            raise self._error(InvalidRequestError, f"the request's id {number!r} is in use: its reply has not come")
        self._slots[number] = None
        return number

    async def _send(self, message: M) -> None:
        if not self._turns.take_at_once():
            await self._turns.wait()
        try:
            self._check_connection()
            # Not by `framed.send()`, which may raise the loss of an earlier connection: that is for plain sends.
            sender, waiter = self._protocol.sender, None
            pieces = encoded(message, self.framed.codec.encode, sender)
            while not sender.send_many(pieces):
                waiter = sender.wait(None, waiter)
                await waiter
        except BaseException:
            self._turns.give_back()
            raise

    def _abandon(self, number: Hashable, reply: Handover) -> None:
        # Nobody waits for this reply any more. But it may have come in this turn, or the pipeline may have ended.
        if self._slots.get(number) is not reply:
            return
        self._abandoned.add(number)
        if self.abandoned > self._max_abandoned:
            what = f"{self.abandoned} requests were cancelled or timed out, and their replies have not come"
            self._end(self._error(ClosedError, f"{what} (max_abandoned={self._max_abandoned})"))

    def _check_connection(self) -> None:
        if self._link.protocol is not self._protocol:
            what = "the client has connected again: begin another pipeline"
            if self._link.protocol.state == "unconnected":
                what = "the connection was given back"
            raise self._error(ClosedError, what)

    def _error(self, kind: type[NetworkError], what: str) -> NetworkError:
        return self._link.error(kind, what, "request")

    # ---- Reading ----

    async def _read(self) -> None:
        if self._reader is not asyncio.current_task():
            # An eager task, which runs before its maker knows it. `on_push` is called no sooner than in the block.
            await asyncio.sleep(0)
            if self._reader is not asyncio.current_task():
                # There was no memory to begin.
                return
        try:
            while messages := await self._receive():
                for message in messages:
                    self._hand_out(message)
            self._end(self._error(ConnectionLostError, "the peer ended its stream"))
        except Exception as error:
            self._end(error)
        except BaseException as error:
            self._end(error)
            raise

    async def _receive(self) -> list[M]:
        # Empty at the end of the stream.
        frames, receiver, waiter = self._frames, self._protocol.receiver, None
        self._check_connection()
        while (messages := frames.take_all(receiver)) is WAIT:
            waiter = frames.wait(receiver, None, waiter)
            await waiter
            self._check_connection()
        return [] if messages is END else messages

    def _hand_out(self, message: M) -> None:
        if self._is_push is not None and self._is_push(message):
            self._push(message)
            return
        number: Hashable = self._replies
        try:
            if self._key is not None:
                number = self._key(message)
            reply = self._slots.get(number)
        except Exception as error:
            what = f"the peer sent a message without a usable id: {type(error).__name__}"
            raise self._error(ProtocolError, what) from error
        if reply is None:
            self._push(message)
            return
        # First what may fail: then it is in its slot still, and the end of the pipeline is told to it.
        if not reply.is_over:
            reply.give(message)
        del self._slots[number]
        self._replies += 1
        self._abandoned.discard(number)
        self._turns.give_back()

    def _push(self, message: M) -> None:
        if self._on_push is None:
            raise self._error(ProtocolError, "the peer sent a message that no request had asked for")
        self._on_push(message)

    def _end(self, reason: BaseException, abort: bool = True) -> None:
        # The reader takes nothing more. While it still waits, nobody else can receive.
        self._frames.let_go(self._protocol.receiver)
        if self._refusal is None:
            # The first reason counts. Its consequences, such as the reader's ClosedError, say less.
            refuse = refusal(self._link, "pipeline ended", reason)
            self._reason, self._refusal = reason, refuse
            # The connection may belong to somebody else by now, if the pipeline outlived the block of a pool.
            if abort and self._link.protocol is self._protocol:
                drop_connection(self._link, self._protocol, reason)
        # A second call tells those whom the first one could not, for want of memory.
        for reply in self._slots.values():
            if reply is not None and not reply.is_over:
                reply.give(self._refusal)
        self._slots.clear()
        self._abandoned.clear()
        self._turns.refuse(self._refusal)
