"""`RateLimit`: how many requests per second may leave. `Pace`: when the next one may, computed from plain numbers."""

from __future__ import annotations

import ipaddress
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from yarl import URL

from pepperpy.network.checks import check_bool, check_int

# Seconds of lateness that the next request makes up for; else each late timer would lower the rate. Time beyond that is
# lost, so that a loop that was blocked does not send a burst. Arbitrary.
_LATENESS = 0.05


@dataclass(frozen=True)
class RateLimit:
    """How fast requests may leave. A wrong type raises `TypeError`, a value out of range `ValueError`.

    Attributes:
        rate: Requests per second; more than 0 and finite.
        burst: Requests that may leave at once after a quiet time; 1 or more. With 1, they leave `1 / rate` seconds
            apart. In any `t` seconds at most `burst + rate * t` leave, or `burst + rate * (t + 0.05)` if the loop runs
            late.
        per: `"client"` counts all requests of a client together, `"host"` counts those to each host.
        adaptive: Heed what a server says of its own limit (RateLimit, X-RateLimit-Remaining and others). While more
            than half of it is left, requests leave at `rate`. Then what is left is spread over the time until there is
            more; when nothing is left, requests to this host wait for that time. It is an hour at most, whatever the
            server says. Each host slows down by itself, also if `per` is `"client"`. A server with several limits
            should name them in one answer: the last answer counts.
    """

    rate: float
    burst: int = 1
    per: Literal["client", "host"] = "client"
    adaptive: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)):
            raise TypeError(f"rate must be a number of requests per second, not {self.rate!r}")
        # Check the interval, which is what is used: it is infinite for the smallest numbers, 0 for the largest ints.
        if not (self.rate > 0 and 0 < 1 / self.rate < math.inf):
            raise ValueError(f"rate must be more than 0 requests per second and finite, not {self.rate!r}")
        check_int("burst", self.burst, 1, sys.maxsize)
        if not isinstance(self.per, str):
            raise TypeError(f"per must be 'client' or 'host', not {self.per!r}")
        if self.per not in ("client", "host"):
            raise ValueError(f"per must be 'client' or 'host', not {self.per!r}")
        check_bool("adaptive", self.adaptive)


# For hosts that a table does not name: so many a second that none ever waits, except for a Retry-After.
UNLIMITED = RateLimit(1e9, burst=sys.maxsize, per="host")


def rate_limits(value: Any) -> RateLimit | Mapping[str, RateLimit]:
    """A checked copy of the setting `rate_limit`: a number, a `RateLimit`, or a table of these by host.

    Raises:
        TypeError, ValueError: It is anything else; the message names the setting.
    """
    if not isinstance(value, Mapping):
        return _as_limit("rate_limit", value)
    table = {}
    for host, limit in value.items():
        if not isinstance(host, str):
            raise TypeError(f"rate_limit must have hosts (str) as keys, not {host!r}")
        table[host if host == "*" else _as_in_urls(host)] = _as_limit(f"rate_limit[{host!r}]", limit)
    return table


def _as_limit(name: str, value: Any) -> RateLimit:
    if isinstance(value, RateLimit):
        return value
    try:
        return RateLimit(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _as_in_urls(host: str) -> str:
    """The host as a request has it: in lower case, in ASCII (IDNA), an IPv6 address in its short form."""
    try:
        if not host or (any(mark in host for mark in "/:@* ") and not _is_address(host)):
            raise ValueError
        return URL.build(scheme="http", host=host).raw_host or ""
    except ValueError:
        text = f"rate_limit must have hosts without scheme and port as keys, or '*', not {host!r}"
        raise ValueError(text) from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Pace:
    """When the next request may leave: the generic cell rate algorithm (GCRA, ITU-T I.371 annex A).

    It is a bucket of `burst` tokens that fills at `rate`, stored as the time when it will be full. All times are
    seconds on the caller's clock.
    """

    __slots__ = ("_interval", "_tolerance", "full_at")

    def __init__(self, limit: RateLimit) -> None:
        self.full_at: float = -math.inf
        self.change(1 / limit.rate, limit.burst)

    def change(self, interval: float, burst: int) -> None:
        """From now on one request in `interval` seconds may leave, and `burst` at once."""
        self._interval = interval
        # A microsecond more, less than any timer resolves: else rounding could delay the last request of a burst.
        self._tolerance = (burst - 1) * interval + 1e-6

    def turn(self, earliest: float, ahead: int = 0) -> float:
        """When a request may leave behind `ahead` others, if none of them leaves before `earliest`."""
        return max(earliest, max(self.full_at, earliest) + ahead * self._interval - self._tolerance)

    def take(self, now: float, since: float) -> float:
        """Count a request that leaves now and has waited since `since`. Returns what `give_back` needs."""
        taken = max(self.full_at, since, now - _LATENESS)
        self.full_at = taken + self._interval
        return taken

    def give_back(self, taken: float, now: float) -> None:
        """Uncount a request that has not left after all.

        The time since it was taken is not given back: without the request the bucket might have been full meanwhile,
        and a full bucket gains nothing. So later requests never exceed the limit.
        """
        self.full_at -= max(0.0, self._interval - max(0.0, now - taken))
