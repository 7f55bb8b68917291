"""`POST /predict/{model}` and `/predict/{model}/versions/{version}`, on ASGI's own level.

An ASGI application of its own behind routes of the FastAPI app: nothing is built per request that one row does not
need.
"""

import asyncio
import logging
from contextlib import suppress
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from serving.predictor import Asked, Predictor
from serving.problems import Problem
from serving.settings import ServingSettings
from serving.stages import SAMPLED, Stages
from serving.wire import INTERNAL_ERROR, BodyReader, Head, Refused, drain, encode, error_body, send_json

_OPTIONS = ("explain", "features")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

logger = logging.getLogger("serving")


class Predict:
    """The endpoint."""

    def __init__(self, predictor: Predictor, settings: ServingSettings) -> None:
        self._predictor = predictor
        self._settings = settings
        self.active = 0
        self._count = -1
        self._bodies = BodyReader(settings.body_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        head = Head.of(scope)
        scope["request_id"] = head.request_id
        name: str = scope["path_params"]["model"]
        self.active += 1
        self._count += 1
        sampled = not self._count % SAMPLED
        stages: Stages | None = scope.get("stages")  # where the request is traced
        if stages is None and sampled:
            stages = Stages(started)
        try:
            head.check()
            if self.active > self._settings.max_active:
                told = f"{self._settings.max_active:,} requests are being answered: come again"
                raise Refused(503, "busy", told, retry_after=1)
            asked = _asked(scope, head.request_id, stages)
            slot = self._predictor.slot(name)
            body = await self._bodies.read(receive, started)
            if stages is not None:
                stages.mark("receive")
            answer = await self._predictor.answer(slot, body, asked)
        except Refused as refused:
            await self._refuse(scope, receive, send, refused)
            return
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("request %s failed", head.request_id)
            self._predictor.metrics.requests.labels(name, "500").inc()
            content = error_body("internal", INTERNAL_ERROR, head.request_id)
            await send_json(scope, send, 500, content, head.request_id)
            return
        finally:
            self.active -= 1
        content = encode(answer)
        series = self._predictor.series(name, answer.version)
        if stages is not None:
            stages.mark("encode")
            scope["model_version"] = answer.version
            if sampled:
                series.observe(stages)
        await send_json(scope, send, 200, content, head.request_id)
        series.answered.inc()
        series.seconds.observe(perf_counter() - started)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refused: Refused) -> None:
        name, request_id = scope["path_params"]["model"], scope["request_id"]
        known = name if name in self._predictor.state.slots else "unknown"
        self._predictor.metrics.requests.labels(known, str(refused.status)).inc()
        if refused.drain:
            with suppress(TimeoutError):  # a client this slow hears of it when it has sent all, or not at all
                await asyncio.wait_for(drain(receive), self._settings.body_seconds)
        content = error_body(refused.code, refused.message, request_id, refused.problems)
        close, retry_after = refused.close, refused.retry_after
        await send_json(scope, send, refused.status, content, request_id, close=close, retry_after=retry_after)


def _asked(scope: Scope, request_id: str, stages: Stages | None) -> Asked:
    """What the path and the query string ask for (raises Refused)."""
    caller = scope.get("caller") or (scope["client"][0] if scope.get("client") else None)
    version = scope["path_params"].get("version")
    if version is None and not scope["query_string"]:
        return Asked(request_id, caller, stages=stages)
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise Refused(404, "unknown_version", "a version is a whole number, as in /predict/my_model/versions/3")
    wanted: dict[str, Any] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name not in _OPTIONS or value.lower() not in _TRUTH:
            problem = Problem(None, name[:40], f"wanted {' or '.join(_OPTIONS)} in the query, each true or false")
            raise Refused(422, "invalid_request", str(problem), [problem])
        wanted[name] = _TRUTH[value.lower()]
    return Asked(request_id, caller, None if version is None else int(version), stages=stages, **wanted)
