"""Challenger against champion, both rescored from their bundles on the same rows that neither was trained on."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.batch import score_rows
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.tables import Lake
from ml_platform.registry.gate import NAIVE, decide
from ml_platform.registry.manifest import Golden
from ml_platform.registry.releases import ReleaseStore, champion_target
from ml_platform.spec import ModelSpec
from ml_platform.training.bootstrap import gain_interval
from ml_platform.training.documents import Evaluation, SliceResult, TrainedModel
from ml_platform.training.matrix import encode_labels
from ml_platform.training.metrics import gain, measure
from ml_platform.training.naive import naive_baseline
from ml_platform.training.split import read_rows, split_by_time, window

_LATENCY_CALLS = 300


@dataclass(frozen=True)
class _Contender:
    """A model's scores on the compared rows."""

    scores: np.ndarray
    threshold: float | None
    metrics: dict[str, float]


def evaluate(lake: Lake, spec: ModelSpec, trained: TrainedModel, store: ReleaseStore) -> Evaluation:
    """Compare a trained model with the champion, or with the naive baseline before the first release.

    Both models are loaded from their bundles and score the same holdout rows: those of the challenger's split, without
    rows that the champion may have been trained on. The gate (`ml_platform.registry.gate`) turns the comparison into a
    decision.

    Parameters
    ----------
    lake
        Holds the training set at its pinned version.
    spec
        The model: metric, slices, bounds of the gate.
    trained
        The challenger.
    store
        Holds the bundles and the endpoint document that names the champion.

    Raises
    ------
    BundleRefused
        When a bundle is damaged or does not reproduce its golden rows.
    ValueError
        When `promotion.slices` names a column that the training set does not have.
    """
    parts = split_by_time(read_rows(lake, spec, trained.training_set), spec)
    if unknown := sorted(set(spec.promotion.slices) - set(parts.holdout.columns)):
        raise ValueError(
            f"{spec.name}: promotion.slices names {unknown}, which the training set does not have; it has "
            f"{parts.holdout.columns}"
        )
    challenger = Scorer.load(store.bundle_path(trained.digest))
    endpoint = store.endpoint(spec.name)
    target = champion_target(endpoint) if endpoint else None
    champion = Scorer.load(store.bundle_path(target.digest)) if target else None
    rows = _unseen_rows(parts.holdout, spec, champion)
    found: dict[str, Any] = {
        "model": spec.name,
        "metric": spec.metric,
        "higher_is_better": spec.higher_is_better,
        "challenger_digest": trained.digest,
        "challenger_model_digest": trained.model_digest,
        "champion_version": target.version if target else None,
        "champion_digest": target.digest if target else None,
        "champion_model_digest": champion.manifest.model_digest if champion else None,
        "revision": store.revision(spec.name),
        "reference": f"champion (version {target.version})" if target else NAIVE,
        "latency_ms": one_row_latency_ms(challenger, store),
        "parity": trained.parity,
    }
    refusal = None
    if champion is not None:
        refusal = _refusal(str(found["reference"]), trained, champion, rows, parts.holdout.height)
    if refusal is not None:
        found |= {"promote": False, "reasons": (refusal,)}
    if not rows.is_empty():
        before = pl.concat([parts.train, parts.validation])
        found |= _compare(spec, found, before=before, rows=rows, challenger=challenger, champion=champion)
    return Evaluation.model_validate(found)


def _compare(
    spec: ModelSpec,
    found: Mapping[str, Any],
    *,
    before: pl.DataFrame,
    rows: pl.DataFrame,
    challenger: Scorer,
    champion: Scorer | None,
) -> dict[str, Any]:
    """Metrics of all contenders on the same rows and, unless that was already settled, the gate's decision."""
    classes = challenger.manifest.classes
    y = encode_labels(rows.get_column(spec.target), spec, classes)
    baseline = naive_baseline(before, rows, spec, classes)
    own = _contender(spec, y, score_rows(challenger, rows), challenger.manifest.threshold)
    naive = _contender(spec, y, baseline.scores, challenger.manifest.threshold)
    result: dict[str, Any] = {
        "holdout": window(rows, spec),
        "challenger": own.metrics,
        "naive": naive.metrics,
        "naive_description": baseline.description,
    }
    reference = naive
    if champion is not None and not missing_features(champion, rows):
        scores = _aligned(score_rows(champion, rows), champion.manifest.classes, classes)
        reference = _contender(spec, y, scores, champion.manifest.threshold)
        result["champion"] = reference.metrics
    if "promote" in found:
        return result
    interval = gain_interval(
        spec.metric,
        spec.task,
        y,
        own.scores,
        reference.scores,
        confidence=spec.promotion.confidence,
        thresholds=(own.threshold, reference.threshold),
        seed=spec.tuning.seed,
    )
    slices = _slices(spec, rows, y, own, reference)
    promote, reasons = decide(
        spec,
        reference=found["reference"],
        challenger=own.metrics,
        compared=reference.metrics,
        naive=naive.metrics,
        interval=interval,
        slices=slices,
        latency_ms=found["latency_ms"],
        parity=found["parity"],
        holdout=result["holdout"],
    )
    return {**result, "interval": interval, "slices": slices, "promote": promote, "reasons": reasons}


