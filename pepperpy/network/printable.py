"""Makes a peer's text fit for a message, a log or a `repr`: bounded, on one line, without control characters."""

from __future__ import annotations

# Characters of a peer's text in a message. Arbitrary; a reason phrase or the start of an error page fits.
MAX_SHOWN = 200


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    r"""At most `limit` characters of `text`; unprintable ones become `\x1b`, `\n` or `\udce1`.

    It looks at the start only, so a long `text` costs no more than a short one.
    """
    start = text[: limit + 1]
    if not start.isprintable():
        start = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode() for character in start
        )
    return start if len(start) <= limit else f"{start[: limit - 3]}..."


def printable_bytes(data: bytes, limit: int = MAX_SHOWN) -> str:
    """The same for bytes, which are read as UTF-8."""
    # A character of UTF-8 has at most four bytes.
    return printable(data[: 4 * (limit + 1)].decode("utf-8", "backslashreplace"), limit)
