"""`Keepalive`: when the system counts a silent peer as dead. The setting `keepalive` of both clients."""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import Default, check_int, check_timeout, shown
from pepperpy.network.settings import Settings

_MAX_USER_TIMEOUT = 2_147_483  # seconds: below 2**31 ms

# None where the system has no such option. macOS calls the idle time TCP_KEEPALIVE.
_KEEPIDLE: int | None = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
_KEEPINTVL: int | None = getattr(socket, "TCP_KEEPINTVL", None)
_KEEPCNT: int | None = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class Keepalive(Settings):
    """How the system finds dead peers; waiting for data finds none. For TCP, not for Unix sockets.

    Attributes:
        idle: Seconds of silence before the first probe; 1 to 32767. The first three are Go's defaults
            (net.KeepAliveConfig).
        interval: Seconds between probes; 1 to 32767.
        count: Unanswered probes until the connection counts as lost; 1 to 127.
        user_timeout: Seconds for which the peer may leave data or probes unacknowledged, or its window shut, until the
            connection counts as lost (TCP_USER_TIMEOUT, RFC 5482; Linux only). Default: the time after which the probes
            give up, `idle + count * interval`, 150 s. If both are set, Linux heeds this one instead of the count. It
            also ends the connection to a peer that lives, but takes no data for so long while some waits here, such as
            a printer without paper or a program in its debugger: Linux has no value that spares such a peer and finds a
            dead one. None spares it. Then the system finds a dead peer with data under way after about 15 minutes
            (Linux, tcp_retries2); the probes still find a silent one.
    """

    idle: int = 15
    interval: int = 15
    count: int = 9
    user_timeout: float | Default | None = Default.KEEPALIVE

    def __post_init__(self) -> None:
        # Linux: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL are 32767 s, MAX_TCP_KEEPCNT is 127 (include/net/tcp.h).
        check_int("idle", self.idle, 1, 32767)
        check_int("interval", self.interval, 1, 32767)
        check_int("count", self.count, 1, 127)
        if self.user_timeout is not Default.KEEPALIVE:
            check_timeout("user_timeout", self.user_timeout, zero=False)
            if isinstance(self.user_timeout, (int, float)) and self.user_timeout > _MAX_USER_TIMEOUT:
                raise ValueError(
                    f"user_timeout must be at most {_MAX_USER_TIMEOUT} s (2**31 ms), not {self.user_timeout!r}"
                )

    @property
    def unanswered_timeout(self) -> float | None:
        """`user_timeout` in seconds; if that is not set, the time after which the probes give up."""
        if not isinstance(self.user_timeout, Default):
            return self.user_timeout
        return min(self.idle + self.count * self.interval, _MAX_USER_TIMEOUT)

    @property
    def why_timed_out(self) -> str:
        """What the peer has done if the system ends a connection with ETIMEDOUT."""
        if _USER_TIMEOUT is not None and (seconds := self.unanswered_timeout) is not None:
            return (
                f"the peer answered nothing, or took no data, for user_timeout={seconds:g} s;"
                " Keepalive(user_timeout=None) spares a peer that takes its time"
            )
        return "the peer answered neither keepalive probes nor data"

    @functools.cached_property
    def options(self) -> tuple[tuple[int, int, int], ...]:
        """The level, name and value of each socket option that says this to the present system."""
        seconds = None if _USER_TIMEOUT is None else self.unanswered_timeout
        # Linux does not heed the count where TCP_USER_TIMEOUT is set (tcp_keepalive_timer), so its default needs no
        # call.
        count = self.count if seconds is None or self.count != Keepalive.count else None
        values = [
            (_KEEPIDLE, self.idle),
            (_KEEPINTVL, self.interval),
            (_USER_TIMEOUT, None if seconds is None else max(1, round(seconds * 1000))),
            (_KEEPCNT, count),
        ]
        return (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            *(
                (socket.IPPROTO_TCP, option, value)
                for option, value in values
                if option is not None and value is not None
            ),
        )


_DEFAULT = Keepalive()


def check_keepalive(value: object) -> None:
    """Accept a value for the setting `keepalive`."""
    if not isinstance(value, (bool, Keepalive)):
        raise TypeError(f"keepalive must be True, False or a Keepalive, not {shown(value)}")


def keepalive_of(value: bool | Keepalive) -> Keepalive | None:
    """The `Keepalive` for the setting `keepalive`; None for the system's own settings."""
    if isinstance(value, Keepalive):
        return value
    return _DEFAULT if value else None
