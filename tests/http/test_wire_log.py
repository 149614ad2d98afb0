"""The wire log of HTTP: heads without secrets, by the setting and by the environment variable."""

from __future__ import annotations

import logging

import httpx
import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.log_lines import written_to

from pepperpy.network import ConnectError, HTTPClient, HTTPConfig
from pepperpy.network.http.wire_log import VARIABLE
from pepperpy.network.httpx import AsyncHTTPTransport
from pepperpy.network.wire_log import MAX_LINE

LOG = logging.getLogger("test.http.wire")


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_the_heads_of_each_exchange_are_written_and_no_body(transport: str) -> None:
    moved = response(b"", "Location: /there?code=canary", status="302 Found")
    with written_to(LOG) as seen:
        async with http_peer(answering(moved, response(b"body", "X-One: 1"))) as peer:
            config = HTTPConfig(peer.url, wire_log=LOG, transport=transport, headers={"User-Agent": "me"})  # type: ignore[arg-type]
            async with HTTPClient(config) as client:
                assert await client.get("/here?q=canary") == "body"
    first, second = f"> GET {peer.url}/here?q=*** HTTP/1.1", f"> GET {peer.url}/there?code=*** HTTP/1.1"
    assert [line for line in seen.text if line.startswith(("> GET", "< HTTP"))] == [
        first, "< HTTP/1.1 302 Found", second, "< HTTP/1.1 200 OK"
    ]  # fmt: skip
    assert "> User-Agent: me" in seen.text and "< X-One: 1" in seen.text
    assert "< Location: /there?code=***" in seen.text
    assert not any("body" in line or "canary" in line for line in seen.lines)
    assert len({line.split(" ")[0] for line in seen.lines}) == 2


async def test_secrets_are_in_no_line() -> None:
    answer = response(
        b"",
        "Set-Cookie: id=canary",
        "X-Next: https://u:canary@h/?key=canary",
        "Own: canary",
        "WWW-Authenticate: canary",
        "Content-Location: /here#access=canary",
        "Link: </a>; rel=next, <https://u:canary@h/?key=canary>; rel=last",
    )
    with written_to(LOG) as seen:
        async with http_peer(answering(answer)) as peer:
            url = peer.url.replace("://", "://user:canary@")
            async with HTTPClient(HTTPConfig(url, wire_log=LOG, secret_headers={"own"})) as client:
                headers = {
                    "X-Api-Key": "canary",
                    "Cookie": "a=canary",
                    "Referer": "http://h/?t=canary",
                    "OWN": "canary",
                }
                await client.get("/?key=canary", headers=headers)
    assert "canary" not in "".join(seen.lines)
    assert {"> X-Api-Key: ***", "> OWN: ***", "> Referer: http://h/?t=***", "> Authorization: ***"} <= set(seen.text)
    assert {"< Set-Cookie: ***", "< Own: ***"} <= set(seen.text)


async def test_what_a_server_sends_is_escaped_and_cut() -> None:
    answer = response(b"", "X-Esc: a\x85b", f"X-Long: {'x' * 5000}")
    with written_to(LOG) as seen:
        async with http_peer(answering(answer)) as peer, HTTPClient(HTTPConfig(peer.url, wire_log=LOG)) as client:
            await client.get("/")
    assert all(line.isprintable() for line in seen.lines)
    (long,) = [line for line in seen.text if line.startswith("< X-Long")]
    assert len(long) == MAX_LINE and long.endswith("...")


async def test_an_exchange_that_fails_says_so() -> None:
    with written_to(LOG) as seen:
        async with HTTPClient(HTTPConfig(wire_log=LOG, retries=0)) as client:
            with pytest.raises(ConnectError):
                await client.get("http://127.0.0.1:1/")
            assert client.stats.open_connections == 0
    assert seen.text[-1].startswith("< refused: cannot connect")


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
async def test_the_environment_switches_it_on(value: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with written_to(logging.getLogger("pepperpy.network.wire")) as seen:
        async with http_peer(answering(response())) as peer:
            async with HTTPClient(HTTPConfig(peer.url)) as client:
                await client.get("/")
            async with httpx.AsyncClient(transport=AsyncHTTPTransport()) as other:
                await other.get(peer.url)
    assert [line for line in seen.text if line.startswith("< HTTP")] == ["< HTTP/1.1 200 OK"] * 2 * on


async def test_a_program_without_a_log_gets_the_lines_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log = logging.getLogger("pepperpy.network.wire")
    monkeypatch.setattr(log, "handlers", [])
    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        await client.get("/")
        async with HTTPClient(HTTPConfig(peer.url)):
            assert len(log.handlers) == 1
    assert "pepperpy.network.wire #" in capsys.readouterr().err


async def test_a_client_without_it_has_its_transport_alone() -> None:
    async with HTTPClient() as client:
        assert type(client._life.transport).__name__ == "Transports"
    with pytest.raises(TypeError, match="wire_log must be a"):
        HTTPConfig(wire_log="stderr")  # type: ignore[arg-type]
