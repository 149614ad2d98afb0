"""Codecs whose messages are values: `Mapped`, and on it JSON lines, lines of text and MessagePack."""

from __future__ import annotations

import codecs
import functools
import importlib
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, overload

from pepperpy.network._core.builtin_framers import SeparatorFramer
from pepperpy.network._core.framer import Framer
from pepperpy.network.checks import BytesLike, shown
from pepperpy.network.errors import not_installed
from pepperpy.network.json_codec import JSONCodec, default_codec
from pepperpy.network.json_types import decode_as
from pepperpy.network.messages.codec_protocols import NO_MESSAGE, Codec, IncrementalCodec, M, NoMessage
from pepperpy.network.messages.codecs import Delimited, LengthPrefixed
from pepperpy.network.messages.frame_codec import FrameCodec

if TYPE_CHECKING:
    import builtins


class MappedCodec(Generic[M]):
    """The base of codecs whose frames hold values of yours."""

    __slots__ = ()
    frames: Codec[bytes] | IncrementalCodec[bytes]

    def encode(self, message: M) -> BytesLike | Iterable[BytesLike]:
        """The frame of `message`. Raises what `dumps` and the `encode` of the frames raise."""
        return self.frames.encode(self._dump(message))

    def decode(self, data: bytes, start: int = 0) -> tuple[M | NoMessage, int] | int | None:
        """As the `decode` of the frames. ValueError: The content of the frame is no such value."""
        decode: Any = getattr(self.frames, "decode", None) or self.frames.decoder().feed  # type: ignore[union-attr]
        found = decode(data, start)
        if not isinstance(found, tuple) or found[0] is NO_MESSAGE:
            return found  # type: ignore[no-any-return]
        return self._loads()(found[0]), found[1]

    def _dump(self, message: M) -> bytes:
        raise NotImplementedError

    def _loads(self) -> Callable[[bytes], M]:
        raise NotImplementedError


def loads_of(codec: MappedCodec[M]) -> Callable[[bytes], M]:
    """The function that makes a message of the bytes in its frame."""
    return codec._loads()


@dataclass(frozen=True, slots=True)
class Mapped(MappedCodec[M]):
    """Frames with a function each way: `Mapped(LengthPrefixed("varint"), Event.SerializeToString, Event.FromString)`.

    Attributes:
        frames: The codec that tells the messages apart.
        dumps: Makes bytes of a message, to send it.
        loads: Makes a message of the bytes in a frame. Any `Exception` that it raises (`RecursionError` and
            `MemoryError` too) becomes a `DecodeError` of that one message, which is consumed.
    """

    frames: Codec[bytes] | IncrementalCodec[bytes]
    # repr=False: the repr of a partial shows its arguments, and one may be a key.
    dumps: Callable[[M], bytes] = field(repr=False)
    loads: Callable[[bytes], M] = field(repr=False)

    def _dump(self, message: M) -> bytes:
        content = self.dumps(message)
        if isinstance(content, str) and isinstance(self.frames, FrameCodec):
            raise TypeError("dumps must return bytes, not str: encode the text")
        return content

    def _loads(self) -> Callable[[bytes], M]:
        return self.loads


@dataclass(frozen=True, slots=True)
class _NotBlankLines(Delimited):
    def _framer(self, limit: int) -> Framer:
        return SeparatorFramer(limit, (b"\n",), False, True)


@dataclass(frozen=True, slots=True)
class JSONLines(MappedCodec[M]):
    r"""One JSON value a line (NDJSON), in UTF-8 and ended by `\n`. Blank lines are skipped.

    Attributes:
        type: The type of each received value, as in `HTTPClient.get_json`; None for JSON's own types. Dataclasses and
            msgspec's structs can be sent too, if msgspec is installed.
        codec: Writes and reads JSON; by default msgspec or orjson if installed, else the standard library.
        max_size: Bytes of the longest line without its newline; default `NetworkConfig.max_message_size`.
    """

    type: Any = None
    _: KW_ONLY
    codec: JSONCodec | None = None
    max_size: int | None = None

    if TYPE_CHECKING:
        # What a dataclass would have made: messages are of the type that is given, if it is a class.
        @overload
        def __init__(
            self, type: builtins.type[M], *, codec: JSONCodec | None = None, max_size: int | None = None
        ) -> None: ...
        @overload
        def __init__(
            self: JSONLines[Any], type: object = None, *, codec: JSONCodec | None = None, max_size: int | None = None
        ) -> None: ...
        def __init__(
            self, type: Any = None, *, codec: JSONCodec | None = None, max_size: int | None = None
        ) -> None: ...

    def __post_init__(self) -> None:
        Delimited(max_size=self.max_size)

    @property
    def frames(self) -> Codec[bytes]:  # type: ignore[override]  # not a setting of this codec
        return _NotBlankLines(max_size=self.max_size)

    def _dump(self, message: Any) -> bytes:
        codec = self._json()
        try:
            return codec.dumps(message)
        except TypeError:
            try:
                msgspec = importlib.import_module("msgspec")
            except ImportError:
                msgspec = None
            if msgspec is None or self.codec is not None:
                raise
            return codec.dumps(msgspec.to_builtins(message, str_keys=True))

    def _loads(self) -> Callable[[bytes], Any]:
        codec = self._json()
        return codec.loads if self.type is None else functools.partial(decode_as, type=self.type, codec=codec)

    def _json(self) -> JSONCodec:
        return default_codec() if self.codec is None else self.codec


