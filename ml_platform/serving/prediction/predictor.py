"""Turns the bytes of a body into an answer that is logged before it is sent, for every protocol.

Small requests are scored on the event loop, which costs less than handing them to a thread. Large requests wait for
one thread in a bounded queue; when it is full, the caller is told to try again.
"""

import logging
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, time
from typing import Any

import msgspec

from ml_platform.inference.log import SHADOW, InferenceLog
from ml_platform.inference.outcomes import UNITS, Outcome, OutcomeLog, sampled_scores
from ml_platform.registry.input_contract import violations_by_field
from ml_platform.registry.manifest import Endpoint, Manifest
from ml_platform.registry.version_inputs import VersionInputs
from ml_platform.segment_log.segments import LogUnavailable
from ml_platform.serving.access.masking import Masking, mask_details
from ml_platform.serving.bounded_worker import BoundedWorker
from ml_platform.serving.http.messages import Refused
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.http.request_context import RequestContext
from ml_platform.serving.inputs.shared_inputs import of_version
from ml_platform.serving.inputs.shared_rows import SharedRows
from ml_platform.serving.inputs.store_reads import OnlineStoreFailed
from ml_platform.serving.models.composed import ComposedModel, leaves
from ml_platform.serving.models.intervals import IntervalLevel, without_intervals
from ml_platform.serving.models.slots import EndpointState, ServedModel, ServingState
from ml_platform.serving.prediction.explanations import MAX_EXPLAINED, add_details, why_composed_not_explained
from ml_platform.serving.prediction.hooks import HookRequest, Hooks
from ml_platform.serving.prediction.log_health import LogHealth
from ml_platform.serving.prediction.responses import Answer, flags_of
from ml_platform.serving.prediction.score_body import score_body
from ml_platform.serving.prediction.score_composed import score_composed
from ml_platform.serving.prediction.score_rows import Scored
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.stage_timer import SAMPLED, StageTimer
from ml_platform.serving.telemetry.metrics import Metrics, ModelMetrics
from ml_platform.serving.telemetry.usage import ANONYMOUS, UsageTally

NOT_JSON = 400  # status of a refusal
INLINE_BYTES = 2**17  # some 500 rows, 10 ms of scoring: a larger body would keep other requests waiting

logger = logging.getLogger("serving")


class PredictionOptions(msgspec.Struct, frozen=True):
    """What a request asks for, beside its rows, and who sent it."""

    request_id: str
    caller: str | None
    version: int | None = None  # None: the endpoint chooses
    explain: bool = False
    features: bool = False
    interval: float | None = None  # level of intervals or sets; None: none are asked for
    stages: StageTimer | None = None  # its timings; None when they are not recorded
    viewer: object = None  # whose details they are, `RequestContext.key`: what is masked for it is null


