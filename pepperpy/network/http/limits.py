"""`ResponseLimits`: what a server may send, beside the size of a body."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_bool, check_int, check_size
from pepperpy.network.settings import Settings
from pepperpy.network.units import KIB, MIB


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class ResponseLimits(Settings):
    """What a server may send, beside `HTTPConfig.max_response_size`. An error names the limit that was passed.

    A head past its limits raises `ProtocolError`. What aiohttp does with them, where it carries a request
    (`HTTPConfig.transport`), is in docs/limits.md.

    Attributes:
        max_line_size: Bytes of one line or server-sent event in a stream; longer raises `MessageTooLargeError`. The
            64 KiB of asyncio and aiohttp are too few for today's JSON streams (aiohttp#4453).
        max_error_body: Bytes of the body that an `HTTPStatusError` holds; the rest is not read. Arbitrary.
        max_head_size: Bytes of the status line and all headers of a response together; the same again for those of
            each interim response, and for the trailers behind a body. As Chrome: 256 KiB.
        max_field_size: Bytes of one header, its name included, and of the status line. As http.client: 64 KiB.
        max_fields: Headers of one response, and trailers. aiohttp takes 128, curl 5,000; arbitrary between them.
        max_interim: Interim (1xx) responses before the final one; 0 or more. Go has allowed five; arbitrary.
        max_ratio: How many times larger a body may be when it is decompressed; more raises `ResponseTooLargeError`.
            None: no limit. It counts from 16 MiB decompressed on, which a client can hold and real data of few values
            may reach from any size: gzip makes at most 1,032 of 1, brotli and zstd much more. 200: as mod_deflate.
        lenient: Take a head whose lines end with LF alone, or whose headers are folded, and blanks behind the size of a
            chunk, as embedded servers send them, in development mode as in production. False: refuse these. The lines
            of chunked framing have to end with CR LF, always.
    """

    max_line_size: int = 16 * MIB
    max_error_body: int = 64 * KIB
    max_head_size: int = 256 * KIB
    max_field_size: int = 64 * KIB
    max_fields: int = 1000
    max_interim: int = 8
    max_ratio: int | None = 200
    lenient: bool = True

    def __post_init__(self) -> None:
        check_int("max_error_body", self.max_error_body, 0)
        for name in ("max_line_size", "max_head_size", "max_field_size", "max_fields"):
            check_size(name, getattr(self, name))
        check_int("max_interim", self.max_interim, 0, sys.maxsize)
        if self.max_ratio is not None:
            check_int("max_ratio", self.max_ratio, 1)
        check_bool("lenient", self.lenient)


DEFAULT_LIMITS = ResponseLimits()


def check_response_limits(value: object) -> None:
    """Accept a value for the setting `limits`."""
    if not isinstance(value, ResponseLimits):
        # The limits of httpx are about connections.
        hint = "those of connections are HTTPConfig(max_connections=..., max_connections_per_host=...)"
        raise TypeError(f"limits must be a ResponseLimits, not {type(value).__name__}; {hint}")
