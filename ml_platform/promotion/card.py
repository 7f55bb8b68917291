"""Writes the model card of a version from what was recorded when it was made and judged."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.registry.card_pages import card_html, card_markdown
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.model_card import (
    CardGuardrail,
    CardInterval,
    CardPower,
    CardQuality,
    CardSlice,
    ModelCard,
    load_card,
    store_card,
)
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.guardrails import columns_of_set
from ml_platform.spec.input_rules import rules_of
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, Interval, RegisteredVersion, TrainedModel
from ml_platform.training.evaluation.guardrails.table import guardrail_rows
from ml_platform.training.evaluation.power import in_words

CARD = "model_card"  # folder of the run's artifacts


def write_card(
    spec: ModelSpec,
    folder: Path,
    trained: TrainedModel,
    evaluation: Evaluation,
    version: RegisteredVersion,
    *,
    tracker: Tracker,
) -> ModelCard:
    """Write a version's card into the release store and to its MLflow run; written again, it is replaced.

    Parameters
    ----------
    spec
        The model.
    folder
        Where `spec.card` is.
    trained, evaluation
        What was registered, and what the gate found.
    version
        As it was registered.
    tracker
        Where its run is.

    Raises
    ------
    FileNotFoundError
        When the file that `spec.card` names is gone.
    """
    store = ReleaseStore(tracker.settings.releases_dir)
    manifest = store.load_manifest(version.digest)
    card = ModelCard(
        model=spec.name,
        version=version.version,
        written_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        description=spec.description,
        owner=spec.owner,
        words=(folder / spec.card).read_text(encoding="utf-8") if spec.card else "",
        task=spec.task,
        target=spec.target,
        target_unit=spec.target_unit,
        family=manifest.family,
        params=dict(trained.params),
        threshold=manifest.threshold,
        threshold_choice=manifest.threshold_choice,
        features=manifest.features,
        labels=dict(trained.training_set.label_summary),
        provenance=manifest.provenance,
        quality=_quality(evaluation),
        passed=evaluation.promote,
        reasons=evaluation.reasons,
        **_uncertainty(manifest),
        suspects=trained.training_set.suspects,
        release=_release(spec),
        limits=_limits(spec),
        log=_log(spec),
        digest=version.digest,
        model_digest=version.model_digest,
        links={"MLflow version": version.url, "MLflow run": trained.run_url},
    )
    _keep(store, card, version, tracker)
    return card


def write_recalibrated_card(
    spec: ModelSpec, replaced: int, evaluation: Evaluation, version: RegisteredVersion, *, tracker: Tracker
) -> ModelCard | None:
    """Write the card of a version of which only the calibration differs from another's; None where that has no card.

    Parameters
    ----------
    spec
        The model.
    replaced
        The other version.
    evaluation
        What was found of the calibration.
    version, tracker
        As of `write_card`.
    """
    store = ReleaseStore(tracker.settings.releases_dir)
    try:
        known = load_card(store, spec.name, replaced)
    except LookupError:
        return None
    card = msgspec.structs.replace(
        known,
        version=version.version,
        written_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        quality=_quality(evaluation),
        passed=evaluation.promote,
        reasons=evaluation.reasons,
        release=_release(spec),
        digest=version.digest,
        model_digest=version.model_digest,
        links={**known.links, "MLflow version": version.url, "MLflow run": tracker.run_url(version.run_id)},
        **_uncertainty(store.load_manifest(version.digest)),
    )
    _keep(store, card, version, tracker)
    return card


def _keep(store: ReleaseStore, card: ModelCard, version: RegisteredVersion, tracker: Tracker) -> None:
    store_card(store, card)
    pages = {"card.md": card_markdown(store, card), "card.html": card_html(store, card)}
    tracker.log_files(version.run_id, {f"{CARD}/{name}": page.encode() for name, page in pages.items()})


def _uncertainty(manifest: Manifest) -> dict[str, Any]:
    return {
        "calibration": manifest.calibration,
        "recalibrated": manifest.recalibrated,
        "reliability": manifest.reliability,
        "conformal": manifest.conformal,
    }


def _quality(evaluation: Evaluation) -> CardQuality | None:
    rows, interval = evaluation.holdout, evaluation.interval
    if rows is None or rows.first is None or rows.last is None:
        return None
    return CardQuality(
        metric=evaluation.metric,
        rows=rows.rows,
        first=rows.first.isoformat(),
        last=rows.last.isoformat(),
        metrics=dict(evaluation.challenger),
        reference=evaluation.reference,
        reference_metrics=dict(evaluation.champion or evaluation.naive),
        naive_metrics=dict(evaluation.naive),
        naive=evaluation.naive_description,
        interval=card_interval(interval) if interval else None,
        within_blocks=card_interval(evaluation.within_blocks) if evaluation.within_blocks else None,
        power=CardPower(**evaluation.power.model_dump()) if evaluation.power else None,
        power_in_words=in_words(evaluation.power) if evaluation.power else "",
        guardrails=tuple(
            CardGuardrail(
                name=row["guardrail"],
                value=row["value"],
                bound=row["bound"],
                verdict=row["verdict"],
                optional=result.optional,
                reason=row["reason"],
            )
            for row, result in zip(guardrail_rows(evaluation.guardrails), evaluation.guardrails, strict=True)
        ),
        slices=tuple(
            CardSlice(
                column=one.column,
                value=one.value,
                rows=one.rows,
                metric=one.challenger,
                reference=one.reference,
                passed=one.passed,
            )
            for one in evaluation.slices
        ),
        latency_ms=evaluation.latency_ms,
        parity_difference=evaluation.parity.max_difference,
        tries=evaluation.tries,
    )


def card_interval(interval: Interval) -> CardInterval:
    """An interval of a gain as it is stored."""
    return CardInterval(
        gain=interval.gain,
        lower=interval.lower,
        upper=interval.upper,
        confidence=interval.confidence,
        blocks=interval.blocks,
        block=interval.block,
    )


def _release(spec: ModelSpec) -> str:
    gate = spec.promotion
    who = (
        "A version that passes the gate is released by itself"
        if gate.automatic
        else "A version that passes the gate waits until a person releases it"
    )
    again = [
        *([f"by the schedule {spec.retraining.schedule} (UTC)"] if spec.retraining.schedule else []),
        *(["when drift is found"] if spec.retraining.on_drift else []),
        *(["when performance is below its bound"] if spec.retraining.on_performance else []),
    ]
    return (
        f"{who}. The gate: {spec.metric}, {gate.mode.replace('_', ' ')}, {gate.confidence:.0%} interval over blocks of "
        f"{gate.block}. It is trained again {', '.join(again) or 'by hand only'}. At any time a person may release "
        "another version, roll back, or take it out of service: see Versions in service."
    )


def _limits(spec: ModelSpec) -> tuple[str, ...]:
    watched, ruled = spec.monitoring, [field for field in spec.inputs if rules_of(field)]
    below = (
        f"An alert is raised where {spec.metric} on labelled answers passes {watched.min_metric:g}."
        if watched.min_metric is not None
        else f"{spec.metric} of labelled answers is held against the holdout's."
    )
    drifted = f"features with {watched.min_drift_importance:.0%} of the importance have drifted"
    return (
        f"Drift of inputs and prediction over {watched.window / timedelta(days=1):g} days against the training rows, "
        f"from {watched.min_rows} rows on: an alarm where {drifted}"
        f"{', or the prediction has' if watched.prediction_drift else ''}.",
        below,
        f"{len(ruled)} of {len(spec.inputs)} inputs have rules for their values; a request that breaks one is refused, "
        "or answered with a flag where the input says so.",
        f"Groups of {'; '.join(', '.join(columns_of_set(one)) for one in spec.promotion.slices)} are guarded by the "
        "gate."
        if spec.promotion.slices
        else "No group is guarded by the gate (`promotion.slices`).",
    )


def _log(spec: ModelSpec) -> str:
    policy = spec.inference_log
    kept_out = [
        *([f"without {', '.join(policy.redact)}"] if policy.redact else []),
        *([f"with an HMAC of {', '.join(policy.hash)}"] if policy.hash else []),
    ]
    return f"{policy.sample:.0%} of the answers are logged with inputs, features and version" + (
        f", {', '.join(kept_out)}." if kept_out else "."
    )
