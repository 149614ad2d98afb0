"""One attempt to connect: the hosts in their order, each within its time, and `on_connect` before anybody else."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.config import NetworkConfig, event_place
from pepperpy.network.errors import ClosedError, ConnectionLostError, ForbiddenAddressError, NetworkError, TLSError
from pepperpy.network.last_turns import LAST_TURNS
from pepperpy.network.lookup import AddressInfo, forget
from pepperpy.network.proxy_rules import read_environment
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.tcp.connect import Tried, open_tcp, open_unix
from pepperpy.network.tcp.handshake import connect_transport
from pepperpy.network.tcp.tunnel import Tunnel, open_tunnel
from pepperpy.network.tls import client_context
from pepperpy.network.transient import may_pass, may_pass_again
from pepperpy.network.watchdog import time_limit

if TYPE_CHECKING:
    from pepperpy.network.events import Observer
    from pepperpy.network.tcp.client import NetworkClient
    from pepperpy.network.tcp.client_link import ClientLink

    # Makes another client, with its link, for a connection until the end of a block: see lent() in client.py.
    Lend = Callable[[StreamProtocol], AbstractContextManager[tuple[NetworkClient, ClientLink]]]

# Seconds that a new connection of a reconnecting client has to live before anybody uses it, unless a byte comes. A
# server that is killed accepts until its end, and then resets within 0.2 ms (measured, Linux, 14 of 40 kills of a
# Python server with 20 connections). The reset takes the way of the acceptance, so the distance does not matter.
PROBATION_S = 0.01
_LOOK_EVERY_S = PROBATION_S / 10


class AttemptFailed(Exception):
    """No host could be reached, or `on_connect` failed on each.

    Attributes:
        error: The error of the last host; if some errors may pass, the last of those.
        reason: What happened with each host, as text.
        may_pass: Whether another attempt can help, with any of the hosts.
    """

    def __init__(self, error: Exception, reason: str, may_pass: bool) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason
        self.may_pass = may_pass


class _SetUpFailed(Exception):
    """Marks an exception as one of `on_connect`, not of the connection."""


async def attempt(
    config: NetworkConfig, tried: Tried, lend: Lend, observer: Observer | None, *, again: bool
) -> StreamProtocol:
    """Connect to the first host that can be reached and on which `on_connect` succeeds.

    Args:
        config: Where and how to connect.
        tried: The same object for each attempt, until a connection has proved itself: see `open_tcp()`.
        lend: Lends the connection to `on_connect`.
        observer: Is told of its steps; None: nobody is.
        again: Whether this client has been connected before. Then its settings have worked, so more failures may pass.
            And the server that accepts may be the one that was just lost, on its way down: a connection that ends at
            once counts as a failed attempt.

    Raises:
        AttemptFailed: There is no such host.
        ValueError: A file of the configuration cannot be used. Not with `again`: somebody may be replacing the file.
        UsageError: The configuration needs a package that is not installed.

    Cancellation: No connection is left open.
    """
    limit = config.attempt_timeout
    failures: list[tuple[bool, Exception, str]] = []
    for target in config.for_each_host():
        phase = ""
        default: Callable[[BaseException], bool] = may_pass
        if observer is not None:
            observer.host, observer.port = event_place(target)
        try:
            with time_limit(limit):
                protocol = await open_connection(target, tried, None, observer)
                if config.on_connect is not None:
                    phase = "on_connect not done"
                    protocol = await _set_up(protocol, config.on_connect, lend, observer)
            if again:
                await _prove(protocol)
            return protocol
        except _SetUpFailed as failed:
            error = failed.args[0]
            default = _may_pass_from_on_connect
            reason = f"on_connect failed: {_text_or_type(error)}"
            if str(error) and not isinstance(error, (NetworkError, OSError)):
                # The text of a KeyError says nothing without its type.
                reason = f"on_connect failed: {type(error).__name__}: {error}"
        except (OSError, ValueError, MemoryError) as failed:
            if not again and not isinstance(failed, OSError):
                raise
            error = failed
            reason = _text_or_type(error)
            if type(error) is TimeoutError and not str(error):
                reason = f"{phase or _no_answer(target)} within {limit} s"
        # Look the name up again next time: it may have another address by now.
        forget(target.host)
        if isinstance(error, ForbiddenAddressError):
            verdict: bool | None = False
        else:
            verdict = None if config.may_pass is None else config.may_pass(error)
        if config.hosts:
            reason = f"{target.address}: {reason}"
        if verdict is None:
            verdict = default(error) or (again and _may_pass_again(error, default))
        failures.append((bool(verdict), error, reason))
    passing, error, _ = max(reversed(failures), key=lambda failure: failure[0])
    raise AttemptFailed(error, "; ".join([reason for _, _, reason in failures]), passing) from error


async def open_connection(
    config: NetworkConfig,
    tried: Tried,
    addresses: list[AddressInfo] | None = None,
    observer: Observer | None = None,
    *,
    forwards: bool = False,
) -> StreamProtocol:
    """Set up one connection, without a time limit.

    `tried` and `addresses` are as for `open_tcp()`, `forwards` as for `open_tunnel()`.

    Raises:
        OSError: The lookup failed, or all addresses; if they failed in different ways, one error names them all.
        ForbiddenAddressError: `address_policy` allows none of the addresses.
        ProxyError: The proxy could not be reached, or refused.
        TLSError: The handshake failed, or the certificate was refused.
        UsageError: The configuration needs a package that is not installed.
        ValueError: A file of the configuration cannot be used; or a variable of the environment, with `trust_env`.

    Cancellation: No socket is left open.
    """
    context = client_context(config.tls_settings) if config.tls else None
    sock: Tunnel
    if config.unix_path is not None:
        sock = await open_unix(config, os.fspath(config.unix_path), observer)
    elif (proxy := _proxy_of(config)) is not None:
        sock = await open_tunnel(config, proxy, config.host, config.port, tried, observer, forwards=forwards)
    else:
        sock = await open_tcp(config, config.host, config.port, tried, addresses, observer)
    # The connection keeps its configuration.
    callables = (config.address_policy, config.resolver, config.socket_factory)
    kept = config if callables == (None, None, None) else config.bare
    return await connect_transport(kept, sock, context, observer)


def _proxy_of(config: NetworkConfig) -> str | None:
    if config.proxy is None and config.trust_env:
        return read_environment().proxy_for("all", config.host, config.port)
    return config.proxy


def _no_answer(config: NetworkConfig) -> str:
    # Nobody knows whether the proxy or the server is silent.
    proxy = _proxy_of(config)
    return "no answer" if proxy is None else f"no answer through the proxy {read_proxy(proxy).shown}"


def _may_pass_again(error: BaseException, first: Callable[[BaseException], bool]) -> bool:
    if first is _may_pass_from_on_connect:
        # An error of the system has an errno. Without one, on_connect has raised it or closed the connection.
        return getattr(error, "errno", None) is not None and may_pass_again(error)
    # A ValueError that is no OSError, as a refused certificate is, means that a file cannot be used.
    return (isinstance(error, ValueError) and not isinstance(error, OSError)) or may_pass_again(error)


async def _set_up(
    protocol: StreamProtocol, on_connect: Callable[..., Any], lend: Lend, observer: Observer | None
) -> StreamProtocol:
    with lend(protocol) as (client, link):
        link.observer_of_attempt = observer
        try:
            try:
                result = on_connect(client)
                if inspect.isawaitable(result):
                    await result
                if not link.protocol.is_open:
                    if link.protocol.state in ("closing", "closed"):
                        raise ClosedError("on_connect closed the connection")
                    raise ConnectionLostError("connection lost", None, link.protocol.loss)
            except Exception as error:
                raise _SetUpFailed(error) from error
        except BaseException:
            client.abort()
            raise
        # on_connect may have connected the client again.
        return link.protocol


async def _prove(protocol: StreamProtocol) -> None:
    try:
        ends = time.monotonic() + PROBATION_S
        turns = LAST_TURNS
        while not protocol.receiver.bytes_received:
            if not protocol.is_open or protocol.receiver.at_eof:
                raise ConnectionLostError("accepted, and ended at once without a byte", None, protocol.loss)
            if time.monotonic() < ends:
                await asyncio.sleep(_LOOK_EVERY_S)
            elif turns:
                # The loop may have been held up. What came meanwhile is read in these turns.
                turns -= 1
                await asyncio.sleep(0)
            else:
                break
    except BaseException:
        protocol.abort()
        raise


def _may_pass_from_on_connect(error: BaseException) -> bool:
    if isinstance(error, TLSError):
        # From start_tls(): a refused certificate will be refused again.
        return may_pass(error)
    # Failures of the network, such as a server that closes because it is going down. Any other OSError is on_connect's.
    return isinstance(error, (ConnectionError, TimeoutError, EOFError)) and not isinstance(error, ClosedError)


def _text_or_type(error: BaseException) -> str:
    return str(error) or type(error).__name__
