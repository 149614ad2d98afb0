"""`OpenTelemetry`: spans and metrics from the events of clients, by the semantic conventions.

    from pepperpy.network.otel import OpenTelemetry

    HTTPConfig(on_event=OpenTelemetry())

It needs the package opentelemetry-api (`pip install pepperpy-network[otel]`), and the SDK of your program to see
anything.
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

from pepperpy.network.errors import not_installed
from pepperpy.network.events import (
    AttemptDone,
    CallDone,
    CallStarted,
    ConnectDone,
    Done,
    Event,
    LookupDone,
    PoolWaitDone,
    ProxyDone,
    ResponseStarted,
    StateChanged,
    TLSDone,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetry"]

_NAME = "pepperpy.network"

# Methods that the conventions call known: RFC 9110, PATCH (RFC 5789), and QUERY (RFC 10008). Others are "_OTHER".
_KNOWN = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})

# Seconds; the bounds that the conventions advise for http.client.request.duration.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# What becomes an event of a span, and how it is called there.
_STEPS: dict[type[Event], str] = {
    LookupDone: f"{_NAME}.lookup",
    ConnectDone: f"{_NAME}.connect",
    ProxyDone: f"{_NAME}.proxy",
    TLSDone: f"{_NAME}.tls",
    PoolWaitDone: f"{_NAME}.pool_wait",
    AttemptDone: f"{_NAME}.attempt",
}


class _Call:
    """One call of HTTP that is under way."""

    __slots__ = ("attributes", "peer", "responses", "sent_again", "span", "version")

    def __init__(self, span: Span, attributes: dict[str, Any]) -> None:
        self.span = span
        self.attributes = attributes  # of its metrics
        self.peer = ""
        self.version = ""
        self.responses = 0  # of the present attempt
        self.sent_again = 0


class OpenTelemetry:
    """An `on_event` for any number of clients and pools, which makes spans and metrics of what it is told.

    A call of HTTP is one span (CLIENT) from its start to the end of its body, with all its attempts, waits and
    redirects. Each attempt, and each lookup, connection, handshake and wait for one is an event of the span. Its parent
    is the span that is current where the call is made. An attempt to connect of a `NetworkClient` or a `NetworkPool` is
    a span `connect` with the same events; one that the client makes by itself has no parent.

    The metrics are `http.client.request.duration`, of whole calls, and `http.client.active_requests`. Their attributes
    have few values (no path, no query), but each server that you call.

    URLs have no user, password and values of the query, as in all that this package shows.
    """

    def __init__(
        self,
        *,
        propagate: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Args:
            propagate: Send the context of the call's span to the server, as the configured propagator writes it:
                `traceparent` and what you have in `baggage`. A redirect takes it to wherever it leads.
            tracer_provider, meter_provider: Default: the program's, as they are now.

        Raises:
            UsageError: opentelemetry-api is not installed; a `ModuleNotFoundError` as well.
        """
        if not isinstance(propagate, bool):
            raise TypeError(f"propagate must be True or False, not {type(propagate).__name__}")
        try:
            trace: Any = importlib.import_module("opentelemetry.trace")
            metrics: Any = importlib.import_module("opentelemetry.metrics")
            self._inject: Any = importlib.import_module("opentelemetry.propagate").inject
        except ImportError as error:
            raise not_installed("OpenTelemetry", "opentelemetry-api", "otel") from error
        self._propagate = propagate
        self._trace = trace
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._durations = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        self._active = meter.create_up_down_counter(
            "http.client.active_requests", unit="{request}", description="Number of active HTTP requests."
        )
        self._calls: dict[int, _Call] = {}
        self._steps: dict[int, list[Done]] = {}  # of an attempt to connect of TCP, by id

    def __call__(self, event: Event) -> None:
        if isinstance(event, CallStarted):
            self._started(event)
        elif (call := self._calls.get(event.id)) is not None:
            self._note(call, event)
        elif isinstance(event, AttemptDone):
            self._connected(event, self._steps.pop(event.id, []))
        elif type(event) in _STEPS and isinstance(event, Done) and event.attempt:
            self._steps.setdefault(event.id, []).append(event)
        elif isinstance(event, StateChanged) and event.state == "closed":
            self._steps.pop(event.id, None)

    # ---- HTTP ----

    def _started(self, event: CallStarted) -> None:
        known = event.method in _KNOWN
        attributes: dict[str, Any] = {
            "http.request.method": event.method if known else "_OTHER",
            "server.address": event.host,
            "server.port": event.port,
        }
        more = {"url.full": event.url} | ({} if known else {"http.request.method_original": event.method})
        span = self._tracer.start_span(
            event.method if known else "HTTP", kind=self._trace.SpanKind.CLIENT, attributes=attributes | more
        )
        self._calls[event.id] = _Call(span, attributes)
        self._active.add(1, attributes)
        if self._propagate:
            self._inject(event.headers, context=self._trace.set_span_in_context(span))

    def _note(self, call: _Call, event: Event) -> None:
        if isinstance(event, CallDone):
            self._ended(call, event)
            return
        if isinstance(event, ResponseStarted):
            call.version = event.version
            call.responses += 1
        elif isinstance(event, ConnectDone) and event.error is None:
            call.peer = event.address
        elif isinstance(event, AttemptDone):
            # Each answer but the last one of an attempt was a redirect that was followed.
            call.sent_again += max(0, call.responses - 1)
            call.responses = 0
        if (name := _STEPS.get(type(event))) is not None and isinstance(event, Done):
            call.span.add_event(name, _facts(event))

    def _ended(self, call: _Call, event: CallDone) -> None:
        del self._calls[event.id]
        outcome: dict[str, Any] = {}
        if event.status is not None:
            outcome["http.response.status_code"] = event.status
        if call.version:
            outcome["network.protocol.version"] = call.version
        failed = event.error is not None or (event.status is not None and event.status >= 400)
        if failed:
            outcome["error.type"] = _kind(event.error) if event.error is not None else str(event.status)
        self._durations.record(event.seconds, call.attributes | outcome)
        self._active.add(-1, call.attributes)
        span = call.span
        span.set_attributes(outcome)
        if call.peer:
            span.set_attribute("network.peer.address", call.peer)
        if again := call.sent_again + max(0, event.attempt - 1):
            span.set_attribute("http.request.resend_count", again)
        if failed:
            # A status says by itself what it means.
            self._fail(span, event.error)
        span.end()

    # ---- TCP ----

    def _connected(self, event: AttemptDone, steps: list[Done]) -> None:
        # The clock of events is not that of spans.
        shift = time.time_ns() - time.monotonic_ns()
        attributes: dict[str, Any] = {"server.address": event.host, f"{_NAME}.attempt": event.attempt}
        if event.port:
            attributes["server.port"] = event.port
        attributes["network.transport"] = "tcp" if event.port else "unix"
        span = self._tracer.start_span(
            "connect",
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(event.at - event.seconds) + shift,
        )
        for step in steps:
            span.add_event(_STEPS[type(step)], _facts(step), timestamp=_nanoseconds(step.at) + shift)
            if isinstance(step, ConnectDone) and step.error is None:
                span.set_attribute("network.peer.address", step.address)
        if event.error is not None:
            span.set_attribute("error.type", _kind(event.error))
            self._fail(span, event.error)
        span.end(end_time=_nanoseconds(event.at) + shift)

    def _fail(self, span: Span, error: BaseException | None) -> None:
        text = None if error is None else str(error) or type(error).__name__
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, text))


def _facts(event: Done) -> dict[str, Any]:
    """The attributes of an event of a span."""
    facts: dict[str, Any] = {"duration": event.seconds, "attempt": event.attempt}
    if event.error is not None:
        facts["error.type"] = _kind(event.error)
    if isinstance(event, AttemptDone):
        if event.status is not None:
            facts["http.response.status_code"] = event.status
        if event.retry_in is not None:
            facts["retry_in"] = event.retry_in
    elif isinstance(event, LookupDone):
        facts["dns.question.name"] = event.host
        facts["dns.answers"] = event.addresses
    elif isinstance(event, ConnectDone) and event.address:
        facts["network.peer.address"] = event.address
        facts["network.peer.port"] = event.port
    elif isinstance(event, TLSDone) and event.version:
        facts["tls.protocol.version"] = event.version.removeprefix("TLSv")
    return facts


def _kind(error: BaseException) -> str:
    return type(error).__qualname__


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
