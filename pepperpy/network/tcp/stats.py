"""`NetworkStats`: what `NetworkClient.stats` counts."""

from __future__ import annotations

from dataclasses import dataclass

from pepperpy.network.tcp.client_link import ClientLink


@dataclass(frozen=True, slots=True)
class NetworkStats:
    """Counts over all connections a client has made; the last four describe the present one.

    Attributes:
        bytes_received: Bytes that arrived, taken or not.
        bytes_sent: Bytes that were accepted for sending.
        receives: Receive calls that returned data.
        sends: Send calls that were accepted.
        connects: Connections made.
        retries: Attempts to connect beyond the first of each `connect()`.
        connect_latency: Seconds that the last successful attempt took, or None.
        bytes_buffered: Bytes received and not yet taken.
        bytes_queued: Bytes accepted and not yet handed to the kernel.
        last_activity: When a byte last came or went, on the clock of `time.monotonic()`, exact to about 10 ms; or None.
        heartbeat_rtt: Seconds that the last heartbeat took whose probe waited for the peer's answer: the round trip,
            and what the peer took for it. None: there was none yet, or the probe does not wait.
    """

    bytes_received: int
    bytes_sent: int
    receives: int
    sends: int
    connects: int
    retries: int
    connect_latency: float | None
    bytes_buffered: int
    bytes_queued: int
    last_activity: float | None
    heartbeat_rtt: float | None


def stats_of(link: ClientLink) -> NetworkStats:
    """The counters of a client, as they are now."""
    received, sent, receives, sends = link.totals()
    protocol = link.protocol
    return NetworkStats(
        bytes_received=received,
        bytes_sent=sent,
        receives=receives,
        sends=sends,
        connects=link.connects,
        retries=link.retries,
        connect_latency=link.latency,
        bytes_buffered=protocol.receiver.bytes_buffered,
        bytes_queued=protocol.sender.bytes_queued,
        last_activity=protocol.last_activity or None,
        heartbeat_rtt=None if link.supervisor is None else link.supervisor.heartbeat_rtt,
    )
