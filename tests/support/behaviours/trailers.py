"""What stands behind the last chunk."""

from __future__ import annotations

from support.behaviours.model import MALFORMED, Behaviour, Whole, in_chunks

_KEPT = "RFC 9110, section 6.5: trailer fields are kept apart from the headers."


def _with(*lines: bytes, end: bytes = b"\r\n") -> bytes:
    return in_chunks(b"ok", last=b"0\r\n" + b"".join(line + b"\r\n" for line in lines) + end)


_GOOD = [
    Behaviour(f"trailers: {which}", _KEPT, _with(*lines), Whole(b"ok", trailers=seen))
    for which, lines, seen in (
        ("one", (b"X-A: v",), (("X-A", "v"),)),
        ("two", (b"X-A: v", b"X-B: w"), (("X-A", "v"), ("X-B", "w"))),
        ("twice the same", (b"X-A: v", b"X-A: w"), (("X-A", "v"), ("X-A", "w"))),
        ("an empty value", (b"X-A:",), (("X-A", ""),)),
        ("blanks around the value", (b"X-A:   v  ",), (("X-A", "v"),)),
        ("a checksum", (b"Content-MD5: abc",), (("Content-MD5", "abc"),)),
        ("gRPC's", (b"grpc-status: 0", b"grpc-message:"), (("grpc-status", "0"), ("grpc-message", ""))),
        ("twenty", tuple(b"X-%d: v" % n for n in range(20)), tuple((f"X-{n}", "v") for n in range(20))),
        ("one of 4000 bytes", (b"X-A: " + b"v" * 4000,), (("X-A", "v" * 4000),)),
        ("in UTF-8", ("X-A: ü".encode(),), (("X-A", "ü"),)),
    )
] + [
    Behaviour(
        "trailers: announced by Trailer",
        _KEPT,
        in_chunks(b"ok", lines=[b"Trailer: X-A"], last=b"0\r\nX-A: v\r\n\r\n"),
        Whole(b"ok", headers=(("Trailer", "X-A"),), trailers=(("X-A", "v"),)),
    ),
    Behaviour(
        "trailers: with the name of a header",
        "RFC 9110, section 6.5.1: a trailer is not merged into the headers.",
        in_chunks(b"ok", lines=[b"X-A: head"], last=b"0\r\nX-A: tail\r\n\r\n"),
        Whole(b"ok", headers=(("X-A", "head"),), trailers=(("X-A", "tail"),)),
    ),
]
_FORBIDDEN = [
    Behaviour(
        f"trailers: {line.decode()}",
        "RFC 9110, section 6.5.1: never a trailer; it has no effect on this answer, and either is ignored or refused.",
        in_chunks(b"ok", last=b"0\r\n" + line + b"\r\n\r\n"),
        Whole(b"ok", reusable=None),
        may_refuse=True,
    )
    for line in (
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Content-Encoding: gzip",
        b"Set-Cookie: a=b",
    )
]
_BAD = [
    Behaviour(
        f"wrong trailers: {which}",
        "RFC 9112, section 7.1.2: trailer fields are field lines like those of the head.",
        _with(*lines),
        MALFORMED,
        then="close",
    )
    for which, lines in (
        ("no colon", (b"X-A",)),
        ("no name", (b": v",)),
        ("a blank before the colon", (b"X-A : v",)),
        ("a NUL", (b"X-A: a\x00b",)),
        ("a bare CR", (b"X-A: a\rb",)),
        ("a control character in the name", (b"X\x01A: v",)),
        ("a blank in front", (b" X-A: v",)),
    )
]

BEHAVIOURS: list[Behaviour] = [*_GOOD, *_FORBIDDEN, *_BAD]
