"""`NetworkClient.request()`: exchanges on one connection, one after the other, none of which gets another's reply.

Only a reply's position in the stream tells which request it answers. So an exchange that ends after its request was
sent and before its reply was complete ends the connection: the next request would get the late reply (redis-py's
CVE-2023-28858). An exchange that ends before it has sent anything leaves the connection as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from pepperpy.network.checks import BytesLike, Timeout
from pepperpy.network.errors import BusyError, ClosedError, ConnectionLostError, ProtocolError
from pepperpy.network.link import Link
from pepperpy.network.requests.failures import drop_connection, is_peers_doing, refusal, request_limit
from pepperpy.network.requests.turns import Turns
from pepperpy.network.watchdog import watchdog_of

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol

C = TypeVar("C")  # of clients
T = TypeVar("T")


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
        client: C,
        link: Link,
        data: BytesLike,
        receive: Callable[[C], Awaitable[T]],
        timeout: Timeout,
        allow_unasked: bool,
    ) -> T:
        """See `NetworkClient.request()`."""
        if not callable(receive):
            raise TypeError(f"receive must be callable, not {receive!r}")
        if getattr(receive, "__self__", None) is client:
            # It would be called with the client once more, when the request has been sent.
            name = getattr(receive, "__name__", "method")
            raise TypeError(
                f"receive is called with the client: write {type(client).__name__}.{name}, not client.{name}"
            )
        self._protocol.check_user()
        has_turn = accepted = False
        try:
            with request_limit(self._watchdog, link, timeout):
                if not self._turns.take_at_once():
                    await self._turns.wait()
                has_turn = True
                self.served = link
                # Before the request is sent: afterwards the error would end the new connection.
                link.raise_loss()
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

    async def _receive(self, client: C, link: Link, receive: Callable[[C], Awaitable[T]]) -> T:
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
        drop_connection(link, self._protocol, reason)
        # The client may have connected again meanwhile, and `receive` may have read there.
        drop_connection(link, link.protocol, reason)
        refuse = refusal(link, "connection dropped after a failed request", reason)
        if loss is not None and not is_peers_doing(reason):
            # Lost before: by the heartbeat, maybe, whose own request is cancelled for it.
            what = f"connection lost: {link.config.explained(loss)}"
            refuse = link.error_maker(ConnectionLostError, what, "request", loss)
        self._turns.refuse(refuse)


def exchanges_of(link: Link) -> Exchanges:
    """Those of the present connection."""
    if link.exchanges is None:
        link.exchanges = Exchanges(link.protocol)
    return link.exchanges
