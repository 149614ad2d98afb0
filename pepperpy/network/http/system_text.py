"""What an error of the system says, in words that may be shown."""

from __future__ import annotations

import os
import socket
import ssl

from pepperpy.network.printable import printable


def text_of(error: BaseException) -> str:
    """What an operating system error says; never empty, never a URL."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if not error.errno or isinstance(error, (socket.gaierror, ssl.SSLError)) or os.strerror(error.errno) in text:
            return text
        # asyncio says which call failed, and not why.
        return f"{text}: {os.strerror(error.errno)}"
    text = str(error)
    return printable(text) if text and "://" not in text else type(error).__name__
