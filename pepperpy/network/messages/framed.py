"""`Framed`: messages over a connection. `codecs` and `values` define a message, `frame_reader` takes its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

from pepperpy.network._core.directions import Sending
from pepperpy.network._core.frame_reader import END, WAIT, FrameReader
from pepperpy.network._core.framer import Framer
from pepperpy.network._core.python_framers import FeedFramer, PythonFramer
from pepperpy.network.checks import BytesLike, Default, Timeout
from pepperpy.network.errors import EndOfStreamError
from pepperpy.network.link import Link
from pepperpy.network.messages.codec_protocols import NO_MESSAGE, Codec, IncrementalCodec, M
from pepperpy.network.messages.frame_codec import FrameCodec, check_max_size, framer_of
from pepperpy.network.messages.values import MappedCodec, loads_of

T = TypeVar("T")


class Framed(Generic[M]):
    """The stream of one client as messages: `client.framed(codec)`.

    It holds no bytes. It takes from the client's receive buffer and adds to the client's send queue, as the client's
    own methods do. So both may be mixed, and it works on when the client connects again. What `NetworkClient` says
    about tasks, loops, timeouts and the end of the stream holds here too.

    A receive raises what `NetworkClient.receive` raises, and:
        IncompleteReadError: The peer ended its stream inside a message. `partial` has its bytes, once.
        MessageTooLargeError: The next message exceeds the codec's `max_size` (default `config.max_message_size`).
            `details["limit"]` and, if the peer declared it, `details["size"]` are bytes. Nothing was consumed. Not with
            `on_overflow="discard"`: then such a message is consumed as it comes, and the next one is received.
        ProtocolError: The next bytes are no message of the codec, or its `decode` raised an `Exception`, which is the
            cause. Nothing was consumed. Each further receive raises the same, until the client's own methods take the
            bytes.
        DecodeError: The codec found a message and could not make a value of it; the cause is any `Exception`. The
            message was consumed: `content` has its bytes, and the next receive returns the next message.

    Cancellation, timeout: Nothing was consumed, except what is discarded. The next receive returns the message.
    """

    __slots__ = ("_client", "_encode", "_link", "_reader", "_take", "codec")

    def __init__(
        self,
        client: object,
        codec: Codec[M] | IncrementalCodec[M],
        link: Link,
        *,
        on_overflow: Literal["raise", "discard"] = "raise",
    ) -> None:
        """Args:
        client: The `NetworkClient`, connected or not; for the `repr` only.
        codec: One of this package, or an object with the methods of `Codec` or of `IncrementalCodec`.
        link: The client's.
        on_overflow: See `NetworkClient.framed`.
        """
        self._client = client
        self._link = link
        self.codec: Codec[M] | IncrementalCodec[M] = codec
        framer, loads = framer_and_loads(codec, link.config.max_message_size)
        if on_overflow not in ("raise", "discard"):
            raise ValueError(f'on_overflow must be "raise" or "discard", not {on_overflow!r}')
        if on_overflow == "discard" and isinstance(framer, (PythonFramer, FeedFramer)):
            raise ValueError(
                'on_overflow="discard" is for codecs of this package; one of your own returns (NO_MESSAGE, end) instead'
            )
        self._reader = FrameReader(framer, loads, on_overflow == "discard")
        self._take = self._reader.take
        self._encode = codec.encode

    def __repr__(self) -> str:
        return f"Framed({self._client!r}, {self.codec!r})"

    @property
    def discarded(self) -> int:
        """Messages that were too large and were discarded (`on_overflow="discard"`), one that still comes included."""
        count: int = self._reader.discarded
        return count

    # ---- Sending ----

    async def send(self, message: M, timeout: Timeout = Default.TIMEOUT) -> None:
        """Send one message, whole or not at all. A large payload is not copied to join it with its header.

        Raises:
            ValueError: The codec has no frame for it: it is longer than `max_size` or than the header can say, or it
                contains the separator. Nothing was queued.
            Whatever the codec's own functions raise. Nothing was queued.

        Otherwise as `NetworkClient.send_many`.
        """
        await self._send(encoded(message, self._encode, self._link.sender), timeout)

    async def send_many(self, messages: Iterable[M], timeout: Timeout = Default.TIMEOUT) -> None:
        """Send several messages: all of them are accepted, or none. Otherwise as `send`."""
        encode, sender = self._encode, self._link.sender
        await self._send([piece for message in messages for piece in encoded(message, encode, sender)], timeout)

    async def _send(self, pieces: list[bytes], timeout: Timeout) -> None:
        sender = self._link.sender
        waiter = None
        while not sender.send_many(pieces):
            waiter = sender.wait(timeout, waiter)
            await waiter

    # ---- Receiving ----

    async def receive(self, timeout: Timeout = Default.TIMEOUT) -> M | None:
        """Receive one message; at the end of the stream None, or `EndOfStreamError` with `NetworkConfig(eof="raise")`.

        A message may be None too, such as JSON's null. `async for` and `receive_batch()` tell it from the end.
        """
        receiver = self._link.receiver
        waiter = None
        while (message := self._take(receiver)) is WAIT:
            waiter = self._reader.wait(receiver, timeout, waiter)
            await waiter
        return self._end(None) if message is END else message

    async def receive_batch(self, timeout: Timeout = Default.TIMEOUT) -> list[M]:
        """Receive all complete messages that have arrived, and wait for the first; at the end of the stream `[]`, or
        `EndOfStreamError` as `receive`.

        This is several times faster than one by one. An error is raised only when no message stands in front of it.
        """
        receiver = self._link.receiver
        waiter = None
        while (messages := self._reader.take_all(receiver)) is WAIT:
            waiter = self._reader.wait(receiver, timeout, waiter)
            await waiter
        return self._end([]) if messages is END else messages

    def _end(self, nothing: T) -> T:
        # What a receive gives at the end of the stream.
        if self._link.protocol.config.eof == "raise":
            raise self._link.error(EndOfStreamError, "the peer has ended its stream", "receive")
        return nothing

    def __aiter__(self) -> Framed[M]:
        """Iterate over the messages until the end of the stream. Each message is taken when the loop asks for it."""
        return self

    async def __anext__(self) -> M:
        receiver = self._link.receiver
        waiter = None
        while (message := self._take(receiver)) is WAIT:
            waiter = self._reader.wait(receiver, Default.TIMEOUT, waiter)
            await waiter
        if message is END:
            raise StopAsyncIteration
        result: M = message
        return result


def encoded(message: M, encode: Callable[[M], BytesLike | Iterable[BytesLike]], sender: Sending) -> list[bytes]:
    """The bytes that a codec's `encode` makes of `message`, in pieces that the sender may keep."""
    frame = encode(message)
    # Not isinstance(..., Iterable): a bytes-like object is one too.
    pieces: Any = (frame,) if isinstance(frame, (bytes, bytearray, memoryview)) else frame
    try:
        return sender.immutable(pieces)
    except TypeError as error:
        kind = type(frame).__name__
        raise TypeError(
            f"encode() of the codec must return bytes or an iterable of bytes, not {kind}: {error}"
        ) from error


def framer_and_loads(
    codec: Codec[Any] | IncrementalCodec[Any], max_message_size: int
) -> tuple[Framer, Callable[[bytes], Any] | None]:
    """What finds the messages of `codec`, and what makes a value of each; None leaves them bytes."""
    if isinstance(codec, type):
        raise TypeError(f"codec must be an object, not the class {codec.__name__}")
    loads = None
    if isinstance(codec, MappedCodec):
        loads = loads_of(codec)
        codec = codec.frames
    max_size: int | None = getattr(codec, "max_size", None)
    check_max_size(max_size)
    limit = max_message_size if max_size is None else max_size
    if isinstance(codec, FrameCodec):
        return framer_of(codec, limit), loads
    decode: Any = getattr(codec, "decode", None)
    decoder: Any = getattr(codec, "decoder", None)
    if not callable(getattr(codec, "encode", None)) or not (callable(decode) or callable(decoder)):
        raise TypeError(f"codec must have the methods encode() and decode() (or decoder()), not be {codec!r}")
    if callable(decoder):
        return FeedFramer(limit, decoder, NO_MESSAGE), loads
    return PythonFramer(limit, decode, NO_MESSAGE), loads
