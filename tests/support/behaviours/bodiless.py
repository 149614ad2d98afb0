"""Answers without a body, whatever their headers say: to HEAD, 204, 304; and 205."""

from __future__ import annotations

from support.behaviours.model import Behaviour, Whole, sized, with_head

_NONE = "RFC 9112, section 6.3, rule 1: it ends with the empty line, whatever its headers say."
_BEHIND = (
    "RFC 9112, section 6.3, rule 1: the answer is whole; what stands behind it belongs to nobody, and the connection "
    "is not used again (RFC 9112, section 9.2)."
)
_CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
_LINES: dict[str, tuple[bytes, ...]] = {
    "without a length": (),
    "with a length of 0": (b"Content-Length: 0",),
    "with a length": (b"Content-Length: 2",),
    "in chunks": (b"Transfer-Encoding: chunked",),
    "compressed": (b"Content-Encoding: gzip", b"Content-Length: 20"),
    "compressed in an unknown way": (b"Content-Encoding: foo", b"Content-Length: 20"),
    "compressed, in chunks": (b"Content-Encoding: gzip", b"Transfer-Encoding: chunked"),
    "with a large length": (b"Content-Length: 1000000000000",),
}
_BODIES = {"with a length": b"ok", "in chunks": _CHUNKS, "without a length": b"ok", "with a length of 0": b"ok"}


def _behaviours() -> list[Behaviour]:
    found = []
    for which, lines in _LINES.items():
        for who, method, first, status in (
            ("HEAD", "HEAD", b"HTTP/1.1 200 OK", 200),
            ("HEAD, 404", "HEAD", b"HTTP/1.1 404 Not Found", 404),
            ("204", "GET", b"HTTP/1.1 204 No Content", 204),
            ("204 to DELETE", "DELETE", b"HTTP/1.1 204 No Content", 204),
            ("304", "GET", b"HTTP/1.1 304 Not Modified", 304),
        ):
            head = with_head(*lines, first=first)
            # A 204, or 304, that speaks of a body may be of a server that sends one.
            kept = True if method == "HEAD" or not lines else None
            found.append(Behaviour(f"{who} {which}", _NONE, head, Whole(status=status, reusable=kept), method))
            if body := _BODIES.get(which):
                found.append(
                    Behaviour(
                        f"{who} {which}, and a body", _BEHIND, head + body, Whole(status=status, reusable=False), method
                    )
                )
                found.append(
                    Behaviour(
                        f"{who} {which}, and a body later",
                        _BEHIND,
                        head,
                        Whole(status=status, reusable=False),
                        method,
                        later=body,
                    )
                )
    return found


_MORE = [
    Behaviour(
        "204 and one line end too many",
        _BEHIND,
        with_head(first=b"HTTP/1.1 204 X") + b"\r\n",
        Whole(status=204, reusable=None),
    ),
    Behaviour(
        "204 and the end of chunks",
        _BEHIND + " Servers of old frameworks do that (aiohttp#10322).",
        with_head(first=b"HTTP/1.1 204 X") + b"0\r\n\r\n",
        Whole(status=204, reusable=False),
    ),
    Behaviour(
        "204, then closed", _NONE, with_head(first=b"HTTP/1.1 204 X"), Whole(status=204, reusable=False), then="close"
    ),
    Behaviour(
        "304, then closed", _NONE, with_head(first=b"HTTP/1.1 304 X"), Whole(status=304, reusable=False), then="close"
    ),
    Behaviour("HEAD, then closed", _NONE, with_head(), Whole(reusable=False), "HEAD", then="close"),
    Behaviour("HEAD with Connection: close", _NONE, with_head(b"Connection: close"), Whole(reusable=False), "HEAD"),
    Behaviour(
        "205 with a length of 0", "RFC 9110, section 15.3.6.", sized(b"", first=b"HTTP/1.1 205 X"), Whole(status=205)
    ),
    Behaviour(
        "205 with a body",
        "RFC 9110, section 15.3.6, forbids it; RFC 9112 frames it like any other body.",
        sized(b"ok", first=b"HTTP/1.1 205 X"),
        Whole(b"ok", 205),
    ),
    Behaviour(
        "HEAD after an interim answer",
        "RFC 9110, section 15.2.",
        b"HTTP/1.1 103 X\r\n\r\n" + with_head(b"Content-Length: 5"),
        Whole(),
        "HEAD",
    ),
]

BEHAVIOURS: list[Behaviour] = [*_behaviours(), *_MORE]
