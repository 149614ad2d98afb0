"""The sockets of a client for HTTP, whoever carries its requests."""

from __future__ import annotations

from typing import Any

from pepperpy.network import HTTPClient
from pepperpy.network.http.transports import Transports


def socket_of(client: HTTPClient) -> Any:
    """That of the client's only connection."""
    assert client._life.engine is not None
    transport = client._life.engine.transport
    if isinstance(transport, Transports) and transport.core.open_connections:
        (connection,) = transport.core.pool.connections
        return connection.protocol.extra_info("socket")
    connector: Any = client.session.connector
    (opened,) = connector.open_transports()
    return opened.get_extra_info("socket")
