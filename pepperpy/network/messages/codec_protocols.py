"""What a codec is: an object with these methods. `codecs.py` and `values.py` have the codecs of this package."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

from pepperpy.network.checks import BytesLike

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class NoMessage(enum.Enum):
    """The type of `NO_MESSAGE`."""

    NO_MESSAGE = "bytes that are no message"


# A codec of your own returns it in place of a message, for bytes that carry none and are to be consumed.
NO_MESSAGE: Final = NoMessage.NO_MESSAGE


class Codec(Protocol[M]):
    """A codec of your own has these two methods, and no base class.

    It keeps no state. If nothing says how long a message is, and messages are long, write an `IncrementalCodec`, which
    has `decoder()` in place of `decode()`.

    A message may have `codec.max_size` bytes, if the codec has such an attribute and it is not None; else
    `NetworkConfig.max_message_size`.
    """

    def encode(self, message: M) -> BytesLike | Iterable[BytesLike]:
        """The bytes of `message`, in one piece or several. `Framed.send` raises what this raises."""
        ...

    def decode(self, data: bytes, start: int) -> tuple[M | NoMessage, int] | int | None:
        """Find the first message in `data[start:]`, which is never empty.

        Returns:
            `(message, end)`: The message, and the index behind its last byte. The bytes are consumed only now.
            `(NO_MESSAGE, end)`: The bytes up to `end` are no message, and are consumed: a heartbeat, or a message that
                is too large for the codec. `end` may lie behind `data`; then the rest is consumed as it comes. If the
                stream ends behind such bytes, or in the middle of them, its end is a clean one.
            An int: The message is not whole yet, and needs at least so many bytes from `start` on. It is called again
                when they have come. An int above the limit is a `MessageTooLargeError`, and so is a message that is not
                whole at the limit.
            None: The message is not whole yet, and nobody knows how many bytes it needs. It is called again when more
                have come. If only line ends (CR, LF) are left at the end of the stream, the end is a clean one.

        A codec that returns None for 64 KiB or more is asked again when a quarter more has come, or after as long as
        its answers since then took. So a long message costs a few times as much as it would in one piece.

        An `Exception` means that the bytes are no message. It becomes the cause of a `ProtocolError`; a `NetworkError`
        passes as it is. Nothing is consumed, because nobody knows where the message ends. If your codec can tell where
        a message ends, and then fails to read it, use `Mapped`: it consumes that message, and the next may be good.
        """


class Decoder(Protocol[M_co]):
    """Finds one message, and keeps what state it needs. A codec's `decoder()` makes one for each message."""

    def feed(self, data: bytes, start: int) -> tuple[M_co | NoMessage, int] | int | None:
        """As `Codec.decode`, but `data[start:]` has the bytes since the last call, and is never empty.

        So each byte of a message comes once. `end` is an index of this `data`. It may be `start`, if the message turns
        out to have ended before. An int says how many bytes from `start` on are still needed.

        The bytes are consumed when the message is returned, not before: a cancelled receive has taken nothing. If other
        receives take some of them, a new decoder begins with the first byte of the rest.
        """


class IncrementalCodec(Protocol[M]):
    """A codec of your own that keeps state: it looks at each byte of a message once, however small the pieces are.

    `max_size` and exceptions are as in `Codec`. If the decoder keeps the bytes of its message, they are in memory
    twice: there and in the receive buffer.
    """

    def encode(self, message: M) -> BytesLike | Iterable[BytesLike]:
        """As `Codec.encode`."""
        ...

    def decoder(self) -> Decoder[M]:
        """A new decoder for one message."""
        ...
