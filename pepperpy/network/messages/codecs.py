"""Codecs: how messages are told apart in a stream. They say what is meant; the work is done in C (`builtin_framers`).

    LengthPrefixed   a number says how long the message is
    Delimited        a separator ends it
    Fixed            all have the same size
    Netstring        "5:hello,"
    SLIP, COBS       one byte ends it and is kept out of it
    Mapped           any of these with a function each way; JSONLines and MsgPack are such (serialized.py)

A codec is immutable, comparable and picklable, and serves any number of connections at once. Without a connection it
works as well: `codec.encode(message)` and `codec.decode(data, start)`, as `Codec` describes them.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal, Protocol, TypeVar

from pepperpy.network._core.builtin_framers import FixedFramer, LengthFramer, NetstringFramer, SeparatorFramer
from pepperpy.network._core.framer import Framer
from pepperpy.network._core.stuffing import COBSFramer, SLIPFramer, cobs_encode
from pepperpy.network.checks import BytesLike, check_bool, check_int, check_size
from pepperpy.network.config import MIB

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)

# Below this a header is joined with its message: a copy costs less than one more piece for the kernel. As _send_queue.
_SMALL = 8 * 1024
# That of NetworkConfig, for a codec without a connection.
_DEFAULT_MAX_SIZE = 16 * MIB
# The other end of what the C code can add up on 32 bits; arbitrary otherwise.
_LARGEST_ADJUST = 2**28


class NoMessage(enum.Enum):
    """The type of `NO_MESSAGE`."""

    NO_MESSAGE = "bytes that are no message"


# What the answer of a codec of your own has in place of a message, for bytes that are to be consumed and carry none.
NO_MESSAGE: Final = NoMessage.NO_MESSAGE


class Codec(Protocol[M]):
    """What a codec of your own has: these two methods, and no base class.

    It needs no state. One that keeps some, because its messages are long and nothing says how long, has `decoder()` in
    place of `decode()`: see `IncrementalCodec`.

    The limit of its messages is its attribute `max_size` (bytes, or None) if it has one, else
    `NetworkConfig.max_message_size`.
    """

    def encode(self, message: M) -> BytesLike | Iterable[BytesLike]:
        """The bytes that `message` becomes, in one piece or several. What it raises, `Framed.send` raises."""

    def decode(self, data: bytes, start: int) -> tuple[M | NoMessage, int] | int | None:
        """The first message in `data[start:]`, which is never empty, and the index behind its last byte.

        `(NO_MESSAGE, end)`: The bytes up to there are no message, and are consumed: a heartbeat, say, or a message that
        is too large for the codec. `end` may lie behind what has come; then the rest is consumed as it comes. The end
        of the stream behind such bytes, or in the middle of them, is a clean one.

        Where the message is not whole yet: how many bytes from `start` on it needs at least, or None if that is not
        known. Then it is called again when so many (or any more) have come. Bytes are consumed only once the whole
        message was returned. An int above the limit is a `MessageTooLargeError`; so is a message that is not whole at
        the limit. Where the answer was None, line ends alone (CR, LF) that are left at the end of the stream are no
        message that was cut off, and the end is a clean one.

        Who answers None to 64 KiB or more is asked again when a quarter more has come, or after as long as the answers
        since then took: a long message costs a few times of what it would cost in one piece.

        Whatever `Exception` it raises means that the bytes are no message, and becomes a `ProtocolError` with that
        exception as its cause; a `NetworkError` passes as it is. Nothing is consumed: nobody knows where the message
        ends. A codec that can tell the messages apart and then fails at one should be `Mapped`: that one message
        is consumed, and the next one may be good.
        """


class Decoder(Protocol[M_co]):
    """What finds one message: a codec's `decoder()` makes one for each, and keeps what it likes in it."""

    def feed(self, data: bytes, start: int) -> tuple[M_co | NoMessage, int] | int | None:
        """As `Codec.decode`, but `data[start:]` is what has come since the last call, never empty.

        So each byte of a message is given once. `end` is an index of this `data`, and may be `start` where the message
        turns out to have ended before; an int says how many bytes from `start` on are still needed.

        The bytes are consumed when the message was returned, and not before: a receive that is cancelled has taken
        nothing. If other receives take some of them, a new decoder is fed with the rest from its first byte.
        """


class IncrementalCodec(Protocol[M]):
    """A codec of your own that keeps state: no byte of a message is looked at twice, however small its pieces are.

    `max_size`, and what an exception means, are as in `Codec`. The message being received is held twice, in the receive
    buffer and in the decoder, if that keeps its bytes.
    """

    def encode(self, message: M) -> BytesLike | Iterable[BytesLike]:
        """As `Codec.encode`."""

    def decoder(self) -> Decoder[M]:
        """A new decoder, for one message."""


