"""How the connections of one client begin and end: what `connect()`, `disconnect()` and `abort()` do.

`NetworkClient` documents these methods.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
import ssl
import time
import weakref
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import Timeout, check_int
from pepperpy.network.config import NetworkConfig, event_place
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    NetworkError,
    NetworkTimeoutError,
    UsageError,
)
from pepperpy.network.last_turns import after_last_turns
from pepperpy.network.link import Link

if TYPE_CHECKING:
    from pepperpy.network.events import Observer
    from pepperpy.network.tcp.client import NetworkClient
    from pepperpy.network.tcp.connecting import Connecting
    from pepperpy.network.tcp.reconnect import Supervisor


class Loan(Protocol):
    """A client that a pool has lent."""

    def forsake(self) -> bool:
        """Its user is gone, and has not given it back. False: the pool had taken it back itself. For any thread."""
        ...


class ClientLink(Link):
    """The link of a `NetworkClient`, with the making and the ending of its connections.

    Attributes:
        client: Held weakly: a cycle would put off the warning about an unclosed client.
        connecting: The `connect()` that is under way, or None.
        loan: What the pool that has lent the client keeps of it; None for every other client.
        supervisor: What reconnects and tells of changes; None while the configuration asks for neither.
        is_given: Whether others have made the connection, so that there will be no further one.
        observer_of_attempt: While `on_connect` is lent the connection: who is told of the attempt, or None.
    """

    __slots__ = ("client", "connecting", "is_given", "loan", "observer_of_attempt", "supervisor")

    def __init__(self, config: NetworkConfig, client: NetworkClient) -> None:
        super().__init__(config)
        self.client: weakref.ref[NetworkClient] = weakref.ref(client)
        self.connecting: Connecting | None = None
        self.loan: Loan | None = None
        self.supervisor: Supervisor | None = None
        self.is_given: bool = False
        self.observer_of_attempt: Observer | None = None

    @staticmethod
    def lend(protocol: StreamProtocol) -> AbstractContextManager[tuple[NetworkClient, ClientLink]]:
        """A client of its own for the connection, until the end of a block: `tcp.client.lent()`, which stands above."""
        raise NotImplementedError

    # ---- Beginning ----

    async def connect(self, observer: Observer | None = None) -> None:
        """Args: observer: Is told of the attempts. None: what the configuration says."""
        ended = self.protocol
        if ended.is_open:
            ended.check_user()
            if not ended.peer_ended:
                return
        if self.is_given:
            what = "this client was given its connection, and cannot connect again: NetworkClient(config) can"
            raise self.error(UsageError, what, "connect")
        if self.connecting is not None and not self.connecting.is_over:
            raise self.error(BusyError, "another task is already connecting this client", "connect")
        self._check_left_at_the_end()
        # The configuration may be a new one.
        supervisor = self._supervised() if self.config.is_supervised else self.supervisor
        if supervisor is not None:
            if supervisor.is_reconnecting:
                what = "reconnecting already; wait_connected() waits for it"
                raise self.error(BusyError, what, "connect")
            supervisor.connecting()
            observer = supervisor.state.observer(self.config)
        self.connecting = connecting = _connecting()(self, self.lend, observer)
        try:
            protocol, latency = await connecting.run()
        except BaseException as error:
            # After a disconnect(), another task may be connecting. The supervisor may have come since: wait_connected()
            # makes one.
            if self.connecting is connecting and self.supervisor is not None:
                self.supervisor.connect_failed(error)
            raise
        finally:
            if self.connecting is connecting:
                self.connecting = None
        if self.protocol.state == "open":
            # Sending broke, or its loop was closed: nobody can use the old connection any more.
            self.protocol.abort()
        self.take_over(protocol, latency)
        if self.supervisor is not None:
            self.supervisor.connected(protocol)

    async def adopt(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Use a socket that others have connected; there will be no further connection. As `open_socket()`."""
        from pepperpy.network.tcp.given import open_socket

        self.is_given = True
        supervisor = self._supervised() if self.config.is_supervised else None
        if supervisor is not None:
            supervisor.connecting()
        try:
            protocol = await open_socket(self.config, sock, context, self.observer())
        except BaseException as error:
            if supervisor is not None:
                supervisor.connect_failed(error)
            raise
        if supervisor is not None and supervisor.state.is_closed:
            # By on_state, which gets the client before the handshake.
            protocol.abort()
            raise self.error(ClosedError, "closed while connecting", "connect")
        self.take_over(protocol, None)
        if supervisor is not None:
            supervisor.connected(protocol)

    def observer(self) -> Observer | None:
        """Who is told of what happens to the present connection; None: nobody."""
        if self.observer_of_attempt is not None:
            return self.observer_of_attempt
        observer = None if self.supervisor is None else self.supervisor.state.observer(self.config)
        if observer is not None:
            observer.host, observer.port = event_place(self.protocol.config)
        return observer

    def _check_left_at_the_end(self) -> None:
        unread, unsent = self.protocol.left_at_the_end()
        if unread or unsent:
            left = [f"{unread} received bytes were not taken"] if unread else []
            left += [f"{unsent} accepted bytes have not left"] if unsent else []
            what = (
                f"not connected again: the peer has ended its stream, but {' and '.join(left)};"
                " receive or flush them first, or abort() to drop them"
            )
            raise self.error(UsageError, what, "connect", unread=unread, unsent=unsent)

    async def wait_connected(self, timeout: Timeout, fail_after: int | None) -> None:
        if fail_after is not None:
            check_int("fail_after", fail_after, 1)
        if self.protocol.is_connected:
            self.protocol.check_user()
            return
        if self.supervisor is None:
            supervisor = self._supervised()
            if self.connecting is not None:
                supervisor.connecting()
        await self._supervised().wait_connected(self, timeout, fail_after)

    def _supervised(self) -> Supervisor:
        if self.supervisor is None:
            # Imported where it is needed: most programs do not reconnect.
            from pepperpy.network.tcp.reconnect import Supervisor

            client = self.client()
            assert client is not None, "it is calling"
            self.supervisor = Supervisor(client, self, self.lend)
        return self.supervisor

    # ---- Ending ----

    async def disconnect(self) -> None:
        connecting = self._stop_connecting()
        supervisor = self.supervisor
        # Another task may connect while this one waits: that connection is not the one to close.
        protocol = self.protocol
        try:
            if supervisor is not None:
                await supervisor.disconnect()
            if connecting is not None:
                await connecting.wait_ended(self.config.close_timeout)
        except asyncio.CancelledError:
            protocol.abort()
            raise
        started = time.monotonic()
        in_time = await close_in_order(protocol, self.config.close_timeout)
        lost = protocol.take_undelivered() + (supervisor.take_undelivered() if supervisor is not None else 0)
        if lost and not in_time:
            elapsed = round(time.monotonic() - started, 3)
            what = f"the peer did not take {lost} bytes within {self.config.close_timeout} s"
            raise self.error(NetworkTimeoutError, what, "disconnect", undelivered=lost, elapsed=elapsed)
        if lost:
            what = f"connection lost with {lost} accepted bytes unsent"
            if protocol.loss is not None:
                what += f": {self.config.explained(protocol.loss)}"
            raise self.error(ConnectionLostError, what, "disconnect", protocol.loss, undelivered=lost)

    def close(self) -> None:
        self._stop_connecting()
        if self.supervisor is not None:
            self.supervisor.stop()
        protocol = self.protocol
        closed = protocol.wait_closed()
        if closed is None or protocol.state != "open":
            return
        protocol.check_user()
        protocol.close()
        if protocol.is_tls or protocol.sender.bytes_queued:
            loop = closed.get_loop()
            seconds = self.config.close_timeout
            timer = loop.call_later(
                seconds, after_last_turns, loop, closed.done, protocol.abort, context=contextvars.Context()
            )
            closed.add_done_callback(lambda _: timer.cancel())

    async def wait_closed(self) -> None:
        protocol = self.protocol
        closed = protocol.wait_closed()
        if closed is not None:
            protocol.check_user()
            await closed
        if lost := protocol.take_undelivered():
            raise self._undelivered(protocol, lost)

    def _undelivered(self, protocol: StreamProtocol, lost: int) -> NetworkError:
        if protocol.loss is None:
            what = f"the peer did not take {lost} bytes within {self.config.close_timeout} s"
            return self.error(NetworkTimeoutError, what, "disconnect", undelivered=lost)
        what = f"connection lost with {lost} accepted bytes unsent: {self.config.explained(protocol.loss)}"
        return self.error(ConnectionLostError, what, "disconnect", protocol.loss, undelivered=lost)

    def abort(self) -> None:
        self._stop_connecting()
        if self.supervisor is not None:
            self.supervisor.stop()
            self.supervisor.take_undelivered()
        self.protocol.abort()
        # Whoever drops bytes on purpose needs no error about it from `disconnect()`.
        self.protocol.take_undelivered()

    def _stop_connecting(self) -> Connecting | None:
        connecting = self.connecting
        if connecting is not None:
            connecting.check_user()
            connecting.close()
            self.connecting = None
        return connecting

    def abandon(self) -> StreamProtocol | None:
        """The client is gone: stop reconnecting. Returns the connection that is still to be closed, or None."""
        if self.supervisor is not None and self.supervisor.is_reconnecting:
            self.supervisor.abandon()
        elif (self.loan is None or not self.loan.forsake()) and self.protocol.state != "open":
            # An aborted connection is gone as soon as the loop runs, and needs its client no more.
            return None
        return self.protocol


@functools.cache
def _connecting() -> type[Connecting]:
    # Imported on first use: it brings more modules than the rest of the package. An import costs as much as two system
    # calls each time, so its outcome is kept.
    from pepperpy.network.tcp.connecting import Connecting

    return Connecting


async def close_in_order(protocol: StreamProtocol, seconds: float) -> bool:
    """Send what was accepted, and close. Returns False if that took longer than `seconds`: it was aborted then.

    Cancellation: The connection is aborted.
    """
    closed = protocol.wait_closed()
    if closed is None:
        return True
    protocol.check_user()
    if not protocol.is_tls and not protocol.sender.bytes_queued:
        # The loop closes the socket in its next turn: no peer can delay that, so no timer is needed (3 us).
        protocol.close(now=True)
        await closed
        return True
    timed_out = False

    def give_up() -> None:
        nonlocal timed_out
        timed_out = True
        protocol.abort()

    # asyncio.wait() with a timeout would do the same for 20 to 60 us more.
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, after_last_turns, loop, closed.done, give_up, context=contextvars.Context())
    protocol.close()
    try:
        await closed
    except BaseException:
        protocol.abort()
        raise
    finally:
        timer.cancel()
    return not timed_out
