"""`H1Transport`: a `Transport` on our own core."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from pepperpy.network._core.http_exchange import HTTPTransport
from pepperpy.network._core.http_head import ResponseRules
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.h1.answer import H1Answer
from pepperpy.network.http.h1.decoding import accepted_codings
from pepperpy.network.http.h1.heads import rest_of, target_of, unsendable
from pepperpy.network.http.h1.origins import check_tls_of
from pepperpy.network.http.h1.pool import Pool
from pepperpy.network.http.limits import ResponseLimits


class H1Transport(HTTPTransport):
    """See `Transport`. Made and used inside one running loop.

    It serves http and https: directly, through a tunnel (a SOCKS proxy, or an HTTP one for https), or by an HTTP proxy
    that forwards requests of http.
    """

    pool: Pool
    default_headers: Mapping[str, str] = {
        "Accept": "*/*",
        "Accept-Encoding": accepted_codings(),
        "User-Agent": f"Python/{sys.version_info.major}.{sys.version_info.minor} pepperpy-network",
    }

    def __init__(self, config: HTTPConfig) -> None:
        """Raises: `ValueError`, `UsageError`: `config.tls` cannot be used: its files, say."""
        check_tls_of(config)
        super().__init__(Pool(config), rules_of(config.limits), H1Answer)

    @property
    def open_connections(self) -> int:
        return self.pool.open_connections

    @property
    def discarded(self) -> int:
        return self.pool.discarded

    # ---- What its base calls ----

    rest_of = staticmethod(rest_of)
    target_of = staticmethod(target_of)
    unsendable = staticmethod(unsendable)

    async def close(self, seconds: float) -> None:
        await self.pool.close(seconds)

    def abandon(self) -> None:
        self.pool.abandon()


def rules_of(limits: ResponseLimits) -> ResponseRules:
    """What the core is to take for a response."""
    return ResponseRules(
        max_head_size=limits.max_head_size,
        max_field_size=limits.max_field_size,
        max_fields=limits.max_fields,
        max_interim=limits.max_interim,
        lenient=limits.lenient,
    )
