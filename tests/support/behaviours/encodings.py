"""Compressed bodies: right, cut off, wrong, with something behind."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

from support.behaviours.model import Behaviour, Broken, Whole, broken, in_chunks, shown, sized, with_head

TEXT = b"hello " * 500
# What is compressed and ends too early is wrong, or not whole: both say so.
_CUT_OFF = broken("bad_encoding", "truncated", status=200)
_WRONG = broken("bad_encoding")


def _packed(data: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(9, wbits=wbits)
    return packer.compress(data) + packer.flush()


def _zstd(data: bytes) -> bytes:
    """One frame of one raw block (RFC 8878): magic, one segment with a size of 2 bytes, the last block."""
    head = b"\x28\xb5\x2f\xfd" + b"\x60" + struct.pack("<H", len(data) - 256)
    return head + struct.pack("<I", len(data) << 3 | 1)[:3] + data


GZIP, ZLIB, RAW = (_packed(TEXT, wbits) for wbits in (31, 15, -15))
# What `brotli.compress(TEXT)` gives.
BROTLI = b"\x1b\xb7\x0b\xf8\x8d\x94n\xdeDU\x86\x96l oq[\x1c\x80m\x00 \x0e"
ZSTD = _zstd(TEXT)
# Name of the coding in a header -> the body, and the module that unpacks it.
CODINGS: dict[str, tuple[bytes, str]] = {
    "gzip": (GZIP, ""),
    "deflate": (ZLIB, ""),
    "br": (BROTLI, "brotli"),
    "zstd": (ZSTD, "zstd"),
}
_OLD_NAMES = "RFC 9110, section 8.4.1: names are case-insensitive; x-gzip is gzip."


def _coded(coding: str | bytes, packed: bytes) -> bytes:
    name = coding if isinstance(coding, bytes) else coding.encode()
    return sized(packed, b"Content-Encoding: " + name)


def _whole(packed: bytes, text: bytes = TEXT) -> Whole:
    return Whole(text, raw=packed)


def _of_each(coding: str, packed: bytes, needs: str) -> list[Behaviour]:
    name = coding.encode()
    head = b"Content-Encoding: " + name
    third = len(packed) // 3
    rows = [
        Behaviour(f"{coding}", "RFC 9110, section 8.4.", _coded(coding, packed), _whole(packed)),
        Behaviour(
            f"{coding} in chunks",
            "RFC 9110, section 8.4.",
            in_chunks(packed[:third], packed[third:], lines=[head]),
            _whole(packed),
        ),
        Behaviour(
            f"{coding} in chunks of a byte",
            "RFC 9110, section 8.4.",
            in_chunks(*(packed[i : i + 1] for i in range(64)), packed[64:], lines=[head])
            if len(packed) > 64
            else in_chunks(*(packed[i : i + 1] for i in range(len(packed))), lines=[head]),
            _whole(packed),
        ),
        Behaviour(
            f"{coding} until the end of the connection",
            "RFC 9112, section 6.3, rule 8.",
            with_head(head, body=packed),
            replace(_whole(packed), reusable=False),
            then="close",
        ),
        Behaviour(f"{coding} in capitals", _OLD_NAMES, _coded(name.upper(), packed), _whole(packed)),
        Behaviour(
            f"{coding} with blanks", "RFC 9110, section 5.5.", _coded(b"  " + name + b"  ", packed), _whole(packed)
        ),
        Behaviour(
            f"{coding} of nothing, without a byte",
            "Servers compress no body as no bytes; there is nothing to unpack.",
            _coded(coding, b""),
            Whole(b"", raw=b""),
        ),
        Behaviour(
            f"{coding} without a byte, in chunks",
            "Servers compress no body as no bytes.",
            in_chunks(lines=[head]),
            Whole(b"", raw=b""),
        ),
        Behaviour(
            f"{coding} that is plain text",
            "What is not as announced is not given out.",
            _coded(coding, b"plain text, and no other"),
            _WRONG,
        ),
        Behaviour(
            f"{coding} of zeros only",
            "What is not as announced is not given out.",
            _coded(coding, bytes(40)),
            broken("bad_encoding", "truncated"),
        ),
        Behaviour(
            f"{coding} cut off by the end of the connection",
            "RFC 9112, section 8: shorter than its length.",
            _coded(coding, packed)[:-3],
            broken("truncated", "bad_encoding", status=200),
            then="close",
        ),
    ]
    for where, size in {
        "behind a byte": 1,
        "in its first third": third,
        "before its last byte": len(packed) - 1,
    }.items():
        rows.append(
            Behaviour(
                f"{coding} cut off {where}, framed as whole",
                "A cut body may not pass as whole.",
                _coded(coding, packed[:size]),
                _CUT_OFF,
            )
        )
        rows.append(
            Behaviour(
                f"{coding} cut off {where}, in chunks",
                "A cut body may not pass as whole.",
                in_chunks(packed[:size], lines=[head]),
                _CUT_OFF,
            )
        )
        rows.append(
            Behaviour(
                f"{coding} cut off {where}, until the end of the connection",
                "A cut body may not pass as whole; here the coding alone tells.",
                with_head(head, body=packed[:size]),
                _CUT_OFF,
                then="close",
            )
        )
    return [replace(row, needs=needs if row.right.__class__ is Broken or row.right.body else "") for row in rows]  # type: ignore[union-attr]


_JUNK = "gunzip, curl and browsers read a member and ignore what stands behind it; padding and comments of caches do."
_MORE_GZIP = [
    Behaviour(
        "gzip of two members",
        "RFC 1952, section 2.2: a file has one or more.",
        _coded("gzip", GZIP + GZIP),
        _whole(GZIP + GZIP, TEXT * 2),
    ),
    Behaviour(
        "gzip of a hundred members",
        "RFC 1952, section 2.2.",
        _coded("gzip", GZIP * 100),
        _whole(GZIP * 100, TEXT * 100),
    ),
    Behaviour(
        "gzip of nothing", "A member of no bytes.", _coded("gzip", _packed(b"", 31)), Whole(b"", raw=_packed(b"", 31))
    ),
    *(
        Behaviour(f"gzip with {which} behind", _JUNK, _coded("gzip", GZIP + junk), Whole(TEXT, raw=GZIP + junk))
        for which, junk in (
            ("a NUL", b"\0"),
            ("512 NULs", bytes(512)),
            ("a line end", b"\r\n"),
            ("a comment", b"<!-- cached -->"),
            ("one byte of a member", b"\x1f"),
        )
    ),
    Behaviour(
        "gzip with a wrong checksum",
        "RFC 1952, section 2.3.1: CRC32 of what was packed.",
        _coded("gzip", GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:]),
        broken("bad_encoding", status=200),
    ),
    Behaviour(
        "gzip with a wrong size",
        "RFC 1952, section 2.3.1: ISIZE.",
        _coded("gzip", GZIP[:-4] + b"\0\0\0\0"),
        broken("bad_encoding", status=200),
    ),
    Behaviour(
        "gzip with a name and a comment",
        "RFC 1952, section 2.3: FNAME and FCOMMENT.",
        _coded("gzip", GZIP[:3] + b"\x18" + GZIP[4:10] + b"name\0comment\0" + GZIP[10:]),
        _whole(GZIP[:3] + b"\x18" + GZIP[4:10] + b"name\0comment\0" + GZIP[10:]),
    ),
    Behaviour(
        "gzip of another method",
        "RFC 1952, section 2.3: 8 is deflate, the only one.",
        _coded("gzip", b"\x1f\x8b\x07" + GZIP[3:]),
        _WRONG,
    ),
    Behaviour("x-gzip", _OLD_NAMES, _coded("x-gzip", GZIP), _whole(GZIP)),
    Behaviour("gzip that is deflate", "What is not as announced is not given out.", _coded("gzip", ZLIB), _WRONG),
    Behaviour(
        "deflate without its zlib header",
        "RFC 9110, section 8.4.1.2, notes it: some servers send raw deflate, and clients read it.",
        _coded("deflate", RAW),
        _whole(RAW),
    ),
    Behaviour(
        "deflate with a wrong checksum",
        "RFC 1950: ADLER32.",
        _coded("deflate", ZLIB[:-4] + b"\0\0\0\0"),
        broken("bad_encoding", status=200),
    ),
]
_UNKNOWN = (
    "A coding that nobody has: servers write charsets and the like there. The body is given as it came, as aiohttp, "
    "requests and urllib3 do, or refused."
)
_OTHERS = [
    Behaviour(
        f"coding {shown(name) or 'without a name'}",
        _UNKNOWN,
        _coded(name, b"ok"),
        Whole(b"ok"),
        may_refuse=name not in (b"", b"identity"),
    )
    for name in (b"identity", b"", b"foo", b"utf-8", b"none", b"binary", b"aws-chunked")
]
_TWICE = _packed(GZIP, 31)
_CHAIN = "RFC 9110, section 8.4: several codings, in the order of their application; unpacked, or refused."
_CHAINS = [
    Behaviour(f"codings {name}", _CHAIN, _coded(name, packed), Whole(TEXT, raw=packed), may_refuse=True)
    for name, packed in (("gzip, gzip", _TWICE), ("deflate, gzip", _packed(ZLIB, 31)))
] + [
    Behaviour(
        "fifty codings",
        "Each unpacks what the one before made of it: a bomb of bombs.",
        _coded(", ".join(["gzip"] * 50), GZIP),
        _WRONG,
    ),
]

BEHAVIOURS: list[Behaviour] = [
    *(row for coding, (packed, needs) in CODINGS.items() for row in _of_each(coding, packed, needs)),
    *_MORE_GZIP,
    *_OTHERS,
    *_CHAINS,
]
