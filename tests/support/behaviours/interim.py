"""Interim (1xx) answers in front of the final one."""

from __future__ import annotations

from support.behaviours.model import MALFORMED, NO_HEAD, Behaviour, Whole, broken, in_chunks, sized, with_head

_SKIPPED = "RFC 9110, section 15.2: a client skips interim answers that it does not know."
_STATUSES = (100, 102, 103, 104, 110, 150, 199)


def _interim(status: int = 103, *lines: bytes, reason: bytes = b" X") -> bytes:
    return with_head(*lines, first=b"HTTP/1.1 %d%b" % (status, reason))


_ONE = [
    Behaviour(f"one {status} in front", _SKIPPED, _interim(status) + sized(), Whole(b"ok")) for status in _STATUSES
] + [
    Behaviour(
        f"one {status} in front of a 204",
        _SKIPPED,
        _interim(status) + with_head(first=b"HTTP/1.1 204 X"),
        Whole(status=204),
    )
    for status in (100, 103)
]
_SHAPES = [
    Behaviour(f"interim: {which}", _SKIPPED, sent, Whole(b"ok", headers=headers))
    for which, sent, headers in (
        ("with headers", _interim(103, b"Link: </a>", b"Link: </b>") + sized(), ()),
        ("its headers are not the final ones", _interim(103, b"X-A: 1") + sized(b"ok", b"X-A: 2"), (("X-A", "2"),)),
        ("without a reason", _interim(reason=b" ") + sized(), ()),
        ("without the blank of a reason", _interim(reason=b"") + sized(), ()),
        ("in front of chunks", _interim() + in_chunks(b"ok"), ()),
        ("two different ones", _interim(100) + _interim(103) + sized(), ()),
        ("with Connection: keep-alive", _interim(103, b"Connection: keep-alive") + sized(), ()),
    )
] + [
    Behaviour(
        f"interim: {which}",
        "RFC 9110, section 15.2: an interim answer has no body, whatever its headers say; or it is refused for them.",
        _interim(103, line) + sized(),
        Whole(b"ok", reusable=None),
        may_refuse=True,
    )
    for which, line in (
        ("with a length", b"Content-Length: 5"),
        ("with a length of 0", b"Content-Length: 0"),
        ("with Transfer-Encoding", b"Transfer-Encoding: chunked"),
        ("with Connection: close", b"Connection: close"),
    )
]
_OLD = [
    Behaviour(
        "interim: HTTP/1.0",
        "RFC 9110, section 15.2: HTTP/1.0 has none; skipped like the others, or refused.",
        b"HTTP/1.0 100 Continue\r\n\r\n" + sized(),
        Whole(b"ok", reusable=None),
        may_refuse=True,
    ),
]
_COUNTS = [
    Behaviour(
        f"{count} interim answers",
        "RFC 9110 has no limit; 8 is this package's.",
        _interim() * count + sized(),
        Whole(b"ok"),
    )
    for count in (2, 5, 8)
] + [
    Behaviour(
        f"{count} interim answers",
        "RFC 9110 has no limit; more than 8 is this package's (golang/go#65035).",
        _interim() * count + sized(),
        MALFORMED,
    )
    for count in (9, 10, 100)
]
_UPGRADE = "RFC 9110, section 15.2.2: nobody asked for another protocol; what follows is not HTTP."
_SWITCHED = [
    Behaviour(f"101 {which}", _UPGRADE, sent, MALFORMED)
    for which, sent in (
        ("alone", _interim(101)),
        ("to WebSocket", _interim(101, b"Upgrade: websocket", b"Connection: Upgrade")),
        ("to h2c", _interim(101, b"Upgrade: h2c", b"Connection: Upgrade") + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        ("and an answer", _interim(101, b"Upgrade: x", b"Connection: Upgrade") + sized()),
        ("behind a 100", _interim(100) + _interim(101, b"Upgrade: x", b"Connection: Upgrade")),
        ("without Upgrade, and an answer", _interim(101) + sized()),
    )
]
_ENDS = [
    Behaviour(
        "interim, then the end", "RFC 9112, section 8: there is no final answer.", _interim(), NO_HEAD, then="close"
    ),
    Behaviour("interim, then a reset", "RFC 9112, section 8.", _interim(), NO_HEAD, then="reset"),
    Behaviour("interim, then half a head", "RFC 9112, section 8.", _interim() + b"HTTP/1.1 200", NO_HEAD, then="close"),
    Behaviour("half an interim answer", "RFC 9112, section 8.", b"HTTP/1.1 103 X\r\nLink: </a", NO_HEAD, then="close"),
    Behaviour("interim, then no HTTP", "RFC 9112, section 4.", _interim() + b"hello\r\n\r\n", MALFORMED),
    Behaviour("interim with a wrong header", "RFC 9112, section 5.", _interim(103, b"X A: v") + sized(), MALFORMED),
    Behaviour(
        "interim, then a body that is cut off",
        "RFC 9112, section 8.",
        _interim() + sized(b"hello")[:-1],
        broken("truncated", status=200),
        then="close",
    ),
]
_BEHIND = [
    Behaviour(
        "interim behind the answer",
        "RFC 9110, section 15.2: it belongs to no request; the answer stands, the connection is not used again.",
        sized() + _interim(),
        Whole(b"ok", reusable=False),
    ),
    Behaviour(
        "interim behind the answer, later",
        "RFC 9110, section 15.2. Some servers send 408 or 103 to an idle connection.",
        sized(),
        Whole(b"ok", reusable=False),
        later=_interim(),
    ),
]

BEHAVIOURS: list[Behaviour] = [*_ONE, *_SHAPES, *_OLD, *_COUNTS, *_SWITCHED, *_ENDS, *_BEHIND]
