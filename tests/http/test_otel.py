"""`pepperpy.network.otel`: the spans and metrics of OpenTelemetry, as its own SDK exports them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.certificates import ca_file, server_cert, server_context
from support.http_faults import TRUNCATED, answering, by_connection, closing_after, response
from support.http_peer import Handler, HTTPPeer, http_peer
from support.servers import client_of, echo_server

from pepperpy.network import (
    ConnectError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    TLSConfig,
    serve,
)
from pepperpy.network.otel import OpenTelemetry

pytestmark = pytest.mark.usefixtures("no_waits")

UNAVAILABLE = response(b"", status="503 Service Unavailable")


class Exported:
    """An SDK of the test's own, and what it exports."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._reader])
        self.on_event = OpenTelemetry(tracer_provider=self.tracers, meter_provider=meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    def points(self, metric: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        assert data is not None
        found = [each for scope in data.resource_metrics[0].scope_metrics for each in scope.metrics]
        return [point for each in found if each.name == metric for point in each.data.data_points]


@contextlib.asynccontextmanager
async def traced(handler: Handler, **options: Any) -> AsyncIterator[tuple[HTTPPeer, HTTPClient, Exported]]:
    exported = Exported(**options)
    async with http_peer(handler) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=exported.on_event)) as client:
            yield peer, client, exported


def events_of(span: ReadableSpan, name: str) -> list[dict[str, Any]]:
    return [dict(event.attributes or {}) for event in span.events if event.name == f"pepperpy.network.{name}"]


async def test_a_call_is_one_client_span_with_the_attributes_of_the_conventions() -> None:
    before = time.time_ns()
    async with traced(answering(response())) as (peer, client, exported):
        await client.get("/path?key=canary")
        span = exported.span
        assert (span.name, span.kind, span.parent) == ("GET", SpanKind.CLIENT, None)
        assert span.status.status_code == StatusCode.UNSET
        assert dict(span.attributes or {}) == {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "server.port": peer.port,
            "url.full": f"{peer.url}/path?key=***",
            "http.response.status_code": 200,
            "network.protocol.version": "1.1",
            "network.peer.address": "127.0.0.1",
        }
        assert [event.name for event in span.events] == [
            "pepperpy.network.lookup", "pepperpy.network.connect", "pepperpy.network.attempt"
        ]  # fmt: skip
        assert span.start_time is not None and span.end_time is not None
        assert before <= span.start_time <= span.end_time <= time.time_ns()
        scope = span.instrumentation_scope
        assert scope is not None and scope.name == "pepperpy.network"


async def test_the_parent_is_the_span_in_which_the_call_is_made_and_tasks_keep_apart() -> None:
    async with traced(answering(response())) as (_, client, exported):
        tracer = exported.tracers.get_tracer("test")

        async def one(name: str) -> None:
            with tracer.start_as_current_span(name):
                await client.get("/")

        await asyncio.gather(one("a"), one("b"))
        ids = {span.context.span_id: span.name for span in exported.spans if span.context is not None}
        calls = [span for span in exported.spans if span.name == "GET"]
        assert sorted(ids[span.parent.span_id] for span in calls if span.parent is not None) == ["a", "b"]


async def test_each_attempt_is_an_event_of_the_one_span_and_resends_are_counted_with_redirects() -> None:
    moved = response(b"", "Location: /there", status="302 Found")
    async with traced(answering(UNAVAILABLE, moved, response())) as (_, client, exported):
        await client.get("/")
        span = exported.span
        first, second = events_of(span, "attempt")
        assert (first["attempt"], first["http.response.status_code"], first["retry_in"]) == (1, 503, 0.0)
        assert (second["attempt"], second["http.response.status_code"]) == (2, 200)
        assert "retry_in" not in second
        assert span.attributes is not None and span.attributes["http.request.resend_count"] == 2
        assert span.status.status_code == StatusCode.UNSET


async def test_a_failed_call_is_an_error_by_its_class_and_by_its_text_without_secrets() -> None:
    exported = Exported()
    async with HTTPClient(HTTPConfig(on_event=exported.on_event, retries=1)) as client:
        with pytest.raises(ConnectError):
            await client.get("http://user:canary@127.0.0.1:1/?key=canary")
    span = exported.span
    assert span.status.status_code == StatusCode.ERROR and "cannot connect" in str(span.status.description)
    assert span.attributes is not None
    assert "ConnectError" in str(span.attributes["error.type"])
    assert "http.response.status_code" not in span.attributes
    assert [event["error.type"] for event in events_of(span, "connect")] == ["ConnectionRefusedError"] * 2
    assert "canary" not in span.to_json()


@pytest.mark.parametrize("status", [404, 500])
async def test_a_status_that_is_an_error_is_its_own_error_type(status: int) -> None:
    async with traced(answering(response(status=f"{status} x"))) as (_, client, exported):
        with pytest.raises(HTTPStatusError):
            await client.post("/")
        span = exported.span
        assert span.status.status_code == StatusCode.ERROR and span.status.description is None
        assert span.attributes is not None and span.attributes["error.type"] == str(status)


