"""A server gets the headers that `Request.headers` decides, and no other, whoever would add some."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import HTTPClient, HTTPConfig
from pepperpy.network.http.aiohttp_transport.wire import AiohttpTransport
from pepperpy.network.http.h1.transport import H1Transport
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Trip


async def chunks() -> AsyncIterator[bytes]:
    yield b"hello"


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("GET", {}),
    ("HEAD", {}),
    ("POST", {}),
    ("DELETE", {}),
    ("QUERY", {}),
    ("GET", {"headers": {"X-Own": "1", "accept": "text/csv", "Host": "other.example"}}),
    ("GET", {"headers": {"Accept": None, "accept-encoding": None, "User-Agent": None, "Cookie": None}}),
    ("POST", {"headers": {"Content-Length": None, "Content-Type": None, "X-Default": None}}),
    ("GET", {"headers": {"Host": None, "X-Default": "2"}, "cookies": {"own": "1"}}),
    ("GET", {"data": b"four"}),
    ("DELETE", {"data": b"four", "headers": {"Content-Type": None}}),
    ("POST", {"data": b"", "headers": {"Content-Type": None}}),
    ("POST", {"json": {"a": 1}}),
    ("PUT", {"data": "text", "headers": {"Content-Type": "text/csv"}}),
    ("PATCH", {"data": {"form": "1"}}),
    ("POST", {"files": {"name": b"content"}}),
    ("POST", {"auth": ("user", "password")}),
]
CONFIGURED: list[dict[str, Any]] = [
    {},
    {"headers": {"X-Default": "1", "user-agent": "mine", "Content-Type": "text/x-default"}},
    {"headers": {"Host": "virtual", "Authorization": "Basic configured"}, "cookies": {"given": "1"}},
]


@pytest.mark.parametrize("kind", [H1Transport, AiohttpTransport])
@pytest.mark.parametrize("config", CONFIGURED)
async def test_a_server_gets_what_the_request_has(
    config: dict[str, Any], kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[list[tuple[str, str]]] = []
    plain = kind.exchange

    async def exchange(transport: Any, request: Request, trip: Trip) -> Any:
        decided.append([(name.lower(), value) for name, value in request.headers.items()])
        return await plain(transport, request, trip)

    monkeypatch.setattr(kind, "exchange", exchange)
    config = {**config, "transport": "auto" if kind is H1Transport else "aiohttp"}
    cases = [*REQUESTS, ("POST", {"data": chunks()}), ("POST", {"data": chunks(), "headers": {"Content-Length": "5"}})]
    async with http_peer(answering(*[response(b"")] * len(cases))) as peer:
        async with HTTPClient(HTTPConfig(**config)) as client:
            for method, arguments in cases:
                await client.request(method, peer.url, **arguments)
        arrived = [[(name.lower(), value) for name, value in request.headers.items()] for request in peer.requests]
    for case, wanted, got in zip(cases, decided, arrived, strict=True):
        assert sorted(got) == sorted(wanted), case
