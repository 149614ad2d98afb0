"""`NetworkClient`: one stream connection. Here is its documented API; that of receiving bytes is in receiving.py.

What `connect()`, `disconnect()` and `abort()` do stands in client_link.py. `_core.receiver` and `_core.sender` move the
bytes.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import warnings
import weakref
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar

from pepperpy.network._core.directions import Receiving, Sending
from pepperpy.network._core.record import copy_of
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import BytesLike, Default, Timeout
from pepperpy.network.config import NetworkConfig, check_config
from pepperpy.network.errors import NetworkError
from pepperpy.network.lazy_types import LazyGeneric
from pepperpy.network.link import Link
from pepperpy.network.tcp.client_link import ClientLink
from pepperpy.network.tcp.receiving import ReceivingMethods
from pepperpy.network.tcp.stats import NetworkStats, stats_of
from pepperpy.network.tcp.tcp_info import TCPInfo, tcp_info_of
from pepperpy.network.tls import TLSInfo
from pepperpy.network.tls_config import TLSConfig

if TYPE_CHECKING:
    from pepperpy.network.messages.codecs import Codec, IncrementalCodec
    from pepperpy.network.messages.framed import Framed
    from pepperpy.network.requests.pipeline import Pipeline
else:
    Codec = LazyGeneric("messages.codecs", "Codec")
    IncrementalCodec = LazyGeneric("messages.codecs", "IncrementalCodec")
    Framed = LazyGeneric("messages.framed", "Framed")
    Pipeline = LazyGeneric("requests.pipeline", "Pipeline")

logger = logging.getLogger("pepperpy.network.tcp")

T = TypeVar("T")
M = TypeVar("M")


class NetworkClient(ReceivingMethods):
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

    __slots__ = ("__weakref__", "_link", "_sender")

    def __init__(self, config: NetworkConfig, *more: Never, **fields: Never) -> None:
        """Args: config: Where to connect and how; the only argument. Nothing is opened before `connect()`."""
        check_config("NetworkClient", config, bool(more or fields))
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

        Failure and cancellation: The socket is closed, unless it stays yours.
        """
        from pepperpy.network.tcp.given import adopt_socket

        return given(*await adopt_socket(sock, config), cls)

    def __repr__(self) -> str:
        return f"NetworkClient({', '.join(f'{name}={value!r}' for name, value in self.config.place.items())})"

    def __del__(self) -> None:
        link: ClientLink | None = getattr(self, "_link", None)
        if link is not None and (protocol := link.abandon()) is not None:
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

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection: made, not closed by this side, not known to be lost, and not at its end.

        When the peer has ended its stream, this stays True until every received byte is taken (see `at_eof`), over TLS
        too, or until a send has raised a loss. So `while client.is_connected` loses no last line.
        """
        return self._link.protocol.is_connected

    @property
    def at_eof(self) -> bool:
        """Whether the peer has ended its stream and every received byte is taken: a receive returns the end at once.

        From then on `is_connected` is False, and `connect()` makes a new connection. On a plain connection sending
        works until then. Always False for a client that reconnects, because it treats the end as a loss.
        """
        return self._link.protocol.at_eof

    @property
    def is_reusable(self) -> bool:
        """Whether somebody else could begin on this connection as on a new one; for a pool of your own.

        It is open, and nothing is unread, unsent or waited for. It costs less than 0.1 us, because it looks at what the
        event loop has read; what lies in the kernel it learns with the loop's next turn. `NetworkPool` asks the kernel
        as well.
        """
        return self._link.protocol.is_reusable(self._receiver)

    @property
    def local_address(self) -> Any:
        """This side's address: `(host, port)` for IPv4, with two more numbers for IPv6, or the path of a Unix socket.

        None if not connected.
        """
        return self._link.protocol.extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        """The peer's address, in the form of `local_address`; None if not connected."""
        return self._link.protocol.extra_info("peername")

    def extra_info(self, name: str) -> Any:
        """What `asyncio.BaseTransport.get_extra_info(name)` says of the connection: `socket`, `peercert`, ...

        None if there is none of that name, or no connection.
        """
        return self._link.protocol.extra_info(name)

    def tcp_info(self) -> TCPInfo | None:
        """What the kernel knows of the connection now: round-trip time, retransmissions, window. One system call.

        None where nobody knows: not on Linux, on a Unix socket, without a connection.
        """
        return tcp_info_of(self._link.protocol.extra_info("socket"))

    @property
    def tls(self) -> TLSInfo | None:
        """Version, cipher, protocol (ALPN) and peer certificate of a TLS connection; None if there is no such one.

        TLS to an `https://` proxy does not count.
        """
        protocol = self._link.protocol
        connection = None if protocol.tls_of_proxy else protocol.extra_info("ssl_object")
        return None if connection is None else TLSInfo.of(connection)

    @property
    def stats(self) -> NetworkStats:
        """The counters of this client, as they are now. Counting costs the same whether you read them or not."""
        return stats_of(self._link)

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
            NotConnectedError: Nobody connects the client, or `connect()` was cancelled.
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

    # ---- Sending ----

    async def send(self, data: BytesLike, timeout: Timeout = Default.TIMEOUT) -> None:
        """Send data to server. Waits first while the send queue is above `BufferLimits.send_high`.

        Returning means "accepted", not "received by the peer". Nothing is ever sent twice. A send on its own leaves at
        once; several in one turn of the event loop leave together.

        Args:
            data: Any bytes-like object of 0 bytes or more. It is not modified, and may be reused after the return.
            timeout: Seconds to wait for room in the queue.

        Raises:
            ConnectionLostError: The connection has ended; `__cause__` is the OSError.
            ClosedError: `disconnect()`, `abort()` or `send_eof()` came first.
            NotConnectedError: `connect()` was never called.
            NetworkTimeoutError: The queue stayed full. Nothing of `data` was queued.

        Cancellation: Nothing of `data` was queued; the connection stays usable.
        """
        sender = self._sender
        waiter = None
        while not sender.send(data):
            waiter = sender.wait(timeout, waiter)
            await waiter

    def send_nowait(self, data: BytesLike) -> bool:
        """Send `data` if that needs no waiting: True if all of it was accepted, False if nothing was.

        It is False while the send queue is above `BufferLimits.send_high`, and while a client that reconnects has no
        connection. `await flush()` or `await send(...)` waits for room.

        Raises: As `send`.
        """
        return self._sender.send(data)

    async def send_many(self, buffers: Iterable[BytesLike], timeout: Timeout = Default.TIMEOUT) -> None:
        """Send several pieces as one, such as a header and its payload, without copying the large ones.

        All of them are accepted, or none. Otherwise as `send`.
        """
        sender = self._sender
        pieces = sender.immutable(buffers)
        waiter = None
        while not sender.send_many(pieces):
            waiter = sender.wait(timeout, waiter)
            await waiter

    async def flush(self, timeout: Timeout = Default.TIMEOUT) -> None:
        """Wait until the kernel has everything that was accepted before this call.

        Over TLS, the encrypted bytes of the last piece may still be in the transport, which does not count them.

        Raises: As `send`. After a timeout or a cancellation sending goes on.
        """
        waiter = self._sender.start_flush(timeout)
        if waiter is not None:
            await waiter

    async def send_eof(self) -> None:
        """End the sending side: the peer reads all accepted bytes, and then the end of the stream. Receiving goes on.

        A second call does nothing. Never waits.

        Raises:
            UsageError: Over TLS, which no event loop can end in one direction. Nothing was changed.

        Otherwise as `send`.
        """
        self._sender.send_eof()

    # ---- Messages ----

    def framed(
        self, codec: Codec[M] | IncrementalCodec[M], *, on_overflow: Literal["raise", "discard"] = "raise"
    ) -> Framed[M]:
        """Send and receive messages over this connection, with a codec such as `LengthPrefixed` or one of your own.

        Args:
            on_overflow: What happens with a message beyond `max_size`. "raise": each receive raises
                `MessageTooLargeError`. "discard": the message is consumed as it comes, not kept in memory, and counted
                in `Framed.discarded`; the next one is received.
        """
        from pepperpy.network.messages.framed import Framed

        return Framed(self, codec, self._link, on_overflow=on_overflow)

    def deadline(self, seconds: float | None) -> AbstractAsyncContextManager[None]:
        """One time limit for a block of calls: `async with client.deadline(5):`. None: no limit.

        It works for every call in the block, also of `framed()`, `request()`, `connect()` and of other clients. Of this
        limit, the `timeout` of a call, and the limit of a block around this one, the first that is over counts. It
        costs no timer of its own.

        Raises (at the end of the block):
            NetworkTimeoutError: The time was over. The call that waited then is cancelled, and has left behind what its
                cancellation leaves behind. `details` has its `phase` and `call`, the seconds that it had `waited`, if
                they are known, and those of the block, `elapsed`. A cancellation from outside stays one.
        """
        from pepperpy.network.tcp.deadline import Deadline

        return Deadline(self._link, seconds)

    # ---- Asking ----

    async def request(
        self,
        data: BytesLike,
        receive: Callable[[NetworkClient], Awaitable[T]],
        timeout: Timeout = Default.TIMEOUT,
        *,
        allow_unasked: bool = False,
    ) -> T:
        r"""Send `data` and return the result of `receive`: one reply, and never that of another request.

        Any number of tasks may call it. They are served one after the other, in the order of their calls. Meanwhile a
        receive of another task gets `BusyError`, as always; and a request gets it while another task receives.

        Args:
            receive: Reads one reply: any callable that takes this client and whose result is awaited, such as
                `lambda client: client.receive_until(b"\n")`; or `NetworkClient.receive_line`, which also returns an
                unfinished line at the end of the stream. Receive methods in it have no default `timeout`: that of the
                request limits all of them. A request in it would wait for itself.
            timeout: Seconds for the whole call: until its turn, for room to send, and for the whole reply.
            allow_unasked: True: bytes that arrived before the request was sent are left to `receive`, which has to tell
                them from the reply. For protocols in which the peer speaks unasked.

        Raises:
            ConnectionLostError: As `send` and `receive`. Or the peer has ended its stream, so that no reply can come.
                Or a request that was served before failed because of the peer or the network.
            ClosedError: As `send`. Or a request that was served before was cancelled, timed out or failed otherwise.
            ProtocolError: Bytes had arrived that no request had asked for, such as a second reply. Nothing was sent,
                and the connection was aborted. Such bytes that are still on their way cannot be told from the reply.
            NetworkTimeoutError: The time was over.
            BusyError: Another task is receiving. Nothing was sent.
            Whatever `receive` raises.

        Cancellation, timeout: If `data` was not accepted for sending yet, nothing has happened, and the connection
        stays usable. Afterwards the connection is aborted, because the next request would get the late reply. An error
        of `receive` does the same. Tasks that wait for their turn then get `ClosedError` or `ConnectionLostError` with
        the reason as `__cause__`. The peer may have acted on the request. With `config.reconnect` this counts as a
        loss, and the client connects again.
        """
        link = self._link
        if link.receiver is not link.protocol.receiver:
            timeout = await link.catch_up(timeout, "request")
        if link.exchanges is None:
            from pepperpy.network.requests.exchanges import Exchanges

            link.exchanges = Exchanges(link.protocol)
        return await link.exchanges.run(self, link, data, receive, timeout, allow_unasked)

    def pipeline(
        self,
        codec: Codec[M] | IncrementalCodec[M],
        *,
        key: Callable[[M], Hashable] | None = None,
        request_key: Callable[[M], Hashable] | None = None,
        is_push: Callable[[M], bool] | None = None,
        on_push: Callable[[M], object] | None = None,
        max_in_flight: int = 64,
        max_abandoned: int | None = None,
    ) -> Pipeline[M]:
        """Many requests in flight on this connection: `async with client.pipeline(codec) as pipeline:`.

        Args:
            codec: Tells the messages apart, see `framed()`.
            key: Returns the id of a reply, or None for a message that is no reply. Without it, the n-th message is the
                reply to the n-th request.
            request_key: Returns the id of a request; default `key`. No two requests in flight may have the same id.
            is_push: Returns whether a message is one that nobody asked for, if the id does not tell. It is asked first.
            on_push: Called with each message that is no reply, by the task that reads, so it must not take long.
                Without it such a message ends the pipeline with `ProtocolError`. If it raises, that ends the pipeline,
                and the exception leaves the `async with` block unless another one does.
            max_in_flight: The number of sent and unanswered requests at which further ones wait; 1 or more. Arbitrary.
            max_abandoned: How many requests may be cancelled or timed out after they were sent and still have no reply.
                One more, and the connection is dropped: the peer no longer answers. 0 to `max_in_flight` - 1; default
                half of `max_in_flight`. Arbitrary.

        Raises:
            TypeError, ValueError: An argument cannot be used; the message names it. So is `config.heartbeat` without
                `key` and `is_push`: the answer to the heartbeat would count as a reply.
        """
        from pepperpy.network.requests.pipeline import Pipeline

        return Pipeline(
            self,
            self.framed(codec),
            self._link,
            key=key,
            request_key=request_key,
            is_push=is_push,
            on_push=on_push,
            max_in_flight=max_in_flight,
            max_abandoned=max_abandoned,
        )


