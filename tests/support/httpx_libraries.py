"""httpx and httpx2, for tests that are run with both."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2

import pepperpy.network.httpx as for_httpx
import pepperpy.network.httpx2 as for_httpx2

LIBRARIES: dict[str, tuple[Any, Any]] = {
    "httpx": (httpx, for_httpx.AsyncHTTPTransport),
    "httpx2": (httpx2, for_httpx2.AsyncHTTPTransport),
}


class Library:
    """One of the two, by the names that both have."""

    def __init__(self, name: str) -> None:
        self.module, self.transport = LIBRARIES[name]

    def client(self, *, transport: Any = None, **settings: Any) -> Any:
        return self.module.AsyncClient(transport=transport or self.transport(), **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)
