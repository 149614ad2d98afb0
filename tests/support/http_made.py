"""Answers made by hypothesis from the grammar of HTTP/1.1, right or with one fault, and what is right for each.

Their names say of what kind they are, so that the list of differences can speak of kinds.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from support.behaviours.model import CUT, MALFORMED, NO_HEAD, Behaviour, Broken, Whole

Draw = st.DrawFn
Fields = Sequence[tuple[str, str]]

_WHY = "Made from the grammar of RFC 9112."
_STATUSES = [200, 201, 203, 206, 226, 299, 400, 404, 416, 500, 503, 599]
_names = st.from_regex(r"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
_values = st.from_regex(r"([!-~]([ \t!-~]{0,20}[!-~])?)?", fullmatch=True)
_fields = st.lists(st.tuples(_names, _values), max_size=4, unique_by=lambda pair: pair[0].lower())
_blanks = st.sampled_from(["", " ", "  ", "\t", " \t "])
_bodies = st.one_of(st.binary(max_size=60), st.integers(0, 70_000).map(bytes), st.just(b"\r\n0\r\n\r\n"))
_extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b;c"', b";a=1;b=2"])
# A wrong line of a head, each for another reason.
_BAD_LINES = [b"X A: v", b"X-A : v", b"X-A v", b": v", b"X-A: a\0b", b"X\x01: v", b"X-A: a\rb", b"X(: v", b"X\xe4: v"]
_BAD_LENGTHS = [b"+2", b"-2", b"2a", b"0x2", b"", b"2.0", b"2 2", b"18446744073709551618", b"\xb2"]
_BAD_SIZES = [b"", b"g", b"-2", b"+2", b"0x2", b" 2", b"2 2", b"10000000000000002", b"2\0", b";a"]
_BAD_STARTS = [
    b"HTTP/1.1 20 X",
    b"HTTP/1.1 2000 X",
    b"HTTP/1.1",
    b"HTTP/1.x 200 X",
    b"HTTQ/1.1 200 X",
    b"200 OK",
    b"HTTP/1.1 X",
]
_BEHIND = [b"x", b"\0", b"EVIL\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"]
_FAULTS = ["none"] * 6 + ["cut", "cut", "cut", "line", "start", "length", "size", "interim", "behind", "behind later"]


@dataclass
class _Parts:
    """An answer, part by part."""

    interim: bytes
    start: bytes
    lines: list[bytes]
    body: bytes
    seen: Whole

    @property
    def head(self) -> bytes:
        return self.start + b"\r\n" + b"".join(line + b"\r\n" for line in self.lines) + b"\r\n"


def _lines(draw: Draw, fields: Fields) -> list[bytes]:
    return [f"{name}:{draw(_blanks)}{value}{draw(_blanks)}".encode() for name, value in fields]


def _chunks(draw: Draw, data: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=5))) if data else []
    return [piece for start, end in zip((0, *places), (*places, len(data)), strict=True) if (piece := data[start:end])]


def _size(draw: Draw, size: int) -> bytes:
    digits = f"{size:x}" if draw(st.booleans()) else f"{size:X}"
    return b"0" * draw(st.integers(0, 3)) + digits.encode() + draw(_extensions)


@st.composite
def made(draw: Draw, *, coded: bool = True) -> tuple[Behaviour, tuple[int, ...]]:
    """A behaviour, and where it is cut; without compression unless `coded`."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD"]))
    status = draw(st.sampled_from([*_STATUSES, 204, 304]))
    bodiless = method == "HEAD" or status in (204, 304)
    framing = draw(st.sampled_from(["length", "chunks"] if bodiless else ["length", "chunks", "end"]))
    coding = draw(st.sampled_from(["", "", "gzip", "deflate"])) if coded and not bodiless else ""
    text = draw(_bodies)
    packed = _pack(coding, text)
    fields, trailers = draw(_fields), draw(_fields) if framing == "chunks" and not bodiless else []
    lines = _lines(draw, fields)
    token = draw(st.sampled_from(["", "", "keep-alive", "close", "Close"]))
    if coding:
        lines.append(b"Content-Encoding: " + coding.encode())
    if token:
        lines.append(b"Connection: " + token.encode())
    body = packed
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(packed))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        pieces = _chunks(draw, packed)
        body = b"".join(_size(draw, len(piece)) + b"\r\n" + piece + b"\r\n" for piece in pieces)
        body += _size(draw, 0) + b"\r\n" + b"".join(line + b"\r\n" for line in _lines(draw, trailers)) + b"\r\n"
    lines = draw(st.permutations(lines))
    count = draw(st.sampled_from([0, 0, 0, 1, 2, 8]))
    interim = b"".join(
        b"HTTP/1.1 %d X\r\n" % draw(st.sampled_from([100, 102, 103]))
        + b"".join(line + b"\r\n" for line in _lines(draw, draw(_fields)))
        + b"\r\n"
        for _ in range(count)
    )
    kept = token.lower() != "close" and framing != "end"
    # A 204, or 304, that speaks of a body may be of a server that sends one.
    reusable = None if kept and status in (204, 304) and method != "HEAD" else kept
    seen = Whole(b"" if bodiless else text, status, tuple(fields), tuple(trailers), reusable=reusable)
    start = b"HTTP/1.1 %d" % status + draw(st.sampled_from([b" OK", b" ", b"", b" Some Words"]))
    parts = _Parts(interim, start, lines, b"" if bodiless else body, seen)
    what = f"{method} {status}, {framing}{', ' + coding if coding else ''}"
    behaviour = _with_fault(draw, draw(st.sampled_from(_FAULTS)), parts, framing, what, method)
    size = len(behaviour.sent)
    cuts = draw(st.sets(st.integers(1, size - 1), max_size=4)) if size > 1 else set()
    return behaviour, tuple(sorted(cuts))