class Predictor:
    """Answers for the models of `state`, each slot read once per request. One per worker."""

    def __init__(
        self,
        state: ServingState,
        log: InferenceLog,
        metrics: Metrics,
        settings: ServingSettings,
        log_health: LogHealth,
        *,
        hooks: Hooks | None = None,
        outcomes: OutcomeLog | None = None,
        usage: UsageTally | None = None,
        masking: Masking | None = None,
    ) -> None:
        self.log_health = log_health
        self.state = state
        self.metrics = metrics
        self.active = 0  # requests under way, of all protocols
        self._log = log
        self._settings = settings
        self._hooks = hooks
        self._outcomes = outcomes
        self.usage = usage
        self._masking = masking
        self._outcomes_fail = False
        self._count = -1
        self._series: dict[tuple[str, int], ModelMetrics] = {}
        self._worker = BoundedWorker("large", settings.max_queue, settings)
        self._shadow_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")
        self._shadowing = 0

    def check_active(self) -> None:
        """Refuse a request when too many are under way (raises Refused)."""
        if self.active > self._settings.max_active:
            message = f"{self._settings.max_active:,} requests are being answered: try again"
            raise Refused(503, "busy", message, retry_after=1)

    def unlogged(self) -> Mapping[str, str]:
        """Models whose requests are refused because their log cannot be written, with the reasons."""
        return self.log_health.failing if self._settings.log_fallback == "refuse" else {}

    def is_ready(self) -> bool:
        """Whether this worker has a model to answer with, and can log what it answers."""
        return not self.unlogged() and any(slot.served for slot in self.state.slots.values())

    def slot(self, name: str) -> EndpointState:
        """The slot of a model, which has a version that can answer (raises Refused)."""
        slot = self.state.slots.get(name)
        if slot is not None and slot.served:
            return slot
        if slot is not None:
            reason = slot.refused.reason if slot.refused else "its release is being loaded"
            raise Refused(503, "model_unavailable", f"model '{name}' cannot answer: {reason}", retry_after=1)
        if (retirement := self.state.retirement(name)) is not None:
            raise Refused(410, "retired_model", retirement)
        if not self.state.slots:
            reason = self.state.trouble or "promote a model first: materialise its `release` asset"
            raise Refused(503, "no_release", f"no model has been released yet; {reason}", retry_after=5)
        raise Refused(404, "unknown_model", f"no released model is called '{name}'; released are: {self.state.known()}")

    def series(self, model: str, version: int) -> ModelMetrics:
        """Metrics of one version."""
        series = self._series.get((model, version))
        return series or self._series.setdefault((model, version), self.metrics.version_series(model, version))

    def time(self, context: RequestContext, started: float) -> None:
        """Record the timings of one request in `SAMPLED`, beside those that are traced."""
        self._count += 1
        if not self._count % SAMPLED:
            context.stages = context.stages or StageTimer(started)
            context.stages.sampled = True

    def note(
        self, context: RequestContext, model: str, answer: Answer, options: PredictionOptions, started: float
    ) -> None:
        """Count an answered request: its version, and how long it took until its answer was encoded."""
        series = self.series(model, answer.version)
        context.rows = len(answer.predictions)
        if options.stages is not None:
            options.stages.mark("encode")
            context.model_version = answer.version
            if options.stages.sampled:
                series.observe(options.stages)
        series.answered.inc()
        seconds = perf_counter() - started
        series.seconds.observe(seconds)
        if self.usage is not None:
            self.usage.note(model, context.key.name if context.key else ANONYMOUS, seconds, context.rows)

    async def answer(self, slot: EndpointState, body: bytes, options: PredictionOptions) -> Answer:
        """Decode, look up, score and log (raises Refused)."""
        if len(body) <= INLINE_BYTES and not options.explain:
            return self.answer_now(slot, body, options)
        answer: Answer = await self.in_turn(lambda: self._answer(slot, body, options))
        self._show_shadows(slot, body, options, answer)
        return answer

    def answer_now(self, slot: EndpointState, body: bytes, options: PredictionOptions) -> Answer:
        """Do what `answer` does, for a body of at most `INLINE_BYTES` without explanations (raises Refused)."""
        answer = self._answer(slot, body, options)
        if slot.shadows:
            self._show_shadows(slot, body, options, answer)
        return answer

    async def in_turn(self, work: Callable[[], Any]) -> Any:
        """Do work in the thread for large requests, since it would block the event loop (raises Refused)."""
        return await self._worker.submit(work)

    def queues(self) -> dict[str, int]:
        """Number of requests that each thread works on or has waiting."""
        return {"large": self._worker.queued, "shadow": self._shadowing}

    def close(self) -> None:
        """Finish the requests that wait, shadows' included."""
        self._worker.close()
        self._shadow_threads.shutdown()

    def _answer(self, slot: EndpointState, body: bytes, options: PredictionOptions) -> Answer:
        stages = options.stages
        if stages is not None:
            stages.mark("wait")
        try:
            body = self._prepared(slot.name, body, options)
        except InvalidRequest as invalid:
            raise self._invalid(slot, invalid) from invalid
        model, key = _choose(slot, body, options)
        if self._outcomes is None or key is None or slot.endpoint is None or slot.endpoint.walk is None:
            return self._answer_by(model, slot, body, options)[0]
        started, scored, is_outcome = perf_counter(), None, True
        try:
            answer, scored = self._answer_by(model, slot, body, options)
        except Refused as refused:
            is_outcome = refused.status != NOT_JSON  # which no version could read
            raise
        finally:  # whatever else went wrong, the version was at it
            if is_outcome:
                self._note_outcome(self._outcomes, slot.endpoint, model, key, perf_counter() - started, scored)
        return answer

    def _note_outcome(  # noqa: PLR0917 - what a line says
        self,
        outcomes: OutcomeLog,
        endpoint: Endpoint,
        model: ServedModel,
        key: str,
        seconds: float,
        scored: Scored | None,
    ) -> None:
        """Note how a request of a canary walk went; a disk that is full costs the walk its requests, and no answer."""
        outcome = Outcome(
            revision=endpoint.revision,
            version=model.version,
            time=time(),
            seconds=round(seconds, 7),
            failed=scored is None,
            flagged=bool(scored and scored.flags),
            unit=zlib.crc32(key.encode()) % UNITS,
            scores=sampled_scores(scored.records) if scored else (),
        )
        try:
            outcomes.append(endpoint.name, [outcome])
        except LogUnavailable as error:
            if not self._outcomes_fail:
                logger.error("%s: its canary walk cannot be judged: %s", endpoint.name, error)
            self._outcomes_fail = True
        else:
            self._outcomes_fail = False

    def _invalid(self, slot: EndpointState, invalid: InvalidRequest) -> Refused:
        self._count_violations(slot.name, invalid.kinds)
        return Refused.of(invalid)

    def _answer_by(
        self, model: ServedModel, slot: EndpointState, body: bytes, options: PredictionOptions
    ) -> tuple[Answer, Scored]:
        stages = options.stages
        try:
            scored, members = self._score(model, body, options)
        except InvalidRequest as invalid:
            is_chosen = slot.is_mixed and options.version is None and len(slot.served) > 1
            is_chosen = is_chosen and invalid.status != NOT_JSON
            raise self._invalid(slot, _by_version(invalid, model, slot) if is_chosen else invalid) from invalid
        except OnlineStoreFailed as failed:
            raise Refused(503, "online_store_failed", f"not answered: {failed}", retry_after=1) from failed
        level = msgspec.UNSET if options.interval is None else self._add_intervals(model, scored, options.interval)
        if self._hooks is not None:
            predictions = self._hooks.finish(scored.predictions, _hook_request(slot.name, options))
            scored = scored._replace(predictions=predictions)
        is_logged = self._write_log(model, scored, options)
        if stages is not None:
            stages.mark("log")
        self.series(slot.name, model.version).predictions.inc(len(scored.predictions))
        for view, count in scored.missing.items():
            self.metrics.not_found.labels(model.name, view).inc(count)
        answer = Answer(
            model=model.name,
            version=model.version,
            request_id=options.request_id,
            predictions=scored.predictions,
            interval=level,
            members=members,
        )
        if scored.missing.store_failed or not is_logged:
            self.metrics.degraded.labels(model.name).inc()
            parts = {"online_store": scored.missing.store_failed, "inference_log": not is_logged}
            answer.degraded = [part for part, has_failed in parts.items() if has_failed]
        if scored.flags:
            self._count_violations(model.name, violations_by_field(scored.flags))
            answer.flags = flags_of(scored.flags)
        if options.explain or options.features:
            _add_details(model, scored, options)
            if self._masking is not None and (
                hidden := self._masking.hidden_features(options.viewer, _manifests(model))
            ):
                answer.masked = mask_details(scored.predictions, hidden) or msgspec.UNSET
            if stages is not None:
                stages.mark("explain")
        return answer, scored

    def _score(
        self, model: ServedModel, body: bytes, options: PredictionOptions, shared: SharedRows | None = None
    ) -> tuple[Scored, dict[str, int] | msgspec.UnsetType]:
        """Score a body by a version, or by the members of a composed endpoint, whose versions are told too.

        Each member is asked as at its own endpoint: its hook prepares the rows, and its traffic split chooses.
        """
        if not isinstance(model, ComposedModel):
            return _score_by(model, body, options, shared), msgspec.UNSET
        if options.explain and not model.explains:
            raise Refused(422, "not_explainable", why_composed_not_explained(model))
        _check_explained(model, body, options)
        own, rows = options, shared or SharedRows()
        if options.version is not None or options.stages is not None:
            own = msgspec.structs.replace(options, version=None, stages=None)

        def score(name: str, body: bytes) -> tuple[ServedModel, Scored]:
            slot, body = model.members[name], self._prepared(name, body, own)
            member, _ = _choose(slot, body, own)
            scored = self._score(member, body, own, rows)[0]
            if own.explain and not isinstance(member, ComposedModel):
                add_details(member, scored, explain=True, features=False)
            return member, scored

        scored, versions = score_composed(
            model, body, options.request_id, options.caller, score, explain=options.explain
        )
        if options.stages is not None:
            options.stages.mark("score")
        return scored, versions

    def _add_intervals(self, model: ServedModel, scored: Scored, level: float) -> IntervalLevel:
        """Add intervals or sets of a level to predictions, and count their width (raises Refused)."""
        if isinstance(model, ComposedModel):
            message = f"'{model.name}' is composed, and intervals of members do not add up: ask a member for its own"
            raise Refused(422, "no_intervals", message)
        if model.intervals is None:
            raise without_intervals(model.manifest, model.version)
        told, width = model.intervals.add(scored.predictions, level)
        series = self.series(model.name, model.version)
        series.intervals.inc(len(scored.predictions))
        series.interval_width.inc(width)
        return told

    def _prepared(self, model: str, body: bytes, options: PredictionOptions) -> bytes:
        """The body as the project's hook wants it scored (raises InvalidRequest, Refused)."""
        return body if self._hooks is None else self._hooks.prepare(body, _hook_request(model, options))

    def _write_log(self, model: ServedModel, scored: Scored, options: PredictionOptions) -> bool:
        """Log the rows that the model's policy selects (raises Refused).

        Returns
        -------
        bool
            False when the rows could not be logged and the settings say to answer all the same.
        """
        records = scored.records
        if model.log_filter is not None and not (records := model.log_filter.apply(records, options.request_id)):
            self.metrics.log_unsampled.labels(model.name).inc(len(scored.predictions))
            return True
        try:
            self._log.append(model.name, records)
        except LogUnavailable as error:
            return self._without_log(model.name, len(scored.predictions), error)
        return True

    def _without_log(self, model: str, rows: int, error: LogUnavailable) -> bool:
        """Count rows that cannot be logged: refuse to answer, or answer all the same (raises Refused)."""
        if self._settings.log_fallback == "count":
            self.log_health.note_failure(model, error, "answered and not logged")
            self.metrics.log_lost.labels(model).inc(rows)
            return False
        self.log_health.note_failure(model, error, "refused, because they cannot be logged")
        self.metrics.log_failures.labels(model).inc()
        reason = f"not answered, because it cannot be logged: {error.reason}"
        raise Refused(503, "log_unavailable", reason, retry_after=5) from error

    def _count_violations(self, model: str, violations: Mapping[Any, int]) -> None:
        for (field, kind), number in violations.items():
            self.metrics.contract_violations.labels(model, field, kind).inc(number)

    def _show_shadows(self, slot: EndpointState, body: bytes, options: PredictionOptions, answer: Answer) -> None:
        for shadow in slot.shadows:
            if shadow.version != answer.version:
                self._send_to_shadow(shadow, body, options)

    def _send_to_shadow(self, shadow: ServedModel, body: bytes, options: PredictionOptions) -> None:
        if self._shadowing >= self._settings.max_shadow_queue:
            self.metrics.shadow_lost.labels(shadow.name, str(shadow.version), "busy").inc()
            return
        self._shadowing += 1
        if options.stages is not None:  # they time the live version
            options = msgspec.structs.replace(options, stages=None)
        self._shadow_threads.submit(self._shadow, shadow, body, options)

    def _shadow(self, shadow: ServedModel, body: bytes, options: PredictionOptions) -> None:
        """Score and log a request that a live version has answered; count and log whatever goes wrong."""
        try:
            scored = _score_by(shadow, self._prepared(shadow.name, body, options), options)
            records = scored.records
            if shadow.log_filter is not None:
                records = shadow.log_filter.apply(records, options.request_id)
            if records:
                self._log.append(shadow.name + SHADOW, records)
            self.metrics.shadowed.labels(shadow.name, str(shadow.version)).inc(len(scored.predictions))
        except Exception as error:  # noqa: BLE001 - nobody waits for this thread: it must outlive any request
            logger.error("%s: shadow version %d failed: %s", shadow.name, shadow.version, error)
            self.metrics.shadow_lost.labels(shadow.name, str(shadow.version), type(error).__name__).inc()
        finally:
            self._shadowing -= 1