def missing_features(scorer: Scorer, rows: pl.DataFrame) -> list[str]:
    """Features of a model that the rows do not have."""
    return sorted({feature.name for feature in scorer.manifest.features} - set(rows.columns))


def one_row_latency_ms(scorer: Scorer, store: ReleaseStore) -> float:
    """Median time of one prediction, derived features included, over the bundle's golden rows."""
    golden = msgspec.json.decode(store.read_bundle(scorer.digest)["golden.json"], type=Golden)
    requests = [
        (scorer.parse_inputs(inputs), looked_up)
        for inputs, looked_up in zip(golden.inputs, golden.looked_up, strict=True)
    ]
    times = []
    for call in range(_LATENCY_CALLS):
        inputs, looked_up = requests[call % len(requests)]
        started = time.perf_counter()
        scorer.score_row({**inputs, **scorer.derive(inputs), **looked_up})
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def _unseen_rows(holdout: pl.DataFrame, spec: ModelSpec, champion: Scorer | None) -> pl.DataFrame:
    if champion is None:
        return holdout
    trained_until = datetime.fromisoformat(champion.manifest.provenance.trained_until)
    return holdout.filter(pl.col(spec.timestamp) > trained_until)


def _refusal(name: str, trained: TrainedModel, champion: Scorer, rows: pl.DataFrame, held_out: int) -> str | None:
    """Say why no fair comparison with the champion is possible or needed, if so."""
    if champion.manifest.model_digest == trained.model_digest:
        return (
            f"Do not promote: the challenger is the {name} itself (model digest {trained.model_digest[:12]}); the same "
            "rows and settings gave the same model."
        )
    if rows.is_empty():
        return (
            f"Do not promote: all {held_out:,} holdout rows are older than what the {name} was trained on (until "
            f"{champion.manifest.provenance.trained_until}), so no row is new to both; train on newer rows."
        )
    if absent := missing_features(champion, rows):
        return (
            f"Do not promote: the {name} needs the features {', '.join(absent)}, which the training set no longer has, "
            "so both cannot be compared on the same rows; a person may promote this version by name."
        )
    return None


def _contender(spec: ModelSpec, y: np.ndarray, scores: np.ndarray, threshold: float | None) -> _Contender:
    return _Contender(scores, threshold, measure(spec.task, y, scores, threshold=threshold))


def _aligned(scores: np.ndarray, classes: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Multiclass scores in another order of classes; a class that the model does not know has probability 0."""
    if classes == wanted:
        return scores
    zero = np.zeros(len(scores))
    return np.column_stack([scores[:, classes.index(name)] if name in classes else zero for name in wanted])


def _slices(
    spec: ModelSpec, rows: pl.DataFrame, y: np.ndarray, own: _Contender, reference: _Contender
) -> tuple[SliceResult, ...]:
    """The gate's metric on every large enough group for which it is defined, for both models."""
    results = []
    for column in spec.promotion.slices:
        groups = rows.get_column(column).cast(pl.String)
        for value in groups.unique().sort().to_list():
            chosen = (groups.is_null() if value is None else groups == value).fill_null(False).to_numpy()
            if chosen.sum() < spec.promotion.min_slice_rows:
                continue
            values = [
                measure(spec.task, y[chosen], model.scores[chosen], threshold=model.threshold).get(spec.metric)
                for model in (own, reference)
            ]
            if values[0] is None or values[1] is None:
                continue
            loss = -float(gain(spec.metric, values[0], values[1]))
            results.append(
                SliceResult(
                    column=column,
                    value="(null)" if value is None else str(value),
                    rows=int(chosen.sum()),
                    challenger=values[0],
                    reference=values[1],
                    loss=loss,
                    passed=loss <= spec.promotion.max_slice_loss,
                )
            )
    return tuple(results)
