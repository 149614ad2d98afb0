"""HTTP through a SOCKS proxy or a Unix socket: tcp/ makes the socket, aiohttp does the rest."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import ForbiddenAddressError, ProxyError
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.proxy_rules import EnvironmentProxy
from pepperpy.network.tcp.connect import open_unix
from pepperpy.network.tcp.tunnel import open_tunnel


def is_socks(proxy: URL | None) -> bool:
    return proxy is not None and proxy.scheme.startswith("socks")


def _with_credentials(request: aiohttp.ClientRequest) -> str:
    url, credentials = request.proxy, request.proxy_auth
    assert url is not None
    if credentials is not None:
        # The proxy comes from an environment variable: aiohttp has taken its credentials out of the URL.
        url = url.with_user(credentials.login).with_password(credentials.password)
    return str(url)


async def connect_through(
    connector: Any,
    settings: HTTPConfig,
    request: aiohttp.ClientRequest,
    timeout: aiohttp.ClientTimeout,
    *,
    of_environment: bool,
) -> tuple[asyncio.Transport, ResponseHandler]:
    """Connect through the request's proxy, which may be one `of_environment`.

    Returns and raises what `TCPConnector._create_direct_connection()` does.
    """
    host, port = request.url.raw_host, request.port
    assert host is not None and port is not None
    # Only the fields about sockets matter here. The connector limits the time.
    config = NetworkConfig(
        host,
        port,
        resolver=settings.resolver,
        address_policy=settings.address_policy,
        socket_factory=settings.socket_factory,
        keepalive=settings.keepalive,
        local_address=settings.local_address,
        socket_options=settings.socket_options,
    )
    try:
        proxy = _with_credentials(request)
        sock = await open_tunnel(config, EnvironmentProxy(proxy) if of_environment else proxy, host, port)
    except ProxyError as error:
        raise aiohttp.ClientProxyConnectionError(request.connection_key, error) from error
    except ForbiddenAddressError as error:
        raise aiohttp.ClientConnectorError(request.connection_key, error) from error
    except OSError as error:
        raise aiohttp.ClientConnectorDNSError(request.connection_key, error) from error
    assert isinstance(sock, socket.socket), "as of every proxy but those of https"
    return await _over(connector, sock, request, timeout)


async def connect_unix(
    connector: Any, settings: HTTPConfig, path: str, request: aiohttp.ClientRequest
) -> ResponseHandler:
    """Connect to a Unix socket. Raises aiohttp's errors, as `connect_through()`."""
    try:
        sock = await open_unix(settings, path)
    except OSError as error:
        named = OSError(error.errno, f"{error.strerror}: unix_path {path!r}")
        raise aiohttp.ClientConnectorError(request.connection_key, named) from error
    _, protocol = await _over(connector, sock, request, aiohttp.ClientTimeout())
    return protocol


async def _over(
    connector: Any, sock: socket.socket, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout
) -> tuple[asyncio.Transport, ResponseHandler]:
    """Make a connection of a connected socket, with TLS if the request needs it."""
    context = connector._get_ssl_context(request)
    name = (request.server_hostname or request.url.raw_host or "").rstrip(".") if context else None
    try:
        connected: tuple[asyncio.Transport, ResponseHandler] = await connector._wrap_existing_connection(
            connector._factory, sock=sock, ssl=context, server_hostname=name, req=request, timeout=timeout
        )
    except BaseException:
        sock.close()
        raise
    return connected
