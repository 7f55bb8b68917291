"""Scored rows with the labels that have become known since: what performance is measured on.

Rows that the champion has scored itself come as they were scored. Those that other versions scored before its release
are scored by it now, on the features that were recorded with them, so that a new champion is not unknown until it has a
window of its own; but only rows after its training, and only where both versions make its features alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import polars.selectors as cs

from ml_platform.features.training_sets.build import spine_labels
from ml_platform.features.training_sets.feature_definitions import unlike_features
from ml_platform.inference.log_policy import unwatched
from ml_platform.instants import earlier
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.champion import released_digests, rescore
from ml_platform.monitoring.performance.answers import GROUP
from ml_platform.monitoring.scored_rows import CORE, newest_score, scored_rows
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

Labels = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class Rescored:
    """Rows of other versions, scored by the champion now."""

    rows: pl.DataFrame  # as `labelled_rows` gives them, under the champion's version
    notes: tuple[str, ...]  # how many, and which could not be scored and why


def known_labels(
    lake: Lake, spec: ModelSpec, folder: Path, *, by: datetime | None = None, groups: Sequence[str] = ()
) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Give a function that adds `target` to rows with an `id`, null while the label is not known.

    Parameters
    ----------
    by
        Only labels available by then are known (UTC); every label when None.
    groups
        Columns that groups are made of: those that are inputs are added too, each under its name after `GROUP`.
    """
    inputs = [name for name in groups if name in {field.name for field in spec.inputs}]
    labels = spine_labels(lake, spec, folder, inputs=inputs)
    if by is not None:
        labels = labels.filter(pl.col(spec.label_available_at) <= by)
    known = labels.select(
        pl.col(spec.id).cast(pl.String).alias("id"),
        pl.col(spec.target).alias("target"),
        *(pl.col(name).alias(f"{GROUP}{name}") for name in inputs),
    )
    return lambda rows: rows.join(known, on="id", how="left")


def labelled_rows(
    lake: Lake,
    spec: ModelSpec,
    labels: Labels,
    *,
    since: datetime | None,
    until: datetime,
    groups: Sequence[str] = (),
) -> pl.DataFrame:
    """Scored rows from the day of `since` up to `until`, one per version, with `target`.

    Columns are `id`, `as_of`, `model_version`, `score`, `sample_weight` and `target`; for multiclass the features too,
    because the score of a class alone says nothing of the others. Of `groups`, recorded features that are no inputs are
    added, each under its name after `GROUP`.
    """
    if newest_score(lake, spec.name) is None:
        return pl.DataFrame(schema={**CORE, "target": pl.Float64})
    whole_days = since and earlier(since.replace(hour=0, minute=0, second=0, microsecond=0), timedelta(microseconds=1))
    scored = _with_groups(scored_rows(lake, spec.name, id_column=spec.id, start=whole_days, until=until), spec, groups)
    if spec.task != "multiclass":
        own = ("row_key", "id", "as_of", "model_version", "score", "sample_weight")
        scored = scored.select(*own, cs.starts_with(GROUP))
    return labels(scored).sort("as_of", "id", "model_version").collect(engine="streaming")


def rescored_rows(  # noqa: PLR0917 - start and end of a window read well as positional arguments
    lake: Lake,
    spec: ModelSpec,
    store: ReleaseStore,
    labels: Labels,
    version: int,
    scorer: "Scorer",
    start: datetime,
    until: datetime,
    groups: Sequence[str] = (),
) -> Rescored:
    """Score rows of a window that other versions scored, and this one did not, by this one.

    Parameters
    ----------
    lake, spec, store
        Where the rows are; the model; its released versions.
    labels
        As of `known_labels`.
    version, scorer
        The version to score with.
    start, until
        Rows with start < as_of ≤ until (UTC), and after the version's training, are scored.
    groups
        As `labelled_rows`.
    """
    if newest_score(lake, spec.name) is None:
        return Rescored(pl.DataFrame(schema={**CORE, "target": pl.Float64}), ())
    manifest = scorer.manifest
    trained = datetime.fromisoformat(manifest.provenance.trained_until)
    start = max(start, trained if trained.tzinfo else trained.replace(tzinfo=UTC))
    scored = scored_rows(lake, spec.name, id_column=spec.id, start=start, until=until)
    own = scored.filter(pl.col("model_version") == version).select("row_key")
    others = scored.filter(pl.col("model_version") != version).join(own, on="row_key", how="anti")
    rows = others.collect(engine="streaming").sort("scored_at").unique("row_key", keep="last", maintain_order=True)
    unlike = _unlike_versions(store, spec.name, manifest, set(rows.get_column("model_version").unique()))
    notes = []
    for other, why in sorted(unlike.items()):
        count = rows.filter(pl.col("model_version") == other).height
        notes.append(f"{count:,} rows that version {other} scored are not scored again: {why}")
    rows = rows.filter(~pl.col("model_version").is_in(list(unlike)))
    if rows.is_empty():
        return Rescored(rows.with_columns(target=pl.lit(None)), tuple(notes))
    scores = rescore(scorer, rows)
    if scores.ndim == 1:  # multiclass is scored when it is measured
        rows = rows.with_columns(pl.Series("score", np.asarray(scores, dtype=np.float64)))
    of_version = rows.with_columns(pl.lit(version, pl.Int64).alias("model_version")).lazy()
    rows = labels(_with_groups(of_version, spec, groups)).collect()
    notes.insert(
        0,
        f"{rows.height:,} rows after its training that other versions scored are scored by version {version} now, on "
        "the features recorded with them",
    )
    return Rescored(rows.sort("as_of", "id"), tuple(notes))


def _with_groups(rows: pl.LazyFrame, spec: ModelSpec, groups: Sequence[str]) -> pl.LazyFrame:
    """Add the recorded features that groups are made of and that no label brings along."""
    if not groups:
        return rows
    inputs, there = {field.name for field in spec.inputs}, set(rows.collect_schema())
    return rows.with_columns(
        pl.col(name).alias(f"{GROUP}{name}") for name in groups if name in there and name not in inputs
    )


def _unlike_versions(store: ReleaseStore, model: str, manifest: Manifest, versions: set[int]) -> dict[int, str]:
    """Versions whose recorded features are not what this one would be given, and why."""
    if hidden := sorted(unwatched(manifest) & {feature.name for feature in manifest.features}):
        return dict.fromkeys(versions, f"the inference log hides {', '.join(hidden)}")
    digests = released_digests(store, model)
    why = {}
    for version in versions:
        try:
            other = store.load_manifest(digests[version])
        except (LookupError, ValueError, BundleRefused):
            why[version] = "its bundle is gone, so nobody can say what its features meant"
            continue
        if unlike := unlike_features(manifest, other):
            why[version] = f"it makes {', '.join(unlike[:3])} otherwise, or not at all"
    return why