async def test_a_stream_is_a_span_until_its_body_is_read_or_breaks_off() -> None:
    broken = closing_after(TRUNCATED["in a Content-Length body"])
    async with traced(by_connection(answering(response(b"ok", "Connection: close")), broken)) as (_, client, exported):
        async with client.stream("GET", "/") as stream:
            assert not exported.spans
            await stream.read()
        assert exported.span.status.status_code == StatusCode.UNSET
        with pytest.raises(IncompleteReadError):
            async with client.stream("GET", "/") as stream:
                await stream.read()
        broken_off = exported.spans[1]
        assert broken_off.attributes is not None
        assert broken_off.attributes["error.type"] == "IncompleteReadError"
        assert broken_off.attributes["http.response.status_code"] == 200


async def test_a_cancelled_call_is_an_error_and_its_span_ends() -> None:
    async with traced(answering(response())) as (_, client, exported):
        task = asyncio.create_task(client.get("/"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert exported.span.attributes is not None
        assert exported.span.attributes["error.type"] == "CancelledError"
        assert exported.points("http.client.active_requests")[0].value == 0


async def test_a_method_that_is_not_known_makes_no_name_of_its_own() -> None:
    async with traced(answering(response())) as (_, client, exported):
        await client.request("BREW", "/")
        span = exported.span
        assert span.name == "HTTP" and span.attributes is not None
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.attributes["http.request.method_original"] == "BREW"


async def test_the_duration_of_each_call_is_measured_with_few_attributes() -> None:
    async with traced(answering(response(), response(status="404 x"))) as (peer, client, exported):
        await client.get("/one")
        with pytest.raises(HTTPStatusError):
            await client.get("/two")
        found, missing = exported.points("http.client.request.duration")
        common = {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "server.port": peer.port,
            "network.protocol.version": "1.1",
        }
        assert dict(found.attributes) == common | {"http.response.status_code": 200}
        assert dict(missing.attributes) == common | {"http.response.status_code": 404, "error.type": "404"}
        assert (found.count, missing.count) == (1, 1) and 0 < found.sum < 10
        assert found.explicit_bounds[0] == 0.005 and found.explicit_bounds[-1] == 10
        (active,) = exported.points("http.client.active_requests")
        assert active.value == 0


async def test_the_context_goes_to_the_server_only_if_that_is_asked_for() -> None:
    token = context.attach(baggage.set_baggage("user", "7"))
    try:
        async with traced(answering(response())) as (peer, client, _):
            await client.get("/")
            assert not {"traceparent", "baggage"} & {name.lower() for name in peer.requests[0].headers}
        async with traced(answering(UNAVAILABLE, response()), propagate=True) as (peer, client, exported):
            await client.get("/")
            own = exported.span.context
            assert own is not None
            for request in peer.requests:
                flags = f"{own.trace_flags:02x}"
                assert request.headers["traceparent"] == f"00-{own.trace_id:032x}-{own.span_id:016x}-{flags}"
                assert request.headers["baggage"] == "user=7"
            assert len(peer.requests) == 2
    finally:
        context.detach(token)


async def test_an_attempt_to_connect_of_tcp_is_a_span_with_the_times_of_its_steps() -> None:
    exported = Exported()
    before = time.time_ns()
    async with echo_server() as port:
        async with client_of(port, on_event=exported.on_event) as client:
            await client.send(b"x")
        span = exported.span
        assert (span.name, span.kind) == ("connect", SpanKind.CLIENT)
        assert dict(span.attributes or {}) == {
            "server.address": "127.0.0.1",
            "server.port": port,
            "network.transport": "tcp",
            "network.peer.address": "127.0.0.1",
            "pepperpy.network.attempt": 1,
        }
        assert [event.name for event in span.events] == ["pepperpy.network.lookup", "pepperpy.network.connect"]
        assert span.start_time is not None and span.end_time is not None
        # Two clocks are read one after the other.
        assert before - 1_000_000 <= span.start_time <= span.events[0].timestamp <= span.end_time
        assert span.status.status_code == StatusCode.UNSET


async def test_tls_that_on_connect_begins_is_a_step_of_the_span_and_an_accepted_connection_makes_none() -> None:
    exported = Exported()

    async def handler(client: NetworkClient) -> None:
        await client.start_tls(server_context(server_cert()))

    async def start_tls(client: NetworkClient) -> None:
        await client.start_tls(TLSConfig(ca_file=ca_file(), server_hostname="localhost"))

    config = NetworkConfig("localhost", 1, on_event=exported.on_event)
    async with serve(handler, "127.0.0.1", 0, config=config) as server:
        async with client_of(server.port, on_event=exported.on_event, on_connect=start_tls):
            (tls,) = events_of(exported.span, "tls")
            assert tls["tls.protocol.version"] == "1.3"
    assert len(exported.spans) == 1
    assert not exported.on_event._steps


async def test_failed_attempts_of_tcp_and_those_of_a_pool_are_spans_too() -> None:
    exported = Exported()
    with pytest.raises(ConnectError):
        await client_of(1, retries=1, retry_delay=0, on_event=exported.on_event).connect()
    assert [span.status.status_code for span in exported.spans] == [StatusCode.ERROR] * 2
    async with echo_server() as port:
        async with NetworkPool(NetworkConfig("127.0.0.1", port, on_event=exported.on_event)) as pool:
            async with pool.acquire():
                pass
    assert len(exported.spans) == 3
    assert not exported.on_event._steps


async def test_without_an_sdk_nothing_is_made_and_nothing_fails() -> None:
    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(peer.url, on_event=OpenTelemetry(propagate=True))) as client:
            assert await client.get("/") == "ok"


def test_an_argument_of_a_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="propagate must be True or False, not int"):
        OpenTelemetry(propagate=1)  # type: ignore[arg-type]
