"""Conditional requests: `if_changed_since` asks a server for a change, and asks no other resource."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_lab import TRANSPORTS
from support.http_peer import Connection, HTTPPeer, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, InvalidRequestError

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)

MODIFIED = "Last-Modified: Sun, 29 Nov 2026 08:00:00 GMT"


@contextlib.asynccontextmanager
async def site(transport: str = "h1") -> AsyncIterator[tuple[HTTPPeer, HTTPClient]]:
    """Two resources whose versions have the same name, and a redirect from one to the other."""

    async def handle(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            if request.target.startswith("/moved"):
                await connection.send(response(b"", "Location: /other", 'ETag: "1"', status="302 Found"))
            elif request.headers.get("If-None-Match") == '"1"':
                await connection.send(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
            else:
                await connection.send(response(b"text", 'ETag: "1"', MODIFIED))

    async with http_peer(handle) as peer:
        async with HTTPClient(HTTPConfig(peer.url, **TRANSPORTS[transport])) as client:
            yield peer, client


@each_transport
async def test_an_unchanged_resource_is_not_sent_again(transport: str) -> None:
    async with site(transport) as (peer, client):
        known = await client.request("GET", "/page", params={"a": "b"})
        again = await client.request("GET", "/page", params={"a": "b"}, if_changed_since=known)
        assert (known.status, known.content, again.status, again.content) == (200, b"text", 304, b"")
        sent = peer.requests[1].headers
        assert (sent.get("If-None-Match"), sent.get("If-Modified-Since")) == ('"1"', MODIFIED.partition(" ")[2])
        third = await client.request("GET", "/page?a=b", if_changed_since=again)
        assert third.status == 304
        async with client.stream("GET", "/page?a=b", if_changed_since=known) as stream:
            assert (stream.status, await stream.read()) == (304, b"")


async def test_where_a_redirect_leads_no_version_of_another_resource_is_asked_for() -> None:
    async with site() as (peer, client):
        known = await client.request("GET", "/moved")
        assert known.url.endswith("/other")
        again = await client.request("GET", "/moved", if_changed_since=known)
        assert again.status == 304
        assert [request.headers.get("If-None-Match") for request in peer.requests] == [None, None, None, '"1"']
        unmoved = await client.request("GET", "/moved", allow_redirects=False)
        assert (await client.request("GET", "/moved", if_changed_since=unmoved)).status == 200
        assert [request.headers.get("If-None-Match") for request in peer.requests[-2:]] == ['"1"', None]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"url": "/else"}, "if_changed_since is a response of another URL"),
    ({"params": {"page": "2"}}, "if_changed_since is a response of another URL"),
    ({"method": "POST"}, "if_changed_since is for GET and HEAD, not for POST"),
    ({"headers": {"If-None-Match": "*"}}, "headers must not have If-None-Match beside if_changed_since"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
async def test_what_cannot_be_asked_under_a_condition_is_not_sent(change: dict[str, Any], message: str) -> None:
    async with site() as (peer, client):
        known = await client.request("GET", "/page")
        with pytest.raises(InvalidRequestError, match=message):
            await client.request(**{"method": "GET", "url": "/page", "if_changed_since": known} | change)
        with pytest.raises(TypeError, match="if_changed_since must be an HTTPResponse, not str"):
            await client.request("GET", "/page", if_changed_since='"1"')  # type: ignore[arg-type]
        assert len(peer.requests) == 1


@pytest.mark.parametrize("etag", ["no-quotes", '"a b"', '"' + "x" * 2000 + '"', "", '"1", "2"'])
async def test_what_is_no_version_is_not_sent_back(etag: str) -> None:
    answers = [response(b"a", f"ETag: {etag}", "Last-Modified: yesterday"), response(b"b")]
    async with http_peer(answering(*answers)) as peer, HTTPClient(HTTPConfig(peer.url)) as client:
        known = await client.request("GET", "/")
        assert (await client.request("GET", "/", if_changed_since=known)).content == b"b"
        assert not {"If-None-Match", "If-Modified-Since"} & set(peer.requests[1].headers)


@pytest.mark.parametrize("auth", [("user", "password"), lambda: "token"])
async def test_a_request_with_credentials_asks_for_a_change_too(auth: Any) -> None:
    async with site() as (peer, client):
        known = await client.request("GET", "/page", auth=auth)
        assert (await client.request("GET", "/page", auth=auth, if_changed_since=known)).status == 304
        assert all("Authorization" in request.headers for request in peer.requests)
