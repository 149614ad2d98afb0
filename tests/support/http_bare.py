"""Plays a behaviour to httptools alone: what a client makes of it that knows no more than this parser.

What is added is what no parser knows: that an answer to HEAD has no body, and that the end of the connection ends a
body which nothing else ends. There is no limit, and nothing is decompressed.
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools
from multidict import CIMultiDict

from support.behaviours.model import Behaviour
from support.http_lab import Seen


class Bare:
    """What httptools calls."""

    def __init__(self, method: str) -> None:
        self.seen = Seen(trailers=CIMultiDict())
        self.whole = False
        self.more = False  # whether anything came behind the answer
        self.keeps = False
        self._bodiless = method == "HEAD"
        self._in_head = True
        self._framed = False
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        if self.whole:
            self.more = True
            return
        self._in_head = True
        self.seen.headers = CIMultiDict()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-length":
            self._framed = True
        elif name.lower() == b"transfer-encoding":
            self._framed = value.lower().rpartition(b",")[2].strip(b" ") == b"chunked"
        if not self.whole:
            fields = self.seen.headers if self._in_head else self.seen.trailers
            fields.add(name.decode("latin-1"), _text(value))

    def on_headers_complete(self) -> None:
        if self.whole:
            return
        if self.parser.get_status_code() < 200:
            self._framed = False
            return
        self.seen.status = self.parser.get_status_code()
        self._in_head = False
        self.keeps = self.parser.should_keep_alive()
        if self._bodiless:
            self.whole = True

    def on_body(self, data: bytes) -> None:
        if not self.whole:
            self.seen.body += data
        elif data:
            self.more = True

    def on_chunk_header(self) -> None:
        self.more = self.more or self.whole  # behind an answer without a body

    @property
    def until_close(self) -> bool:
        """Whether only the end of the connection ends the body."""
        return self.seen.status is not None and not self._framed

    def on_message_complete(self) -> None:
        if self.seen.status is not None:
            self.whole = True


def play_bare(behaviour: Behaviour, cuts: Sequence[int] = ()) -> Seen:
    """What comes of it; `reused` says whether the parser would go on with the next answer on the same connection."""
    bare = Bare(behaviour.method)
    start = 0
    failed = False
    later = behaviour.later or b""
    pieces = [behaviour.sent[start:end] for start, end in zip((0, *cuts), (*cuts, len(behaviour.sent)), strict=True)]
    for piece in [*pieces, later]:
        start += len(piece)
        try:
            if piece:
                bare.parser.feed_data(piece)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            failed = True
        if failed:
            break
    seen = bare.seen
    seen.left = bare.whole and (bare.more or failed)
    ends = "close" if behaviour.then == "settle" else behaviour.then
    if failed and not bare.whole:
        seen.kinds = frozenset({"malformed", "bad_encoding"})
    elif bare.whole:
        seen.reused = bare.keeps and not failed and not bare.more and behaviour.then in ("keep", "settle")
    elif ends == "close" and bare.until_close:
        pass
    elif ends == "keep":
        seen.hung = True
    elif seen.status is None:
        seen.kinds = frozenset({"reset", "no_answer"})
    else:
        seen.kinds = frozenset({"truncated"} if ends == "close" else {"reset"})
    return seen


def _text(value: bytes) -> str:
    value = value.strip(b" \t")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
