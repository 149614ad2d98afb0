"""What a server may make as long as it likes, and a client may not read for ever."""

from __future__ import annotations

from support.behaviours.model import CHUNKED_HEAD, MALFORMED, OK_HEAD, Behaviour, sized, with_head

_ENDLESS = "Nothing that a server sends in front of a body, or around its pieces, is without a bound."
_LINES = b"X-Filler: filler\r\n" * 1000
_PLACES: dict[str, tuple[bytes, bytes]] = {
    "line ends before the status line": (b"", b"\r\n" * 4096),
    "blanks before the status line": (b"", b" " * 8192),
    "of anything, without a line end": (b"", b"x" * 8192),
    "version": (b"HTTP/1.", b"1" * 8192),
    "blanks behind the version": (b"HTTP/1.1 ", b" " * 8192),
    "status": (b"HTTP/1.1 2", b"0" * 8192),
    "blanks behind the status": (b"HTTP/1.1 200 ", b" " * 8192),
    "reason": (b"HTTP/1.1 200 ", b"r" * 8192),
    "headers": (OK_HEAD, _LINES),
    "headers without a value": (OK_HEAD, b"X:\r\n" * 2000),
    "header name": (OK_HEAD, b"X" * 8192),
    "blanks in front of a header value": (OK_HEAD + b"X-A:", b" " * 8192),
    "tabs in front of a header value": (OK_HEAD + b"X-A:", b"\t" * 8192),
    "header value": (OK_HEAD + b"X-A: ", b"v" * 8192),
    "blanks behind a header value": (OK_HEAD + b"X-A: v", b" " * 8192),
    "blanks in a header value": (OK_HEAD + b"X-A: v", b" v" * 4096),
    "folded lines": (OK_HEAD + b"X-A: v\r\n", b" v\r\n" * 2000),
    "zeros of Content-Length": (OK_HEAD + b"Content-Length: ", b"0" * 8192),
    "digits of Content-Length": (OK_HEAD + b"Content-Length: ", b"9" * 8192),
    "Transfer-Encoding": (OK_HEAD + b"Transfer-Encoding: chunked", b", chunked" * 1000),
    "Connection": (OK_HEAD + b"Connection: ", b"a, " * 3000),
    "interim answers": (b"", b"HTTP/1.1 103 X\r\n\r\n" * 500),
    "interim answers 100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "headers of an interim answer": (b"HTTP/1.1 103 X\r\n", _LINES),
    "zeros of a chunk size": (CHUNKED_HEAD, b"0" * 8192),
    "digits of a chunk size": (CHUNKED_HEAD, b"f" * 8192),
    "blanks behind a chunk size": (CHUNKED_HEAD + b"2", b" " * 8192),
    "chunk extension": (CHUNKED_HEAD + b"2;", b"a" * 8192),
    "chunk extensions": (CHUNKED_HEAD + b"2", b";a=b" * 2000),
    "chunk extension in quotes": (CHUNKED_HEAD + b'2;a="', b"b" * 8192),
    "extension of the last chunk": (CHUNKED_HEAD + b"2\r\nok\r\n0;", b"a" * 8192),
    "zeros of the last chunk": (CHUNKED_HEAD + b"2\r\nok\r\n", b"0" * 8192),
    "line ends between chunks": (CHUNKED_HEAD + b"2\r\nok\r\n", b"\r\n" * 4096),
    "trailers": (CHUNKED_HEAD + b"2\r\nok\r\n0\r\n", _LINES),
    "trailer name": (CHUNKED_HEAD + b"2\r\nok\r\n0\r\n", b"X" * 8192),
    "trailer value": (CHUNKED_HEAD + b"2\r\nok\r\n0\r\nX-A: ", b"v" * 8192),
}
_REPEATED = [
    Behaviour(f"endless {place}", _ENDLESS, start, MALFORMED, then="repeat", block=block)
    for place, (start, block) in _PLACES.items()
]
_LARGE = [
    Behaviour(
        f"too large: {which}",
        "Beyond every limit that clients and servers have for a head (64 to 300 KB).",
        sent,
        MALFORMED,
    )
    for which, sent in (
        ("a header of 1 MB", sized(b"ok", b"X-A: " + b"v" * (1 << 20))),
        ("a header name of 1 MB", sized(b"ok", b"X" * (1 << 20) + b": v")),
        ("a reason of 1 MB", sized(first=b"HTTP/1.1 200 " + b"r" * (1 << 20))),
        (
            "20,000 headers",
            with_head(*(b"X-%d: v" % number for number in range(20_000)), b"Content-Length: 2", body=b"ok"),
        ),
        ("20,000 trailers", CHUNKED_HEAD + b"2\r\nok\r\n0\r\n" + b"X-A: v\r\n" * 20_000 + b"\r\n"),
        ("a chunk extension of 1 MB", CHUNKED_HEAD + b"2;" + b"a" * (1 << 20) + b"\r\nok\r\n0\r\n\r\n"),
        ("a chunk size of 1 MB", CHUNKED_HEAD + b"0" * (1 << 20) + b"2\r\nok\r\n0\r\n\r\n"),
    )
]

BEHAVIOURS: list[Behaviour] = [*_REPEATED, *_LARGE]
