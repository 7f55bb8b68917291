"""Challenger against champion, both rescored from their bundles on the same rows that neither was trained on."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.batch import score_frame
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.manifest import Golden
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.guardrails import Columns, single_columns
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import TrainingRows, window
from ml_platform.training.documents import Evaluation, GuardrailResult, Interval, Power, Support, TrainedModel
from ml_platform.training.evaluation.blocks import block_ids
from ml_platform.training.evaluation.contenders import (
    Contender,
    JudgedRows,
    aligned,
    all_classes,
    as_judged,
    contender,
    gain_of,
)
from ml_platform.training.evaluation.further_metrics import further_gains
from ml_platform.training.evaluation.gate import NAIVE, decide
from ml_platform.training.evaluation.guardrails.judge import compared_guardrails
from ml_platform.training.evaluation.guardrails.model import model_guardrails
from ml_platform.training.evaluation.guardrails.slices import group_results
from ml_platform.training.evaluation.guardrails.support import shortages
from ml_platform.training.evaluation.naive import best_constant, naive_baseline
from ml_platform.training.evaluation.power import power_of
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform.training.evaluation.rule import confidence_at
from ml_platform.training.evaluation.tries import count_try

_LATENCY_CALLS, _LATENCY_ROUNDS = 300, 3


@dataclass(frozen=True)
class _Comparison:
    """All contenders on the same rows."""

    rows: JudgedRows
    challenger: Contender
    champion: Contender | None
    naive: Contender
    chance: Contender
    naive_description: str

    @property
    def reference(self) -> Contender:
        """What the challenger has to beat."""
        return self.champion or self.naive


def evaluate(
    training_rows: TrainingRows,
    spec: ModelSpec,
    trained: TrainedModel,
    store: ReleaseStore,
    source: VersionRows,
    *,
    further: Callable[[], Sequence[GuardrailResult]] = tuple,
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
    further
        Gives guardrails of other rows than the holdout's; asked only where a comparison is possible.

    Raises
    ------
    BundleRefused
        When a bundle is damaged or does not reproduce its golden rows.
    ValueError
        When `promotion.baseline`, `promotion.slices`, `promotion.guardrails.fairness.columns` or `promotion.block`
        names a column that the training set does not have.
    """
    parts = training_rows.parts
    _check_columns(spec, parts.holdout.columns)
    challenger = Scorer.load(store.bundle_path(trained.digest))
    document = store.document(spec.name)
    target = document.champion if document else None
    champion = as_judged(store, target.digest) if target else None
    reference = NAIVE
    if target and champion:
        refitted = ", before its refit" if champion.digest != target.digest else ""
        reference = f"champion (version {target.version}{refitted})"
    rows = _unseen_rows(parts.holdout, spec, champion)
    refusal = _refusal(reference, trained, champion, rows, parts.holdout.height) if champion else None
    champion_rows = None
    if champion is not None:
        try:
            tables = trained.training_set.tables
            champion_rows = source.of(champion.manifest, rows, tables=tables, made_for=challenger.manifest)
        except ValueError as error:
            refusal = refusal or (
                f"Do not promote: the {reference} cannot be given its own features of these rows ({error}), so both "
                "cannot be compared; a person may promote this version by name."
            )
    latency_ms = one_row_latency_ms(challenger, store, enough=spec.promotion.max_latency_ms)
    of_the_model = model_guardrails(spec, trained, challenger.manifest, source.views, store, latency_ms=latency_ms)
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
        return evaluation(guardrails=tuple(of_the_model), promote=False, reasons=(refusal,) if refusal else ())
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
        return evaluation(guardrails=tuple(of_the_model), promote=False, reasons=(refusal,))
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
    slices = group_results(spec, compared.rows, compared.challenger, compared.reference)
    interval = _gain(spec, compared, compared.reference, confidence)
    judged = evaluation(
        support=support,
        tries=tries,
        interval=interval,
        within_blocks=_gain(spec, compared, compared.reference, confidence, within=True),
        further_gains=further_gains(
            spec, compared.rows, compared.challenger, compared.reference, confidence=spec.promotion.confidence
        ),
        power=_power(spec, compared, interval),
        over_naive=_gain(spec, compared, compared.naive, spec.promotion.confidence),
        over_chance=_gain(spec, compared, compared.chance, spec.promotion.confidence),
        slices=slices,
        guardrails=(
            *compared_guardrails(
                spec,
                compared.rows,
                own=compared.challenger,
                champion=compared.champion,
                reference=reference,
                slices=slices,
                support=support,
            ),
            *of_the_model,
            *further(),
        ),
        promote=False,
        reasons=(),
    )
    promote, reasons = decide(spec, judged)
    return judged.model_copy(update={"promote": promote, "reasons": reasons})


