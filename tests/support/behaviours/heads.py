"""Heads as a whole: line ends, folded lines, many headers, repeated ones."""

from __future__ import annotations

from support.behaviours.model import MALFORMED, OK_HEAD, Behaviour, Whole, broken, sized, with_head

_LENIENT = (
    "RFC 9112, section 2.2, lets a recipient take a lone LF for a line end; devices send it, and aiohttp, curl and "
    "browsers read it. Two parties that disagree about it can be made to see two answers, so the connection may go."
)
_FOLDED = (
    "RFC 9112, section 5.2: a client replaces a folded line by blanks, or refuses it; old servers send it, and "
    "aiohttp, curl and browsers read it."
)


def _many(count: int, size: int = 1) -> bytes:
    return sized(b"ok", *(b"X-%d: %b" % (number, b"v" * size) for number in range(count)))


_LINE_ENDS = [
    Behaviour(f"LF as line end: {which}", _LENIENT, sent, Whole(b"ok", headers=headers, reusable=None))
    for which, sent, headers in (
        ("everywhere", b"HTTP/1.1 200 OK\nX-A: v\nContent-Length: 2\n\nok", (("X-A", "v"),)),
        ("of the status line", b"HTTP/1.1 200 OK\nX-A: v\r\nContent-Length: 2\r\n\r\nok", (("X-A", "v"),)),
        ("of a header", b"HTTP/1.1 200 OK\r\nX-A: v\nContent-Length: 2\r\n\r\nok", (("X-A", "v"),)),
        ("of the last header", b"HTTP/1.1 200 OK\r\nX-A: v\r\nContent-Length: 2\n\r\nok", (("X-A", "v"),)),
        ("of the empty line", b"HTTP/1.1 200 OK\r\nX-A: v\r\nContent-Length: 2\r\n\nok", (("X-A", "v"),)),
    )
] + [
    # Who waits for a line end that never comes is told by the end.
    Behaviour(f"line ends: {which}", why, sent, broken("malformed", "no_answer", "reset"), then="close")
    for which, why, sent in (
        ("CR only", "RFC 9112, section 2.2: a bare CR is no line end.", b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok"),
        ("CR of the status line", "RFC 9112, section 2.2.", b"HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok"),
        ("CR of a header", "RFC 9112, section 2.2.", with_head(b"X-A: v\rContent-Length: 2", body=b"ok")),
        (
            "CR CR LF",
            "RFC 9112, section 2.2: the first CR is a bare one.",
            with_head(b"X-A: v\r", b"Content-Length: 2", body=b"ok"),
        ),
        ("LF CR", "RFC 9112, section 2.2.", b"HTTP/1.1 200 OK\n\rContent-Length: 2\n\r\n\rok"),
        ("CR LF behind a CR", "RFC 9112, section 2.2.", OK_HEAD + b"Content-Length: 2\r\n\r\r\nok"),
    )
]

_FOLDS = [
    Behaviour(f"folded line: {which}", _FOLDED, sent, Whole(b"ok", headers=headers, reusable=None))
    for which, sent, headers in (
        ("by a blank", with_head(b"X-A: a", b" b", b"Content-Length: 2", body=b"ok"), ()),
        ("by a tab", with_head(b"X-A: a", b"\tb", b"Content-Length: 2", body=b"ok"), ()),
        ("by many blanks", with_head(b"X-A: a", b"        b", b"Content-Length: 2", body=b"ok"), ()),
        ("twice", with_head(b"X-A: a", b" b", b" c", b"Content-Length: 2", body=b"ok"), ()),
        ("an empty value", with_head(b"X-A:", b" b", b"Content-Length: 2", body=b"ok"), ()),
        ("the last header", with_head(b"Content-Length: 2", b"X-A: a", b" b", body=b"ok"), ()),
        ("what looks like a header", with_head(b"X-A: a", b" X-B: b", b"Content-Length: 2", body=b"ok"), ()),
    )
] + [
    Behaviour(
        f"folded framing: {which}",
        "RFC 9112, section 5.2 and 6.3: what frames a body is not read with a meaning that another party may not see.",
        sent,
        MALFORMED,
        then="close",
    )
    for which, sent in (
        ("Content-Length", with_head(b"Content-Length: 1", b" 2", body=b"ok")),
        ("Content-Length in the next line", with_head(b"Content-Length:", b" +2", body=b"ok")),
        (
            "Transfer-Encoding",
            with_head(b"Transfer-Encoding: gzip,", b" chunked, identity", body=b"2\r\nok\r\n0\r\n\r\n"),
        ),
    )
]

_REPEATED = [
    Behaviour(
        f"repeated headers: {which}",
        "RFC 9110, section 5.3: all are kept, in their order.",
        sent,
        Whole(b"ok", headers=seen),
    )
    for which, sent, seen in (
        (
            "two Set-Cookie",
            sized(b"ok", b"Set-Cookie: a=1", b"Set-Cookie: b=2"),
            (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")),
        ),
        ("apart", sized(b"ok", b"X-A: 1", b"X-B: 2", b"X-A: 3"), (("X-A", "1"), ("X-A", "3"), ("X-B", "2"))),
        ("in other letters", sized(b"ok", b"X-A: 1", b"x-a: 2"), (("X-A", "1"), ("X-A", "2"))),
        ("equal ones", sized(b"ok", b"X-A: 1", b"X-A: 1"), (("X-A", "1"), ("X-A", "1"))),
        (
            "fifty",
            sized(b"ok", *(b"X-A: %d" % number for number in range(50))),
            tuple(("X-A", str(n)) for n in range(50)),
        ),
        (
            "Content-Type",
            sized(b"ok", b"Content-Type: text/a", b"Content-Type: text/b"),
            (("Content-Type", "text/a"), ("Content-Type", "text/b")),
        ),
        (
            "Date and Server",
            sized(b"ok", b"Date: x", b"Server: y", b"Date: z"),
            (("Date", "x"), ("Date", "z"), ("Server", "y")),
        ),
    )
]

_SIZES = (
    [
        Behaviour(
            f"{count} headers",
            "aiohttp's limit is 128 headers; servers behind proxies send dozens.",
            _many(count),
            Whole(b"ok"),
        )
        for count in (0, 1, 20, 100)
    ]
    + [
        Behaviour(
            f"a head of {kib} KiB",
            "Each header is below 8 KiB, all below 64: http.client and Go read it.",
            _many(kib, 1010),
            Whole(b"ok"),
        )
        for kib in (8, 32, 48)
    ]
    + [
        Behaviour(
            "no header at all",
            "RFC 9112, section 6.3: the body ends with the connection.",
            with_head(body=b"ok"),
            Whole(b"ok", reusable=False),
            then="close",
        ),
        Behaviour(
            "no header, and no body",
            "RFC 9112, section 6.3.",
            with_head(),
            Whole(b"", reusable=False),
            then="close",
        ),
        Behaviour(
            "a head without its empty line",
            "RFC 9112, section 8: a head that is not whole is no answer.",
            OK_HEAD + b"Content-Length: 2\r\n",
            broken("no_answer", "reset"),
            then="close",
        ),
    ]
)

BEHAVIOURS = [*_LINE_ENDS, *_FOLDS, *_REPEATED, *_SIZES]
