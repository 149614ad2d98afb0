"""Chunks: sizes, extensions, what stands between them."""

from __future__ import annotations

from support.behaviours.model import CHUNKED_HEAD, LAST, MALFORMED, Behaviour, Whole, broken, family, in_chunks, shown

OK = Whole(b"ok")
_SIZE = "RFC 9112, section 7.1: chunk-size = 1*HEXDIG."


def _size(line: bytes, data: bytes = b"ok", last: bytes = LAST) -> bytes:
    return CHUNKED_HEAD + line + b"\r\n" + data + b"\r\n" + last


_GOOD_SIZES = (
    [
        Behaviour(f"chunk size {which}", _SIZE, sent, Whole(body))
        for which, sent, body in (
            ("of one digit", _size(b"2"), b"ok"),
            ("with a zero in front", _size(b"02"), b"ok"),
            ("with 7 zeros in front", _size(b"00000002"), b"ok"),
            ("a", _size(b"a", b"0123456789"), b"0123456789"),
            ("A", _size(b"A", b"0123456789"), b"0123456789"),
            ("fF", _size(b"fF", bytes(255)), bytes(255)),
            ("10000", _size(b"10000", bytes(65536)), bytes(65536)),
        )
    ]
    + [
        Behaviour(
            f"{which}",
            "RFC 9112, section 7.1: chunks have no meaning but their bytes.",
            in_chunks(*chunks),
            Whole(b"".join(chunks)),
        )
        for which, chunks in (
            ("no chunk but the last", ()),
            ("two chunks", (b"hel", b"lo")),
            ("1000 chunks of one byte", (b"x",) * 1000),
            ("chunks of 1, 10, 100, 1000 bytes", (b"a", b"b" * 10, b"c" * 100, b"d" * 1000)),
            ("one chunk of 100 KB", (bytes(100_000),)),
            ("chunks of line ends", (b"\r\n", b"\r\n\r\n", b"0\r\n\r\n")),
            ("chunks that look like an answer", (b"HTTP/1.1 200 OK\r\n\r\n",)),
        )
    ]
    + [
        Behaviour(
            f"last chunk {shown(line)}",
            'RFC 9112, section 7.1: last-chunk = 1*("0") [ chunk-ext ] CRLF.',
            in_chunks(b"ok", last=line + b"\r\n\r\n"),
            OK,
        )
        for line in (b"00", b"0000", b"0;a=b", b"0;a")
    ]
)

_WRONG = [
    b"",
    b"g",
    b"zz",
    b"0x2",
    b"x2",
    b"+2",
    b"-2",
    b"-0",
    b"2.0",
    b"2,",
    b"2g",
    b"2_",
    b"\xb2",
    b"\xd9\xa2",
    b"\xef\xbc\x92",
]
_WRONG += [
    b" 2",
    b"\t2",
    b"2\x00",
    b"2\x0b",
    b"2 2",
    b"2 a",
    b"2\t",
    b"\x002",
    b"'2'",
    b'"2"',
    b"two",
    b"2:",
    b"2=",
    b"2/",
    b"2\xa0",
]
_BAD_SIZES = family("wrong chunk size", _SIZE, [(shown(line) or "none", _size(line)) for line in _WRONG], MALFORMED)
_OVERFLOW = family(
    "chunk size that no counter holds",
    "A size above 2**64 may not come out as a small one (curl, nginx and others had that).",
    [
        ("17 digits", _size(b"10000000000000002")),
        ("17 digits and zeros in front", _size(b"010000000000000002")),
        ("20 digits", _size(b"f" * 20)),
        ("100 digits", _size(b"1" + b"0" * 98 + b"2")),
        ("2**64 + 2 with an extension", _size(b"10000000000000002;a=b")),
    ],
    MALFORMED,
)
_HUGE = [
    Behaviour(
        f"chunk size {size.decode()}, and 2 bytes",
        "What ended was not whole.",
        _size(size, last=b""),
        broken("truncated", "malformed"),
        then="close",
    )
    for size in (
        b"3e8",
        b"7fffffff",
        b"80000000",
        b"ffffffff",
        b"7fffffffffffffff",
        b"8000000000000000",
        b"ffffffffffffffff",
    )
]
_BLANK = [
    Behaviour(
        f"chunk size with {which} behind",
        "Not in RFC 9112, but IIS and old servers pad the size with blanks. A decision: read, as aiohttp does.",
        _size(line),
        Whole(b"ok", reusable=None),
    )
    for which, line in (("a blank", b"2 "), ("8 blanks", b"2" + b" " * 8), ("a blank and an extension", b"2 ;a=b"))
]

