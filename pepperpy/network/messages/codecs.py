"""Codecs whose messages are bytes. A codec describes where a message ends; C does the work (`builtin_framers`).

    LengthPrefixed   a number says how long the message is
    Delimited        a separator ends it
    Fixed            all have the same size
    Netstring        "5:hello,"
    SLIP, COBS       one byte ends it and does not occur in it
    Mapped           any of these with a function for each direction; so are those of values.py

A codec is immutable, comparable and picklable, and serves any number of connections at once. It works without a
connection too: `codec.encode(message)` and `codec.decode(data, start)`, as `Codec` describes them.
"""

from __future__ import annotations

import sys
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, overload

from pepperpy.network._core.builtin_framers import FixedFramer, LengthFramer, NetstringFramer, SeparatorFramer
from pepperpy.network._core.framer import Framer
from pepperpy.network._core.stuffing import COBSFramer, SLIPFramer, cobs_encode
from pepperpy.network.checks import BytesLike, check_bool, check_int, check_separators
from pepperpy.network.messages.frame_codec import SMALL, FrameCodec, check_max_size

if TYPE_CHECKING:
    # `LengthPrefixed` without a parameter has messages of bytes. Type checkers know this module without installing it.
    from typing_extensions import TypeVar as TypeVarWithDefault

    L = TypeVarWithDefault("L", default=bytes)
else:
    L = TypeVar("L")

# Bounded, so that the sums of the C code fit 32 bits; arbitrary otherwise.
_LARGEST_ADJUST = 2**28


@dataclass(frozen=True, slots=True)
class LengthPrefixed(FrameCodec, Generic[L]):
    """A number says how many bytes follow; the message is the frame without that number.

    With an `offset`, the message begins with the bytes in front of the number, and so does a message to send:
    `LengthPrefixed(4, offset=1, adjust=-4)` are PostgreSQL's messages, `b"Q" + b"select 1\\0"`.

    With a `header`, a message is a pair `(header, payload)`, both when received and to send, and a large payload is not
    copied to part them or to join them. `LengthPrefixed(4, offset=1, adjust=-4, header=1)` are PostgreSQL's as
    `(b"Q", b"select 1\\0")`; `LengthPrefixed(3, byteorder="little", adjust=1, header=1)` are MySQL's, whose header is
    the sequence number behind the length; `LengthPrefixed(3, adjust=6, header=6)` are the frames of HTTP/2.

    Attributes:
        size: Bytes of the number, which is unsigned: 1, 2, 3, 4, 8; or "varint" for base 128 as in protobuf and MQTT,
            at most 10 bytes.
        byteorder: "big" or "little"; a varint has none.
        offset: Bytes of the message in front of the number, 0 to 65535. The number does not count them.
        adjust: Add it to the number to get the count of bytes behind the number. It is negative if the number counts
            more than these, for example itself, and positive if it counts fewer. From -2**28 to 2**28.
        header: Bytes of a header of fixed size around the number, from `offset` to 65535: `offset` of them in front of
            the number, the others right behind it. The number counts those behind it, unless `adjust` says otherwise.
            None: a message is bytes.
        max_size: Bytes of the longest message (header and payload together), without the number; default
            `NetworkConfig.max_message_size`.
    """

    size: Literal[1, 2, 3, 4, 8, "varint"] = 4
    _: KW_ONLY
    byteorder: Literal["big", "little"] = "big"
    offset: int = 0
    adjust: int = 0
    header: int | None = None
    max_size: int | None = None

    if TYPE_CHECKING:
        # What a dataclass would have made: the header decides of what type the messages are.
        @overload
        def __init__(
            self: LengthPrefixed[bytes],
            size: Literal[1, 2, 3, 4, 8, "varint"] = 4,
            *,
            byteorder: Literal["big", "little"] = "big",
            offset: int = 0,
            adjust: int = 0,
            header: None = None,
            max_size: int | None = None,
        ) -> None: ...
        @overload
        def __init__(
            self: LengthPrefixed[tuple[bytes, bytes]],
            size: Literal[1, 2, 3, 4, 8, "varint"] = 4,
            *,
            byteorder: Literal["big", "little"] = "big",
            offset: int = 0,
            adjust: int = 0,
            header: int,
            max_size: int | None = None,
        ) -> None: ...
        def __init__(
            self,
            size: Literal[1, 2, 3, 4, 8, "varint"] = 4,
            *,
            byteorder: Literal["big", "little"] = "big",
            offset: int = 0,
            adjust: int = 0,
            header: int | None = None,
            max_size: int | None = None,
        ) -> None: ...

        def decode(self, data: bytes, start: int = 0) -> tuple[L, int] | int: ...  # type: ignore[override]

    def __post_init__(self) -> None:
        if self.size not in (1, 2, 3, 4, 8, "varint") or isinstance(self.size, (bool, float)):
            raise ValueError(f'size must be 1, 2, 3, 4, 8 or "varint", not {self.size!r}')
        if self.byteorder not in ("big", "little"):
            raise ValueError(f'byteorder must be "big" or "little", not {self.byteorder!r}')
        check_int("offset", self.offset, 0, 65535)
        check_int("adjust", self.adjust, -_LARGEST_ADJUST, _LARGEST_ADJUST)
        if self.header is not None:
            check_int("header", self.header, self.offset, 65535)
        check_max_size(self.max_size)

    def encode(self, message: BytesLike | tuple[BytesLike, BytesLike]) -> list[bytes]:
        if self.header is not None:
            header, payload = self._pair(message)
            number = self._number(len(header) + len(payload))
            return _pieces(header[: self.offset] + number + header[self.offset :], payload)
        content = self._content(message)  # type: ignore[arg-type]  # it says what is wrong with a tuple
        if len(content) < self.offset:
            raise ValueError(f"message must have offset={self.offset} bytes or more, not {len(content)}")
        number = self._number(len(content))
        if self.offset:
            return [content[: self.offset] + number + content[self.offset :]]
        return _pieces(number, content)

    def _pair(self, message: object) -> tuple[bytes, bytes]:
        if not isinstance(message, tuple) or len(message) != 2:
            raise TypeError(f"message must be a pair (header, payload), not {type(message).__name__}")
        header, payload = self._content(message[0]), self._content(message[1])
        if len(header) != self.header:
            raise ValueError(f"the header of the message must have header={self.header} bytes, not {len(header)}")
        self._check_size(len(header) + len(payload))
        return header, payload

    def _number(self, size: int) -> bytes:
        # The length field for a message of so many bytes.
        number = size - self.offset - self.adjust
        if number < 0:
            raise ValueError(f"message of {size} bytes is too short for adjust={self.adjust}")
        if self.size == "varint":
            return _varint(number)
        if number >> 8 * self.size:
            most = (1 << 8 * self.size) - 1 + self.offset + self.adjust
            raise ValueError(f"message of {size} bytes exceeds the {most} that size={self.size} can say")
        return number.to_bytes(self.size, self.byteorder)

    def _framer(self, limit: int) -> Framer:
        width = 0 if self.size == "varint" else self.size
        header = -1 if self.header is None else self.header
        return LengthFramer(limit, width, self.byteorder == "little", self.offset, self.adjust, header)


