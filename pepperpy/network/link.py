"""`Link`: the present connection of one client.

Requests, framed messages, the pool, the heartbeat and reconnecting work on a link, and know nothing of `NetworkClient`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from pepperpy.network._core.directions import Receiving, Sending
from pepperpy.network._core.stream_protocol import StreamProtocol
from pepperpy.network.checks import Timeout, seconds_of
from pepperpy.network.config import NetworkConfig
from pepperpy.network.errors import ConnectionLostError, NetworkError, also_as

if TYPE_CHECKING:
    from pepperpy.network.requests.exchanges import Exchanges
    from pepperpy.network.tcp_settings import Heartbeat

E = TypeVar("E", bound=NetworkError)


class StandIn(Receiving, Protocol):
    """What a reconnecting client receives from between two connections: see tcp/pending.py."""

    def raise_loss(self) -> None: ...
    async def catch_up(self, timeout: Timeout, phase: str) -> Timeout: ...


class Link:
    """Each client has one link, which stays the same for life. Each `connect()` puts a new connection into it.

    Attributes:
        config: The client's configuration.
        protocol: The present connection, or the last one.
        receiver, sender: What the client's calls go to. `swap()` changes them.
        exchanges: The requests of this connection; None before the first one.
        heartbeat: What asks the peer of this connection for a sign of life, or None. It stands here because it keeps
            alive what its callable belongs to, often the client.
        connects, retries, latency: See `NetworkStats`.
    """

    __slots__ = (
        "__weakref__",
        "config",
        "connects",
        "exchanges",
        "heartbeat",
        "latency",
        "past",
        "protocol",
        "receiver",
        "retries",
        "sender",
    )

    def __init__(self, config: NetworkConfig) -> None:
        """The link has no connection yet."""
        self.config: NetworkConfig = config
        self.protocol: StreamProtocol = StreamProtocol(config)
        self.receiver: Receiving = self.protocol.receiver
        self.sender: Sending = self.protocol.sender
        self.exchanges: Exchanges | None = None
        self.heartbeat: Heartbeat | None = None
        self.connects: int = 0
        self.retries: int = 0
        self.latency: float | None = None
        # bytes_received, bytes_sent, receives, sends of the connections before the present one.
        self.past: tuple[int, int, int, int] = (0, 0, 0, 0)

    # ---- The connection ----

    def use(self, protocol: StreamProtocol) -> None:
        """Let all calls go to this connection."""
        self.protocol = protocol
        self.exchanges = None
        self.swap(protocol.receiver, protocol.sender)

    def swap(self, receiver: Receiving | None = None, sender: Sending | None = None) -> None:
        """Let the calls go to these from now on; None leaves a direction as it is."""
        if receiver is not None:
            self.receiver = receiver
        if sender is not None:
            self.sender = sender

    @property
    def stand_in(self) -> StandIn | None:
        """What answers in place of the receiver between two connections; None while there is a connection."""
        return None if self.receiver is self.protocol.receiver else cast(StandIn, self.receiver)

    def raise_loss(self) -> None:
        """Raise the loss of an earlier connection, if no receive has raised it yet."""
        if (stand_in := self.stand_in) is not None:
            stand_in.raise_loss()

    async def catch_up(self, timeout: Timeout, phase: str) -> Timeout:
        """Raise a loss as `raise_loss()` does, else wait for the connection. Returns what is left of `timeout`.

        For a call that sends and receives on one and the same connection.
        """
        stand_in = self.stand_in
        return timeout if stand_in is None else await stand_in.catch_up(timeout, phase)

    def take_over(self, protocol: StreamProtocol, latency: float | None) -> None:
        """Let all calls go to a new connection, and count it. `latency`: seconds that its attempt took, if any."""
        self.latency = latency
        self.past = self.totals()
        self.use(protocol)
        self.connects += 1

    def totals(self) -> tuple[int, int, int, int]:
        """bytes_received, bytes_sent, receives, sends of all connections."""
        return self.protocol.totals(self.past)

    # ---- Timeouts and errors ----

    def seconds(self, timeout: Timeout) -> float | None:
        """A caller's `timeout` in seconds; None for no limit. Raises: as `check_timeout`."""
        return seconds_of(timeout, self.protocol.config.timeout)

    def error(
        self, kind: type[E], what: str, phase: str, cause: BaseException | None = None, /, **details: object
    ) -> E:
        """An error whose message and `details` say which connection it is about."""
        return connection_error(self.config, kind, what, phase, cause, **details)

    def error_maker(self, kind: type[E], what: str, phase: str, cause: BaseException | None = None) -> Callable[[], E]:
        """A function that makes a new error at each call: one that is raised again would collect all tracebacks."""
        config = self.config
        return lambda: connection_error(config, kind, what, phase, cause)


def connection_error(
    config: NetworkConfig,
    kind: type[E],
    what: str,
    phase: str,
    cause: BaseException | None = None,
    /,
    **details: object,
) -> E:
    """An error about a connection of this configuration; of a lost one, also of the class of its `cause`."""
    if kind is ConnectionLostError:
        kind = also_as(kind, cause)
    return kind(f"{config.address}: {what}", config.place | {"phase": phase} | details, cause)


def deadline_of(timeout: Timeout, config: NetworkConfig) -> float:
    """When a call with this `timeout` ends, in seconds of `time.monotonic()`; infinite for no limit."""
    seconds = seconds_of(timeout, config.timeout)
    return math.inf if seconds is None else time.monotonic() + seconds


def remaining(deadline: float) -> float | None:
    """Seconds until the deadline, as a `timeout`."""
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())
