"""How a `NetworkClient` sends raw bytes: its methods, each a plain coroutine around synchronous calls of C."""

from __future__ import annotations

from collections.abc import Iterable

from pepperpy.network._core.directions import Sending
from pepperpy.network.checks import BytesLike, Default, Timeout


class SendingMethods:
    """The part of `NetworkClient` that sends raw bytes."""

    __slots__ = ()

    # What answers now: the sender of the connection, or what stands in for it between two connections.
    _sender: Sending

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
