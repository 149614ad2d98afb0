"""Connections that others have made: of a socket that is connected already, or that a server has accepted."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.config import NetworkConfig, check_config
from pepperpy.network.errors import ConnectionLostError, NetworkError, NetworkTimeoutError, TLSError
from pepperpy.network.link import connection_error
from pepperpy.network.printable import printable
from pepperpy.network.tcp.connect import set_options
from pepperpy.network.tcp.handshake import connect_transport
from pepperpy.network.tcp.made_socket import stream_socket
from pepperpy.network.tls import client_context
from pepperpy.network.watchdog import time_limit

if TYPE_CHECKING:
    from pepperpy.network.events import Observer

# Settings that say how a connection is made.
_ABOUT_CONNECTING = (
    "retries",
    "retry_delay",
    "max_retry_delay",
    "happy_eyeballs_delay",
    "local_address",
    "proxy",
    "proxy_tls",
    "hosts",
    "resolver",
    "address_policy",
    "trust_env",
    "socket_factory",
    "on_connect",
    "may_pass",
    "reconnect",
)
_DEFAULT = NetworkConfig("localhost", 1)


def check_settings(owner: str, config: NetworkConfig, further: tuple[str, ...] = ()) -> None:
    """Refuse settings that mean nothing for a connection which is made already; `further` ones, too.

    Raises:
        ValueError: A setting differs from its default; the message names it.
    """
    check_config(owner, config)
    for name in (*_ABOUT_CONNECTING, *further):
        if getattr(config, name) != getattr(_DEFAULT, name):
            raise ValueError(f"{name} must be left out of the config of {owner}: it says how a client connects")


def settings_for(name: Any, config: NetworkConfig | None = None) -> NetworkConfig:
    """The settings of a connection whose peer has this address, as the system gives it. Errors show the address."""
    config = config or _DEFAULT
    if isinstance(name, tuple) and len(name) >= 2:
        return config.for_peer(str(name[0]), int(name[1]), None)
    path = name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
    # Most clients of a Unix socket have no name of their own. The others choose theirs, and messages show it.
    return config.for_peer("", 0, printable(path) or os.fspath(config.unix_path or "unnamed socket"))


def check_given(
    given: object, config: NetworkConfig | None
) -> tuple[socket.socket, NetworkConfig, ssl.SSLContext | None]:
    """The socket that `NetworkClient.from_socket()` was given, with its options set; the settings; TLS, or None.

    Raises what that documents, where the socket stays with its owner.
    """
    sock = stream_socket("sock", given)
    try:
        name = sock.getpeername()
    except OSError as error:
        raise ValueError(f"sock must be connected: {error.strerror}") from error
    if config is None:
        config = settings_for(name)
    else:
        check_settings("NetworkClient.from_socket()", config)
    context = client_context(config.tls_settings) if config.tls else None
    try:
        set_options(sock, sock.family, config)
    except OSError as error:
        raise ValueError(f"an option cannot be set on sock: {error.strerror}") from error
    return sock, config, context


async def open_socket(
    config: NetworkConfig, sock: socket.socket, context: ssl.SSLContext | None, observer: Observer | None
) -> StreamProtocol:
    """Make a connection of a socket that is connected, within `config.attempt_timeout` seconds.

    With a context for servers, this side is the server of the handshake.

    Raises:
        TLSError: The handshake failed.
        NetworkTimeoutError: The peer was too slow.
        ConnectionLostError: The connection broke meanwhile.

    Failure and cancellation: `sock` is closed.
    """
    seconds = config.attempt_timeout
    sock.setblocking(False)
    try:
        with time_limit(seconds):
            return await connect_transport(config.bare, sock, context, observer)
    except TLSError as error:
        raise connection_error(config, type(error), str(error), "connect", error.__cause__) from error.__cause__
    except NetworkError:
        raise
    except TimeoutError as error:
        what = f"TLS did not start within {seconds} s"
        raise connection_error(config, NetworkTimeoutError, what, "connect", error, elapsed=seconds) from error
    except OSError as error:
        what = f"connection lost: {error.strerror or error}"
        raise connection_error(config, ConnectionLostError, what, "connect", error) from error
