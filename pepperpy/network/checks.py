"""Types and checks of the values that callers give to settings and methods.

A check raises `TypeError` for a wrong type, `ValueError` for a value out of range. Both name the field and the value.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import math
import sys
from typing import TYPE_CHECKING, Any, Never, TypeAlias

if TYPE_CHECKING:
    # collections.abc.Buffer is new in Python 3.12. Type checkers know typing_extensions without installing it.
    from typing_extensions import Buffer

    BytesLike = Buffer
else:
    BytesLike = bytes | bytearray | memoryview


class Default(enum.Enum):
    """Means "as configured" where None means "no limit". The value names the fields that decide."""

    TIMEOUT = "NetworkConfig.timeout"
    KEEPALIVE = "Keepalive.idle + Keepalive.count * Keepalive.interval"


Timeout: TypeAlias = float | Default | None
"""Seconds that a call may wait; None for no limit."""


def check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    """Accept an int from `low` to `high`; None for no upper end."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    if value < low or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"{low} or more"
        raise ValueError(f"{name} must be {limits}, not {shown(value)}")


def check_size(name: str, value: object) -> None:
    """Accept a number of bytes, 1 or more, that fits in memory."""
    check_int(name, value, 1, sys.maxsize)


def check_bool(name: str, value: object) -> None:
    """Accept True or False only: another truthy value is more likely a mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


def check_seconds(name: str, value: object, *, zero: bool, hint: str = "") -> None:
    """Accept a finite number of seconds above 0; also 0 with `zero`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}{hint}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not (math.isfinite(value) and (value >= 0 if zero else value > 0)):
        raise ValueError(f"{name} must be {'0 or more' if zero else 'more than 0'} seconds, not {shown(value)}{hint}")


def check_timeout(name: str, value: object, *, zero: bool) -> None:
    """Accept a finite number of seconds, or None for no limit."""
    if value is not None:
        check_seconds(name, value, zero=zero, hint="; None waits for ever")


def seconds_of(timeout: Timeout, configured: float | None) -> float | None:
    """The time limit of one call in seconds, None for no limit. Raises as `check_timeout`.

    Args:
        timeout: What the caller gave.
        configured: What the configuration says.
    """
    if isinstance(timeout, Default):
        return configured
    check_timeout("timeout", timeout, zero=True)
    return timeout


def check_separators(separators: tuple[object, ...], *, contained: bool = False) -> None:
    """Accept a tuple of 1 or more separators, of bytes; none contains another except at its end, unless `contained`."""
    if not separators:
        raise ValueError("separator must hold 1 separator or more, not 0")
    for separator in separators:
        if type(separator) is not bytes:
            raise TypeError(f"separator must be bytes or a tuple of bytes, not {shown(separator)}")
        if not separator:
            raise ValueError("separator must have 1 byte or more, not 0")
    for separator in () if contained else separators:
        for other in separators:
            if other in separator[:-1]:  # type: ignore[index]
                raise ValueError(f"separator {separator!r} would never be found: {other!r} ends before it does")


def shown(value: object) -> str:
    """The value as an error message may show it: text with an "@" may be a URL with a password, so only its type."""
    text = repr(value)
    return type(value).__name__ if "@" in text else text


def check_callable(name: str, value: object, *, plain: bool = False) -> None:
    """Refuse what cannot be called; where `plain`, a coroutine function, too. The error shows nothing of the value."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")
    if plain and inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a plain function, not the coroutine function {name_of(value)}")


def name_of(function: Any) -> str:
    """The name of a callable. Not its repr: that of a partial or a method shows arguments or the object."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def refuse_copies(client: object) -> Never:
    """For `__getstate__` of what has connections: two of them would share these, and none can cross processes."""
    kind = type(client).__name__
    raise TypeError(f"{kind} cannot be pickled or copied: pickle its config, and make another {kind} of that")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that the caller runs in. None: there is none, also in a forked process in a coroutine of its parent."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
