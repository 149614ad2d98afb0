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

from pepperpy.network.checks import BytesLike, Timeout, seconds_of
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
from pepperpy.network.pending import PendingReceiver
from pepperpy.network.watchdog import Limit, Watchdog, watchdog_of

if TYPE_CHECKING:
    from pepperpy.network._stream_protocol import StreamProtocol
    from pepperpy.network.tcp import NetworkClient

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
        self.served: NetworkClient | None = None  # whose exchange is under way
        self._watchdog = watchdog_of(asyncio.get_running_loop())

    # The client is passed in, and kept only meanwhile: a cycle would put off the warning about an unclosed one.
    async def run(
        self,
        client: NetworkClient,
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
            with request_limit(self._watchdog, client, timeout):
                await self._turns.take()
                has_turn = True
                self.served = client
                self._hear_of_a_loss(client)
                await self._send(client, data, allow_unasked)
                accepted = True
                return await self._receive(client, receive)
        except BaseException as error:
            if accepted:
                self._drop(client, error)
            raise
        finally:
            if has_turn:
                self.served = None
                self._turns.give_back()

    def _hear_of_a_loss(self, client: NetworkClient) -> None:
        # A client that reconnects is told of a loss once, by a receive; better now than with a request on its way.
        receiver = client._receiver
        while isinstance(receiver, PendingReceiver) and not receiver.is_told:
            receiver.take(65536)

    async def _send(self, client: NetworkClient, data: BytesLike, allow_unasked: bool) -> None:
        sender, waiter = self._protocol.sender, None
        while True:
            self._check_silence(client, allow_unasked)
            if sender.send(data):
                return
            waiter = sender.wait(None, waiter)
            await waiter

    def _check_silence(self, client: NetworkClient, allow_unasked: bool) -> None:
        receiver = self._protocol.receiver
        if client._protocol is not self._protocol and self._protocol.state == "open":
            # Lent by a pool, and somebody else's by now.
            raise ClosedError(f"{client._where}: not sent: the connection was given back", client._details("request"))
        if receiver.is_busy:
            raise BusyError(
                f"{client._where}: another task is already receiving; its bytes would be the reply",
                client._details("request"),
            )
        if receiver.at_eof:
            raise ConnectionLostError(
                f"{client._where}: the peer has ended its stream: no reply can come", client._details("request")
            )
        if receiver.bytes_buffered and not allow_unasked:
            error = ProtocolError(
                f"{client._where}: the peer sent {receiver.bytes_buffered} bytes that no request had asked for",
                client._details("request") | {"unasked": receiver.bytes_buffered},
            )
            self._drop(client, error)
            raise error

    async def _receive(self, client: NetworkClient, receive: Callable[[NetworkClient], Awaitable[T]]) -> T:
        receiver = self._protocol.receiver
        taken = receiver.bytes_received - receiver.bytes_buffered
        receiver.limited_elsewhere = True
        try:
            reply = await receive(client)
        finally:
            receiver.limited_elsewhere = False
        if client._protocol is not self._protocol:
            raise ClosedError(f"{client._where}: closed during a request", client._details("request"))
        if receiver.at_eof and receiver.bytes_received == taken:
            # receive_line() and others give b"" for that.
            raise ConnectionLostError(
                f"{client._where}: the peer ended its stream instead of a reply", client._details("request")
            )
        return reply

    def _drop(self, client: NetworkClient, reason: BaseException) -> None:
        loss = self._protocol.loss
        drop(client, self._protocol, reason)
        # The client may have connected again meanwhile, and `receive` may have read there.
        drop(client, client._protocol, reason)
        refuse = refusal(client, "connection dropped after a failed request", reason)
        if loss is not None and not isinstance(reason, _PEERS_DOING):
            # Lost before: by the heartbeat, maybe, whose own request is cancelled for it.
            message = f"{client._where}: connection lost: {client.config.explained(loss)}"
            refuse = functools.partial(ConnectionLostError, message, client._details("request"), loss)
        self._turns.refuse(refuse)


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


def refusal(client: NetworkClient, what: str, reason: BaseException) -> Refusal:
    """Makes the errors of those that cannot be served because of `reason`."""
    kind = ConnectionLostError if isinstance(reason, _PEERS_DOING) else ClosedError
    message = f"{client._where}: {what}: {_words(reason)}"
    return functools.partial(kind, message, client._details("request"), reason)


def drop(client: NetworkClient, protocol: StreamProtocol, reason: BaseException) -> None:
    """Abort the connection, unless it has ended, or is being closed in order: that goes on."""
    if protocol.state == "open":
        logger.info("%s: connection dropped after a failed request: %s", client._where, _words(reason))
        protocol.drop(refusal(client, "connection dropped after a failed request", reason)())


def request_limit(watchdog: Watchdog, client: NetworkClient, timeout: Timeout) -> Limit:
    """The time of one whole call."""
    seconds = seconds_of(timeout, client.config.timeout)
    return watchdog.limit(
        math.inf if seconds is None else seconds, functools.partial(_timed_out, client, time.monotonic())
    )


def _timed_out(client: NetworkClient, started: float) -> NetworkTimeoutError:
    elapsed = round(time.monotonic() - started, 3)
    return NetworkTimeoutError(
        f"{client._where}: request timed out after {elapsed} s", client._details("request") | {"elapsed": elapsed}
    )


def _words(reason: BaseException) -> str:
    # The text of others' errors may hold what no log should.
    return str(reason) if isinstance(reason, NetworkError) else type(reason).__name__
