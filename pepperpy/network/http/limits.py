"""`ResponseLimits`: what a server may not exceed, beside the size of a body."""

from __future__ import annotations

from dataclasses import dataclass

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_int
from pepperpy.network.settings import Settings
from pepperpy.network.units import KIB, MIB


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class ResponseLimits(Settings):
    """How much a server may make a client hold, beside `HTTPConfig.max_response_size`.

    Attributes:
        max_line_size: Bytes of one line or server-sent event in a stream; longer raises `MessageTooLargeError`. The
            64 KiB of asyncio and aiohttp are too few for today's JSON streams (aiohttp#4453).
        max_error_body: Bytes of the body that an `HTTPStatusError` holds; the rest is not read. Arbitrary.
    """

    max_line_size: int = 16 * MIB
    max_error_body: int = 64 * KIB

    def __post_init__(self) -> None:
        check_int("max_line_size", self.max_line_size, 1)
        check_int("max_error_body", self.max_error_body, 0)


DEFAULT_LIMITS = ResponseLimits()


def check_response_limits(value: object) -> None:
    """Accept a value for the setting `limits`."""
    if not isinstance(value, ResponseLimits):
        # The limits of httpx are about connections.
        hint = "those of connections are HTTPConfig(max_connections=..., max_connections_per_host=...)"
        raise TypeError(f"limits must be a ResponseLimits, not {type(value).__name__}; {hint}")
