"""What the command line writes: bytes of a peer raw into a pipe, escaped on a terminal; messages; a progress bar."""

from __future__ import annotations

import codecs
import sys
import time
from typing import IO

_BAR_WIDTH = 30


def escaped(text: str) -> str:
    r"""Text that moves no cursor and clears no screen: control characters become `\x1b` and the like.

    Line ends and tabs stay.
    """
    text = text.replace("\r\n", "\n")
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


class Output:
    """Standard output for what a peer sends."""

    def __init__(self) -> None:
        self._bytes: IO[bytes] = sys.stdout.buffer
        self.is_terminal: bool = sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes, *, final: bool = False) -> None:
        """Write bytes of a peer: as they are, or on a terminal as text without control characters."""
        if not self.is_terminal:
            self._bytes.write(data)
        else:
            encoding = sys.stdout.encoding or "utf-8"
            text = escaped(self._decoder.decode(data, final))
            self._bytes.write(text.encode(encoding, "backslashreplace"))
        self._bytes.flush()


def say(*lines: str) -> None:
    """Write lines of this program, which may show a peer's text, to standard output."""
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        sys.stdout.buffer.write((escaped(line) + "\n").encode(encoding, "backslashreplace"))
    sys.stdout.buffer.flush()


def complain(message: str) -> None:
    """Write one line to standard error."""
    if sys.stderr is not None:  # or print() would take standard output
        print(escaped(f"pepperpy-network: {message}"), file=sys.stderr, flush=True)


class ProgressBar:
    """A progress bar on standard error, if that is a terminal, for jobs of more than half a second."""

    def __init__(self, title: str) -> None:
        self._title = escaped(title)[:30]
        self._shows = sys.stderr is not None and sys.stderr.isatty()
        self._started = time.monotonic()
        self._drawn = 0.0
        self._last = 0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if not self._shows or now - self._started < 0.5 or (now - self._drawn < 0.1 and done != total):
            return
        if done < self._last:
            # It began again.
            self._started = now
        self._drawn, self._last = now, done
        rate = f"{done / max(now - self._started, 1e-3) / 1e6:.1f} MB/s"
        if total:
            filled = _BAR_WIDTH * done // total
            bar = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {100 * done // total:3} %"
        else:
            bar = f"{done:,} bytes"
        print(f"\r{self._title} {bar} {rate}   ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove it."""
        if self._drawn:
            print(f"\r{' ' * 100}\r", end="", file=sys.stderr, flush=True)
