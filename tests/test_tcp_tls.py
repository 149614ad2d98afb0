"""TLS of the TCP client: connecting, moving bytes, ending; over the loops' own transports and over aiofastnet's."""

from __future__ import annotations

import pytest
from support.tls_peer import TRANSPORTS, tls_peer_and_client, use_transport


@pytest.fixture(params=TRANSPORTS, autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    return str(request.param)


async def test_bytes_go_both_ways_and_the_connection_says_what_was_agreed_on() -> None:
    async with tls_peer_and_client(alpn=()) as (peer, client):
        assert client.tls is not None
        assert client.tls.version == "TLSv1.3"
        assert client.tls.cipher == peer.tls.cipher()[0]
        assert client.tls.alpn is None
        await client.send(b"ping\n")
        assert await peer.receive(5) == b"ping\n"
        await peer.send(b"pong\nrest")
        assert await client.receive_line() == b"pong\n"
        assert await client.receive() == b"rest"
    assert client.tls is None


async def test_what_comes_with_the_end_of_the_handshake_is_received() -> None:
    async with tls_peer_and_client() as (peer, client):
        for size in (1, 1000, 100_000, 1_000_000):
            await peer.send(b"x" * size)
            assert await client.receive_exactly(size) == b"x" * size
