"""One attempt to connect: the hosts in their order, each within its time, and `on_connect` before anybody else."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pepperpy.network import backoff
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import ClosedError, ConnectionLostError, TLSError
from pepperpy.network.lookup import forget
from pepperpy.network.tcp.connect import Tried, open_tcp, open_unix
from pepperpy.network.tcp.handshake import connect_transport
from pepperpy.network.tcp.tunnel import open_tunnel
from pepperpy.network.tls import client_context
from pepperpy.network.watchdog import time_limit

if TYPE_CHECKING:
    from pepperpy.network.link import Link
    from pepperpy.network.tcp.client import NetworkClient

    # Makes a client of its own, and its link, for a connection until the end of a block: see tcp.client.lent().
    Lend = Callable[[StreamProtocol], AbstractContextManager[tuple[NetworkClient, Link]]]

# Seconds that a new connection of a reconnecting client lives before anybody uses it, unless a byte comes. A server
# that is killed accepts up to its end, and then resets: within 0.2 ms (measured, Linux, 14 of 40 kills of a Python
# server, with 20 connections). By the same way as the acceptance, so the distance does not matter.
PROBATION_S = 0.01


class AttemptFailed(Exception):
    """No host could be reached, or `on_connect` failed on each.

    Attributes:
        error: The last host's error; of those that may pass, if there are any.
        reason: What happened, for all hosts.
        may_pass: Whether another attempt can help: with any of the hosts.
    """

    def __init__(self, error: Exception, reason: str, may_pass: bool) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason
        self.may_pass = may_pass


class _SetUpFailed(Exception):
    """Tells what `on_connect` raised from what the connection did."""


async def attempt(config: NetworkConfig, tried: Tried, lend: Lend, *, again: bool) -> StreamProtocol:
    """Connect to the first host that can be reached and on which `on_connect` succeeds.

    Args:
        config: Where and how.
        tried: The same object for each attempt until a connection has proved itself: see `open_tcp()`.
        lend: Lends the connection to `on_connect`.
        again: This very client has been connected before. So its settings can work, and more may pass; and whoever
            accepts may be the server that has just been lost, on its way down: what ends at once has failed.

    Raises:
        AttemptFailed: There is none.
        ValueError: A file of the configuration cannot be used. Not with `again`: it may be just being replaced.
        UsageError: The configuration asks for a package that is not installed.

    Cancellation: No connection is left open.
    """
    limit = config.attempt_timeout
    failures: list[tuple[bool, Exception, str]] = []
    for target in config.for_each_host():
        phase = "no answer"
        default = backoff.may_pass if target.unix_path is None else _may_pass_of_unix_socket
        try:
            with time_limit(limit):
                protocol = await open_connection(target, tried)
                if config.on_connect is not None:
                    phase = "on_connect not done"
                    protocol = await _set_up(protocol, config.on_connect, lend)
            if again:
                await _prove(protocol)
            return protocol
        except _SetUpFailed as failed:
            error = failed.args[0]
            default = _may_pass_from_on_connect
            reason = f"on_connect failed: {_text_or_type(error)}"
        except (OSError, ValueError, MemoryError) as failed:
            if not again and not isinstance(failed, OSError):
                raise
            error = failed
            reason = _text_or_type(error)
            if type(error) is TimeoutError and not str(error):
                reason = f"{phase} within {limit} s"
        # It may have accepted, and TLS or on_connect failed: the name may lead elsewhere by now.
        forget(target.host)
        verdict = None if config.may_pass is None else config.may_pass(error)
        if config.hosts:
            reason = f"{target.address}: {reason}"
        if verdict is None:
            verdict = default(error) or (again and _may_pass_again(error, default))
        failures.append((bool(verdict), error, reason))
    passing, error, _ = max(reversed(failures), key=lambda failure: failure[0])
    raise AttemptFailed(error, "; ".join(reason for _, _, reason in failures), passing) from error


async def open_connection(config: NetworkConfig, tried: Tried) -> StreamProtocol:
    """Set up one connection. No time limit of its own. `tried` is as for `open_tcp()`.

    Raises:
        OSError: Of the lookup or of the addresses; where several failed differently, one error names them all.
        ProxyError: The proxy could not be reached, or refused.
        TLSError: The handshake failed, or the certificate was refused.
        UsageError: What the configuration asks for needs a package that is not installed.
        ValueError: A file of the configuration cannot be used.

    Cancellation: No socket is left open.
    """
    context = client_context(config.tls_settings) if config.tls else None
    if config.unix_path is not None:
        sock = await open_unix(config, config.unix_path)
    elif config.proxy is not None:
        sock = await open_tunnel(config, config.proxy, config.host, config.port, tried)
    else:
        sock = await open_tcp(config, config.host, config.port, tried)
    return await connect_transport(config, sock, context)


def _may_pass_again(error: BaseException, first: Callable[[BaseException], bool]) -> bool:
    if first is _may_pass_from_on_connect:
        # What the system raised has an errno; without one, it is on_connect's own. It may also have closed it itself.
        return getattr(error, "errno", None) is not None and backoff.may_pass_again(error)
    # The ValueError is that of a file.
    return isinstance(error, ValueError) or backoff.may_pass_again(error)


def _may_pass_of_unix_socket(error: BaseException) -> bool:
    # A server removes its path when it ends, and makes it anew when it starts (redis, for one).
    return backoff.may_pass(error) or isinstance(error, FileNotFoundError)


async def _set_up(protocol: StreamProtocol, on_connect: Callable[..., Any], lend: Lend) -> StreamProtocol:
    with lend(protocol) as (client, link):
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
        # It may be another one by now.
        return link.protocol


async def _prove(protocol: StreamProtocol) -> None:
    try:
        ends = asyncio.get_running_loop().time() + PROBATION_S
        while not protocol.receiver.bytes_received:
            if not protocol.is_open or protocol.receiver.at_eof:
                raise ConnectionLostError("accepted, and ended at once without a byte", None, protocol.loss)
            if asyncio.get_running_loop().time() >= ends:
                break
            await asyncio.sleep(PROBATION_S / 10)
    except BaseException:
        protocol.abort()
        raise


def _may_pass_from_on_connect(error: BaseException) -> bool:
    if isinstance(error, TLSError):
        # Of start_tls(): a certificate that is refused will be so again.
        return backoff.may_pass(error)
    # What the network did to it, such as a server that hangs up because it is going down. Any other OSError is its own.
    return isinstance(error, (ConnectionError, TimeoutError, EOFError)) and not isinstance(error, ClosedError)


def _text_or_type(error: BaseException) -> str:
    return str(error) or type(error).__name__