def _hook_request(model: str, options: PredictionOptions) -> HookRequest:
    return HookRequest(model, options.request_id, options.caller)


def unknown_version(slot: EndpointState, version: int) -> Refused:
    """Refuse a version that is not loaded, naming those that are."""
    loaded = ", ".join(str(model.version) for model in (*slot.served, *slot.shadows))
    message = f"'{slot.name}' has no version {version} loaded; loaded are: {loaded}"
    return Refused(404, "unknown_version", message)


def _choose(slot: EndpointState, body: bytes, options: PredictionOptions) -> tuple[ServedModel, str | None]:
    """Choose the version asked for, else the one that the traffic split gives the first row, with what decided.

    Raises
    ------
    Refused
        For a version that is not loaded.
    """
    if options.version is not None:
        model = slot.version(options.version)
        if model is None:
            raise unknown_version(slot, options.version)
        return model, None
    if len(slot.served) == 1:
        return slot.served[0], None
    key = slot.key_of(body) or options.request_id
    return slot.choose(key), key


def _by_version(invalid: InvalidRequest, model: ServedModel, slot: EndpointState) -> InvalidRequest:
    """Say which version refused a request that the traffic split gave it."""
    others = [VersionInputs(one.version, one.manifest.inputs) for one in slot.served if one is not model]
    return of_version(invalid, VersionInputs(model.version, model.manifest.inputs), others)


