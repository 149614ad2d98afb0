"""`NetworkClient.request()`: exchanges on one connection, one after the other, none of which gets another's reply.

A reply on a stream says of whom it is by its place only. So an exchange that ends between the sending of its request
and the end of its reply takes the connection with it: the reply that is still to come would answer the next one
(redis-py's CVE-2023-28858). Before anything is sent there is nothing to put out of step, and the connection stays.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pepperpy.network.checks import BytesLike, Timeout
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    DecodeError,
    IncompleteReadError,
    MessageTooLargeError,
    NetworkError,
    NetworkTimeoutError,
    ProtocolError,
)
from pepperpy.network.link import Link
from pepperpy.network.pending import raise_loss
from pepperpy.network.watchdog import Limit, Watchdog, watchdog_of

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol
    from pepperpy.network.tcp.client import NetworkClient

T = TypeVar("T")

logger = logging.getLogger("pepperpy.network.tcp")

# Reasons for which the peer, or the network, has to answer; with any other it was this side that closed.
_PEERS_DOING = (ConnectionLostError, DecodeError, IncompleteReadError, MessageTooLargeError, ProtocolError)


class Exchanges:
    """The exchanges of one connection. The client makes new ones with each connection."""

    __slots__ = ("_protocol", "_turns", "_watchdog", "served")

    def __init__(self, protocol: StreamProtocol) -> None:
        protocol.check_user()
        self._protocol = protocol
        self._turns = Turns(1)
        self.served: Link | None = None  # whose exchange is under way
        self._watchdog = watchdog_of(asyncio.get_running_loop())

    # The client is passed in, and kept only meanwhile: a cycle would put off the warning about an unclosed one.
    async def run(
        self,
        client: NetworkClient,
        link: Link,
        data: BytesLike,
        receive: Callable[[NetworkClient], Awaitable[T]],
        timeout: Timeout,
        allow_unasked: bool,
    ) -> T:
        """See `NetworkClient.request()`."""
        if not callable(receive):
            raise TypeError(f"receive must be callable, not {receive!r}")
        self._protocol.check_user()
        has_turn = accepted = False
        try:
            with request_limit(self._watchdog, link, timeout):
                await self._turns.take()
                has_turn = True
                self.served = link
                # Better now than with a request on its way.
                raise_loss(link)
                await self._send(link, data, allow_unasked)
                accepted = True
                return await self._receive(client, link, receive)
        except BaseException as error:
            if accepted:
                self._drop(link, error)
            raise
        finally:
            if has_turn:
                self.served = None
                self._turns.give_back()

    async def _send(self, link: Link, data: BytesLike, allow_unasked: bool) -> None:
        sender, waiter = self._protocol.sender, None
        while True:
            self._check_silence(link, allow_unasked)
            if sender.send(data):
                return
            waiter = sender.wait(None, waiter)
            await waiter

    def _check_silence(self, link: Link, allow_unasked: bool) -> None:
        receiver = self._protocol.receiver
        if link.protocol is not self._protocol and self._protocol.state == "open":
            # Lent by a pool, and somebody else's by now.
            raise link.error(ClosedError, "not sent: the connection was given back", "request")
        if receiver.is_busy:
            what = "another task is already receiving; its bytes would be the reply"
            raise link.error(BusyError, what, "request")
        if receiver.at_eof:
            what = "the peer has ended its stream: no reply can come"
            raise link.error(ConnectionLostError, what, "request")
        if (unasked := receiver.bytes_buffered) and not allow_unasked:
            what = f"the peer sent {unasked} bytes that no request had asked for"
            error = link.error(ProtocolError, what, "request", unasked=unasked)
            self._drop(link, error)
            raise error

    async def _receive(self, client: NetworkClient, link: Link, receive: Callable[[NetworkClient], Awaitable[T]]) -> T:
        receiver = self._protocol.receiver
        taken = receiver.bytes_received - receiver.bytes_buffered
        receiver.limited_elsewhere = True
        try:
            reply = await receive(client)
        finally:
            receiver.limited_elsewhere = False
        if link.protocol is not self._protocol:
            raise link.error(ClosedError, "closed during a request", "request")
        if receiver.at_eof and receiver.bytes_received == taken:
            # receive_line() and others give b"" for that.
            raise link.error(ConnectionLostError, "the peer ended its stream instead of a reply", "request")
        return reply

    def _drop(self, link: Link, reason: BaseException) -> None:
        loss = self._protocol.loss
        drop(link, self._protocol, reason)
        # The client may have connected again meanwhile, and `receive` may have read there.
        drop(link, link.protocol, reason)
        refuse = refusal(link, "connection dropped after a failed request", reason)
        if loss is not None and not isinstance(reason, _PEERS_DOING):
            # Lost before: by the heartbeat, maybe, whose own request is cancelled for it.
            what = f"connection lost: {link.config.explained(loss)}"
            refuse = link.maker(ConnectionLostError, what, "request", loss)
        self._turns.refuse(refuse)


def exchanges_of(link: Link) -> Exchanges:
    """Those of the present connection."""
    if link.exchanges is None:
        link.exchanges = Exchanges(link.protocol)
    return link.exchanges


# ---- What requests and pipelines share ----

# Makes the error that a request gets because of what became of another, or of the connection.
Refusal = Callable[[], NetworkError]


class Turns:
    """At most `limit` at once; the others wait, and get their turn in the order in which they came."""

    __slots__ = ("_refusal", "_waiting", "free")

    def __init__(self, limit: int) -> None:
        self.free = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refusal: Refusal | None = None

    async def take(self) -> None:
        """Wait for a turn. A call that raises has none: cancelled, or refused."""
        if self._refusal is not None:
            raise self._refusal()
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
            if self._refusal is not None:
                raise self._refusal()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                # Cancelled in the tick in which its turn came.
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next one in."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def refuse(self, refusal: Refusal) -> None:
        """Let nobody in any more; who waits is told at once."""
        self._refusal = refusal
        for turn in self._waiting:
            fail(turn, refusal())
        self._waiting.clear()


def fail(future: asyncio.Future[Any], error: NetworkError) -> None:
    """End the wait for a future; nothing is reported if its task was cancelled in the same tick."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def refusal(link: Link, what: str, reason: BaseException) -> Refusal:
    """Makes the errors of those that cannot be served because of `reason`."""
    kind = ConnectionLostError if isinstance(reason, _PEERS_DOING) else ClosedError
    return link.maker(kind, f"{what}: {_words(reason)}", "request", reason)


def drop(link: Link, protocol: StreamProtocol, reason: BaseException) -> None:
    """Abort the connection, unless it has ended, or is being closed in order: that goes on."""
    if protocol.state == "open":
        what = "connection dropped after a failed request"
        logger.info("%s: %s: %s", link.config.address, what, _words(reason))
        protocol.drop(refusal(link, what, reason)())


def request_limit(watchdog: Watchdog, link: Link, timeout: Timeout) -> Limit:
    """The time of one whole call."""
    seconds = link.seconds(timeout)
    error = functools.partial(_timed_out, link, time.monotonic())
    return watchdog.limit(math.inf if seconds is None else seconds, error)


def _timed_out(link: Link, started: float) -> NetworkTimeoutError:
    elapsed = round(time.monotonic() - started, 3)
    return link.error(NetworkTimeoutError, f"request timed out after {elapsed} s", "request", elapsed=elapsed)


def _words(reason: BaseException) -> str:
    # The text of others' errors may hold what no log should.
    return str(reason) if isinstance(reason, NetworkError) else type(reason).__name__
