"""Brings a model's probabilities and intervals up to date with the labels that have come, without training."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from pydantic import Field

from ml_platform.inference.calibration import calibrated
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.recalibration.adapt import adapt
from ml_platform.monitoring.recalibration.guardrails import recalibration_guardrails
from ml_platform.monitoring.recalibration.judge import Judgement, NotJudged, judge_recalibration
from ml_platform.monitoring.recalibration.labelled_answers import DAY, LabelledAnswers, labelled_answers
from ml_platform.monitoring.recalibration.light_release import LightVersion, register_recalibrated
from ml_platform.promotion.card import write_recalibrated_card
from ml_platform.promotion.promote import promote
from ml_platform.registry.adapted_conformal import AdaptedConformal, load_adapted, store_adapted
from ml_platform.registry.canary import walk_of
from ml_platform.registry.manifest import Calibration, Endpoint, Target, champion_target
from ml_platform.registry.recalibration_pause import pause_in_words, recalibration_pause
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict
from ml_platform.training.documents import Evaluation, GuardrailResult, ReleaseDecision, Window
from ml_platform.training.evaluation.evaluate import one_row_latency_ms
from ml_platform.training.evaluation.guardrails.model import (
    bundle_bytes,
    latency_guardrail,
    parity_guardrail,
    size_guardrail,
)
from ml_platform.training.evaluation.metrics import measure

Tell = Callable[[str], None]


class RecalibrationReport(Strict):
    """What became of probabilities and intervals."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Version that served when this began.")
    labelled_rows: int = Field(description="Answers with labels that were looked at.")
    labelled_until: datetime | None = Field(description="Start of the newest day that has labels (UTC).")
    new_version: int | None = Field(None, description="Version with the new calibration; null where none was made.")
    released: bool = Field(False, description="Whether that version serves now.")
    percent: float = Field(100.0, description="Share of the traffic that it has; less than 100 while it walks.")
    log_loss: tuple[float, float] | None = Field(None, description="As served, and calibrated anew, on judged rows.")
    calibration_error: tuple[float, float] | None = Field(None, description="Expected calibration error, likewise.")
    coverage: float | None = Field(None, description="Of intervals or sets of 0.9, on the last 28 counted days.")
    width: float | None = Field(None, description="Mean width of these, or number of classes.")
    counted_days: int = Field(0, description="Days that the intervals have followed.")
    guardrails: tuple[GuardrailResult, ...] = Field((), description="What a new calibration is held to.")
    paused: bool = Field(False, description="Whether calibrations wait, because one was taken back.")
    reasons: tuple[str, ...] = Field(description="What was done and why, one sentence each.")