@dataclass(frozen=True, slots=True)
class TextLines(MappedCodec[str]):
    r"""One line of text a message, which does not contain its newline.

    Attributes:
        encoding: A text encoding of Python in which a newline is the byte 0A, as in ASCII: not UTF-16, for example.
        errors: What happens with bytes that are no text, and with text that has no bytes, as in `bytes.decode`. With
            "strict", a received line that is no text is a `DecodeError`, and consumed; one to send that has no bytes is
            a `UnicodeEncodeError`, which is a ValueError.
        newline: What ends a line, or a tuple of such; a line is sent with the first one. The default receives lines of
            Unix and of Windows. `("\n", "\r\n", "\r")` are lines of any kind. A line to send must not contain one.
        max_size: Bytes of the longest line without its newline; default `NetworkConfig.max_message_size`.
    """

    encoding: str = "utf-8"
    _: KW_ONLY
    errors: str = "strict"
    newline: str | tuple[str, ...] = ("\n", "\r\n")
    max_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("encoding", "errors"):
            if not isinstance(value := getattr(self, name), str):
                raise TypeError(f"{name} must be a str, not {shown(value)}")
        try:
            is_like_ascii = "\r\n".encode(self.encoding) == b"\r\n"
        except LookupError as error:
            raise ValueError(f"encoding must be a text encoding of Python: {error}") from None
        if not is_like_ascii:
            raise ValueError(f"encoding must write a newline as ASCII does, not {shown(self.encoding)}")
        try:
            codecs.lookup_error(self.errors)
        except LookupError:
            raise ValueError(
                f"errors must be the name of an error handler of codecs, not {shown(self.errors)}"
            ) from None
        newlines = self.newline if isinstance(self.newline, tuple) else (self.newline,)
        if not all(isinstance(newline, str) for newline in newlines):
            raise TypeError(f"newline must be a str or a tuple of str, not {shown(self.newline)}")
        self.frames  # noqa: B018  (checks the rest)

    @property
    def frames(self) -> Codec[bytes]:  # type: ignore[override]  # not a setting of this codec
        newlines = self.newline if isinstance(self.newline, tuple) else (self.newline,)
        return Delimited(tuple(newline.encode(self.encoding) for newline in newlines), max_size=self.max_size)

    def _dump(self, message: str) -> bytes:
        if not isinstance(message, str):
            raise TypeError(f"message must be a str, not {type(message).__name__}")
        return message.encode(self.encoding, self.errors)

    def _loads(self) -> Callable[[bytes], str]:
        return functools.partial(str, encoding=self.encoding, errors=self.errors)


_FRAMES = LengthPrefixed(4)


@dataclass(frozen=True, slots=True)
class MsgPack(MappedCodec[M]):
    """MessagePack values, each in a frame of `frames`. Needs `pip install msgspec`.

    Attributes:
        type: The type that msgspec decodes each value into; None for MessagePack's own types.
        frames: The codec that tells the messages apart; default `LengthPrefixed(4)`. For MessagePack values without
            frames, one behind the other, write a codec of your own on `msgpack.Unpacker`.
    """

    type: Any = None
    _: KW_ONLY
    frames: Codec[bytes] | IncrementalCodec[bytes] = _FRAMES

    if TYPE_CHECKING:
        # What a dataclass would have made: messages are of the type that is given, if it is a class.
        @overload
        def __init__(self, type: builtins.type[M], *, frames: Codec[bytes] | IncrementalCodec[bytes] = ...) -> None: ...
        @overload
        def __init__(
            self: MsgPack[Any], type: object = None, *, frames: Codec[bytes] | IncrementalCodec[bytes] = ...
        ) -> None: ...
        def __init__(self, type: Any = None, *, frames: Codec[bytes] | IncrementalCodec[bytes] = ...) -> None: ...

    def __post_init__(self) -> None:
        _msgpack()

    def _dump(self, message: Any) -> bytes:
        encoded: bytes = _encoder()(message)
        return encoded

    def _loads(self) -> Callable[[bytes], Any]:
        decoder = _msgpack().Decoder() if self.type is None else _msgpack().Decoder(self.type)
        loads: Callable[[bytes], Any] = decoder.decode
        return loads


def _msgpack() -> Any:
    try:
        return importlib.import_module("msgspec.msgpack")
    except ImportError:
        raise not_installed("MsgPack", "msgspec", "msgpack") from None


@functools.cache
def _encoder() -> Any:
    return _msgpack().Encoder().encode
