"""What the routes of all protocols share: read a body within the limits, ask the predictor, shape the errors."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ml_platform.registry.manifest import Input
from ml_platform.serving.http.compression import plain_body
from ml_platform.serving.http.messages import (
    INTERNAL_ERROR,
    BodyReader,
    Refused,
    drain,
    error_body,
)
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.http.query_options import INTERVAL, read_level
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.inputs.parquet_worker import ParquetProcess
from ml_platform.serving.inputs.tabular_formats import body_of
from ml_platform.serving.prediction.predictor import INLINE_BYTES, PredictionOptions, Predictor
from ml_platform.serving.prediction.responses import Answer
from ml_platform.serving.settings import ServingSettings

ToRows = Callable[[bytes, Sequence[Input]], list[Any]]
Translate = Callable[[bytes, Sequence[Input]], Awaitable[bytes]]
ErrorShape = Callable[[Refused, str], Response]

logger = logging.getLogger("serving")


class RouteAdapter:
    """Asks the predictor on behalf of a protocol's routes."""

    def __init__(self, predictor: Predictor, settings: ServingSettings) -> None:
        self.predictor = predictor
        self.settings = settings
        self.parquet = ParquetProcess(settings)
        self._bodies = BodyReader(settings.body_seconds)

    def model_of(self, request: Request) -> str:
        """The model that the path names, else the only one there is (raises Refused when there are several)."""
        if "model" in request.path_params:
            return str(request.path_params["model"])
        names = self.predictor.state.names()
        if len(names) > 1:
            known = self.predictor.state.known()
            message = f"this server has several models: ask /models/<model>/invocations of one of them: {known}"
            raise Refused(404, "ambiguous_model", message)
        request.path_params["model"] = names[0] if names else ""  # for metrics and traces
        return str(request.path_params["model"])

    def by(self, to_rows: ToRows) -> Translate:
        """Make a translator from a function that reads a body's rows; large bodies are translated in a thread."""

        async def translate(body: bytes, inputs: Sequence[Input]) -> bytes:
            def work() -> bytes:
                try:
                    return body_of(to_rows(body, inputs), inputs)
                except InvalidRequest as invalid:
                    raise Refused.of(invalid) from invalid

            translated: bytes = work() if len(body) <= INLINE_BYTES else await self.predictor.in_turn(work)
            return translated

        return translate

    async def handle(
        self,
        request: Request,
        model: str,
        translate: Translate,
        version: int | None = None,
        *,
        parameters: Callable[[], Mapping[str, Any]] = dict,
    ) -> Answer:
        """Translate a body into one of `/predict/{model}` and answer it (raises Refused, ClientDisconnect).

        A level of intervals is taken from the query or from the body's parameters, which are asked for once the body is
        translated; two that differ are refused.
        """
        context = RequestContext.of(request.scope)
        self.predictor.time(context, perf_counter())
        stages = context.stages
        context.check()
        slot = self.predictor.slot(model)
        body = await self.body(request)
        if stages is not None:
            stages.mark("receive")
        translated = await translate(body, slot.inputs_for(version))
        if stages is not None:
            stages.mark("translate")
        interval = _level(request.query_params.get(INTERVAL), parameters().get(INTERVAL))
        options = PredictionOptions(context.request_id, context.caller, version, interval=interval, stages=stages)
        answer = await self.predictor.answer(slot, translated, options)
        context.answered = model, answer, options
        return answer

    async def body(self, request: Request) -> bytes:
        """Read a request's body within the limits, decompressed (raises Refused, ClientDisconnect)."""
        self.predictor.check_active()
        body = await self._bodies.read(request.receive, perf_counter())
        return await plain_body(body, RequestContext.of(request.scope).encoding)

    def shaped(
        self, shape: ErrorShape, count: Callable[[Request, int], None] | None = None
    ) -> Callable[[Callable[..., Awaitable[Response]]], Any]:
        """Decorate a route so that its errors have a protocol's shape; `count` counts answers by status."""

        def decorate(route: Callable[..., Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                started = perf_counter()
                context = RequestContext.of(request.scope)
                self.predictor.active += 1
                try:
                    response = await route(request)
                except Refused as refused:
                    response = shape(refused, context.request_id)
                    if refused.drain:
                        await drain(request.receive, self.settings.body_seconds)
                    response.headers.update(refused.headers)
                except ClientDisconnect:
                    response = Response(status_code=499)  # nobody reads it
                except Exception:
                    logger.exception("request %s failed", context.request_id)
                    response = shape(Refused(500, "internal", INTERNAL_ERROR), context.request_id)
                finally:
                    self.predictor.active -= 1
                if context.answered is not None:
                    model, answered, options = context.answered
                    self.predictor.note(context, model, answered, options, started)
                else:
                    (count or self.count)(request, response.status_code)
                response.headers["x-request-id"] = context.request_id
                return response

            return answer

        return decorate

    def count(self, request: Request, status: int) -> None:
        """Count a prediction request that was answered with an error."""
        model = request.path_params.get("model", "")
        known = model if model in self.predictor.state.slots else "unknown"
        if request.method == "POST":
            self.predictor.metrics.requests.labels(known, str(status)).inc()


def _level(in_query: object, in_body: object) -> float | None:
    """The level of intervals that is asked for, in one place or alike in both (raises Refused)."""
    levels = [read_level(one) for one in (in_query, in_body) if one is not None]
    if len(set(levels)) > 1:
        told = f"wanted one level, found {levels[0]:g} in the query and {levels[1]:g} in the body"
        problem = Problem(None, INTERVAL, told)
        raise Refused(422, "invalid_request", str(problem), [problem])
    return levels[0] if levels else None


def version_of(request: Request) -> int | None:
    """The version that a path names (raises Refused)."""
    text = request.path_params.get("version")
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(404, "unknown_version", "a version is a whole number")
    return None if text is None else int(text)


def own_error(refused: Refused, request_id: str) -> Response:
    """Shape an error as this server's own routes do."""
    content = error_body(refused.code, refused.message, request_id, refused.problems)
    return Response(content, refused.status, media_type="application/json")