def _pack(coding: str, text: bytes) -> bytes:
    if not coding:
        return text
    packer = zlib.compressobj(6, wbits=31 if coding == "gzip" else 15)
    return packer.compress(text) + packer.flush()


def _with_fault(draw: Draw, fault: str, parts: _Parts, framing: str, what: str, method: str) -> Behaviour:
    has_body = bool(parts.body)
    if (fault == "size" and not (framing == "chunks" and has_body)) or (fault == "length" and framing != "length"):
        fault = "none"
    if fault.startswith("behind") and framing == "end":
        fault = "none"
    right: Whole | Broken = parts.seen
    later = None
    then = "close" if framing == "end" else "settle"
    if fault == "line":
        place = draw(st.integers(0, len(parts.lines)))
        parts.lines = [*parts.lines[:place], draw(st.sampled_from(_BAD_LINES)), *parts.lines[place:]]
    elif fault == "start":
        parts.start = draw(st.sampled_from(_BAD_STARTS))
    elif fault == "length":
        wrong = b"Content-Length: " + draw(st.sampled_from(_BAD_LENGTHS))
        parts.lines = [wrong if line.startswith(b"Content-Length") else line for line in parts.lines]
    elif fault == "size":
        parts.body = draw(st.sampled_from(_BAD_SIZES)) + b"\r\nok\r\n" + parts.body
    elif fault == "interim":
        parts.interim += b"HTTP/1.1 103 X\r\n\r\n" * 9
    if fault in ("line", "start", "length", "size", "interim"):
        right = MALFORMED
    sent = parts.interim + parts.head + parts.body
    if fault == "cut":
        sent, right, then = _cut(draw, parts, framing, sent)
    elif fault == "behind":
        sent += draw(st.sampled_from(_BEHIND))
    elif fault == "behind later":
        later, then = draw(st.sampled_from(_BEHIND)), "keep"
    if fault.startswith("behind"):
        right = _not_kept(parts.seen)
    return Behaviour(f"made: {what}; {fault}", _WHY, sent, right, method, then, later=later)  # type: ignore[arg-type]


def _not_kept(seen: Whole) -> Whole:
    return Whole(seen.body, seen.status, seen.headers, seen.trailers, reusable=False)


def _cut(draw: Draw, parts: _Parts, framing: str, sent: bytes) -> tuple[bytes, Whole | Broken, str]:
    size = draw(st.integers(0, len(sent)))
    head = len(sent) - len(parts.body)
    if size < head:
        return sent[:size], NO_HEAD, "close"
    if framing == "end":
        # The end of the connection ends the body, wherever it is; what is compressed tells.
        coded = any(line.startswith(b"Content-Encoding") for line in parts.lines)
        size = len(sent) if coded else size
        body = parts.seen.body if coded else parts.body[: size - head]
        return sent[:size], Whole(body, parts.seen.status, parts.seen.headers, reusable=False), "close"
    if size < len(sent):
        return sent[:size], Broken(CUT.kinds, parts.seen.status), "close"
    return sent, _not_kept(parts.seen), "close"
