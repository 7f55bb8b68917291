"""Challenger against champion, both rescored from their bundles on the same rows that neither was trained on."""

import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.batch import score_rows
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.manifest import Golden, Label, Target, champion_of_targets
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import TrainingRows, window
from ml_platform.training.documents import Evaluation, Interval, SliceResult, Support, TrainedModel
from ml_platform.training.evaluation.blocks import block_ids
from ml_platform.training.evaluation.cluster_interval import gain_interval
from ml_platform.training.evaluation.gate import NAIVE, decide, shortages
from ml_platform.training.evaluation.metrics import gain, measure
from ml_platform.training.evaluation.naive import best_constant, naive_baseline
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform.training.evaluation.rule import confidence_at
from ml_platform.training.evaluation.tries import count_try

_LATENCY_CALLS = 300


@dataclass(frozen=True)
class _Contender:
    """A model's scores on the compared rows."""

    scores: np.ndarray
    threshold: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Comparison:
    """All contenders on the same rows."""

    y: np.ndarray
    blocks: np.ndarray
    challenger: _Contender
    champion: _Contender | None
    naive: _Contender
    chance: _Contender
    naive_description: str

    @property
    def reference(self) -> _Contender:
        """What the challenger has to beat."""
        return self.champion or self.naive


def evaluate(
    training_rows: TrainingRows, spec: ModelSpec, trained: TrainedModel, store: ReleaseStore, source: VersionRows
) -> Evaluation:
    """Compare a trained model with the champion, or with the naive baseline before the first release.

    Both models are loaded from their bundles and score the same holdout rows: those of the challenger's split, without
    rows that the champion may have been trained on. Each is given the features that its own manifest defines. The gate
    (`ml_platform.training.evaluation.gate`) turns the comparison into a decision.

    Parameters
    ----------
    training_rows
        The challenger's training set.
    spec
        The model: metric, slices, bounds of the gate.
    trained
        The challenger.
    store
        Holds the bundles and the endpoint document that names the champion.
    source
        Where the champion's own features of the rows come from, if it defines them otherwise.

    Raises
    ------
    BundleRefused
        When a bundle is damaged or does not reproduce its golden rows.
    ValueError
        When `promotion.slices` or `promotion.block` names a column that the training set does not have.
    """
    parts = training_rows.parts
    if unknown := sorted(set(spec.promotion.slices) - set(parts.holdout.columns)):
        raise ValueError(
            f"{spec.name}: promotion.slices names {unknown}, which the training set does not have; it has "
            f"{parts.holdout.columns}"
        )
    challenger = Scorer.load(store.bundle_path(trained.digest))
    document = store.document(spec.name)
    target = champion_of_targets(document.targets) if document else None
    champion = _as_judged(store, target) if target else None
    reference = NAIVE
    if target and champion:
        refitted = ", before its refit" if champion.digest != target.digest else ""
        reference = f"champion (version {target.version}{refitted})"
    rows = _unseen_rows(parts.holdout, spec, champion)
    refusal = _refusal(reference, trained, champion, rows, parts.holdout.height) if champion else None
    champion_rows = None
    if champion is not None:
        try:
            champion_rows = source.of(champion.manifest, rows, ref=trained.training_set, made_for=challenger.manifest)
        except ValueError as error:
            refusal = refusal or (
                f"Do not promote: the {reference} cannot be given its own features of these rows ({error}), so both "
                "cannot be compared; a person may promote this version by name."
            )
    latency_ms = one_row_latency_ms(challenger, store)
    evaluation = partial(
        Evaluation,
        model=spec.name,
        metric=spec.metric,
        higher_is_better=spec.higher_is_better,
        challenger_digest=trained.digest,
        challenger_model_digest=trained.model_digest,
        champion_version=target.version if target else None,
        champion_digest=target.digest if target else None,
        judged_digest=champion.digest if champion else None,
        champion_model_digest=champion.manifest.model_digest if champion else None,
        revision=document.revision if document else 0,
        reference=reference,
        latency_ms=latency_ms,
        parity=trained.parity,
    )
    if rows.is_empty():
        return evaluation(promote=False, reasons=(refusal,) if refusal else ())
    compared = _compare(spec, pl.concat([parts.train, parts.validation]), rows, challenger, champion, champion_rows)
    evaluation = partial(
        evaluation,
        holdout=window(rows, spec),
        challenger=compared.challenger.metrics,
        champion=compared.champion.metrics if compared.champion else None,
        naive=compared.naive.metrics,
        naive_description=compared.naive_description,
    )
    if refusal is not None:
        return evaluation(promote=False, reasons=(refusal,))
    support = _support(spec, compared)
    tries = 1.0
    if not shortages(spec, support):
        tries = count_try(
            store,
            spec.name,
            model_digest=trained.model_digest,
            metric=spec.metric,
            reference=champion.manifest.model_digest if champion else "",
            timestamps=rows.get_column(spec.timestamp),
        )
    confidence = confidence_at(spec.promotion, tries)
    judged = evaluation(
        support=support,
        tries=tries,
        interval=_interval(spec, compared, compared.reference, confidence),
        over_naive=_interval(spec, compared, compared.naive, spec.promotion.confidence),
        over_chance=_interval(spec, compared, compared.chance, spec.promotion.confidence),
        slices=_slices(spec, rows, compared),
        promote=False,
        reasons=(),
    )
    promote, reasons = decide(spec, judged)
    return judged.model_copy(update={"promote": promote, "reasons": reasons})