def _score_by(model: ServedModel, body: bytes, options: PredictionOptions, shared: SharedRows | None = None) -> Scored:
    """Score a body's rows with a version.

    Raises
    ------
    InvalidRequest
        For a body that cannot be read, does not fit the signature, or from which features cannot be derived.
    OnlineStoreFailed
        When the online store cannot be read and the fallback is "fail".
    """
    _check_explained(model, body, options)
    return score_body(model, body, options.request_id, options.caller, stages=options.stages, shared=shared)


def _check_explained(model: ServedModel, body: bytes, options: PredictionOptions) -> None:
    """Refuse to explain too many rows (raises InvalidRequest)."""
    if options.explain and (count := model.decoder.count(body)) > MAX_EXPLAINED:
        problem = Problem(None, None, f"wanted at most {MAX_EXPLAINED} rows to explain, found {count:,}")
        raise InvalidRequest(422, [problem])


def _manifests(model: ServedModel) -> list[Manifest]:
    """Of the version that answers, or of all that may answer for a composed endpoint."""
    return [one.manifest for one in leaves(model)] if isinstance(model, ComposedModel) else [model.manifest]


def _add_details(model: ServedModel, scored: Scored, options: PredictionOptions) -> None:
    """Put features and explanations into predictions; those of members are there already (raises Refused)."""
    is_composed = isinstance(model, ComposedModel)
    add_details(model, scored, explain=options.explain and not is_composed, features=options.features)
