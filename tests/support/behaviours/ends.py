"""The connection ends, in order or by a reset, behind each byte of some answers."""

from __future__ import annotations

from collections.abc import Iterator

from support.behaviours.model import CUT, LOST, NO_HEAD, Behaviour, Broken, Whole, in_chunks, with_head

_NO_FINAL = "RFC 9112, section 8: an answer whose head is not whole is none."
_TOO_EARLY = "RFC 9112, section 8: the body is not whole, and may not pass as whole."
_OVER = "Everything had come: the answer is whole, and its connection gone."
_RESET = "A body that the end of the connection ends is whole only if the connection ended in order."

_HEAD = with_head(b"Content-Length: 5", b"X-A: v")
_SHORT_HEAD = with_head(b"Transfer-Encoding: chunked")
# Each answer, the size of what comes before its body, and its body.
_ANSWERS: dict[str, tuple[bytes, int, bytes]] = {
    "a body with a length": (_HEAD + b"hello", len(_HEAD), b"hello"),
    "two chunks": (in_chunks(b"hel", b"lo"), len(_SHORT_HEAD), b"hello"),
    "a chunk with an extension, and a trailer": (
        _SHORT_HEAD + b"5;a=b\r\nhello\r\n0;c\r\nX-A: v\r\n\r\n",
        len(_SHORT_HEAD),
        b"hello",
    ),
    "an interim answer in front": (b"HTTP/1.1 103 X\r\n\r\n" + _HEAD + b"hello", len(_HEAD) + 18, b"hello"),
}


def _after(which: str, sent: bytes, head: int, body: bytes, reset: bool) -> Iterator[Behaviour]:
    how = "reset" if reset else "closed"
    # A reset at some places: in the status line, in a header, behind the head, and at each byte of the body.
    places = [0, 9, head - 3, *range(head, len(sent) + 1)] if reset else range(len(sent) + 1)
    for size in places:
        name = f"{which}, {how} behind {size} of {len(sent)} bytes"
        right: Whole | Broken
        if size < head:
            why, right = _NO_FINAL, NO_HEAD
        elif size < len(sent):
            why, right = _TOO_EARLY, Broken((LOST if reset else CUT).kinds, 200)
        else:
            why, right = _OVER, Whole(body, reusable=False)
        yield Behaviour(name, why, sent[:size], right, then="reset" if reset else "close")


def _until_close() -> Iterator[Behaviour]:
    head = with_head(b"X-A: v")
    for size in range(4):
        body = b"hello"[:size]
        yield Behaviour(
            f"a body without a length, closed behind {size} bytes",
            "RFC 9112, section 6.3, rule 8.",
            head + body,
            Whole(body, reusable=False),
            then="close",
        )
        yield Behaviour(
            f"a body without a length, reset behind {size} bytes",
            _RESET,
            head + body,
            Broken(LOST.kinds, 200),
            then="reset",
        )


BEHAVIOURS: list[Behaviour] = [
    *(
        one
        for which, (sent, head, body) in _ANSWERS.items()
        for reset in (False, True)
        for one in _after(which, sent, head, body, reset)
    ),
    *_until_close(),
]