@dataclass(frozen=True, slots=True)
class Delimited(FrameCodec):
    r"""A separator ends the message, which does not contain it. The last message of a stream needs one too.

    `Delimited((b"\r\n", b"\r", b"\n"))` are lines of any kind, also mixed: a CR ends its line at once, and an LF right
    behind it belongs to it, whenever it comes. This holds for these three together. Any other tuple follows the rule
    below.

    Attributes:
        separator: One or more bytes, or a tuple of such. With a tuple, a message ends where the first separator in the
            stream ends; if several end there, the longest one counts, so `(b"\n", b"\r\n")` are lines of either kind. A
            message is sent with the first separator of the tuple. None may contain another one except at its end:
            it would never be found.
        max_size: Bytes of the longest message without its separator; default `NetworkConfig.max_message_size`.
        keep: Whether a received message keeps its separator; for lines of any kind, the first byte of it.
    """

    separator: bytes | tuple[bytes, ...] = b"\n"
    _: KW_ONLY
    max_size: int | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        check_separators(self._separators, contained=self._any_newline)
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
            # Look at the frame: a separator may begin in the message and end in the separator behind it.
            if separator in (content if self._any_newline else frame[:-1]):
                raise ValueError(f"message of {len(content)} bytes contains the separator {separator!r}")
            if len(separator) > len(self._separators[0]) and frame.endswith(separator) and not self._any_newline:
                raise ValueError(f"message of {len(content)} bytes would end with the separator {separator!r}")
        return [frame]

    def decode(self, data: bytes, start: int = 0) -> tuple[bytes, int] | int:
        if not (self._any_newline and 0 < start < len(data) and data[start - 1 : start + 1] == b"\r\n"):
            return FrameCodec.decode(self, data, start)
        # This LF belongs to the line before.
        found = FrameCodec.decode(self, data, start + 1)
        return found if isinstance(found, tuple) else found + 1

    def _framer(self, limit: int) -> Framer:
        if self._any_newline:
            return SeparatorFramer(limit, (b"\r", b"\n"), self.keep, False, True)
        return SeparatorFramer(limit, self._separators, self.keep, False)


@dataclass(frozen=True, slots=True)
class Fixed(FrameCodec):
    """Every message has `size` bytes, 1 or more."""

    size: int

    def __post_init__(self) -> None:
        check_int("size", self.size, 1, sys.maxsize // 4)

    @property
    def max_size(self) -> int:  # type: ignore[override]  # not a setting of this codec
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
        return [header + content + b","] if len(content) < SMALL else [header, content, b","]

    def _framer(self, limit: int) -> Framer:
        return NetstringFramer(limit)


@dataclass(frozen=True, slots=True)
class SLIP(FrameCodec):
    """RFC 1055: the byte C0 ends a message; C0 and DB in it are escaped. Empty frames are skipped.

    After a `ProtocolError`, `client.receive_until(b"\\xc0")` takes the malformed frame, and receiving can go on.

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
    """Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): a zero byte ends a message and is not in it.

    A message grows by at most 1 byte in 254. Frames without any byte are skipped. After a `ProtocolError`,
    `client.receive_until(b"\\0")` takes the malformed frame, and receiving can go on.

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


def _pieces(head: bytes, content: bytes) -> list[bytes]:
    return [head + content] if len(content) < SMALL else [head, content]


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
