"""Header names and values, character by character."""

from __future__ import annotations

from support.behaviours.model import MALFORMED, Behaviour, Whole, shown, with_head

_LENGTH = b"Content-Length: 2"


def _with_name(name: bytes) -> bytes:
    return with_head(name + b": v", _LENGTH, body=b"ok")


def _with_value(value: bytes) -> bytes:
    return with_head(b"X-A: " + value, _LENGTH, body=b"ok")


def _seen(name: str, value: str) -> Whole:
    return Whole(b"ok", headers=((name, value),))


_TOKEN_SPECIALS = "!#$%&'*+-.^_`|~"
_DELIMITERS = '"(),/;<=>?@[\\]{}'

_GOOD_NAMES = [
    Behaviour(
        f"{char} in a header name",
        "RFC 9110, section 5.6.2: one of the characters of a token.",
        _with_name(f"X{char}A".encode()),
        _seen(f"X{char}A", "v"),
    )
    for char in _TOKEN_SPECIALS
] + [
    Behaviour(
        f"header name {which}",
        "RFC 9110, section 5.1: field-name = token.",
        _with_name(name.encode()),
        _seen(name, "v"),
    )
    for which, name in {
        "of digits": "123",
        "of one character": "X",
        "of 200 characters": "X" * 200,
        "in capitals": "X-A-B",
        "in small letters": "x-a-b",
    }.items()
]
_BAD_NAMES = [
    Behaviour(
        f"{shown(bytes([code]))} in a header name",
        "RFC 9110, section 5.6.2: no character of a token; two parties may read such a name differently.",
        _with_name(b"X%cA" % code),
        MALFORMED,
    )
    for code in [*(ord(char) for char in _DELIMITERS), 0, 1, 9, 11, 27, 32, 127, 0x80, 0xE4, 0xFF]
] + [
    Behaviour(f"header line: {which}", why, with_head(line, _LENGTH, body=b"ok"), MALFORMED)
    for which, why, line in (
        ("a blank before the colon", "RFC 9112, section 5.1: never to be taken for the name without it.", b"X-A : v"),
        ("a tab before the colon", "RFC 9112, section 5.1.", b"X-A\t: v"),
        ("no colon", 'RFC 9112, section 5: field-line = field-name ":" ...', b"X-A v"),
        ("a name only", "RFC 9112, section 5.", b"X-A"),
        ("no name", "RFC 9110, section 5.1: a token has one character at least.", b": v"),
        ("a colon only", "RFC 9110, section 5.1.", b":"),
        ("blanks only", "RFC 9112, section 2.2: white space before the first header; the line is none.", b"   "),
        (
            "a blank in front of the first",
            "RFC 9112, section 2.2: there is nothing that it could continue.",
            b" X-A: v",
        ),
        ("a tab in front of the first", "RFC 9112, section 2.2.", b"\tX-A: v"),
    )
]

_GOOD_VALUES = [
    Behaviour(f"header value {which}", why, _with_value(raw), _seen("X-A", value))
    for which, why, raw, value in (
        ("empty", "RFC 9110, section 5.5: a value may be empty.", b"", ""),
        ("of blanks", "RFC 9112, section 5.1: white space around a value is none of it.", b"  \t ", ""),
        ("with blanks in front", "RFC 9112, section 5.1.", b"    v", "v"),
        ("with blanks behind", "RFC 9112, section 5.1.", b"v    ", "v"),
        ("with tabs around", "RFC 9112, section 5.1: OWS = *( SP / HTAB ).", b"\t\tv\t", "v"),
        ("with a tab inside", "RFC 9110, section 5.5: field-content has SP and HTAB.", b"a\tb", "a\tb"),
        ("with blanks inside", "RFC 9110, section 5.5.", b"a   b", "a   b"),
        ("with colons", "Only the first colon of a line ends the name.", b"a: b: c", "a: b: c"),
        ("in UTF-8", "RFC 9110, section 5.5: obs-text; shown as what most servers mean.", "ü€".encode(), "ü€"),
        ("in Latin-1", "RFC 9110, section 5.5: obs-text that is no UTF-8 is Latin-1.", b"caf\xe9", "café"),
        ("of 8000 bytes", "aiohttp's limit is 8190; real policies of content are that long.", b"v" * 8000, "v" * 8000),
        (
            "of printable characters",
            "RFC 9110, section 5.5: VCHAR.",
            bytes(range(0x21, 0x7F)),
            bytes(range(0x21, 0x7F)).decode(),
        ),
    )
] + [
    Behaviour(
        "header value right behind the colon",
        "RFC 9112, section 5.1: the white space is optional.",
        with_head(b"X-A:v", _LENGTH, body=b"ok"),
        _seen("X-A", "v"),
    ),
]
_BAD_VALUES = [
    Behaviour(
        f"{shown(bytes([code]))} in a header value",
        "RFC 9110, section 5.5: CR, LF and NUL are dangerous and never part of a value."
        if code in (0, 13)
        else "RFC 9110, section 5.5: invalid; a client may keep it or refuse it. A decision: refused, as llhttp does.",
        _with_value(b"a%cb" % code),
        MALFORMED,
    )
    for code in [*range(9), *range(11, 32), 127]
]

BEHAVIOURS = [*_GOOD_NAMES, *_BAD_NAMES, *_GOOD_VALUES, *_BAD_VALUES]
