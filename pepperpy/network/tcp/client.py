"""`NetworkClient`: one stream connection. Here is how it begins and ends.

The rest of its documented API: inspecting.py, receiving.py, sending.py, messaging.py. What `connect()`, `disconnect()`
and `abort()` do stands in client_link.py. `_core.receiver` and `_core.sender` move the bytes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Never

from pepperpy.network._core.directions import Receiving, Sending
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import Default, Timeout, refuse_copies
from pepperpy.network.config import NetworkConfig, check_config, explain_setting
from pepperpy.network.errors import NetworkError
from pepperpy.network.link import Link
from pepperpy.network.tcp.client_link import ClientLink
from pepperpy.network.tcp.inspecting import InspectingMethods
from pepperpy.network.tcp.messaging import MessagingMethods
from pepperpy.network.tcp.receiving import ReceivingMethods
from pepperpy.network.tcp.sending import SendingMethods
from pepperpy.network.tls_config import TLSConfig

if TYPE_CHECKING:
    from pepperpy.network._core.lending import ClientSlots

logger = logging.getLogger("pepperpy.network.tcp")


@explains_arguments(functools.partial(explain_setting, "NetworkClient"))
class NetworkClient(InspectingMethods, ReceivingMethods, SendingMethods, MessagingMethods):
    """A client for one connection: TCP, with or without TLS and a proxy, or a Unix socket, as `config` says.

    Make a client anywhere, connect it inside an event loop, and use it from the thread of that loop. Another thread and
    a forked process get `UsageError`; another loop gets it when a call would have to wait or write. One task at a time
    may receive (a second one gets `BusyError`). Any number of tasks may send, and the data of a call stays together.
    `disconnect()` ends the connection; `connect()` may make another one.

    Every `timeout` is in seconds: a number from 0, None for no limit, by default `config.timeout`. It limits the whole
    call, however often a byte arrives. A call that times out or is cancelled has consumed and queued nothing, and the
    connection stays usable, unless the method says otherwise.

    When the peer or the network has ended the connection, what had arrived can still be received; then every call
    raises `ConnectionLostError`. Any error that is not documented is a bug, except TypeError and ValueError for bad
    arguments, and MemoryError.

    With `config.reconnect`, a new connection replaces a lost one, or one whose peer has ended its stream, in the
    background:

    - Each direction, receiving and sending, reports every loss exactly once: the call under way raises
      `ConnectionLostError`; if there is none, or it was cancelled, the next call raises it, even if there is a new
      connection already. Before that, receives return what had arrived. The rest of an unfinished message is dropped.
    - After that, a call waits for the new connection, within its `timeout`, and queues nothing before. What was
      accepted before the loss is never sent again, and bytes of two connections never meet in one message.
    - One call in each direction raises, not one in every task. (`stats.connects` counts the connections, and
      `config.on_state` is called for each loss.)
    - The new connection is used once it has received a byte or lived for 10 ms. If the server accepts it and ends it at
      once, that counts as a failed attempt.
    - A failure that waiting cannot cure (a refused certificate or pin, or what `config.may_pass` says), and the failure
      of the last of `Reconnect.attempts`, end it: every call raises `ConnectError` or `NetworkTimeoutError` then.
      `disconnect()` and `abort()` end it too: then every call raises `ClosedError`.
    """

    __slots__ = ("__weakref__", "_link", "_receiver", "_sender")

    _link: ClientLink  # as the base classes declare it

    def __init__(self, config: NetworkConfig, *more: Never) -> None:
        """Args: config: Where to connect and how; the only argument. Nothing is opened before `connect()`."""
        check_config("NetworkClient", config, bool(more))
        self._begin(config)

    def _begin(self, config: NetworkConfig) -> None:
        self._link = link = _ClientsLink(config, self)
        # The two directions of the link, here too: so each call looks up one attribute less. `swap()` updates them.
        self._receiver, self._sender = link.receiver, link.sender

    @classmethod
    async def from_socket(cls, sock: socket.socket, config: NetworkConfig | None = None) -> NetworkClient:
        """A client for a socket that is connected already: one end of a pair, of a tunnel, from another process.

        The socket belongs to the client from now on. `connect()` does nothing while it is connected, and raises
        `UsageError` afterwards, because nobody knows how to connect to the peer again.

        Args:
            sock: A connected stream socket of any family, blocking or not. Not an `ssl.SSLSocket`.
            config: The settings of the connection. Its `host` and `port` connect to nothing; errors show them, and
                with `tls` the certificate is checked for that `host`. Settings that say how a client connects
                (`reconnect`, `hosts`, `proxy`, `retries`, ...) are refused. Default: those of a new `NetworkConfig`,
                with the peer's address.

        Raises:
            TypeError, ValueError: `sock` is not such a socket, or a setting cannot be used. The socket stays yours.
            UsageError: As `connect()`. The socket stays yours.
            TLSError: The handshake failed.
            NetworkTimeoutError: It took longer than `config.connect_timeout`.
            ConnectionLostError: The connection broke meanwhile.
            ClosedError: `on_state` has closed the client meanwhile.

        Failure and cancellation: The socket is closed, unless it stays yours.
        """
        from pepperpy.network.tcp.given import check_given

        return await given(*check_given(sock, config), cls)

    def __repr__(self) -> str:
        return f"NetworkClient({', '.join(f'{name}={value!r}' for name, value in self.config.place.items())})"

    def __getstate__(self) -> Never:
        refuse_copies(self)

    def __del__(self) -> None:
        try:
            link = self._link
        except AttributeError:
            return  # its configuration was refused
        if (protocol := link.abandon()) is not None:
            message = f"unclosed {self!r}; use `async with` or await disconnect()"
            if link.loan is not None:
                message = f"unreleased {self!r}; use `async with pool.acquire()` or pool.release(client)"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            protocol.abandon()

    # ---- Connecting and closing ----

    @property
    def config(self) -> NetworkConfig:
        """Where to connect and how. A new configuration is used for the next connection, also of a reconnecting client.

        Whether that reconnects, and with which waits and attempts, changes with the next `connect()`; `on_state` at
        once.
        """
        return self._link.config

    @config.setter
    def config(self, config: NetworkConfig) -> None:
        check_config("NetworkClient", config)
        self._link.config = config

    async def connect(self) -> None:
        """Connect to server. Does nothing if this client is connected and the peer has not ended its stream.

        At the end of the peer's stream (`at_eof`), it first closes what is left of the old connection. After a loss,
        bytes that had arrived and were not taken are dropped with the old connection.

        All addresses of the host race (RFC 8305). The race, a proxy's answer and the TLS handshake together have
        `config.connect_timeout` seconds. A failure that waiting may cure (refused, unreachable, timed out, a name
        server that does not answer) is tried again `config.retries` times, after growing waits with jitter. Any other
        (an unknown name, no permission, a refused certificate) is not. `config.hosts`, `config.on_connect` and
        `config.may_pass` say what else belongs to an attempt.

        Raises:
            ConnectError: No attempt succeeded. `details` has `attempt` and `elapsed` (seconds).
            TLSError: The handshake failed; the message says which check. No byte of yours was sent.
            ProxyError: The proxy could not be reached, or refused.
            NetworkTimeoutError: The last attempt ran out of time.
            BusyError: Another task connects this client, or it reconnects: `wait_connected()` waits for that.
            ClosedError: `disconnect()` or `abort()` was called meanwhile. They end it at once, wherever it is.
            UsageError: The client is connected already, but from another thread, loop or process. Or the peer has ended
                its stream, and some bytes are not taken, or accepted ones have not left: the message counts them, and
                nothing was dropped. `abort()` drops them.
            UsageError: The configuration needs a package that is not installed; an `ImportError` as well. The message
                names the package.
            UsageError: The client was accepted by `serve()` or made by `from_socket()`, and its connection has ended.
            ValueError: A file of the configuration cannot be used.

        Cancellation: No connection is left; `connect()` may be called again.
        """
        await self._link.connect()

    async def wait_connected(self, timeout: Timeout = Default.TIMEOUT, *, fail_after: int | None = None) -> None:
        """Wait until the client is connected: for `connect()` of another task, or for reconnecting after a loss.

        Args:
            timeout: Seconds for the whole call.
            fail_after: Attempts to reconnect, counted from the loss, after whose failure to wait no longer; None waits
                until `timeout`.

        Raises:
            NetworkTimeoutError: There was no connection in time; connecting goes on. Or `connect()` or reconnecting
                failed with it.
            NotConnectedError: Nobody connects the client, it was given back to its pool, or `connect()` was cancelled.
            ClosedError: `disconnect()` or `abort()` came first.
            ConnectionLostError: The connection was lost, and the client does not reconnect.
            ConnectError: `connect()` failed, or reconnecting has given up. Or `fail_after` attempts to reconnect have
                failed: this is the last one's error (it may be a `NetworkTimeoutError`), and reconnecting goes on.

        Cancellation: Connecting goes on.
        """
        await self._link.wait_connected(timeout, fail_after)

    async def start_tls(
        self,
        tls: TLSConfig | ssl.SSLContext | None = None,
        timeout: Timeout = Default.TIMEOUT,
    ) -> None:
        """Go on with TLS on this plain connection, after the peer has agreed to it in its own protocol (STARTTLS).

        What was accepted before leaves first, in plain. What is sent meanwhile waits, and leaves encrypted. `connect()`
        makes a plain connection again.

        With an `SSLContext` for servers (`ssl.PROTOCOL_TLS_SERVER`) this side is the server, as after `serve()`: send
        the consent and call this at once, because what the peer sends next counts as its side of the handshake.

        Args:
            tls: How to speak TLS. Default: as `config.tls` and `config.verify_ssl` say; False there means "not yet".
            timeout: Seconds for the whole call.

        Raises:
            TLSError: The handshake failed. Or the peer has sent plain bytes that nobody took: somebody on the way may
                have inserted them, so that they count as received over TLS (CVE-2021-23222).
            NetworkTimeoutError: The peer was too slow.
            UsageError: TLS is in use already. Nothing was changed.
            ValueError: As `connect()`. Nothing was changed.

        Otherwise as `send`. Failure, timeout, cancellation: The connection is aborted, because nobody knows any more
        which bytes of it are TLS. A client with `reconnect` connects again.
        """
        from pepperpy.network.tcp.handshake import upgrade

        await upgrade(self._link, tls, timeout)

    async def disconnect(self) -> None:
        """Disconnect from server. Does nothing if this client is not connected. Ends a `connect()` of another task.

        A connection that another task makes while this one waits is left alone.

        Accepted bytes are sent first, for at most `config.close_timeout` seconds; then the connection is aborted, see
        `abort()`. Received bytes that nobody took are dropped. Tasks that wait in this client get `ClosedError`.

        A peer that still sends then gets a reset, which can overtake what was sent last: that is TCP (RFC 1122,
        4.2.2.13). If that matters, call `send_eof()` and receive up to the end first.

        Raises:
            NetworkTimeoutError: The peer did not take all accepted bytes in time. The connection is closed.
            ConnectionLostError: The connection was lost with accepted bytes unsent, and no call has reported it yet.
            UsageError: Called from another thread, loop or process.

        Cancellation: The connection is aborted all the same.
        """
        await self._link.disconnect()

    def close(self) -> None:
        """Begin to close in order; never waits. Does nothing if not connected. Ends a `connect()` of another task.

        What `disconnect()` does, for code that cannot wait: accepted bytes are still sent, for at most
        `config.close_timeout` seconds. Every other call raises `ClosedError` from now on. `wait_closed()` or
        `disconnect()` waits for the end, and says if bytes were lost.

        Raises:
            UsageError: Called from another thread or process.
        """
        self._link.close()

    async def wait_closed(self) -> None:
        """Wait for the end of the connection: after `close()`, or until the peer or the network ends it.

        Raises:
            NetworkTimeoutError: The peer did not take all accepted bytes within `config.close_timeout`.
            ConnectionLostError: The connection was lost with accepted bytes unsent, and no call has reported it yet.
            UsageError: Called from another thread, loop or process.

        Cancellation: Closing goes on.
        """
        await self._link.wait_closed()

    def abort(self) -> None:
        """Close at once, and drop what has not left. Does nothing if not connected; never waits.

        If accepted bytes are dropped, the peer sees a reset, so that it cannot take a part for the whole; Unix sockets
        have no reset, so there it sees an orderly end. If the kernel has all bytes, they reach the peer.

        Ends a `connect()` of another task. The next one may begin at once.

        Tasks that wait in this client get `ClosedError`.

        Raises:
            UsageError: Called from another thread or process.
        """
        self._link.abort()

    def deadline(self, seconds: float | None) -> AbstractAsyncContextManager[None]:
        """One time limit for a block of calls: `async with client.deadline(5):`. None: no limit.

        It works for every call in the block, also of `framed()`, `request()`, `connect()` and of other clients. Of this
        limit, the `timeout` of a call, and the limit of a block around this one, the first that is over counts. It
        costs no timer of its own.

        Raises (at the end of the block):
            NetworkTimeoutError: The time was over. The call that waited then is cancelled, and has left behind what its
                cancellation leaves behind. `details` has its `phase` and `call`, and the seconds that it had `waited`,
                if they are known (not where a generator or another task of yours waited), and those of the block,
                `elapsed`. A cancellation from outside stays one.
        """
        from pepperpy.network.tcp.deadline import Deadline

        return Deadline(self._link, seconds)

    async def __aenter__(self) -> NetworkClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.disconnect()
        except NetworkError as closing_error:
            if error is None:
                raise
            # The error of the block says more.
            logger.warning("%s", closing_error)


@contextlib.contextmanager
def lent(protocol: StreamProtocol) -> Iterator[tuple[NetworkClient, ClientLink]]:
    """Another client, with its link, for a connection that belongs to a client, until the end of the block."""
    client = NetworkClient(protocol.config)
    client._link.use(protocol)
    try:
        yield client, client._link
    finally:
        what = "the client was lent to on_connect or to a heartbeat, which has ended"
        client._link.use(StreamProtocol(protocol.config, what))


class _ClientsLink(ClientLink):
    __slots__ = ()
    lend = staticmethod(lent)

    def swap(self, receiver: Receiving | None = None, sender: Sending | None = None) -> None:
        Link.swap(self, receiver, sender)  # half the time of super()
        if (client := self.client()) is not None:
            client._receiver, client._sender = self.receiver, self.sender


async def given(
    sock: socket.socket,
    config: NetworkConfig,
    context: ssl.SSLContext | None,
    kind: type[NetworkClient] = NetworkClient,
) -> NetworkClient:
    """A client for a socket that others have connected; there will be no further connection. As `open_socket()`."""
    client = kind.__new__(kind)
    client._begin(config)
    await client._link.adopt(sock, context)
    return client


def link_of(client: NetworkClient) -> ClientLink:
    """The link of a client, for the pool, which makes its clients as users do."""
    return client._link


def client_slots() -> ClientSlots:
    """What a pool changes in its clients, without a method of them."""
    from pepperpy.network._core.lending import ClientSlots
    from pepperpy.network._core.record import Slot

    link, receiver, sender = [Slot(NetworkClient, name) for name in ("_link", "_receiver", "_sender")]
    return ClientSlots(link, receiver, sender, ClientLink)
