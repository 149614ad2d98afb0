"""`HTTPStats`: what `HTTPClient.stats` counts."""

from __future__ import annotations

from dataclasses import dataclass

from pepperpy.network.http.transport import Transport


@dataclass(slots=True)
class Counters:
    """Counts of one client, over all times that it was opened."""

    calls: int = 0
    attempts: int = 0
    retries: int = 0
    stale_retries: int = 0
    budget_refusals: int = 0
    discarded_connections: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class HTTPStats:
    """Counts over the life of a client; the last two describe the present.

    Attributes:
        calls: Calls that have begun.
        attempts: Attempts to send a request; redirects do not count.
        retries: Attempts after a failure or a status, each after a wait.
        stale_retries: Attempts repeated at once, on a new connection, because the server had closed the pooled one; a
            408 may say so. They are no `retries`, and need no `retry_budget`.
        budget_refusals: Retries that `retry_budget` did not allow.
        discarded_connections: Pooled connections that were closed, had received bytes that nobody had asked for, or
            were idle for longer than their server keeps them (`Keep-Alive: timeout`).
        open_connections: Connections that are open now, in use or pooled.
        in_flight: Calls that are under way now; a stream counts until its head has come.
    """

    calls: int
    attempts: int
    retries: int
    stale_retries: int
    budget_refusals: int
    discarded_connections: int
    open_connections: int
    in_flight: int


def stats_of(counters: Counters, transport: Transport | None) -> HTTPStats:
    """The counts of a client; `transport` is its present one, or None."""
    return HTTPStats(
        calls=counters.calls,
        attempts=counters.attempts,
        retries=counters.retries,
        stale_retries=counters.stale_retries,
        budget_refusals=counters.budget_refusals,
        discarded_connections=counters.discarded_connections + (0 if transport is None else transport.discarded),
        open_connections=0 if transport is None else transport.open_connections,
        in_flight=counters.in_flight,
    )
