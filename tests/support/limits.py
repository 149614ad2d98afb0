"""Time limits on a machine that may stop for a second: ended by the test, or tried again with more time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from pepperpy.network.watchdog import watchdog_of


def end_limits() -> None:
    """End the time limits of this loop, as if their time were over: of calls of TCP clients, and of connecting."""
    watchdog_of(asyncio.get_running_loop()).close()


def longer_and_longer(seconds: float) -> Iterator[float]:
    """A limit for each try of what is to happen before that limit ends: `break` when it has happened.

    For limits that end by no timer of ours, or whose end is what the test is about.
    """
    for factor in (1, 8, 64):
        yield seconds * factor
    raise AssertionError(f"it has not happened within {seconds * 64:g} s either")
