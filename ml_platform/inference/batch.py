"""Batch scoring: the champion's predictions for all rows of a time span, in one table."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from ml_platform.compute import Executor, map_tasks
from ml_platform.features.training_sets.build import feature_rows
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.training_sets.refused_values import RefusedValue
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.checked_rows import EXAMPLES, check_rows
from ml_platform.inference.matrix import FeatureEncoder, feature_columns
from ml_platform.inference.recorded_columns import as_recorded
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import champion_target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict

CHUNK_ROWS = 20_000


class NoRelease(LookupError):
    """The model has not been released yet, so nothing can be scored with it."""


class BatchReport(Strict):
    """The result of scoring a time span."""

    table: str = Field(description="Table of the scores.")
    version: int = Field(description="Version of the predictions' table that has the rows.")
    rows: int = Field(description="Rows scored.")
    unscored: int = Field(description="Rows whose score is not finite.")
    refused_rows: int = Field(0, description="Rows left out: serving would refuse them.")
    refused: dict[str, int] = Field(default_factory=dict, description="Their values by `field: kind`.")
    flagged: dict[str, int] = Field(default_factory=dict, description="Values scored with a flag, by `field: kind`.")
    refused_examples: tuple[str, ...] = Field((), description="Examples of refused rows, with the reasons.")
    model_version: int = Field(description="Version in the registry that scored.")
    digest: str = Field(description="Digest of its bundle.")
    mean_score: float | None = Field(description="Null without rows, and for multiclass.")
    start: datetime = Field(description="First instant of the span (UTC).")
    end: datetime = Field(description="Instant at which the span ends, exclusive (UTC).")


def score_window(  # noqa: PLR0917 - start and end read well as positional arguments
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    store: ReleaseStore,
    start: datetime,
    end: datetime,
    *,
    executor: Executor = "local",
) -> BatchReport:
    """Score every row with start ≤ timestamp < end by the champion, and write the scores to `predictions/<model>`.

    Its inputs, derived features and look-ups are those of its manifest, whatever the project's files say by now.
    The table has the columns id, as_of (the row's timestamp), scored_at, model_version, score (probability of the
    positive class, of the predicted class, or the value), prediction, date (UTC, partition), then every feature of the
    model (numeric as Float64, categorical as String), and flags: the violations of the inputs' contract in spite of
    which a row is scored. Rows that serving would refuse are left out and counted: for a value that its input's type
    does not have, for one that breaks the contract, or because a derived feature has no value for them. Scoring the
    same span again replaces its rows.

    Parameters
    ----------
    lake
        Where the rows come from and the scores go.
    spec
        The model.
    folder
        Folder of its spine and request features.
    views
        Feature views by name.
    store
        Release store with the champion's bundle.
    start, end
        Span of the timestamp (UTC), the end excluded.
    executor
        `ray` distributes chunks of rows over Ray workers.

    Raises
    ------
    NoRelease
        When the model was never released.
    ValueError
        When the span is empty, or the spine no longer gives an input of the champion.
    ViewChanged
        When a view that it looks up is gone or has another definition now.
    """
    if not start < end:
        raise ValueError(f"{spec.name}: the span to score must start before it ends, found {start} to {end}")
    endpoint = store.endpoint(spec.name)
    if endpoint is None:
        raise NoRelease(
            f"{spec.name}: no version has been released, so there is nothing to score with; materialise "
            f"{spec.name}/release (and what is upstream of it) first"
        )
    champion = champion_target(endpoint)
    scorer = Scorer.load(store.bundle_path(champion.digest))
    manifest = scorer.manifest
    definitions = FeatureDefinitions.of_version(manifest, spec, views)
    values: list[RefusedValue] = []
    rows = feature_rows(lake, spec, folder, views, definitions, start, end, refused=values)
    checked = check_rows(rows, manifest.inputs, id_column=spec.id)
    left_out, rows = len({value.id for value in values}) + rows.height - checked.rows.height, checked.rows
    score, prediction = _answers(scorer, score_rows(scorer, rows, executor=executor))
    table, instant = f"predictions/{spec.name}", pl.col(definitions.timestamp)
    frame = rows.select(
        pl.col(spec.id).cast(pl.String).alias("id"),
        instant.alias("as_of"),
        pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC")).alias("scored_at"),
        pl.lit(champion.version, dtype=pl.Int64).alias("model_version"),
        score,
        prediction,
        instant.dt.date().alias("date"),
    ).hstack([*feature_columns(rows, manifest.features), checked.flags])
    known = lake.schema(table) if lake.exists(table) else {}
    frame = as_recorded(frame, ["prediction", *(feature.name for feature in manifest.features)], known)
    version = lake.replace(table, frame, where=_span(start, end), partition_by=("date",), add_columns=True)
    finite = score.filter(score.is_finite())
    mean = finite.mean() if manifest.task != "multiclass" else None
    return BatchReport(
        table=table,
        version=version,
        rows=frame.height,
        unscored=frame.height - len(finite),
        refused_rows=left_out,
        refused={**Counter(f"{value.field}: {value.kind}" for value in values), **checked.refused},
        flagged=checked.flagged,
        refused_examples=(*_examples(values), *checked.examples)[:EXAMPLES],
        model_version=champion.version,
        digest=champion.digest,
        mean_score=float(mean) if isinstance(mean, int | float) else None,
        start=start,
        end=end,
    )


def score_rows(
    scorer: Scorer, rows: pl.DataFrame, *, executor: Executor = "local", chunk_rows: int = CHUNK_ROWS
) -> np.ndarray:
    """Score rows that have the model's feature columns; returns (rows,) or (rows × classes).

    Parameters
    ----------
    scorer
        The model; for `ray` it must have been loaded from a folder that the workers can read.
    rows
        Rows with the model's feature columns.
    executor
        Where chunks of rows are scored.
    chunk_rows
        Rows per chunk, which limits memory.
    """
    encoder = FeatureEncoder(scorer.manifest.features)
    chunks = list(rows.iter_slices(chunk_rows)) or [rows]
    if executor == "local":
        return np.concatenate([scorer.score(encoder.transform(chunk)) for chunk in chunks])
    if scorer.folder is None:
        raise ValueError(f"{scorer.manifest.model}: Ray workers load the bundle themselves; use Scorer.load")
    matrices = [encoder.transform(chunk) for chunk in chunks]
    return np.concatenate(map_tasks(_score_matrix, matrices, shared=scorer.folder, executor=executor))


def _examples(values: list[RefusedValue]) -> list[str]:
    return [f"{value.id}: {value.field}: {value.message}" for value in values[:EXAMPLES]]


def _score_matrix(matrix: np.ndarray, bundle: Path) -> np.ndarray:
    return Scorer.load(bundle).score(matrix)


def _answers(scorer: Scorer, scores: np.ndarray) -> tuple[pl.Series, pl.Series]:
    """Make the columns `score` and `prediction`."""
    manifest = scorer.manifest
    if manifest.task == "multiclass":
        best = scores.argmax(axis=1)
        names = [str(manifest.classes[position]) for position in best]
        return pl.Series("score", scores.max(axis=1)), pl.Series("prediction", names, dtype=pl.String)
    if manifest.task == "binary":
        return pl.Series("score", scores), pl.Series("prediction", scores >= manifest.threshold, dtype=pl.Boolean)
    return pl.Series("score", scores), pl.Series("prediction", scores, dtype=pl.Float64)


def _span(start: datetime, end: datetime) -> str:
    """Delta predicate of the span; with the dates, whole partitions are skipped."""
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    return (
        f"date >= '{first:%Y-%m-%d}' AND date <= '{last:%Y-%m-%d}' AND "
        f"as_of >= '{first:%Y-%m-%dT%H:%M:%S.%fZ}' AND as_of < '{last:%Y-%m-%dT%H:%M:%S.%fZ}'"
    )
