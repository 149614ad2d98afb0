"""What callers give, to settings and methods alike: the types of it, and the checks. Each rule is here once.

A check raises `TypeError` for a wrong type, `ValueError` for a value out of range. Both name the field and the value.
"""

from __future__ import annotations

import enum
import math
import sys
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    # collections.abc.Buffer is new in Python 3.12; type checkers know this name without its being installed.
    from typing_extensions import Buffer

    BytesLike = Buffer
else:
    BytesLike = bytes | bytearray | memoryview


class Default(enum.Enum):
    """Stands for "as configured" where None already means "no limit"; the value says by which fields."""

    TIMEOUT = "NetworkConfig.timeout"
    KEEPALIVE = "keepalive_idle + keepalive_count * keepalive_interval"


Timeout: TypeAlias = float | Default | None
"""Seconds that a call may wait; None for no limit."""


def check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse what is no int from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    if value < low or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"{low} or more"
        raise ValueError(f"{name} must be {limits}, not {shown(value)}")


def check_size(name: str, value: object) -> None:
    """Refuse what is no number of bytes that memory can have, from 1."""
    check_int(name, value, 1, sys.maxsize)


def check_bool(name: str, value: object) -> None:
    """Refuse what is neither True nor False: a number or a text is more likely a mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


def check_seconds(name: str, value: object, *, zero: bool, hint: str = "") -> None:
    """Refuse what is no finite number of seconds above 0 (or from 0, where `zero`)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}{hint}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not (math.isfinite(value) and (value >= 0 if zero else value > 0)):
        raise ValueError(f"{name} must be {'0 or more' if zero else 'more than 0'} seconds, not {shown(value)}{hint}")


def check_timeout(name: str, value: object, *, zero: bool) -> None:
    """The same for a limit of time, which may be None."""
    if value is not None:
        check_seconds(name, value, zero=zero, hint="; None waits for ever")


def seconds_of(timeout: Timeout, configured: float | None) -> float | None:
    """The limit of one call in seconds, from its argument `timeout`; None for no limit. Raises as `check_timeout`."""
    if isinstance(timeout, Default):
        return configured
    check_timeout("timeout", timeout, zero=True)
    return timeout


def shown(value: object) -> str:
    """The value in an error message. A URL given in the place of something else may hold a password before its "@"."""
    text = repr(value)
    return type(value).__name__ if "@" in text else text
