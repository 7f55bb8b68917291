"""Traces of a real server, as a collector of OpenTelemetry receives them."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.serving.conftest import Server
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

PATH = f"/predict/{MODEL}"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Serve = Callable[..., Server]


class Collector:
    """Receives spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    content = gzip.decompress(content)
                requests.append(ExportTraceServiceRequest.FromString(content))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
    yield found
    found.server.shutdown()
    found.server.server_close()


def values(span: Span) -> dict[str, object]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def test_a_request_and_its_stages_are_spans_below_the_callers(
    settings: Settings, serve: Serve, collector: Collector
) -> None:
    fill_online_store(settings)
    publish(settings, 3)
    server = serve(settings)
    for number in range(2):  # the stages of each one are noted, not of a sample
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": f"mine-{number}"}
        assert server.client.post(PATH, json=ROW, headers=headers).status_code == 200
    assert server.client.post(PATH, json={}).status_code == 422
    assert server.client.get("/models").status_code == 200
    assert server.client.get("/no/such/thing").status_code == 404
    assert server.stop() == ""  # it sends what waits before it ends

    [resource] = {str(found.resource) for request in collector.requests for found in request.resource_spans}
    assert "ml-platform-serving" in resource
    spans = collector.spans()
    first, second, refused, models, unknown = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [span.name for span in (first, refused, models, unknown)] == [
        "POST /predict/{model}",
        "POST /predict/{model}",
        "GET /models",
        "GET",
    ]
    for number, span in enumerate((first, second)):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        told = values(span)
        assert (told["model.name"], told["model.version"], told["request.id"]) == (MODEL, 3, f"mine-{number}")
        assert told["http.response.status_code"] == 200
        parts = [part for part in spans if part.parent_span_id == span.span_id]
        assert [part.name for part in parts] == ["receive", "wait", "decode", "look_up", "score", "log", "encode"]
        assert {part.trace_id for part in parts} == {span.trace_id}
        edges = [parts[0].start_time_unix_nano, *(part.end_time_unix_nano for part in parts)]
        assert edges == sorted(edges)
        assert span.start_time_unix_nano - 1000 <= edges[0] <= edges[-1] <= span.end_time_unix_nano + 1000
    assert refused.trace_id.hex() != TRACE
    assert values(refused)["http.response.status_code"] == 422


def test_a_failure_is_marked_and_what_is_not_sampled_is_not_sent(
    settings: Settings, serve: Serve, collector: Collector
) -> None:
    fill_online_store(settings)
    server = serve(settings)
    assert server.client.post(PATH, json=ROW).status_code == 503
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert server.client.post(PATH, json=ROW, headers=unsampled).status_code == 503
    server.stop()
    [span] = collector.spans()
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.trace_id.hex() != TRACE


def test_a_collector_that_is_away_keeps_nothing_from_being_answered(
    settings: Settings, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    fill_online_store(settings)
    publish(settings, 1)
    server = serve(settings)
    assert server.client.post(PATH, json=ROW).status_code == 200


def test_no_sdk_is_loaded_when_it_is_off() -> None:
    """FastAPI itself imports OpenTelemetry's interface, which does nothing without an SDK."""
    code = "import ml_platform.serving.asgi, sys; ml_platform.serving.asgi.create_app(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert "ml_platform.serving.telemetry.traces" in done.stdout.split(), done.stderr
    assert not [
        name for name in done.stdout.split() if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
    ]
