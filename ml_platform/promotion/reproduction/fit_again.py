"""Fits a recorded version again and says, part by part, whether the result is the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.batch import score_frame
from ml_platform.inference.calibration import for_classes
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.reproductions import Check
from ml_platform.spec.model import ModelSpec
from ml_platform.training.candidate_fit import Fitted, NotExportable, fit_candidate
from ml_platform.training.data.split import Parts, TrainingRows, refit_rows, split_by_time
from ml_platform.training.documents import SplitBounds, Window
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.recipe import Recipe
from ml_platform.training.search.records import TrialRecord
from ml_platform.training.search.study import SearchStudy, study_in_memory
from ml_platform.training.search.trial import trial_data
from ml_platform.training.uncertainty.calibrate import calibrate

_SHOWN = 5  # of what differs


@dataclass(frozen=True)
class Bundle:
    """A recorded version: its manifest and graph, and the model loaded from them."""

    manifest: Manifest
    onnx: bytes
    scorer: Scorer


def fit_again(
    frame: pl.DataFrame, spec: ModelSpec, recipe: Recipe, version: Bundle, judged: Bundle | None
) -> list[Check]:
    """Fit a version again with its recorded parameters, and compare split, metrics, categories, graph and digest.

    Parameters
    ----------
    frame
        Rows of its training set.
    spec, recipe
        As they were recorded.
    version
        What it is compared with.
    judged
        Of a refit: the bundle that the gate judged, of which the metrics are; None where the store no longer has it.
    """
    parts = split_by_time(frame, spec)
    checks = [*_split_checks(recipe.bounds, parts.bounds)]
    if recipe.kind == "trained":
        return [*checks, *_trained(parts, spec, recipe, version, "model")[1]]
    calibration, classes = version.manifest.calibration, version.manifest.classes
    if judged is not None:
        remade, judged_checks = _trained(parts, spec, recipe, judged, "judged model")
        calibration, classes = remade.calibration, remade.classes
        checks += judged_checks
    fitted = _fit(refit_rows(frame, spec), spec, recipe)
    fitted = replace(fitted, calibration=for_classes(calibration, classes, fitted.classes))
    return [
        *checks,
        _window_check("rows learned from", recipe.trained, fitted.trained),
        *_same(fitted, version.manifest.threshold, version, parts, "model"),
    ]


def search_again(frame: pl.DataFrame, spec: ModelSpec, recipe: Recipe) -> list[Check]:
    """Repeat the search in this process, and compare what it chooses with what was chosen."""
    parts = split_by_time(frame, spec)
    with study_in_memory(higher_is_better=spec.higher_is_better) as study:
        data = trial_data(parts, spec, recipe.training_set)
        records = SearchStudy(study, spec.families, spec.tuning, spec.metric, data).run("local", _Quiet())
    found = next((record for record in records if record.number == recipe.chosen), None)
    checks = [_check("trials of the search", recipe.searched, len(records))]
    if found is None or found.state != "complete":
        return [*checks, _check(f"trial {recipe.chosen}", "chosen", found.state if found else "none")]
    recorded: dict[str, Any] = {"family": recipe.family, **recipe.params, "threshold": recipe.threshold}
    repeated: dict[str, Any] = {"family": found.family, **found.params, "threshold": found.threshold}
    return [*checks, _mapping_check(f"parameters of trial {recipe.chosen}", recorded, repeated)]


class _Quiet:
    def started(self, number: int, family: str) -> None:
        """See `Watcher`."""

    def ended(self, record: TrialRecord, records: tuple[TrialRecord, ...]) -> None:
        """See `Watcher`."""


def _fit(rows: pl.DataFrame, spec: ModelSpec, recipe: Recipe) -> Fitted:
    return fit_candidate(spec, recipe.training_set.features, rows, recipe.family, recipe.params)


def _trained(parts: Parts, spec: ModelSpec, recipe: Recipe, version: Bundle, name: str) -> tuple[Fitted, list[Check]]:
    """Fit on training and validation parts, calibrate, and measure on the holdout, as training did."""
    fitted = _fit(pl.concat([parts.train, parts.validation]), spec, recipe)
    calibrated = calibrate(fitted, TrainingRows(recipe.training_set, parts), recipe.trial)
    fitted, threshold = calibrated.fitted, calibrated.threshold
    y = encode_labels(parts.holdout.get_column(spec.target), spec, fitted.classes)
    metrics = measure(spec.task, y, fitted.predict(parts.holdout), threshold=threshold, quantile=spec.quantile)
    return fitted, [
        _mapping_check(f"metrics on the holdout ({name})", recipe.metrics, metrics),
        *_same(fitted, threshold, version, parts, name),
    ]


def _same(fitted: Fitted, threshold: float | None, version: Bundle, parts: Parts, name: str) -> Iterator[Check]:
    """Compare what decides a model's answers: classes, categories, the graph's bytes, and the digest over all."""
    recorded = version.manifest
    yield _mapping_check(
        f"categories ({name})",
        {item.name: item.categories for item in recorded.features},
        {item.name: item.categories for item in fitted.features},
    )
    if recorded.threshold is not None or threshold is not None:
        yield _check(f"threshold ({name})", recorded.threshold, threshold)
    if recorded.classes or fitted.classes:
        yield _check(f"classes ({name})", ", ".join(map(str, recorded.classes)), ", ".join(map(str, fitted.classes)))
    try:
        onnx, _ = fitted.export()
    except NotExportable as error:
        yield Check(what=f"graph ({name})", recorded="exported", found="not exported", equal=False, detail=str(error))
        return
    same = onnx == version.onnx
    yield Check(
        what=f"graph ({name})",
        recorded=f"{len(version.onnx):,} bytes",
        found=f"{len(onnx):,} bytes",
        equal=same,
        detail="" if same else f"{graph_differences(version.onnx, onnx)}; {_scores_apart(fitted, version, parts)}",
    )
    remade = msgspec.structs.replace(recorded, features=fitted.features, classes=fitted.classes, threshold=threshold)
    yield _check(f"digest of the {name}", recorded.model_digest, model_digest(onnx, remade))


def graph_differences(recorded: bytes, found: bytes) -> str:
    """Say in what two ONNX graphs differ: the library that wrote them, their operators, or numbers in them."""
    import onnx

    one, other = (onnx.load_from_string(content) for content in (recorded, found))
    said = [
        f"{name} was {getattr(one, name)}, is {getattr(other, name)}"
        for name in ("ir_version", "producer_name", "producer_version")
        if getattr(one, name) != getattr(other, name)
    ]
    kinds = [[node.op_type for node in graph.graph.node] for graph in (one, other)]
    if kinds[0] != kinds[1]:
        said.append(f"operators were {', '.join(kinds[0])}, are {', '.join(kinds[1])}")
    metadata = [{entry.key: entry.value for entry in graph.metadata_props} for graph in (one, other)]
    said += [
        f"metadata '{key}'"
        for key in sorted({*metadata[0], *metadata[1]})
        if metadata[0].get(key) != metadata[1].get(key)
    ]
    for first, second in zip(one.graph.node, other.graph.node, strict=False):
        theirs = {attribute.name: attribute for attribute in second.attribute}
        said += [
            f"{first.op_type}.{attribute.name}"
            for attribute in first.attribute
            if attribute.name not in theirs or attribute != theirs[attribute.name]
        ]
    theirs_by_name = {item.name: item for item in other.graph.initializer}
    said += [f"constant {item.name}" for item in one.graph.initializer if theirs_by_name.get(item.name) != item]
    more = [f"{len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
    return f"graphs differ in {', '.join([*said[:_SHOWN], *more]) or 'the order of their parts'}"


def _scores_apart(fitted: Fitted, version: Bundle, parts: Parts) -> str:
    scores = score_frame(version.scorer, parts.holdout), fitted.predict(parts.holdout)
    if scores[0].shape != scores[1].shape:
        return "their scores are of different classes"
    apart = np.abs(scores[0] - scores[1])
    rows = int((apart > 0).reshape(len(apart), -1).any(axis=1).sum())
    return f"scores of {rows:,} of {len(apart):,} holdout rows differ, by {apart.max():.2g} at most"


def _split_checks(recorded: SplitBounds, found: SplitBounds) -> Iterator[Check]:
    for part in ("train", "validation", "holdout"):
        yield _window_check(f"split: {part}", getattr(recorded, part), getattr(found, part))


def _window_check(what: str, recorded: Window, found: Window) -> Check:
    return _check(
        what,
        *(
            f"{one.rows:,} rows, {one.first:%Y-%m-%d %H:%M:%S} to {one.last:%Y-%m-%d %H:%M:%S}"
            for one in (recorded, found)
        ),
    )


def _mapping_check(what: str, recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Check:
    unlike = [name for name in sorted({*recorded, *found}) if not _alike(recorded.get(name), found.get(name))]
    said = [f"{name}: was {recorded.get(name, 'absent')}, is {found.get(name, 'absent')}" for name in unlike[:_SHOWN]]
    more = [f"{len(unlike) - _SHOWN} more"] if len(unlike) > _SHOWN else []
    return Check(
        what=what,
        recorded=f"{len(recorded)} values",
        found=f"{len(unlike)} differ" if unlike else "the same",
        equal=not unlike,
        detail="; ".join([*said, *more]),
    )


def _alike(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _check(what: str, recorded: Any, found: Any) -> Check:
    return Check(what=what, recorded=str(recorded), found=str(found), equal=recorded == found)
