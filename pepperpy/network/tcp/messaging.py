"""The methods of `NetworkClient` for messages and requests. `messages/` and `requests/` do the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pepperpy.network.checks import BytesLike, Default, Timeout
from pepperpy.network.lazy_types import LazyGeneric
from pepperpy.network.tcp.client_link import ClientLink

if TYPE_CHECKING:
    from pepperpy.network.messages.codec_protocols import Codec, IncrementalCodec
    from pepperpy.network.messages.framed import Framed
    from pepperpy.network.requests.pipeline import Pipeline
else:
    Codec = LazyGeneric("messages.codec_protocols", "Codec")
    IncrementalCodec = LazyGeneric("messages.codec_protocols", "IncrementalCodec")
    Framed = LazyGeneric("messages.framed", "Framed")
    Pipeline = LazyGeneric("requests.pipeline", "Pipeline")

T = TypeVar("T")
M = TypeVar("M")


class MessagingMethods:
    """The part of `NetworkClient` that sends and receives messages, and asks for replies."""

    __slots__ = ()

    _link: ClientLink

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

    async def request(
        self,
        data: BytesLike,
        receive: Callable[[Self], Awaitable[T]],
        timeout: Timeout = Default.TIMEOUT,
        *,
        allow_unasked: bool = False,
    ) -> T:
        r"""Send `data` and return the result of `receive`: one reply, and never that of another request.

        Any number of tasks may call it. They are served one after the other, in the order of their calls. While
        `receive` waits for bytes, a receive of another task gets `BusyError`, as always; and a request gets it while
        another task receives, or in the block of a `pipeline()`.

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
            BusyError: Another task is receiving, or a pipeline is. Nothing was sent.
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
        if (exchanges := link.exchanges) is None:
            from pepperpy.network.requests.exchanges import exchanges_of

            exchanges = exchanges_of(link)
        return await exchanges.run(self, link, data, receive, timeout, allow_unasked)

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