def _support(spec: ModelSpec, compared: _Comparison) -> Support:
    y, scores = compared.rows.y, compared.challenger.scores
    rows, sizes = len(y), np.unique(compared.rows.blocks, return_counts=True)[1]
    frequent = 0 if spec.task == "regression" else int(np.unique(y, return_counts=True)[1].max())
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
    classes = all_classes([challenger, *([champion] if champion else [])])
    y = encode_labels(rows.get_column(spec.target), spec, classes)
    baseline = naive_baseline(before, rows, spec, classes)
    rescored = None
    if champion is not None and champion_rows is not None:
        scores = aligned(score_frame(champion, champion_rows), champion.manifest.classes, classes)
        rescored = contender(spec, y, scores, champion.manifest.threshold)
    threshold = challenger.manifest.threshold
    constant = best_constant(before, y, spec, classes)
    return _Comparison(
        rows=JudgedRows(rows, y, block_ids(rows, spec.promotion.block, spec.timestamp)),
        challenger=contender(
            spec, y, aligned(score_frame(challenger, rows), challenger.manifest.classes, classes), threshold
        ),
        champion=rescored,
        naive=contender(spec, y, baseline.scores, threshold),
        chance=contender(spec, y, constant, 0.5 if spec.task == "binary" else None),
        naive_description=baseline.description,
    )


def _check_columns(spec: ModelSpec, columns: list[str]) -> None:
    fairness = spec.promotion.guardrails.fairness
    named: dict[str, Columns] = {
        "promotion.baseline": spec.promotion.baseline,
        "promotion.slices": spec.promotion.slices,
        "promotion.guardrails.fairness.columns": fairness.columns if fairness else (),
    }
    for key, sets in named.items():
        if unknown := sorted(set(single_columns(sets)) - set(columns)):
            raise ValueError(
                f"{spec.name}: {key} names {unknown}, which the training set does not have; it has {columns}"
            )


def _gain(
    spec: ModelSpec, compared: _Comparison, reference: Contender, confidence: float, *, within: bool = False
) -> Interval | None:
    return gain_of(
        spec,
        compared.rows.y,
        compared.rows.blocks,
        compared.challenger,
        reference,
        confidence=confidence,
        within=within,
    )


def _power(spec: ModelSpec, compared: _Comparison, interval: Interval | None) -> Power | None:
    if interval is None:
        return None
    value = compared.reference.metrics[spec.metric]
    return power_of(spec.promotion, spec.metric, interval, reference=value, first=compared.champion is None)


def one_row_latency_ms(scorer: Scorer, store: ReleaseStore, *, enough: float | None = None) -> float:
    """Median time of one prediction, derived features included, over the bundle's golden rows.

    Where it is above `enough`, it is measured again, up to three times: a busy machine is not the model's fault.
    """
    median = _latency_ms(scorer, store)
    for _ in range(_LATENCY_ROUNDS - 1):
        if enough is None or median <= enough:
            break
        median = min(median, _latency_ms(scorer, store))
    return median


def _latency_ms(scorer: Scorer, store: ReleaseStore) -> float:
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
