"""A peer's text as it may stand in a message, a log or a `repr`: bounded, on one line, without control characters."""

from __future__ import annotations

# Characters of a peer's text in a message. Arbitrary; a reason phrase or the start of an error page fits.
MAX_SHOWN = 200


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    r"""At most `limit` characters of `text`; those that cannot be printed as `\x1b`, `\n` or `\udce1`.

    Only the start is looked at, so the length of `text` costs nothing.
    """
    start = text[: limit + 1]
    if not start.isprintable():
        start = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode() for character in start
        )
    return start if len(start) <= limit else f"{start[: limit - 3]}..."


def printable_bytes(data: bytes, limit: int = MAX_SHOWN) -> str:
    """The same for bytes, which are taken for UTF-8."""
    # Four bytes are the longest character of UTF-8.
    return printable(data[: 4 * (limit + 1)].decode("utf-8", "backslashreplace"), limit)