_EXTENSIONS = [
    Behaviour(
        f"chunk extension {shown(extension)}",
        "RFC 9112, section 7.1.1: an unknown extension is ignored.",
        _size(b"2" + extension),
        OK,
    )
    for extension in (
        *(b";a", b";a=b", b';a="b"', b';a="b;c"', b';a="b c"', b";a=b;c=d", b";a;b;c", b';a="\\""', b";" + b"a" * 200),
        *(b";a=" + b"b" * 200, b';a=""', b";1=2", b";a-b=c_d"),
    )
]
_BAD_EXTENSIONS = [
    Behaviour(
        f"chunk extension with {which}",
        "RFC 9112, section 7.1.1: not in its grammar; a bare LF or CR there is how requests and answers are smuggled "
        "(CVE-2025-58056 of Netty).",
        _size(b"2" + extension),
        MALFORMED,
    )
    for which, extension in (
        ("a bare LF", b";a\nb"),
        ("a bare CR", b";a\rb"),
        ("a NUL", b";a\x00b"),
        ("a bare LF in quotes", b';a="\n"'),
        ("a bare CR in quotes", b';a="\r"'),
        ("a control character", b";a\x01b"),
    )
]
_ODD_EXTENSIONS = [
    Behaviour(
        f"odd chunk extension {shown(extension)}",
        "Not in the grammar of RFC 9112, but it harms nobody: read and ignored, or refused.",
        _size(b"2" + extension),
        Whole(b"ok", reusable=None),
        may_refuse=True,
    )
    for extension in (b";", b";;", b";a=", b";=b", b"; a=b", b';a="b', b";\xe4=1", b";a b", b";(x)")
]

_BETWEEN = [
    Behaviour(
        f"between chunks: {which}",
        "RFC 9112, section 7.1: each chunk ends with CRLF.",
        CHUNKED_HEAD + body,
        MALFORMED,
        then="close",
    )
    for which, body in (
        ("data longer than its size", b"2\r\nokay\r\n" + LAST),
        ("data one byte longer", b"2\r\nok!\r\n" + LAST),
        ("data shorter than its size", b"4\r\nok\r\n" + LAST),
        ("no line end behind the data", b"2\r\nok" + LAST),
        ("a CR only behind the data", b"2\r\nok\r" + LAST),
        ("CR CR LF behind the data", b"2\r\nok\r\r\n" + LAST),
        ("a CR only behind the size", b"2\rok\r\n" + LAST),
        ("an empty line before the first size", b"\r\n2\r\nok\r\n" + LAST),
        ("an empty line before a size", b"2\r\nok\r\n\r\n2\r\nok\r\n" + LAST),
        ("a second line of the size", b"2\r\n\r\nok\r\n" + LAST),
        ("no framing at all", b"hello, world"),
        ("a size behind the last chunk", b"2\r\nok\r\n0\r\n2\r\nok\r\n\r\n"),
    )
]
_LF = [
    Behaviour(
        f"LF in chunks: {which}",
        "RFC 9112, section 2.2, lets a lone LF end a line of the head; within chunks it is how answers are smuggled.",
        CHUNKED_HEAD + body,
        MALFORMED,
        then="close",
    )
    for which, body in (
        ("behind the size", b"2\nok\r\n" + LAST),
        ("behind the data", b"2\r\nok\n" + LAST),
        ("behind the last size", b"2\r\nok\r\n0\n\r\n"),
        ("everywhere", b"2\nok\n0\n\n"),
    )
]

BEHAVIOURS: list[Behaviour] = [
    *_GOOD_SIZES, *_BAD_SIZES, *_OVERFLOW, *_HUGE, *_BLANK, *_EXTENSIONS, *_BAD_EXTENSIONS,
    *_ODD_EXTENSIONS, *_BETWEEN, *_LF,
]  # fmt: skip
