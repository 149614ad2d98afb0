"""Reads what headers say about a body: its type, its length, the encoding of its text. For any transport.

Values of a server are cut to a bound before they are read, and never get into a cache.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from encodings import aliases
from functools import cache
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from pepperpy.network.printable import printable

# Characters of a Content-Type that are read. Arbitrary; real ones have fewer than 150.
_MAX_LENGTH = 1000

# Python's codecs for text. Codecs that are not for text on the wire are left out; some of them take quadratic time.
_NO_TEXT = {"base64_codec", "bz2_codec", "hex_codec", "mbcs", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
_WITHOUT_ALIAS = {"cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_t", "koi8_u", "utf_8_sig"}
_CODECS = (_WITHOUT_ALIAS | set(aliases.aliases.values())) - _NO_TEXT

# What most servers send. Looking it up whole saves 2 us for each text.
_COMMON = {
    f"{kind};{space}charset={name}": "utf-8"
    for kind in ("application/json", "application/xml", "text/csv", "text/html", "text/plain", "text/xml")
    for space in ("", " ")
    for name in ("utf-8", "UTF-8")
}

# Control characters without the tab; each becomes a space.
_CONTROLS = dict.fromkeys([*range(9), *range(10, 32), *range(127, 160)], " ")

# Labels of the web that Python reads better than by the encoding they stand for: `utf-16` heeds a byte order mark, and
# GB 18030 has all of GBK (WHATWG Encoding, section 10.1, decodes GBK as GB 18030 too).
_BETTER = {"utf-16": "utf-16", "gbk": "gb18030"}
# Encodings of the web that are not for text: `replacement` makes one U+FFFD of any body.
_UNUSABLE = {"replacement", "x-user-defined"}

# What the web calls ASCII, which it reads as windows-1252.
_ASCII = {"ansi_x3.4-1968", "ascii", "us-ascii"}

# Encodings that readers of JSON recognise themselves, as RFC 4627 describes.
_UNICODE = ("utf-8", "utf-16", "utf-32", "ascii")


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    """The type in lower case, and its parameters (names in lower case; of several with one name, the first counts).

    Never raises: it leaves out what it cannot read. It reads the first 1,000 characters only.
    """
    kind, *rest = value[:_MAX_LENGTH].split(";")
    parameters: dict[str, str] = {}
    for parameter in rest:
        name, equals, text = parameter.partition("=")
        if equals:
            parameters.setdefault(name.strip().lower(), text.strip().strip("\"'"))
    return kind.strip().lower(), parameters


def encoding_of(content_type: str | None) -> str | None:
    """Python's name of the encoding that `Content-Type` declares; None if it declares none or an unknown one.

    A charset means what browsers take it for (WHATWG Encoding, section 4.2): `iso-8859-1` is windows-1252, and `gb2312`
    is GBK. Beside these labels, Python's own names are known.

    A server's name never gets to `codecs.lookup()`: that searches the file system for an unknown name, and remembers it
    for ever (`encodings._cache`).
    """
    value = content_type or ""
    if (common := _COMMON.get(value)) is not None:
        return common
    if "=" not in value:
        return None
    name = parse_content_type(value)[1].get("charset", "").lower()
    if name == "utf-8":
        return name
    from webencodings import lookup  # only where it is needed: its import takes a millisecond

    if (known := lookup(name)) is not None and known.name not in _UNUSABLE:
        return _BETTER.get(name) or _BETTER.get(known.name) or known.codec_info.name
    # As encodings.normalize_encoding(): a run of other characters becomes one underscore.
    name = "_".join("".join(c if c.isalnum() or c == "." else " " for c in name).split())
    codec = aliases.aliases.get(name) or aliases.aliases.get(name.replace(".", "_")) or name
    return codecs.lookup(codec).name if codec in _CODECS else None


def json_encoding_of(content_type: str | None) -> str | None:
    """The same for JSON. There, ASCII is the part of UTF-8 that it is, and not windows-1252 as in browsers."""
    encoding = encoding_of(content_type)
    if encoding == "cp1252" and parse_content_type(content_type or "")[1]["charset"].lower() in _ASCII:
        return "ascii"
    return encoding


def decode_text(data: bytes, encoding: str, errors: str) -> str:
    """The text of a body in an encoding that `encoding_of()` returned.

    Raises:
        UnicodeDecodeError: It has bytes that stand for no character, and `errors` is "strict".
    """
    if encoding.startswith("cp125"):
        # A str is a mapping for this codec too (codecs.charmap_build()); its stub does not know that.
        characters: Any = _windows(encoding)
        return codecs.charmap_decode(data, errors, characters)[0]
    return data.decode(encoding, errors)


@cache
def _windows(encoding: str) -> str:
    """The characters of a Windows code page. As on the web, bytes of 0x80 to 0x9F without one are control characters.

    Python has them undefined, so that text in ISO 8859-1 could not be read as windows-1252.
    """
    undefined = "\ufffe"  # as codecs.charmap_decode() has it
    pairs = ((byte, bytes([byte]).decode(encoding, "ignore")) for byte in range(256))
    return "".join(character or (chr(byte) if 0x80 <= byte < 0xA0 else undefined) for byte, character in pairs)


def as_unicode(data: bytes, encoding: str | None) -> bytes:
    """JSON in its declared encoding, converted to UTF-8 if the readers of JSON do not know that encoding.

    Raises:
        UnicodeDecodeError: It is not text in this encoding.
    """
    if encoding is None or encoding.startswith(_UNICODE):
        return data
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data  # a byte order mark is more reliable than a header
    return decode_text(data, encoding, "strict").encode()


def content_length(value: str | None) -> int | None:
    """The length in bytes that `Content-Length` announces; None if there is none, or an impossible one."""
    # No body has a length of more than 19 digits.
    return int(value) if value and value.isdigit() and value.isascii() and len(value) <= 19 else None


def has_token(values: Iterable[str], token: str) -> bool:
    """Whether a list such as `Connection` contains `token`, which is in lower case."""
    for value in values:
        if token in value.lower() and token in [word.strip() for word in value.lower().split(",")]:
            return True
    return False


def readable(text: str) -> str:
    """A header's value (decoded as UTF-8 with `surrogateescape`) as text that can be printed and logged.

    A value that is not UTF-8 is read as Latin-1, which HTTP used before (RFC 9110, section 5.5) and servers still send.
    Control characters become spaces, as RFC 9110 proposes: no value may have them, and terminals obey them.
    """
    if text.isprintable():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text.translate(_CONTROLS)


def readable_headers(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """The same for each value of `headers`."""
    if all(map(str.isprintable, headers.values())):
        return headers
    return CIMultiDictProxy(CIMultiDict((name, readable(value)) for name, value in headers.items()))


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Name and value of each of `headers`, as they came: both transports decode them in this way."""
    return [(name.encode("utf-8"), value.encode("utf-8", "surrogateescape")) for name, value in headers.items()]


def readable_reason(reason: str | None) -> str:
    """A reason phrase as people may read it: printable, at most 200 characters."""
    return printable(readable(reason)) if reason else ""
