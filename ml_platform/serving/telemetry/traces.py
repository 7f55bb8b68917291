"""OpenTelemetry traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: a span for each request and each of its stages.

Spans are made when a request has ended, from the times of its stages, and sent by a thread of the SDK. A `traceparent`
header (W3C) is continued. The SDK is imported only when traces are asked for.
"""

import asyncio
import os
from collections.abc import Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.distribution import ExtraMissing, extra
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.stage_timer import StageTimer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CARRIED = (b"traceparent", b"tracestate", b"baggage")
_UNTRACED = frozenset({"/health/live", "/health/ready", "/metrics"})
SERVICE = "ml-platform-serving"  # unless OTEL_SERVICE_NAME says otherwise


class TracesMissing(RuntimeError):
    """Traces are asked for and cannot be made."""


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are asked for, in OpenTelemetry's own variables.

    Examples
    --------
    >>> wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}), wanted({})
    (True, False)
    """
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not disabled and any(environment.get(name) for name in _SWITCHES)


class TracedApp:
    """Wraps the whole app: times each request's stages, and makes spans of them.

    Raises
    ------
    TracesMissing
        When the extra `otel` is not installed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._provider = _provider()
        self._tracer = self._provider.get_tracer("serving")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and trace it."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, self._flushing(send) if scope["type"] == "lifespan" else send)
            return
        context = RequestContext.of(scope)
        stages = context.stages = StageTimer(perf_counter())
        path = scope["path"]
        try:
            await self._app(scope, receive, send)
        finally:
            self._record(scope, path, context.status or 500, stages)

    def _flushing(self, send: Send) -> Send:
        """Wrap `send` so that waiting spans are sent before the server is told that the app has stopped."""

        async def flushing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await asyncio.to_thread(self._provider.shutdown)
            await send(message)

        return flushing

    def _record(self, scope: Scope, path: str, status: int, stages: StageTimer) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        ended, zero = perf_counter(), time_ns() - int(1e9 * perf_counter())

        def nanoseconds(instant: float) -> int:
            return zero + int(1e9 * instant)

        carried = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
        span = self._tracer.start_span(
            _name(scope, path, status),
            context=extract(carried),
            kind=SpanKind.SERVER,
            attributes=_attributes(scope, path, status),
            start_time=nanoseconds(stages.started),
        )
        if span.is_recording():
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            inside = set_span_in_context(span)
            for stage, started, seconds in stages.spans():
                part = self._tracer.start_span(stage, context=inside, start_time=nanoseconds(started))
                part.end(nanoseconds(started + seconds))
        span.end(nanoseconds(ended))


def _provider() -> "TracerProvider":
    try:
        with extra("otel"):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ExtraMissing as error:
        raise TracesMissing(f"{_SWITCHES[0]} asks for traces, but {error}") from error
    # Other attributes come from OTEL_RESOURCE_ATTRIBUTES, and the sampler from OTEL_TRACES_SAMPLER.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: SERVICE}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _name(scope: Scope, path: str, status: int) -> str:
    """Name a span by method and route, so that there are few names."""
    method: str = scope["method"]
    if status == 404:
        return method
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}")
    return f"{method} {path}"


def _attributes(scope: Scope, path: str, status: int) -> dict[str, Any]:
    context = RequestContext.of(scope)
    attributes = {
        "http.request.method": scope["method"],
        "url.path": path,
        "http.response.status_code": status,
        "request.id": context.request_id,
        "model.name": scope.get("path_params", {}).get("model"),
        "model.version": context.model_version,
        "caller": None if context.key is None else context.key.name,
    }
    return {name: value for name, value in attributes.items() if value is not None}
