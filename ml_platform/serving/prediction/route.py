"""`POST /predict/{model}` and `/predict/{model}/versions/{version}`, in plain ASGI.

Routes of the FastAPI app lead to this small ASGI application: it builds nothing per request that scoring one row does
not need.
"""

import logging
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ml_platform.serving.http.compression import plain_body
from ml_platform.serving.http.messages import (
    INTERNAL_ERROR,
    BodyReader,
    Refused,
    Reply,
    drain,
    encode,
    error_body,
    reply_of,
    send_reply,
)
from ml_platform.serving.http.query_options import read_options
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.models.slots import EndpointState
from ml_platform.serving.prediction.predictor import PredictionOptions, Predictor
from ml_platform.serving.prediction.responses import Answer
from ml_platform.serving.settings import ServingSettings

logger = logging.getLogger("serving")


class Predict:
    """The prediction endpoint, as an ASGI application."""

    def __init__(self, predictor: Predictor, settings: ServingSettings) -> None:
        self._predictor = predictor
        self._settings = settings
        self._bodies = BodyReader(settings.body_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started, context = perf_counter(), RequestContext.of(scope)
        self._predictor.active += 1
        try:
            slot, options = self._begin(scope, context, started)
            body = await plain_body(await self._bodies.read(receive, started), context.encoding)
            if options.stages is not None:
                options.stages.mark("receive")
            reply = self._answered(scope, context, options, await self._predictor.answer(slot, body, options), started)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - reported in the answer or in the server's log
            reply = self._failed(scope, context, error)
            if isinstance(error, Refused) and error.drain:
                await drain(receive, self._settings.body_seconds)
        finally:
            self._predictor.active -= 1
        context.status = reply.status
        await send_reply(send, reply)

    def at_once(self, scope: Scope, body: bytes) -> Reply:
        """Answer a request that asks for no explanation and whose body, at most `INLINE_BYTES`, has arrived."""
        started, context = perf_counter(), RequestContext.of(scope)
        self._predictor.active += 1
        try:
            slot, options = self._begin(scope, context, started)
            if options.stages is not None:
                options.stages.mark("receive")
            return self._answered(scope, context, options, self._predictor.answer_now(slot, body, options), started)
        except Exception as error:  # noqa: BLE001 - reported in the answer or in the server's log
            return self._failed(scope, context, error)
        finally:
            self._predictor.active -= 1

    def _begin(self, scope: Scope, context: RequestContext, started: float) -> tuple[EndpointState, PredictionOptions]:
        """Find the model that is asked, and read what is asked of it (raises Refused)."""
        self._predictor.time(context, started)
        context.check()
        self._predictor.check_active()
        return self._predictor.slot(scope["path_params"]["model"]), _asked(scope, context)

    def _answered(
        self, scope: Scope, context: RequestContext, options: PredictionOptions, answer: Answer, started: float
    ) -> Reply:
        content = encode(answer)
        self._predictor.note(context, scope["path_params"]["model"], answer, options, started)
        return reply_of(200, content, options.request_id)

    def _failed(self, scope: Scope, context: RequestContext, error: Exception) -> Reply:
        name, request_id = scope["path_params"]["model"], context.request_id
        if not isinstance(error, Refused):
            logger.error("request %s failed", request_id, exc_info=error)
            error = Refused(500, "internal", INTERNAL_ERROR)
        known = name if name in self._predictor.state.slots else "unknown"
        self._predictor.metrics.requests.labels(known, str(error.status)).inc()
        content = error_body(error.code, error.message, request_id, error.problems)
        return reply_of(error.status, content, request_id, close=error.close, retry_after=error.retry_after)


def _asked(scope: Scope, context: RequestContext) -> PredictionOptions:
    """Read the options in the path and the query string (raises Refused)."""
    request_id, caller, stages = context.request_id, context.caller, context.stages
    version = scope["path_params"].get("version")
    if version is None and not scope["query_string"]:
        return PredictionOptions(request_id, caller, stages=stages)
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise Refused(404, "unknown_version", "a version is a whole number, as in /predict/my_model/versions/3")
    wanted = read_options(scope["query_string"])
    number = None if version is None else int(version)
    return PredictionOptions(request_id, caller, number, stages=stages, viewer=context.key, **wanted)
