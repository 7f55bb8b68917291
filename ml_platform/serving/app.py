"""The FastAPI app: `create_app(settings)`, with the settings of the environment where none are given."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ml_platform.cost.summary import CostSummary, read_summary
from ml_platform.features.online.open import open_online_store
from ml_platform.governance.access.published import ProtectionStore
from ml_platform.governance.access.store import PolicyStore
from ml_platform.governance.audit import AuditLog
from ml_platform.governance.keys import ALL_MODELS, RELOAD_SECONDS, KeyStore
from ml_platform.inference.log import InferenceLog
from ml_platform.inference.outcomes import OutcomeLog
from ml_platform.registry.releases import ReleaseStore
from ml_platform.segment_log.segments import SegmentLog
from ml_platform.serving.access.audit import Auditing
from ml_platform.serving.access.authorization import Access
from ml_platform.serving.access.gateway import GatewayCallers
from ml_platform.serving.access.hosts import Hosts
from ml_platform.serving.access.masking import Masking
from ml_platform.serving.access.rate_limit import Limits, shared_table
from ml_platform.serving.access.tokens import Tokens
from ml_platform.serving.console.catalogue_routes import add_catalogue
from ml_platform.serving.console.renderer import Console
from ml_platform.serving.console.routes import add_pages
from ml_platform.serving.endpoints.approval_routes import approval_routes
from ml_platform.serving.endpoints.routes import endpoint_routes
from ml_platform.serving.endpoints.service import EndpointService
from ml_platform.serving.endpoints.version_routes import version_routes
from ml_platform.serving.feature_push.routes import push_routes
from ml_platform.serving.feature_push.service import Pusher
from ml_platform.serving.feature_serving.routes import lookup_routes
from ml_platform.serving.feature_serving.service import FeatureServing
from ml_platform.serving.host_names import host_of
from ml_platform.serving.http.connection_limits import REJECTED_EARLY
from ml_platform.serving.http.fast_path import AT_ONCE
from ml_platform.serving.http.messages import Refused, Reply
from ml_platform.serving.http.query_options import wants_details
from ml_platform.serving.http.request_context import RequestContext, record_status
from ml_platform.serving.metric_collectors import Gauges
from ml_platform.serving.models.descriptions import (
    Health,
    ModelDetail,
    ModelList,
    describe_endpoint,
    readiness,
    summary,
)
from ml_platform.serving.models.last_good import LastKnownGood
from ml_platform.serving.models.release_alerts import ReleaseAlerts
from ml_platform.serving.models.reloader import Watcher
from ml_platform.serving.models.slots import ServingState
from ml_platform.serving.models.stream_descriptions import StreamList, stream_workers
from ml_platform.serving.openapi.document import whole_document
from ml_platform.serving.prediction.hooks import Hooks
from ml_platform.serving.prediction.log_health import LogHealth
from ml_platform.serving.prediction.predictor import INLINE_BYTES, Predictor
from ml_platform.serving.prediction.route import Predict
from ml_platform.serving.prediction.route_adapter import RouteAdapter
from ml_platform.serving.protocols.databricks import databricks_routes
from ml_platform.serving.protocols.error_handlers import http_error, internal_error
from ml_platform.serving.protocols.error_responses import refuse
from ml_platform.serving.protocols.feast import feast_routes
from ml_platform.serving.protocols.mlflow import mlflow_routes
from ml_platform.serving.protocols.open_inference import oip_routes
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.metrics import Metrics
from ml_platform.serving.telemetry.usage import UsageTally
from ml_platform.settings import Settings

logger = logging.getLogger("serving")


class ServingApp(FastAPI):
    """FastAPI with a short cut: predictions skip the middleware and the router, which cost as much as a look-up."""

    predict: Predict
    hosts: Hosts
    access: Access
    limits: Limits
    auditing: Auditing
    metrics: Metrics
    guarded = True  # whether keys are asked for; until that is known, they are
    answers_at_once = True  # see `ml_platform.serving.http.fast_path`; off when traces or a request log wrap the app

    async def watch_keys(self) -> None:
        """Notice when keys come into use, until cancelled; while their file cannot be read, keys are asked for."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                self.guarded = await asyncio.to_thread(self.access.in_use)
            except (OSError, ValueError) as error:
                self.guarded = True
                logger.error("the keys cannot be read: %s", error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check who asks, then answer; when keys are in use, note the request for the audit log."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan" and "state" in scope:  # not every server has a lifespan state
                scope["state"][REJECTED_EARLY] = self.count_rejected_early
                if self.answers_at_once and not self.user_middleware:  # which has to see every request
                    scope["state"][AT_ONCE] = self.at_once
            await super().__call__(scope, receive, send)
            return
        guarded, context = self.guarded, RequestContext.of(scope)
        try:
            if context.keys_error is not None or not self._admitted(scope, guarded):
                await self._check(scope)
        except Refused as refused:
            self.count_rejected_early(refused.status)
            await refuse(scope, receive, record_status(scope, send), refused)
        else:
            await self._route(scope, receive, send)
        finally:
            if guarded:
                self.auditing.note(scope)

    def count_rejected_early(self, status: int) -> None:
        """Count a request that was refused by the checks here, or earlier by `http.connection_limits`."""
        self.metrics.rejected_early.labels(str(status)).inc()
        self.metrics.turned_away.labels(str(status)).inc()

    def at_once(self, scope: Scope, body: bytes) -> Reply | None:
        """Answer a small prediction request at once, if its caller is known or no keys are in use; None otherwise."""
        head, _, model = scope["path"].rpartition("/")
        if head != "/predict" or scope["method"] != "POST" or len(body) > INLINE_BYTES:
            return None
        if scope["query_string"] and wants_details(scope["query_string"]):
            return None
        context = RequestContext.of(scope)
        if (
            context.is_forwarded or context.encoding
        ):  # uvicorn's middleware finds the client's address; a thread decompresses
            RequestContext.forget(scope)
            return None
        guarded = self.guarded
        try:
            if not self._admitted(scope, guarded):
                return None
        except Refused:  # the ordinary way refuses it again, and answers
            return None
        scope["path_params"] = {"model": model}
        reply = self.predict.at_once(scope, body)
        if guarded:
            context.status = reply.status
            self.auditing.note(scope)
        return reply

    def _admitted(self, scope: Scope, guarded: bool) -> bool:
        """Check host, key and rate with what is known already (raises Refused); False when `_check` has to decide."""
        self.hosts.check(scope)
        if not guarded:
            self.access.check_open(scope)
            self.access.check_page(scope)
        else:
            try:
                key = self.access.recall(scope)
            except (OSError, ValueError) as error:
                RequestContext.of(scope).keys_error = error
                return False
            if key is None:
                return False
        self.limits.check(scope)
        return True

    async def _check(self, scope: Scope) -> None:
        """Check the caller's key or token, and the rate (raises Refused)."""
        try:
            if (failed := RequestContext.of(scope).keys_error) is not None:
                raise failed
            await self.access.check(scope)
        except (OSError, ValueError) as error:
            logger.error("the keys cannot be read: %s", error)
            message = "keys cannot be checked now; the server's log has the reason"
            raise Refused(503, "keys_unavailable", message, close=True, retry_after=1) from error
        finally:
            self.limits.check(scope)  # callers without a valid key are counted too, by address

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `POST /predict/{model}` here, and leave everything else to FastAPI."""
        if scope["method"] == "POST" and not self.user_middleware:
            head, _, last = scope["path"].rpartition("/")
            if head == "/predict":
                scope["path_params"] = {"model": last}
                await self.predict(scope, receive, send)
                return
        await super().__call__(scope, receive, record_status(scope, send))


def create_app(
    settings: Settings | None = None, options: ServingSettings | None = None, *, hooks: Hooks | None = None
) -> ServingApp:
    """Make the app of one worker.

    Parameters
    ----------
    settings
        Locations of the release store, the online store and the logs; read from the environment when None.
    options
        Limits, and what to do when something fails; read from the environment when None.
    hooks
        What to do with a model's rows before they are scored, and with its predictions before they are sent.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as home:
    ...     app = create_app(Settings(home=Path(home)))
    >>> next(iter(app.openapi()["paths"]))
    '/predict/{model}'
    """
    settings = settings or Settings()
    options = options or ServingSettings()
    state = ServingState({})
    metrics = Metrics()
    log, outcomes = InferenceLog(settings.inference_log_dir), OutcomeLog(settings.outcomes_dir)
    online = open_online_store(settings.online_uri)
    releases = ReleaseStore(settings.releases_dir)
    alerts = ReleaseAlerts(settings, metrics)
    watcher = Watcher(
        state,
        releases,
        online,
        metrics,
        alerts,
        in_force=LastKnownGood(settings.in_force_dir, releases),
        keys_dir=settings.keys_dir,
        fallback=options.online_fallback,
    )
    console = Console(state, metrics, releases, online, settings)
    predictor = Predictor(
        state,
        log,
        metrics,
        options,
        LogHealth(log, alerts),
        hooks=hooks,
        outcomes=outcomes,
        usage=(usage := UsageTally(settings, metrics.count_cpu)),
        masking=(masking := Masking(ProtectionStore(settings.access_dir))),
    )
    push_log = SegmentLog(settings.push_log_dir, "push log")
    pusher = Pusher(state, online, push_log, metrics, options, erased=settings.suppression_file)
    adapter = RouteAdapter(predictor, options)
    features = FeatureServing(state, online, metrics, options, masking)
    queues = (predictor.queues, pusher.queues, features.queues, adapter.parquet.queues)
    gauges = Gauges(metrics, predictor=predictor, queues=queues, online=online, settings=settings)
    metrics.before_collecting.append(gauges.refresh)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        alerts.start()
        await asyncio.to_thread(watcher.poll)  # so that the first request finds the models loaded
        app.guarded = app.access.in_use()
        if hooks is not None and (unknown := sorted(hooks.models - set(state.slots))):
            logger.warning("hooks wait for models that are not released: %s", ", ".join(unknown))
        loops = [
            watcher.run,
            predictor.log_health.watch,
            usage.run,
            app.watch_keys,
            console.run,
            *([] if tokens is None else [tokens.watch]),
        ]
        tasks = [asyncio.create_task(loop()) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for opened in (adapter.parquet, console, predictor, pusher, features):
                opened.close()  # first what still answers, then what it writes to
            for written in (log, outcomes, push_log, app.auditing, usage, alerts):
                written.close()

    app = ServingApp(
        title="ml_platform serving",
        description="Predictions of the models that are released now. Every answer is logged before it is sent.",
        version="1",
        lifespan=lifespan,
        openapi_url=None,  # `console.routes` serves it, and `/docs`, whose scripts FastAPI's would fetch from a CDN
        docs_url=None,
        redoc_url=None,
    )
    app.predict = predict = Predict(predictor, options)
    app.metrics = metrics
    tokens = Tokens(options) if options.oidc_issuer else None
    _add_checks(app, settings, options, state, tokens)
    for path in ("/predict/{model}", "/predict/{model}/versions/{version}"):
        app.router.routes.append(Route(path, predict, methods=["POST"], include_in_schema=False))
    changes = EndpointService(adapter, releases)
    protocols = (
        mlflow_routes(adapter),
        databricks_routes(adapter, changes, features),
        oip_routes(adapter),
        feast_routes(adapter, features),
    )
    changing = (endpoint_routes(changes), approval_routes(changes), version_routes(changes))
    for routes in (*protocols, *changing, push_routes(adapter, pusher), lookup_routes(adapter, features)):
        app.router.routes.extend(routes)
    _add_descriptions(app, predictor, settings)
    add_catalogue(app, console.catalogue)
    add_pages(app, state, console)

    app.openapi = lambda: whole_document(app, state)  # type: ignore[method-assign] # changes with every release
    app.add_exception_handler(StarletteHTTPException, http_error)
    app.add_exception_handler(Exception, internal_error)
    return app


def _add_checks(
    app: ServingApp, settings: Settings, options: ServingSettings, state: ServingState, tokens: Tokens | None
) -> None:
    """Give the app what it checks requests with: host names, keys and tokens, rates; and the audit log."""

    def only_model() -> str | None:
        return next(iter(state.slots)) if len(state.slots) == 1 else None

    app.hosts = Hosts(filter(None, [*options.allowed_hosts, host_of(settings.serving_url)]))

    def is_service(name: str) -> bool:
        return name not in state.slots and (name in state.services or name in state.services_refused)

    policy, gateway = PolicyStore(settings.access_dir), GatewayCallers(settings.keys_dir)
    app.access = Access(KeyStore(settings.keys_dir), only_model, tokens, is_service, policy=policy, gateway=gateway)
    app.limits = Limits(options, shared_table())
    app.auditing = Auditing(AuditLog(settings.audit_dir, settings.keys_dir))


def _add_descriptions(app: FastAPI, predictor: Predictor, settings: Settings) -> None:
    """Add the routes that describe models and report health and metrics."""
    state, metrics = predictor.state, predictor.metrics

    @app.head("/health/live", include_in_schema=False)  # as some load balancers ask
    @app.get("/health/live", tags=["health"])
    async def live() -> Health:
        """Whether this worker answers at all."""
        return Health(status="live")

    @app.head("/health/ready", include_in_schema=False)
    @app.get("/health/ready", tags=["health"], responses={503: {"model": Health}})
    async def ready(request: Request, response: Response) -> Health:
        """Whether this worker can answer; 503 while it has no model, or must log and cannot.

        Models show to keys for all models.
        """
        answer = readiness(state, predictor.unlogged())
        response.status_code = 200 if answer.status == "ready" else 503
        context = RequestContext.of(request.scope)
        if context.is_keyed and (context.key is None or not context.covers(ALL_MODELS)):
            return Health(status=answer.status)
        return answer

    @app.get("/models", tags=["models"])
    async def models(request: Request) -> ModelList:
        """Every released model that the key covers, the versions that serve it, and what was refused."""
        context = RequestContext.of(request.scope)
        summaries = [summary(slot) for name, slot in sorted(state.slots.items()) if context.covers(name)]
        return ModelList(models=summaries, trouble=state.trouble)

    @app.get("/streams", tags=["models"])
    async def streams(request: Request) -> StreamList:
        """How the workers of streams do: state, messages that wait, rate, age of answers, dead letters by kind."""
        covers = RequestContext.of(request.scope).covers
        return StreamList(workers=await asyncio.to_thread(stream_workers, settings.streams_dir, covers))

    @app.get(
        "/cost",
        tags=["models"],
        responses={
            404: {"description": "No costs are summed up yet."},
            503: {"description": "The summary of costs cannot be read."},
        },
    )
    async def cost() -> CostSummary:
        """What models, teams, jobs and callers cost in the last 30 days, and how the budgets stand; for all models."""
        try:
            summary = await asyncio.to_thread(read_summary, settings.cost_dir)
        except ValueError as error:
            logger.error("%s", error)
            raise HTTPException(503, "the summary of costs cannot be read; the server's log has the reason") from error
        if summary is None:
            raise HTTPException(404, "no costs are summed up yet: materialise governance/cost in Dagster")
        return summary

    @app.get("/models/{model}", tags=["models"])
    async def model(model: str) -> ModelDetail:
        """Signature, features, metrics, provenance and endpoint of one model."""
        slot = state.slots.get(model)
        if slot is None and (retirement := state.retirement(model)) is not None:
            raise HTTPException(404, retirement)
        if slot is None:
            raise HTTPException(404, f"no released model is called '{model}'; released are: {state.known()}")
        return describe_endpoint(slot)

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format, summed over all workers of this server."""
        return Response(await asyncio.to_thread(metrics.exposition), media_type=CONTENT_TYPE_LATEST)