@contextlib.contextmanager
def lent(protocol: StreamProtocol) -> Iterator[tuple[NetworkClient, Link]]:
    """Another client, with its link, for a connection that belongs to a client, until the end of the block."""
    client = NetworkClient(protocol.config)
    client._link.use(protocol)
    try:
        yield client, client._link
    finally:
        client._link.use(StreamProtocol(protocol.config))


class _ClientsLink(ClientLink):
    __slots__ = ()
    lend = staticmethod(lent)

    def swap(self, receiver: Receiving | None = None, sender: Sending | None = None) -> None:
        Link.swap(self, receiver, sender)  # half the time of super()
        if (client := self.client()) is not None:
            client._receiver, client._sender = self.receiver, self.sender


def given(protocol: StreamProtocol, config: NetworkConfig, kind: type[NetworkClient] = NetworkClient) -> NetworkClient:
    """A client for a connection that others have made; there will be no further one."""
    client = kind.__new__(kind)
    client._begin(config)
    client._link.adopt(protocol)
    return client


def link_of(client: NetworkClient) -> ClientLink:
    """The link of a client, for the pool, which makes its clients as users do."""
    return client._link


def passed_on(client: NetworkClient, blank: NetworkClient) -> tuple[NetworkClient, ClientLink]:
    """A new client with the connection of this one, and its link. Whoever has kept this one has no connection then.

    Args:
        blank: A client that is never connected. The new one has its configuration, because the last user may have given
            the client another one; and the client has its unconnected protocol.
    """
    # Copied from `blank`, because to construct a link and a protocol takes 1 us, half of a loan (measured).
    new = _new(NetworkClient)
    new._link = link = copy_of(blank._link)
    link.client = weakref.ref(new)
    client._link.give_to(link)
    new._receiver, new._sender = client._receiver, client._sender
    client._receiver, client._sender = blank._receiver, blank._sender
    return new, link


_new = object.__new__