def recalibrate(
    settings: Settings,
    spec: ModelSpec,
    folder: Path,
    *,
    by: str,
    until: datetime | None = None,
    dry_run: bool = False,
) -> RecalibrationReport:
    """Learn a model's calibration on the newest labelled answers, release it if it is no worse, and adapt intervals.

    A new version has the champion's graph with other numbers at its end. It is released as any other: where defs.yaml
    asks for a person or an approval, it waits. Cut short at any point and repeated, it is made once. One that
    breaks a guardrail is not made, and none is while what a recalibration had released is taken back
    (`registry.recalibration_pause`). Intervals follow the labels all the same.

    Parameters
    ----------
    settings
        Where lake, releases and registry are.
    spec, folder
        The model, and where its spine is.
    by
        Who does it, for endpoint document and ledger.
    until
        Only answers and labels up to then (UTC); all when None.
    dry_run
        Whether only to say what would be done.

    Raises
    ------
    LookupError
        When nothing serves.
    ValueError
        When several versions share the traffic.
    ReleaseConflict
        When something else was released meanwhile: repeat it.
    """
    store, lake = ReleaseStore(settings.releases_dir), Lake(settings.lake_uri)
    endpoint = store.endpoint(spec.name)
    if endpoint is None:
        raise LookupError(f"{spec.name}: nothing serves, so there is nothing to recalibrate; release a version first")
    champion = champion_target(endpoint)
    if sum(target.mode == "live" for target in endpoint.targets) > 1:
        raise ValueError(
            f"{spec.name}: several versions share the traffic; recalibrate once one of them has all of it (ml-platform "
            "promote, rollback or traffic)"
        )
    scorer = Scorer.load(store.bundle_path(champion.digest))
    rules = spec.recalibration
    span = max(2 * rules.window + 30 * DAY, rules.interval_window + 30 * DAY)
    labelled = labelled_answers(lake, spec, folder, store, champion.version, scorer, span=span, until=until)
    report = RecalibrationReport(
        model=spec.name,
        version=champion.version,
        labelled_rows=labelled.answers.rows if labelled else 0,
        labelled_until=datetime(1970, 1, 1, tzinfo=UTC) + labelled.days[-1] * DAY if labelled else None,
        reasons=(),
    )
    if labelled is None:
        return report.model_copy(update={"reasons": ("No answer of the version that serves has a label yet.",)})
    tracker = Tracker(settings)
    judgement, reasons = _judged(spec, labelled)
    paused = recalibration_pause(store, spec.name) if spec.task != "regression" else None
    report = report.model_copy(update={"paused": paused is not None})
    is_released = judgement is not None and judgement.release
    if judgement is not None:
        guardrails = recalibration_guardrails(spec, judgement, scorer.manifest.threshold, champion.version)
        report = report.model_copy(
            update={"log_loss": judgement.log_loss, "calibration_error": judgement.error, "guardrails": guardrails}
        )
        broken = [f"Failed: {one.reason}." for one in guardrails if not one.passed]
        if is_released and broken:
            is_released, reasons = False, ("Probabilities stay as they are: a guardrail refuses.", *broken, *reasons)
    if paused is not None:
        is_released, reasons = False, (pause_in_words(spec.name, paused), *reasons)
    decision: ReleaseDecision | None = None
    before = load_adapted(store, champion.digest)
    if judgement is not None and is_released and not dry_run:
        anew = _calibrated_anew(labelled, judgement.calibration)
        adapted = _adapt(anew, spec, scorer, champion.digest, before)
        light = register_recalibrated(
            spec, champion, judgement, adapted.conformal if adapted else None, store=store, tracker=tracker, by=by
        )
        if adapted is not None:
            store_adapted(store, _of(adapted, light.version.digest))
        evaluation = _evaluation(spec, endpoint, champion, light, judgement, store)
        evaluation = _guarded(spec, evaluation, report.guardrails, light, store)
        report = report.model_copy(update={"guardrails": evaluation.guardrails})
        write_recalibrated_card(spec, champion.version, evaluation, light.version, tracker=tracker)
        decision = promote(settings, spec, light.version, evaluation, tracker=tracker, by=by)
        reasons = (*decision.reasons[:1], *judgement.reasons)
        report = report.model_copy(update={"new_version": light.version.version, "released": decision.promoted})
        if (now := store.endpoint(spec.name)) is not None and now.walk is not None and decision.promoted:
            report = report.model_copy(update={"percent": walk_of(now).percent})
    elif judgement is not None and is_released:
        reasons = ("It would be released (dry run: nothing was changed).", *judgement.reasons)
    if decision is None or not decision.promoted:
        adapted = _adapt(labelled, spec, scorer, champion.digest, before)
        if adapted is not None and not dry_run:
            store_adapted(store, adapted)
    return report.model_copy(
        update={
            "coverage": adapted.conformal.coverage if adapted else None,
            "width": adapted.conformal.width if adapted else None,
            "counted_days": adapted.days if adapted else 0,
            "reasons": (*reasons, *_intervals_told(spec, adapted), *labelled.notes),
        }
    )


def _judged(spec: ModelSpec, labelled: LabelledAnswers) -> tuple[Judgement | None, tuple[str, ...]]:
    if spec.task == "regression":
        return None, ()
    if spec.calibration == "none":
        return None, ("Probabilities stay as they are: calibration is none in defs.yaml.",)
    try:
        judgement = judge_recalibration(labelled, spec)
    except NotJudged as error:
        return None, (f"Probabilities stay as they are: {error}.",)
    if not judgement.release:
        return judgement, ("Probabilities stay as they are.", *judgement.reasons)
    return judgement, judgement.reasons


