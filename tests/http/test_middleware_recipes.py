"""The middlewares that docs/middleware.md shows do what it says of them."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import ConnectError, HTTPClient, HTTPConfig

PAGE = (Path(__file__).parents[2] / "docs" / "middleware.md").read_text()
OK = response(b"ok")


def shown(name: str) -> Any:
    """What the snippet that defines `name` defines."""
    [code] = [code for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if name in code]
    names: dict[str, Any] = {}
    exec(code, names)
    return names[name.split()[-1]]


async def test_the_signature_is_made_anew_for_each_exchange() -> None:
    busy = response(b"", status="503 x")
    to = response(b"", "Location: /to", status="307 x")
    async with http_peer(answering(busy, to, OK)) as peer:
        async with HTTPClient(HTTPConfig(middlewares=[shown("def sign")], retry_delay=0)) as client:
            await client.put(peer.url + "/from?a=b", data=b"data")
        assert [request.target for request in peer.requests] == ["/from?a=b", "/from?a=b", "/to"]
        for request in peer.requests:
            digest = hashlib.sha256(b"data").hexdigest()
            text = "\n".join(["PUT", request.target, request.headers["Host"], request.headers["X-Date"], digest])
            assert request.headers["X-Signature"] == hmac.new(b"secret", text.encode(), "sha256").hexdigest()


async def test_the_retry_rule_tries_again() -> None:
    async with http_peer(answering(response(b"", status="409 x"), OK)) as peer:
        async with HTTPClient(HTTPConfig(middlewares=[shown("def patient")], retries=0)) as client:
            assert await client.post(peer.url, json=1) == "ok"
        assert len(peer.requests) == 2


async def test_the_breaker_leaves_a_failing_host_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = shown("class Breaker")(limit=2, pause=10.0)
    now = 1000.0
    monkeypatch.setitem(type(breaker).__call__.__globals__, "time", SimpleNamespace(monotonic=lambda: now))
    bad = response(b"", status="500 x")
    async with http_peer(answering(bad, bad, OK)) as peer:
        config = HTTPConfig(middlewares=[breaker], retries=0, raise_for_status=False)
        async with HTTPClient(config) as client:
            assert [(await client.request("GET", peer.url)).status for _ in range(2)] == [500, 500]
            with pytest.raises(ConnectError, match="failed 2 times"):
                await client.get(peer.url)
            assert len(peer.requests) == 2
            now += 11
            assert await client.get(peer.url) == await client.get(peer.url) == "ok"


async def test_the_cache_asks_once() -> None:
    async with http_peer(answering(response(b"one"), response(b"two"))) as peer:
        async with HTTPClient(HTTPConfig(middlewares=[shown("class Cache")()])) as client:
            assert [await client.get(peer.url) for _ in range(3)] == ["one"] * 3
            assert await client.post(peer.url) == "two"
        assert len(peer.requests) == 2


async def test_the_recorder_plays_again_without_a_server(tmp_path: Path) -> None:
    recorder = shown("class Recorder")
    async with http_peer(answering(response(b"\x00\xff", "Content-Type: image/x"))) as peer:
        async with HTTPClient(HTTPConfig(middlewares=[recorder(tmp_path / "answers.json")])) as client:
            first = await client.request("PUT", peer.url, data=b"data")
    async with HTTPClient(HTTPConfig(middlewares=[recorder(tmp_path / "answers.json")])) as client:
        again = await client.request("PUT", peer.url, data=b"data")
        async with client.stream("PUT", peer.url, data=b"data") as stream:
            assert await stream.read() == b"\x00\xff"
    assert (again.content, again.headers["Content-Type"]) == (first.content, "image/x") == (b"\x00\xff", "image/x")
