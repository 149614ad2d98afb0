"""A server of the tests that is closed in any turn in which a client comes and leaves: nothing is left of either."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from support.certificates import server_cert, server_context
from support.digest_proxy import digest_proxy
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.http_recorder import recorder
from support.tls_by_hand import TLSByHand, listening

SERVERS: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
    "http_peer": lambda: http_peer(answering(response())),
    "http_peer with TLS": lambda: http_peer(answering(response()), certificate=server_cert()),
    "recorder": recorder,
    "TLSByHand": lambda: listening(TLSByHand(server_context(server_cert())).serve),
    "digest_proxy": digest_proxy,
    "digest_proxy with TLS": lambda: digest_proxy(server_context(server_cert())),
}


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("sent", [b"", b"GET"])
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_closed_while_a_client_comes_leaves_nothing(server: str, sent: bytes, turns: int) -> None:
    """conftest.py looks for tasks, open sockets and errors of the loop."""
    with socket.socket() as client:
        async with SERVERS[server]() as opened:
            url = opened if isinstance(opened, str) else opened.url
            client.connect(("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
            client.send(sent)
            client.close()
            for _ in range(turns):
                await asyncio.sleep(0)