def _as_judged(store: ReleaseStore, target: Target) -> Scorer:
    """Load the champion as the gate judged it: after its refit it knows rows on which it is to be compared now.

    What serves itself stands in where that bundle is gone; then only rows after its refit are new to both.
    """
    served = Scorer.load(store.bundle_path(target.digest))
    judged = served.manifest.provenance.judged
    if judged is None or not store.bundle_path(judged.digest).is_dir():
        return served
    return Scorer.load(store.bundle_path(judged.digest))


def _support(spec: ModelSpec, compared: _Comparison) -> Support:
    rows, scores = len(compared.y), compared.challenger.scores
    sizes = np.unique(compared.blocks, return_counts=True)[1]
    frequent = 0 if spec.task == "regression" else int(np.unique(compared.y, return_counts=True)[1].max())
    return Support(
        rows=rows,
        class_rows=None if spec.task == "regression" else rows - frequent,
        blocks=len(sizes),
        effective_blocks=float(rows**2 / (sizes.astype(np.float64) @ sizes)),
        constant=bool((scores == scores[0]).all()),
    )


def _compare(  # noqa: PLR0917 - private
    spec: ModelSpec,
    before: pl.DataFrame,
    rows: pl.DataFrame,
    challenger: Scorer,
    champion: Scorer | None,
    champion_rows: pl.DataFrame | None,
) -> _Comparison:
    """Score the same rows with all contenders; a champion without its own features of them is left out."""
    classes = _all_classes(challenger, champion)
    y = encode_labels(rows.get_column(spec.target), spec, classes)
    baseline = naive_baseline(before, rows, spec, classes)
    rescored = None
    if champion is not None and champion_rows is not None:
        scores = _aligned(score_rows(champion, champion_rows), champion.manifest.classes, classes)
        rescored = _contender(spec, y, scores, champion.manifest.threshold)
    threshold = challenger.manifest.threshold
    constant = best_constant(before, y, spec, classes)
    return _Comparison(
        y=y,
        blocks=block_ids(rows, spec.promotion.block, spec.timestamp),
        challenger=_contender(
            spec, y, _aligned(score_rows(challenger, rows), challenger.manifest.classes, classes), threshold
        ),
        champion=rescored,
        naive=_contender(spec, y, baseline.scores, threshold),
        chance=_contender(spec, y, constant, 0.5 if spec.task == "binary" else None),
        naive_description=baseline.description,
    )


def _interval(spec: ModelSpec, compared: _Comparison, reference: _Contender, confidence: float) -> Interval | None:
    own = compared.challenger
    found = gain_interval(
        spec.metric,
        spec.task,
        compared.y,
        own.scores,
        reference.scores,
        blocks=compared.blocks,
        confidence=confidence,
        thresholds=(own.threshold, reference.threshold),
        quantile=spec.quantile,
    )
    if found is None:
        return None
    return Interval(
        gain=found.estimate,
        lower=found.lower,
        upper=found.upper,
        confidence=confidence,
        standard_error=found.standard_error,
        blocks=found.blocks,
        block=spec.promotion.block,
    )


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
    return None


def _contender(spec: ModelSpec, y: np.ndarray, scores: np.ndarray, threshold: float | None) -> _Contender:
    return _Contender(scores, threshold, measure(spec.task, y, scores, threshold=threshold, quantile=spec.quantile))


def _all_classes(challenger: Scorer, champion: Scorer | None) -> tuple[Label, ...]:
    """Classes that either model knows, the challenger's first: neither is blamed for what only it knows."""
    own = challenger.manifest.classes
    names = set(map(str, own))
    return (*own, *(name for name in (champion.manifest.classes if champion else ()) if str(name) not in names))


def _aligned(scores: np.ndarray, classes: tuple[Label, ...], wanted: tuple[Label, ...]) -> np.ndarray:
    """Multiclass scores in another order of classes; a class that the model does not know has probability 0."""
    if classes == wanted:
        return scores
    zero, names = np.zeros(len(scores)), [str(name) for name in classes]
    return np.column_stack([scores[:, names.index(str(name))] if str(name) in names else zero for name in wanted])


def _slices(spec: ModelSpec, rows: pl.DataFrame, compared: _Comparison) -> tuple[SliceResult, ...]:
    """The gate's metric on every large enough group for which it is defined, for both models."""
    results = []
    for column in spec.promotion.slices:
        groups = rows.get_column(column).cast(pl.String)
        for value in groups.unique().sort().to_list():
            chosen = (groups.is_null() if value is None else groups == value).fill_null(False).to_numpy()
            if chosen.sum() < spec.promotion.min_slice_rows:
                continue
            values = [
                _contender(spec, compared.y[chosen], model.scores[chosen], model.threshold).metrics.get(spec.metric)
                for model in (compared.challenger, compared.reference)
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
