"""Content codings: bodies decompressed piece by piece, in bounded memory, and cut-off ones told from whole ones.

Each decoder takes a piece at a time, and gives at most `MAX_PIECE` bytes of it at once: 100 KB of zeros by gzip are
100 MB, and by brotli more, which only its reader can decide to hold. What follows the compressed stream is left out, as
by gunzip and browsers, because servers append NULs, line ends, comments; behind brotli's, which has no members, it is
refused by all of its decoders.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from pepperpy.network.errors import what_is_needed
from pepperpy.network.units import KIB, MIB

MAX_PIECE = 256 * KIB
# Codings of one body. curl's limit (MAX_ENCODE_STACK).
MAX_CODINGS = 5
# Bytes that a coding gives at once to the next one. Small, because at the end of each member the next coding copies all
# that is left of them.
MAX_INNER_PIECE = 16 * KIB
# The most that a coding may give to the next one, in bytes for each byte of the body that came. It counts from
# INNER_RATIO_FROM bytes on. `ResponseLimits.max_ratio` does not see these bytes: gigabytes of empty members give
# nothing in the end. Its value is that one's default, and no setting: nobody compresses twice what shrinks so much.
MAX_INNER_RATIO = 200
INNER_RATIO_FROM = 16 * MIB


class BadEncoding(Exception):
    """The body is not compressed as announced, or in a way that is not known here. The text holds nothing of it."""


class Truncated(Exception):
    """The compressed stream ended in its middle."""


class Decoder(Protocol):
    """Decodes one body."""

    @property
    def wants_input(self) -> bool:
        """Whether everything that was given so far has been decoded and returned."""
        ...

    def decode(self, data: bytes) -> bytes:
        """The next piece of the decoded body; b"" if there is none yet.

        Args: data: More of the encoded body; b"" unless `wants_input`.

        Raises:
            BadEncoding: It is no such stream.
        """
        ...

    def finish(self) -> None:
        """The body has ended. Raises: `Truncated`."""


def decoder_of(content_encoding: bytes) -> Decoder | None:
    """A decoder for this field of a response that has a body; None: the body is what it is.

    That is also so where the field names what is no coding, as aiohttp, requests and browsers have it: servers write
    charsets, and the like, there.

    Raises:
        BadEncoding: The package of a coding is not installed; the text names it. Or there are too many.
    """
    names = [name for part in content_encoding.split(b",") if (name := part.strip(b" \t").lower()) not in _NO_CODING]
    if len(names) > MAX_CODINGS:
        raise BadEncoding(f"the body has more than {MAX_CODINGS} content codings")
    decoders: list[Decoder] = []
    for name in reversed(names):  # the last one was applied last
        make = _DECODERS.get(name)
        if make is None:
            return None
        # The last one of the list gives to the reader of the body.
        decoders.append(make(MAX_INNER_PIECE if len(decoders) + 1 < len(names) else MAX_PIECE))
    if not decoders:
        return None
    return decoders[0] if len(decoders) == 1 else _Chain(decoders)


def accepted_codings() -> str:
    """`Accept-Encoding`: what can be decoded here and now."""
    return ", ".join(["gzip", "deflate", *(["br"] if _brotli() else []), *(["zstd"] if _zstd() else [])])


class _Members:
    """A stream of members, one behind the other, of one of the standard library's decompressors."""

    def __init__(self, most: int) -> None:
        """Args: most: Bytes that are given at once."""
        self._most = most
        self._member: Any = None  # None between two of them
        self._left = b""  # given and not yet decompressed
        self._holds = False  # the member has more to give without input
        self._begun = False
        self._over = False  # the stream has ended; what follows is ignored
        self.wants_input = True

    def decode(self, data: bytes) -> bytes:
        left = self._left + data if self._left else data
        output = b""
        while not output and (left or self._holds) and not self._over:
            if self._member is None:
                begins = self._begins(left)
                if begins is None:
                    break
                if not begins:
                    self._over = True
                    break
                self._member = self._new_member(left)
                self._begun = True
            try:
                output, left, self._holds = self._decompress(left)
            except Exception as error:
                raise BadEncoding("the body is not compressed as announced") from error
            if self._member.eof:
                left, self._member, self._holds = self._member.unused_data, None, False
            elif not output:
                break
        self._left = b"" if self._over else left
        self.wants_input = not (output and (self._left or self._holds))
        return output

    def finish(self) -> None:
        if self._member is not None or (self._left and not self._begun):
            raise Truncated("the compressed body ended before it was whole")

    def _begins(self, data: bytes) -> bool | None:
        """Whether `data` begins with a member; None if it is too short to tell."""
        raise NotImplementedError

    def _new_member(self, data: bytes) -> Any:
        raise NotImplementedError

    def _decompress(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Decoded bytes, the rest of the input, and whether more may come without further input."""
        output = self._member.decompress(data, self._most)
        # zlib may still hold output back. That the piece is full is the only sign of it.
        return output, self._member.unconsumed_tail, len(output) >= self._most


class _Gzip(_Members):
    """RFC 1952: any number of members."""

    def _begins(self, data: bytes) -> bool | None:
        # Whatever begins the stream counts as a member: zlib refuses it if it is none.
        return not self._begun or _starts(data, b"\x1f\x8b")

    def _new_member(self, data: bytes) -> Any:
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


class _Deflate(_Members):
    """RFC 9110, section 8.4.1.2: within zlib's format; some servers leave that out."""

    def _begins(self, data: bytes) -> bool | None:
        if self._begun:
            return False
        return None if len(data) < 2 else True

    def _new_member(self, data: bytes) -> Any:
        # RFC 1950, section 2.2: the method is 8, and the first two bytes are a multiple of 31.
        wrapped = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
        return zlib.decompressobj(wbits=zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


class _Zstd(_Members):
    """RFC 8878: any number of frames."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        module = _zstd()
        if module is None:
            raise BadEncoding(what_is_needed("a body compressed by zstd", "backports.zstd", "compression"))
        self._make = module.ZstdDecompressor
        # RFC 9659: a window of 8 MiB is the most that a client has to have memory for.
        self._options = {module.DecompressionParameter.window_log_max: 23}

    def _begins(self, data: bytes) -> bool | None:
        return not self._begun or _starts(data, b"\x28\xb5\x2f\xfd")

    def _new_member(self, data: bytes) -> Any:
        return self._make(options=self._options)

    def _decompress(self, data: bytes) -> tuple[bytes, bytes, bool]:
        # It keeps what it has not decompressed yet.
        output = self._member.decompress(data, self._most)
        return output, b"", not self._member.needs_input


class _Brotli:
    """RFC 7932: one stream."""

    def __init__(self, most: int) -> None:
        self._most = most
        module = _brotli()
        if module is None:
            raise BadEncoding(what_is_needed("a body compressed by Brotli", "brotli", "compression"))
        self._stream = module.Decompressor()
        self._begun = False
        self.wants_input = True

    def decode(self, data: bytes) -> bytes:
        stream = self._stream
        self._begun = self._begun or bool(data)
        if stream.is_finished() and data:
            # In one piece with its end, they are refused by brotli itself.
            raise BadEncoding("there are bytes behind the compressed body")
        try:
            output = bytes(stream.process(data, output_buffer_limit=self._most))
        except Exception as error:
            raise BadEncoding("the body is not compressed as announced") from error
        full = len(output) >= self._most or not stream.can_accept_more_data()
        self.wants_input = stream.is_finished() or not full
        return output

    def finish(self) -> None:
        if self._begun and not self._stream.is_finished():
            raise Truncated("the compressed body ended before it was whole")


class _Chain:
    """Several codings, in the order in which they are undone."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders
        self._came = 0
        self._between = 0  # bytes that went from one to the next

    @property
    def wants_input(self) -> bool:
        return all(decoder.wants_input for decoder in self._decoders)

    def decode(self, data: bytes) -> bytes:
        # The last one that still holds something goes on; what comes of it passes through those behind.
        self._came += len(data)
        at = max((n for n, decoder in enumerate(self._decoders) if not decoder.wants_input), default=0)
        data = self._decoders[at].decode(data)
        for decoder in self._decoders[at + 1 :]:
            if not data:
                break
            self._between += len(data)
            if self._between > max(INNER_RATIO_FROM, MAX_INNER_RATIO * self._came):
                raise BadEncoding(f"a content coding of several makes more than {MAX_INNER_RATIO} bytes of one")
            data = decoder.decode(data)
        return data

    def finish(self) -> None:
        for decoder in self._decoders:
            decoder.finish()


def _starts(data: bytes, magic: bytes) -> bool | None:
    """Whether `data` starts with `magic`; None if it is too short to tell."""
    if len(data) >= len(magic):
        return data.startswith(magic)
    return None if magic.startswith(data) else False


def _brotli() -> Any:
    try:
        brotli = importlib.import_module("brotli")  # it has no types
    except ImportError:
        return None
    # 1.2 is the first that can be told how much to give at once (CVE-2025-6176).
    return brotli if hasattr(brotli.Decompressor, "can_accept_more_data") else None


def _zstd() -> Any:
    # The package has the code of the standard library.
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_NO_CODING = (b"", b"identity")
_DECODERS: dict[bytes, Callable[[int], Decoder]] = {
    b"gzip": _Gzip,
    b"x-gzip": _Gzip,
    b"deflate": _Deflate,
    b"br": _Brotli,
    b"zstd": _Zstd,
}