class FrameCodec:
    """The base of this module's codecs whose messages are bytes."""

    __slots__ = ()
    max_size: int | None

    def encode(self, message: BytesLike) -> list[bytes]:
        """The frame of `message`, in one piece or several. ValueError: It has none, or exceeds `max_size`."""
        raise NotImplementedError

    def decode(self, data: bytes, start: int = 0) -> tuple[bytes, int] | int:
        """The first message in `data[start:]` and where it ends, or how many bytes from `start` on it needs at least.

        ValueError: Malformed, or larger than `max_size` (16 MiB if that is None).
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
        if self.max_size is not None and len(content) > self.max_size:
            raise ValueError(f"message of {len(content)} bytes exceeds max_size={self.max_size}")
        return content


@dataclass(frozen=True, slots=True)
class LengthPrefixed(FrameCodec):
    """A number says how many bytes follow; the message is the frame without that number.

    So with an `offset` the message begins with the bytes in front of the number, which must be given when sending too:
    `LengthPrefixed(4, offset=1, adjust=-4)` are PostgreSQL's messages, `b"Q" + b"select 1\\0"`.

    Attributes:
        size: Bytes of the number, which is unsigned: 1, 2, 3, 4, 8; or "varint" for base 128 as in protobuf and MQTT,
            at most 10 bytes.
        byteorder: "big" or "little"; not heeded for a varint.
        offset: Bytes of the message that stand in front of the number, 0 to 65535. They are not counted by it.
        adjust: What has to be added to the number to get the count of bytes behind it: minus the size of what it counts
            besides them, plus that of what it does not count. From -2**28 to 2**28.
        max_size: Bytes of the longest message, without the number; default `NetworkConfig.max_message_size`.
    """

    size: Literal[1, 2, 3, 4, 8, "varint"] = 4
    _: KW_ONLY
    byteorder: Literal["big", "little"] = "big"
    offset: int = 0
    adjust: int = 0
    max_size: int | None = None

    def __post_init__(self) -> None:
        if self.size not in (1, 2, 3, 4, 8, "varint") or isinstance(self.size, (bool, float)):
            raise ValueError(f'size must be 1, 2, 3, 4, 8 or "varint", not {self.size!r}')
        if self.byteorder not in ("big", "little"):
            raise ValueError(f'byteorder must be "big" or "little", not {self.byteorder!r}')
        check_int("offset", self.offset, 0, 65535)
        check_int("adjust", self.adjust, -_LARGEST_ADJUST, _LARGEST_ADJUST)
        check_max_size(self.max_size)

    def encode(self, message: BytesLike) -> list[bytes]:
        content = self._content(message)
        number = len(content) - self.offset - self.adjust
        if len(content) < self.offset:
            raise ValueError(f"message must have offset={self.offset} bytes or more, not {len(content)}")
        if number < 0:
            raise ValueError(f"message of {len(content)} bytes is too short for adjust={self.adjust}")
        if self.size == "varint":
            header = _varint(number)
        elif number >> 8 * self.size:
            most = (1 << 8 * self.size) - 1 + self.offset + self.adjust
            raise ValueError(f"message of {len(content)} bytes exceeds the {most} that size={self.size} can say")
        else:
            header = number.to_bytes(self.size, self.byteorder)
        if self.offset:
            return [content[: self.offset] + header + content[self.offset :]]
        return [header + content] if len(content) < _SMALL else [header, content]

    def _framer(self, limit: int) -> Framer:
        width = 0 if self.size == "varint" else self.size
        return LengthFramer(limit, width, self.byteorder == "little", self.offset, self.adjust)


@dataclass(frozen=True, slots=True)
class Delimited(FrameCodec):
    r"""A separator ends the message, which does not contain it. The last message of a stream is no exception.

    `Delimited((b"\r\n", b"\r", b"\n"))` are lines of any kind, also mixed: a CR ends its line at once, and an LF right
    behind it belongs to it, whenever it comes. These three go together; for any others the rule below holds.

    Attributes:
        separator: One or more bytes, or a tuple of such: a message then ends where the first of them ends (of those
            that end there, the longest is meant, so `(b"\n", b"\r\n")` are lines of either kind), and is sent with
            the first in the tuple. None may occur in another but at its end, for that one would never be found.
        max_size: Bytes of the longest message without its separator; default `NetworkConfig.max_message_size`.
        keep: Whether a received message still has its separator. Of lines of any kind, the first byte of it.
    """

    separator: bytes | tuple[bytes, ...] = b"\n"
    _: KW_ONLY
    max_size: int | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        separators = self._separators
        if not separators:
            raise ValueError("separator must hold 1 separator or more, not 0")
        for separator in separators:
            if type(separator) is not bytes:
                raise TypeError(f"separator must be bytes or a tuple of bytes, not {separator!r}")
            if not separator:
                raise ValueError("separator must have 1 byte or more, not 0")
            for other in () if self._any_newline else separators:
                if other in separator[:-1]:
                    raise ValueError(f"separator {separator!r} would never be found: {other!r} ends before it does")
        check_bool("keep", self.keep)
        check_max_size(self.max_size)

    @property
    def _separators(self) -> tuple[bytes, ...]:
        return self.separator if isinstance(self.separator, tuple) else (self.separator,)

    @property
    def _any_newline(self) -> bool:
        return len(self._separators) == 3 and {*self._separators} == {b"\r\n", b"\r", b"\n"}

    def encode(self, message: BytesLike) -> list[bytes]:
        content = self._content(message)
        frame = content + self._separators[0]
        for separator in self._separators:
            # Also one that begins in the message and ends in the separator behind it.
            if separator in (content if self._any_newline else frame[:-1]):
                raise ValueError(f"message of {len(content)} bytes contains the separator {separator!r}")
        return [frame]

    def decode(self, data: bytes, start: int = 0) -> tuple[bytes, int] | int:
        if not (self._any_newline and 0 < start < len(data) and data[start - 1 : start + 1] == b"\r\n"):
            return FrameCodec.decode(self, data, start)
        # The LF of the line before.
        found = FrameCodec.decode(self, data, start + 1)
        return found if isinstance(found, tuple) else found + 1

    def _framer(self, limit: int) -> Framer:
        if self._any_newline:
            return SeparatorFramer(limit, (b"\r", b"\n"), self.keep, False, True)
        return SeparatorFramer(limit, tuple(sorted(self._separators, key=len, reverse=True)), self.keep, False)


@dataclass(frozen=True, slots=True)
class Fixed(FrameCodec):
    """Every message has `size` bytes, 1 or more."""

    size: int

    def __post_init__(self) -> None:
        check_int("size", self.size, 1, sys.maxsize // 4)

    @property
    def max_size(self) -> int:  # type: ignore[override]  # it is no setting here
        return self.size

    def encode(self, message: BytesLike) -> list[bytes]:
        content = self._content(message)
        if len(content) != self.size:
            raise ValueError(f"message must have size={self.size} bytes, not {len(content)}")
        return [content]

    def _framer(self, limit: int) -> Framer:
        return FixedFramer(self.size)


@dataclass(frozen=True, slots=True)
class Netstring(FrameCodec):
    """`b"5:hello,"`: the length in decimal without leading zeros, a colon, the message, a comma (Bernstein, 1997).

    Attributes:
        max_size: Bytes of the longest message, without what frames it; default `NetworkConfig.max_message_size`.
    """

    max_size: int | None = None

    def __post_init__(self) -> None:
        check_max_size(self.max_size)

    def encode(self, message: BytesLike) -> list[bytes]:
        content = self._content(message)
        header = b"%d:" % len(content)
        return [header + content + b","] if len(content) < _SMALL else [header, content, b","]

    def _framer(self, limit: int) -> Framer:
        return NetstringFramer(limit)


@dataclass(frozen=True, slots=True)
class SLIP(FrameCodec):
    """RFC 1055: a message ends with C0; a C0 or DB in it is escaped. Empty frames are skipped, so no message is empty.

    After a `ProtocolError`, `client.receive_until(b"\\xc0")` takes the frame that is malformed, and reading goes on.

    Attributes:
        max_size: Bytes of the longest message, unescaped; default `NetworkConfig.max_message_size`.
    """

    max_size: int | None = None

    def __post_init__(self) -> None:
        check_max_size(self.max_size)

    def encode(self, message: BytesLike) -> list[bytes]:
        content = self._content(message)
        if not content:
            raise ValueError("message must have 1 byte or more: SLIP has no empty one")
        return [content.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"]

    def _framer(self, limit: int) -> Framer:
        return SLIPFramer(limit)


@dataclass(frozen=True, slots=True)
class COBS(FrameCodec):
    """Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): a message ends with a zero and has none in it.

    It grows by 1 byte in 254 at most. Frames of no byte at all are skipped. After a `ProtocolError`,
    `client.receive_until(b"\\0")` takes the frame that is malformed, and reading goes on.

    Attributes:
        max_size: Bytes of the longest message, unstuffed; default `NetworkConfig.max_message_size`.
    """

    max_size: int | None = None

    def __post_init__(self) -> None:
        check_max_size(self.max_size)

    def encode(self, message: BytesLike) -> list[bytes]:
        return [cobs_encode(self._content(message)) + b"\0"]

    def _framer(self, limit: int) -> Framer:
        return COBSFramer(limit)


def framer_of(codec: FrameCodec, limit: int) -> Framer:
    """What finds the messages of `codec` in a stream, each of at most `limit` bytes."""
    return codec._framer(limit)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def check_max_size(value: object) -> None:
    if value is not None:
        check_size("max_size", value)
