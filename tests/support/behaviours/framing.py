"""Where a body ends: Content-Length, Transfer-Encoding, both, neither."""

from __future__ import annotations

import zlib

from support.behaviours.model import (
    LAST,
    MALFORMED,
    Behaviour,
    Whole,
    broken,
    shown,
    sized,
    with_head,
)

OK = Whole(b"ok")
CHUNKS = b"2\r\nok\r\n" + LAST
_SMUGGLING = (
    "RFC 9112, section 6.3: two parties that read it differently see two answers (response splitting); it is refused, "
    "and the connection closed."
)


def _length(*values: bytes, body: bytes = b"ok") -> bytes:
    return with_head(*(b"Content-Length: " + value for value in values), body=body)


_LENGTHS = (
    [
        Behaviour(f"Content-Length {which}", "RFC 9110, section 8.6: Content-Length = 1*DIGIT.", sent, OK)
        for which, sent in (
            ("2", _length(b"2")),
            ("02", _length(b"02")),
            ("with 12 zeros in front", _length(b"0000000000002")),
            ("with blanks around", _length(b"   2   ")),
            ("with tabs around", _length(b"\t2\t")),
            ("right behind the colon", with_head(b"Content-Length:2", body=b"ok")),
            ("in small letters", with_head(b"content-length: 2", body=b"ok")),
            ("in capitals", with_head(b"CONTENT-LENGTH: 2", body=b"ok")),
        )
    ]
    + [
        Behaviour(
            f"Content-Length body of {size} bytes",
            "Borders of reads and buffers.",
            sized(bytes(size)),
            Whole(bytes(size)),
        )
        for size in (0, 1, 255, 4096, 65535, 65536, 65537, 262144, 300000)
    ]
    + [
        Behaviour(
            f"a body that looks like {which}",
            "The length alone says what belongs to the body.",
            sized(body),
            Whole(body),
        )
        for which, body in {
            "an answer": sized(b"no"),
            "chunks": CHUNKS,
            "line ends": b"\r\n\r\n\r\n",
            "a status line": b"HTTP/1.1 500 No\r\n\r\n",
            "all bytes": bytes(range(256)),
        }.items()
    ]
)

_WRONG = [
    b"+2",
    b"-2",
    b"-0",
    b"2.0",
    b"2.",
    b"0x2",
    b"2a",
    b"a2",
    b"",
    b"two",
    b"1e1",
    b"2_0",
    b"2 2",
    b"2;",
    b"2;a=b",
]
_WRONG += [
    b'"2"',
    b"'2'",
    b"2, 3",
    b"2,",
    b",2",
    b"\xb2",
    b"\xd9\xa2",
    b"\xef\xbc\x92",
    b"2 bytes",
    b"bytes=2",
    b"2\x0b",
    b"\xa02",
]
_WRONG += [
    b"18446744073709551616",
    b"18446744073709551618",
    b"9" * 30,
    b"9" * 5000,
    b"340282366920938463463374607431768211458",
]
_BAD_LENGTHS = [
    Behaviour(
        f"wrong Content-Length {shown(value) if len(value) < 50 else f'of {len(value)} digits'}",
        "RFC 9112, section 6.3, rule 5: an invalid Content-Length makes the framing of an answer invalid.",
        _length(value),
        MALFORMED,
        then="close",
    )
    for value in _WRONG
]
_TWO = [
    Behaviour(f"two Content-Lengths: {which}", _SMUGGLING, sent, MALFORMED)
    for which, sent in (
        ("that differ", _length(b"2", b"3", body=b"ok!")),
        ("the larger one first", _length(b"3", b"2", body=b"ok!")),
        ("equal", _length(b"2", b"2")),
        ("apart", with_head(b"Content-Length: 2", b"X-A: v", b"Content-Length: 2", body=b"ok")),
        ("in other letters", with_head(b"Content-Length: 2", b"content-length: 3", body=b"ok!")),
        ("equal in one line", _length(b"2, 2")),
        ("equal numbers written differently", _length(b"2", b"02")),
        ("the second one empty", _length(b"2", b"")),
        ("three", _length(b"2", b"2", b"2")),
    )
]
_LONG = [
    Behaviour(
        f"Content-Length {value}, and 2 bytes",
        "A length that nobody can have yet; what ended was not whole.",
        _length(b"%d" % value),
        broken("truncated", status=200),
        then="close",
        # A limit of the length itself is as good.
        may_refuse=value >= 2**60,
    )
    for value in (3, 1000, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1)
]