def _calibrated_anew(labelled: LabelledAnswers, calibration: Calibration) -> LabelledAnswers:
    answers = labelled.answers
    return replace(labelled, answers=replace(answers, score=calibrated(calibration, answers.score)))


def _adapt(
    labelled: LabelledAnswers, spec: ModelSpec, scorer: Scorer, digest: str, before: AdaptedConformal | None
) -> AdaptedConformal | None:
    return adapt(labelled, spec, digest, base=scorer.manifest.conformal, before=before, now=datetime.now(UTC))


def _of(adapted: AdaptedConformal, digest: str) -> AdaptedConformal:
    return msgspec.structs.replace(adapted, digest=digest)


def _evaluation(  # noqa: PLR0917 - private
    spec: ModelSpec,
    endpoint: Endpoint,
    champion: Target,
    light: LightVersion,
    judgement: Judgement,
    store: ReleaseStore,
) -> Evaluation:
    """The gate's document of a calibration: what is promoted is judged by log-loss, and by nothing that it leaves."""
    manifest = store.load_manifest(champion.digest)
    before, after = (
        {**measure(spec.task, judgement.y, score, threshold=manifest.threshold), "calibration_error": error}
        for score, error in zip(judgement.scores, judgement.error, strict=True)
    )
    return Evaluation(
        model=spec.name,
        metric="log_loss",
        higher_is_better=False,
        challenger_digest=light.version.digest,
        challenger_model_digest=light.version.model_digest,
        champion_version=champion.version,
        champion_digest=champion.digest,
        judged_digest=champion.digest,
        champion_model_digest=manifest.model_digest,
        revision=endpoint.revision,
        holdout=Window(first=judgement.first, last=judgement.last - timedelta(microseconds=1), rows=judgement.rows),
        challenger=after,
        champion=before,
        naive_description="not compared, since only the calibration differs",
        reference=f"champion (version {champion.version}), of which only the calibration differs",
        interval=judgement.log_loss_gain,
        latency_ms=one_row_latency_ms(light.scorer, store),
        parity=light.parity,
        promote=True,
        reasons=(
            f"Recalibrated on {judgement.calibration.rows:,} labelled answers, without training: version "
            f"{light.manifest.recalibrated.base_version if light.manifest.recalibrated else champion.version} with "
            "other probabilities.",
            *judgement.reasons,
        ),
    )


def _guarded(
    spec: ModelSpec,
    evaluation: Evaluation,
    guardrails: tuple[GuardrailResult, ...],
    light: LightVersion,
    store: ReleaseStore,
) -> Evaluation:
    """Add what is known once the version is made; one that breaks a bound waits for a person."""
    guardrails = (
        *guardrails,
        parity_guardrail(spec, light.parity),
        latency_guardrail(spec, evaluation.latency_ms),
        size_guardrail(spec, bundle_bytes(store, light.version.digest)),
    )
    broken = tuple(f"Failed: {one.reason}." for one in guardrails if not one.passed)
    return evaluation.model_copy(
        update={
            "guardrails": guardrails,
            "promote": evaluation.promote and not broken,
            "reasons": (*broken, *evaluation.reasons),
        }
    )


def _intervals_told(spec: ModelSpec, adapted: AdaptedConformal | None) -> tuple[str, ...]:
    if adapted is None:
        return ("Intervals and sets wait for more labelled answers.",)
    conformal = adapted.conformal
    if conformal.coverage is None or conformal.width is None:
        return (f"Intervals and sets are made of {conformal.rows:,} labelled answers; no day is counted yet.",)
    unit = f" {spec.target_unit or ''}".rstrip() if spec.task == "regression" else " classes"
    return (
        f"Intervals of 0.9 held {conformal.coverage:.3f} of the labels of the last counted days (up to 28), "
        f"{conformal.width:.4g}{unit} wide on average; {adapted.days} days are counted.",
    )
