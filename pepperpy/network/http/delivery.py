"""Whether a server takes the body that is sent to it. Nobody tells, so this is looked at from time to time."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

from pepperpy.network.http.request import Limits


class Delivery:
    """The body of one exchange.

    Most of a body is soon with the system, whose buffer takes megabytes: minutes of a slow line. So a server is silent
    only if what the system holds does not change either.

    Attributes:
        pause: Seconds between two looks; infinity: nothing is limited.
        held_up: Whether the server is late with taking the body, rather than with its answer, as of the last look.
    """

    __slots__ = ("_held", "_queued", "_read", "_sock", "_taken_at", "_write", "held_up", "pause")

    def __init__(self, limits: Limits, queued: Callable[[], int], sock: Any) -> None:
        """Args: queued: How many bytes wait for room in the buffer of `sock`, a socket or None."""
        self.held_up: bool = False
        self.pause: float = math.inf if limits.pause is None else limits.pause
        self._read = math.inf if limits.read is None else limits.read
        self._write = math.inf if limits.write is None else limits.write
        self._queued = queued
        self._sock = sock
        self._held: tuple[int, int] | None = None
        self._taken_at = -math.inf  # when it was last seen to take something, or had nothing to take

    def silent_until(self, since: float, more: bool) -> float:
        """When the server will have been silent for too long; or before, when to look again.

        Args:
            since: When the last byte came, or went to the system.
            more: Whether more of the body may come from its source.
        """
        now = monotonic()
        queued, system = held = self._queued(), _held_by_system(self._sock)
        if (self._held is not None and held != self._held) or (more and not queued):
            self._taken_at = now
        self._held = held
        # It cannot answer what it has not got. Of a body that is with the system, nobody knows whether it has the part
        # that it would answer: then the shorter limit counts.
        self.held_up = queued > 0 or (system > 0 and self._write < self._read)
        silent = max(since, self._taken_at) + (self._write if self.held_up else self._read)
        return min(silent, now + self.pause)


def _held_by_system(sock: Any) -> int:
    """Bytes that the peer's system has not acknowledged; 0 where ours does not tell."""
    if sock is None:
        return 0
    try:
        from fcntl import ioctl
        from termios import TIOCOUTQ

        return int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    except (ImportError, OSError, ValueError):  # Windows has neither module
        return 0
