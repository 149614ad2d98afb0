"""Where a transport, or httptools alone, does something else than what `support/behaviours` says is right, and why.

This is the one list. What is not here is right; what is here and has become right fails the test until it is taken out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from support.behaviours.model import Behaviour


@dataclass(frozen=True)
class Difference:
    """What one of them makes of some behaviours.

    Attributes:
        verdict: As `Seen.verdict()`; those of one list line for the same behaviour add up. "hangs": such a behaviour is
            played at night only, for it takes time.
        names: Of the behaviours; a * stands for any characters.
        always: False: right or so, by where the stream is cut.
    """

    verdict: str
    names: tuple[str, ...]
    why: str
    always: bool = True


def zstd_is_installed() -> bool:
    """Whether aiohttp can decompress zstd."""
    return any(find_spec(name.partition(".")[0]) and find_spec(name) for name in ("compression.zstd", "backports.zstd"))


def fits(pattern: str, name: str) -> bool:
    """Whether this is the name of a behaviour, or a pattern of it."""
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL))


# ---- The parser's, so both have them ----

_VERSIONS = Difference(
    "answer",
    tuple(f"wrong version: {version}" for version in ("HTTP/0.9", "HTTP/2.0", "ICE/1.0", "RTSP/1.0")),
    "llhttp knows these names and versions, and nobody behind it looks.",
)
_BELOW_100 = ("wrong status: 000", "wrong status: 001", "wrong status: 099")
_CODINGS = Difference(
    "answer",
    (
        *("Transfer-Encoding: chunked, *", "Transfer-Encoding: chunked,,chunked", "Transfer-Encoding: chunked;*"),
        *("Transfer-Encoding: *identity*", "Transfer-Encoding: *foo"),
        *(
            f"Transfer-Encoding: {value}"
            for value in ("gzip", "deflate", "br", "chunk", "chunked x", "chunkedx", "xchunked")
        ),
        *(
            "Transfer-Encoding: x chunked",
            'Transfer-Encoding: "chunked"',
            "Transfer-Encoding: 'chunked'",
            "Transfer-Encoding: c*, chunked",
        ),
        *("Transfer-Encoding: chun\\xebked", "Transfer-Encoding twice*"),
    ),
    "llhttp reads until the end of the connection where the last word is not `chunked`, and gives chunk framing out as "
    "the body; of several words it looks at the last one.",
)
_TAB = Difference(
    "body",
    ("Transfer-Encoding: chunked and a tab",),
    "llhttp takes the tab for a part of the word; then as above.",
)
_LENIENT_CODINGS = Difference(
    "answer",
    ("Transfer-Encoding: *\\x0b*", "Transfer-Encoding empty"),
    "aiohttp asks llhttp to be lenient; then as above.",
)
_GZIP_CHUNKED = Difference(
    "answer, reused",
    ("Transfer-Encoding: gzip, chunked",),
    "As above; the gzip stays in the body, and its header says so.",
)
_OLD_CHUNKS = Difference(
    "reused", ("HTTP/1.0 in chunks, with keep-alive",), "llhttp heeds keep-alive there. Its chunks tell the end."
)
_OLD_CLOSE = Difference(
    "reused", ("HTTP/1.0, Connection keep-alive, close",), "llhttp heeds the first of the two words in HTTP/1.0."
)
_HEAD = Difference(
    "not reused",
    ("HEAD without a length", "HEAD, 404 without a length"),
    "llhttp does not know the request. It costs a connection only.",
)

# ---- aiohttp's transport ----

_TOGETHER = (
    "aiohttp's parser meets what is behind an answer before it gives the answer out, and the answer is lost to its "
    "error (aio-libs/aiohttp#10322)."
)
_NO_BODY_BEHIND = tuple(
    f"{who} {which}, and a body"
    for who in ("204", "204 to DELETE", "304", "HEAD", "HEAD, 404")
    for which in ("with a length", "with a length of 0", "without a length", "in chunks")
)
_REST = ("a byte", "a NUL", "a line of text", "64 KB", "chunks")
_FRAMES = ("a body with a length", "an empty body", "chunks")
_CUT = "aiohttp's decompressors do not tell that their stream has not ended (Python's zlib and brotli know)."
_UNSEEN = "aiohttp counts no byte of it; `timeout` ends it, a stream without one reads for ever."

_CUT_CODINGS = ("gzip", "br", "zstd") if zstd_is_installed() else ("gzip", "br")
_AIOHTTP = [
    _VERSIONS,
    _GZIP_CHUNKED,
    _CODINGS,
    _TAB,
    _LENIENT_CODINGS,
    _OLD_CHUNKS,
    _OLD_CLOSE,
    _HEAD,
    Difference("answer, reused", _BELOW_100, "llhttp takes any three digits."),
    Difference("refused", ("made: *; behind",), _TOGETHER, always=False),
    Difference(
        "answer, reused",
        tuple(f"\\x{code:02x} in a header value" for code in (*range(1, 9), 11, 12, *range(14, 32), 127)),
        "aiohttp asks llhttp to be lenient; NUL, CR and LF it refuses all the same.",
    ),
    Difference(
        "answer, reused",
        ("header line: a blank in front of the first",),
        "aiohttp asks llhttp to be lenient, which skips it.",
    ),
    Difference(
        "answer", ("wrong trailers: a NUL", "LF in chunks: behind the data"), "aiohttp asks llhttp to be lenient."
    ),
    Difference(
        "answer, reused", ("wrong chunk size: 2\\t",), "aiohttp asks llhttp to be lenient about what pads a size."
    ),
    Difference(
        "answer",
        ("folded framing: Transfer-Encoding",),
        "aiohttp asks llhttp to be lenient; then as Transfer-Encoding in one line.",
    ),
    Difference("refused", _NO_BODY_BEHIND, _TOGETHER, always=False),
    Difference("refused", ("204 and the end of chunks", "bytes behind a closing answer*"), _TOGETHER, always=False),
    Difference(
        "refused",
        tuple(f"{rest} behind {frame}, together" for rest in _REST for frame in _FRAMES),
        _TOGETHER,
        always=False,
    ),
    Difference(
        "answer, reused",
        tuple(f"{coding} cut off *{how}" for coding in _CUT_CODINGS for how in ("framed as whole", "in chunks")),
        _CUT,
    ),
    Difference(
        "answer", tuple(f"{coding} cut off *, until the end of the connection" for coding in _CUT_CODINGS), _CUT
    ),
    Difference("body", ("codings gzip, gzip", "codings deflate, gzip"), "aiohttp undoes no more than one coding."),
    Difference(
        "refused",
        ("gzip with 512 NULs behind", "gzip with a comment behind", "gzip with a line end behind"),
        "aiohttp takes it for one more member.",
    ),
    Difference(
        "body",
        ("codings gzip, gzip", "codings deflate, gzip"),
        "aiohttp does not unpack two codings; the body stays packed, and its header says so.",
    ),
    Difference("answer, reused", ("fifty codings",), "As above: nothing is unpacked."),
    Difference(
        "body", ("x-gzip",), "aiohttp does not know the old name; the body stays packed, and its header says so."
    ),
    *(
        ()
        if zstd_is_installed()
        else (
            Difference(
                "refused",
                ("zstd of nothing, without a byte", "zstd without a byte, in chunks"),
                "aiohttp refuses a coding that it cannot decode before it knows whether there is a body.",
            ),
        )
    ),
    Difference(
        "hangs",
        (
            *("endless blanks behind a chunk size", "endless blanks in front of a header value"),
            *("endless tabs in front of a header value", "endless line ends before the status line"),
            *("endless chunk extension*", "endless extension of the last chunk", "endless zeros of *chunk*"),
        ),
        _UNSEEN,
    ),
    Difference("answer, reused", ("too large: a chunk extension of 1 MB", "too large: a chunk size of 1 MB"), _UNSEEN),
]

# ---- Our own core ----

_H1: list[Difference] = [
    Difference(
        "not reused",
        ("204 *", "304 *", "made: GET 204, *", "made: GET 304, *"),
        "A 204 or 304 that announces a body may be followed by it, later than the look before the next request.",
        always=False,
    ),
]

# ---- httptools alone ----

_STRICT = "llhttp is strict unless it is told otherwise, and httptools has `set_dangerous_leniencies()` for that."

_HTTPTOOLS = [
    _VERSIONS,
    _GZIP_CHUNKED,
    _CODINGS,
    _TAB,
    _OLD_CHUNKS,
    _OLD_CLOSE,
    _HEAD,
    Difference(
        "hangs", _BELOW_100, "llhttp takes any three digits; what is below 200 is then taken for an interim answer."
    ),
    Difference("refused", ("LF as line end: *", "folded line: *", "chunk size with *behind"), _STRICT),
    Difference("answer, reused", ("made: *; interim",), "A parser has no limit.", always=False),
    Difference("answer", ("made: *; interim",), "A parser has no limit.", always=False),
    Difference(
        "answer, reused", ("9 interim answers", "10 interim answers", "100 interim answers"), "A parser has no limit."
    ),
    Difference("reused", ("Connection and Keep-Alive: timeout=0",), "A parser does not know the time."),
]

DIFFERENCES: dict[str, list[Difference]] = {"aiohttp": _AIOHTTP, "h1": _H1, "httptools": _HTTPTOOLS}


def hangs(who: str, behaviour: Behaviour) -> bool:
    """Whether `who` is known to wait for ever for some of it."""
    return any(one.verdict == "hangs" for one in _differences_of(who, behaviour))


def disagreement(who: str, behaviour: Behaviour, cuts: tuple[int, ...], verdict: str) -> str:
    """What there is to say against a verdict; "" for nothing."""
    known = _differences_of(who, behaviour)
    expected = {one.verdict for one in known}
    if all(not one.always for one in known):
        expected.add("right")
    if verdict in expected:
        return ""
    where = f" (cut at {cuts})" if cuts else ""
    listed = "".join(f", listed as: {one.verdict} ({one.why})" for one in known)
    return f"{behaviour.name}{where}: {verdict}{listed}. {behaviour.why}"


def _differences_of(who: str, behaviour: Behaviour) -> list[Difference]:
    return [one for one in DIFFERENCES[who] if any(fits(name, behaviour.name) for name in one.names)]
