"""Whether a server takes the body that is sent to it. Nobody tells, so this is looked at from time to time."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

from pepperpy.network.http.request import Limits

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Delivery:
    """The body of one exchange.

    Most of a body is soon with the system, whose buffer takes megabytes: minutes of a slow line. So a server is silent
    only if what the system holds does not change either.

    Attributes:
        pause: Seconds between two looks; infinity: nothing is limited.
        held_up: Whether some of it waited for room in the system's buffer, at the last look.
    """

    __slots__ = ("_held", "_limits", "_queued", "_sock", "_taken_at", "held_up", "pause")

    def __init__(self, limits: Limits, queued: Callable[[], int], sock: Any) -> None:
        """Args: queued: How many bytes wait for room in the buffer of `sock`, a socket or None."""
        self.held_up = False
        self.pause = math.inf if limits.pause is None else limits.pause
        self._limits = limits
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
        held = self._queued(), _held_by_system(self._sock)
        self.held_up = held[0] > 0
        if (self._held is not None and held != self._held) or (more and not self.held_up):
            self._taken_at = now
        self._held = held
        # It cannot answer what it has not got.
        limit = self._limits.write if self.held_up else self._limits.read
        silent = math.inf if limit is None else max(since, self._taken_at) + limit
        return min(silent, now + self.pause)


def _held_by_system(sock: Any) -> int:
    """Bytes that the peer's system has not acknowledged; 0 where ours does not tell."""
    if fcntl is None or sock is None:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0