def _encoded(*values: bytes, body: bytes = CHUNKS, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return with_head(*(b"Transfer-Encoding: " + value for value in values), body=body, first=first)


_CODINGS = [
    Behaviour(f"Transfer-Encoding {which}", "RFC 9112, section 7: names of codings are case-insensitive.", sent, OK)
    for which, sent in (
        ("chunked", _encoded(b"chunked")),
        ("Chunked", _encoded(b"Chunked")),
        ("CHUNKED", _encoded(b"CHUNKED")),
        ("with blanks around", _encoded(b"   chunked   ")),
        ("right behind the colon", with_head(b"Transfer-Encoding:chunked", body=CHUNKS)),
        ("in small letters", with_head(b"transfer-encoding: chunked", body=CHUNKS)),
    )
]
_UNKNOWN = (
    "RFC 9112, section 6.3, rule 4.3, reads until the end of the connection when chunked is not the last coding; but "
    "then chunk framing is given out as the body. What cannot be decoded is an error."
)
_REFUSED = broken("malformed", "bad_encoding")
_BAD_CODINGS = [
    Behaviour(f"Transfer-Encoding: {shown(value)}", _UNKNOWN, _encoded(value), _REFUSED, then="close")
    for value in (
        *(b"chunked, identity", b"chunked, gzip", b"xchunked", b"chunkedx", b"chunked x", b"x chunked", b"chunked;q=1"),
        *(b"chunked, chunked", b"identity, chunked", b"identity", b"gzip", b"deflate", b"br", b"compress, chunked"),
        *(b'"chunked"', b"'chunked'", b"chunked;", b"chun\xebked", b"chunk", b"foo", b"\x0bchunked", b"chunked\x0b"),
        *(b"chunked\x00", b"cow, chunked", b"chunked, foo", b"chunked,,chunked"),
    )
] + [
    Behaviour(f"Transfer-Encoding {which}", _UNKNOWN, sent, _REFUSED, then="close")
    for which, sent in (
        ("twice", _encoded(b"chunked", b"chunked")),
        ("twice, identity first", _encoded(b"identity", b"chunked")),
        ("twice, identity last", _encoded(b"chunked", b"identity")),
        ("empty", _encoded(b"")),
    )
]
_TAB = [
    Behaviour(
        "Transfer-Encoding: chunked and a tab",
        "RFC 9110, section 5.5: the tab is white space around the value, and none of it; llhttp and aiohttp give out "
        "chunk framing as the body. Read as chunked, or refused.",
        _encoded(b"chunked\t"),
        Whole(b"ok", reusable=None),
        then="close",
        may_refuse=True,
    ),
]
_GZIPPED = zlib.compress(b"hello", wbits=31)
_GZIP_CHUNKED = [
    Behaviour(
        "Transfer-Encoding: gzip, chunked",
        "RFC 9112, section 7.2: to be decoded, or refused; refused here, as no server sends it.",
        _encoded(b"gzip, chunked", body=b"%x\r\n%b\r\n" % (len(_GZIPPED), _GZIPPED) + LAST),
        _REFUSED,
    ),
]

_BOTH = [
    Behaviour(f"Content-Length and chunked: {which}", _SMUGGLING, sent, MALFORMED)
    for which, sent in (
        ("the length first", with_head(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=CHUNKS)),
        ("the length behind", with_head(b"Transfer-Encoding: chunked", b"Content-Length: 2", body=CHUNKS)),
        ("a length that fits the chunks", with_head(b"Content-Length: 12", b"Transfer-Encoding: chunked", body=CHUNKS)),
        ("a length of 0", with_head(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=CHUNKS)),
        ("a wrong length", with_head(b"Content-Length: x", b"Transfer-Encoding: chunked", body=CHUNKS)),
        ("identity", with_head(b"Content-Length: 2", b"Transfer-Encoding: identity", body=b"ok")),
        ("an unknown coding", with_head(b"Content-Length: 2", b"Transfer-Encoding: foo", body=b"ok")),
    )
]


def _old(*lines: bytes, body: bytes) -> bytes:
    return with_head(*lines, body=body, first=b"HTTP/1.0 200 OK")


_UNTIL_CLOSE = [
    Behaviour(f"until the end of the connection: {which}", why, sent, right, then="close")
    for which, why, sent, right in (
        ("HTTP/1.1", "RFC 9112, section 6.3, rule 8.", with_head(b"X-A: v", body=b"ok"), Whole(b"ok", reusable=False)),
        ("HTTP/1.0", "RFC 9112, section 6.3, rule 8.", _old(b"X-A: v", body=b"ok"), Whole(b"ok", reusable=False)),
        ("an empty body", "RFC 9112, section 6.3.", with_head(b"X-A: v"), Whole(b"", reusable=False)),
        (
            "100 KB",
            "RFC 9112, section 6.3.",
            with_head(b"X-A: v", body=bytes(100_000)),
            Whole(bytes(100_000), reusable=False),
        ),
        (
            "with keep-alive",
            "Nothing else ends the body.",
            with_head(b"Connection: keep-alive", body=b"ok"),
            Whole(b"ok", reusable=False),
        ),
        ("chunks that nobody announced", "They are the body.", with_head(body=CHUNKS), Whole(CHUNKS, reusable=False)),
        ("another answer behind", "It is the body.", with_head(body=sized()), Whole(sized(), reusable=False)),
    )
]
_CHUNKED_OLD = "RFC 9112, section 6.1: HTTP/1.0 knows no chunks; read as such, and the connection is closed afterwards."
_HTTP_10 = [
    Behaviour(
        "HTTP/1.0 in chunks",
        _CHUNKED_OLD,
        _old(b"Transfer-Encoding: chunked", body=CHUNKS),
        Whole(b"ok", reusable=False),
        then="close",
    ),
    Behaviour(
        "HTTP/1.0 in chunks, with keep-alive",
        _CHUNKED_OLD,
        _old(b"Transfer-Encoding: chunked", b"Connection: keep-alive", body=CHUNKS),
        Whole(b"ok", reusable=False),
    ),
    Behaviour(
        "HTTP/1.0 with a length",
        "RFC 9112, section 9.3.",
        _old(b"Content-Length: 2", body=b"ok"),
        Whole(b"ok", reusable=False),
    ),
]

BEHAVIOURS: list[Behaviour] = [
    *_LENGTHS, *_BAD_LENGTHS, *_TWO, *_LONG, *_CODINGS, *_BAD_CODINGS, *_TAB, *_GZIP_CHUNKED, *_BOTH,
    *_UNTIL_CLOSE, *_HTTP_10,
]  # fmt: skip
