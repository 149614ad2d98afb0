"""Whether a connection carries the next request: what its headers say, what stands behind the answer, how it ends."""

from __future__ import annotations

from support.behaviours.model import Behaviour, Whole, in_chunks, sized, with_head

_TOKENS = "RFC 9112, section 9.3: close in Connection ends it; HTTP/1.1 keeps it otherwise."
_OLD = "RFC 9112, section 9.3: HTTP/1.0 keeps it only if keep-alive says so."


def _answer(*lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return sized(b"ok", *lines, first=version + b" 200 OK")


_HEADERS = [
    Behaviour(f"Connection {which}", _TOKENS, _answer(*lines), Whole(b"ok", reusable=kept))
    for which, lines, kept in (
        ("not there", (), True),
        ("keep-alive", (b"Connection: keep-alive",), True),
        ("Keep-Alive", (b"Connection: Keep-Alive",), True),
        ("close", (b"Connection: close",), False),
        ("Close", (b"Connection: Close",), False),
        ("CLOSE", (b"Connection: CLOSE",), False),
        ("close with blanks", (b"Connection:   close  ",), False),
        ("close with tabs", (b"Connection:\tclose\t",), False),
        ("close in small letters of the name", (b"connection: close",), False),
        ("keep-alive, close", (b"Connection: keep-alive, close",), False),
        ("close, keep-alive", (b"Connection: close, keep-alive",), False),
        ("foo, close", (b"Connection: foo, close",), False),
        ("close,foo", (b"Connection: close,foo",), False),
        (", close ,", (b"Connection: , close ,",), False),
        ("in two lines", (b"Connection: foo", b"Connection: close"), False),
        ("closed", (b"Connection: closed",), True),
        ("xclose", (b"Connection: xclose",), True),
        ("foo", (b"Connection: foo",), True),
        ("empty", (b"Connection:",), True),
        ("of Proxy-Connection", (b"Proxy-Connection: close",), None),
        ("upgrade", (b"Connection: upgrade", b"Upgrade: h2c"), True),
        ("and Keep-Alive: timeout=60", (b"Keep-Alive: timeout=60",), True),
        ("and Keep-Alive: timeout=60, max=100", (b"Connection: keep-alive", b"Keep-Alive: timeout=60, max=100"), True),
        ("and Keep-Alive without a number", (b"Keep-Alive: timeout=x",), True),
        ("and Keep-Alive: timeout=0", (b"Keep-Alive: timeout=0",), False),
    )
] + [
    Behaviour(f"HTTP/1.0, Connection {which}", _OLD, _answer(*lines, version=b"HTTP/1.0"), Whole(b"ok", reusable=kept))
    for which, lines, kept in (
        ("not there", (), False),
        ("keep-alive", (b"Connection: keep-alive",), True),
        ("Keep-Alive", (b"Connection: Keep-Alive",), True),
        ("close", (b"Connection: close",), False),
        ("foo, keep-alive", (b"Connection: foo, keep-alive",), None),
        ("keep-alive, close", (b"Connection: keep-alive, close",), False),
    )
]

_BEHIND = (
    "RFC 9112, section 9.2: what nobody asked for is no answer to the next request; the connection is not used again, "
    "and the answer before it stands."
)
_REST = {
    "a byte": b"x",
    "a NUL": b"\0",
    "a line of text": b"hello\r\n",
    "half a status line": b"HTTP/1.1 2",
    "half a head": b"HTTP/1.1 200 OK\r\nX-A",
    "an answer": sized(b"EVIL"),
    "two answers": sized(b"EVIL") * 2,
    "an answer in chunks": in_chunks(b"EVIL"),
    "a 408": with_head(b"Connection: close", first=b"HTTP/1.1 408 Request Timeout"),
    "chunks": b"4\r\nEVIL\r\n0\r\n\r\n",
    "64 KB": b"x" * 65536,
}
_FRAMES: dict[str, bytes] = {"a body with a length": sized(), "chunks": in_chunks(b"ok"), "an empty body": sized(b"")}


def _bytes_behind() -> list[Behaviour]:
    found = []
    for frame, answer in _FRAMES.items():
        right = Whole(b"" if frame == "an empty body" else b"ok", reusable=False)
        for which, rest in _REST.items():
            found.append(Behaviour(f"{which} behind {frame}, together", _BEHIND, answer + rest, right))
            found.append(Behaviour(f"{which} behind {frame}, later", _BEHIND, answer, right, later=rest))
        found.append(Behaviour(f"the end behind {frame}", "RFC 9112, section 9.5.", answer, right, then="close"))
        found.append(
            Behaviour(
                f"the end behind {frame}, later", "RFC 9112, section 9.5.", answer, right, then="close", later=b""
            )
        )
        found.append(Behaviour(f"a reset behind {frame}", "RFC 9112, section 9.5.", answer, right, then="reset"))
        found.append(
            Behaviour(
                f"a reset behind {frame}, later", "RFC 9112, section 9.5.", answer, right, then="reset", later=b""
            )
        )
    return found


_LINE_ENDS = [
    Behaviour(
        f"{count} line ends behind {frame}, {when}",
        "RFC 9112, section 2.2: old servers send one behind a body. Dropped with the connection, or skipped.",
        answer + (b"" if later else b"\r\n" * count),
        Whole(b"ok", reusable=None),
        later=b"\r\n" * count if later else None,
    )
    for frame, answer in list(_FRAMES.items())[:2]
    for count in (1, 2)
    for when, later in (("together", False), ("later", True))
]
_CLOSING = [
    Behaviour(
        "bytes behind a closing answer", _BEHIND, _answer(b"Connection: close") + b"EVIL", Whole(b"ok", reusable=False)
    ),
    Behaviour(
        "bytes behind a closing answer in chunks",
        _BEHIND,
        in_chunks(b"ok", lines=[b"Connection: close"]) + b"EVIL",
        Whole(b"ok", reusable=False),
    ),
]

BEHAVIOURS: list[Behaviour] = [*_HEADERS, *_bytes_behind(), *_LINE_ENDS, *_CLOSING]
