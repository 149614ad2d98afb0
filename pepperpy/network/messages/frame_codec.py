"""`FrameCodec`: what the codecs of codecs.py share."""

from __future__ import annotations

from pepperpy.network._core.framer import Framer
from pepperpy.network.checks import BytesLike, check_size
from pepperpy.network.units import MIB

# Bytes of a message below which its header is joined to it: the copy costs less than one more piece for the kernel. The
# figure of send_queue.pyx.
SMALL = 8 * 1024
# The default of NetworkConfig.max_message_size, for a codec without a connection.
_DEFAULT_MAX_SIZE = 16 * MIB


class FrameCodec:
    """The base of this module's codecs whose messages are bytes."""

    __slots__ = ()
    max_size: int | None

    def encode(self, message: BytesLike) -> list[bytes]:
        """The frame of `message`, in one piece or several. ValueError: It exceeds `max_size`, or fits no frame."""
        raise NotImplementedError

    def decode(self, data: bytes, start: int = 0) -> tuple[bytes, int] | int:
        """The first message in `data[start:]` and where it ends, or how many bytes from `start` on it needs at least.

        ValueError: The bytes are malformed, or the message is larger than `max_size` (16 MiB if that is None).
        """
        return self._framer(_DEFAULT_MAX_SIZE if self.max_size is None else self.max_size).decode(data, start)

    def _framer(self, limit: int) -> Framer:
        raise NotImplementedError

    def _content(self, message: BytesLike) -> bytes:
        try:
            content = message if type(message) is bytes else bytes(memoryview(message))
        except TypeError:
            if isinstance(message, str):
                instead = (
                    "send message.encode(), or make the codec one of text, Mapped(codec, str.encode, bytes.decode)"
                )
            else:
                instead = "JSONLines, MsgPack and Mapped send values"
            raise TypeError(f"message must be bytes, not {type(message).__name__}: {instead}") from None
        self._check_size(len(content))
        return content

    def _check_size(self, size: int) -> None:
        if self.max_size is not None and size > self.max_size:
            raise ValueError(f"message of {size} bytes exceeds max_size={self.max_size}")


def framer_of(codec: FrameCodec, limit: int) -> Framer:
    """The framer that finds the messages of `codec`, of at most `limit` bytes each."""
    return codec._framer(limit)


def check_max_size(value: object) -> None:
    if value is not None:
        check_size("max_size", value)
