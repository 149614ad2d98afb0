"""Closes a socket with a RST that comes after all sent bytes, not instead of them."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys

if sys.platform == "linux":
    import fcntl

SIOCOUTQNSD = 0x894B  # include/uapi/linux/sockios.h
MAX_WAIT_MS = 100  # for a receiver that takes nothing more; arbitrary


async def before_reset(sock: socket.socket) -> None:
    """Wait until the system has sent everything: a RST drops the rest, and on a busy machine there is some.

    This works on Linux only. Elsewhere, bytes sent right before a reset may get lost.
    """
    if sys.platform == "linux":
        for _ in range(MAX_WAIT_MS):
            if not any(fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4))):
                return
            await asyncio.sleep(0.001)


def reset_on_close(sock: socket.socket) -> None:
    """Make close() of this socket send a RST."""
    # struct linger: two ints, on Windows two shorts.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
