"""The text of a system's error, as a message may show it."""

from __future__ import annotations

import os
import socket
import ssl

from pepperpy.network.printable import printable


def text_of(error: BaseException) -> str:
    """The text of an error of the operating system; never empty, never with a URL."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if not error.errno or isinstance(error, (socket.gaierror, ssl.SSLError)) or os.strerror(error.errno) in text:
            return text
        # asyncio's text says which call failed, but not why.
        return f"{text}: {os.strerror(error.errno)}"
    text = str(error)
    return printable(text) if text and "://" not in text else type(error).__name__
