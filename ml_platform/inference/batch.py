"""Batch scoring: the champion's predictions for all rows of a time span, in one table."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
import polars as pl
from pydantic import Field

from ml_platform.compute import Executor, map_tasks
from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.features.training_sets.build import tables_read
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.training_sets.spine import Span, read_spine, where
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.frame_scorer import ScoringOptions
from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.inference.parts import PartResult, ScoredColumns, ScoringTask, total
from ml_platform.inference.recorded_columns import as_recorded
from ml_platform.inference.run_parts import keep_refused, run_parts, stage
from ml_platform.inference.score_part import empty_frame
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.names import literal
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import check_bundle
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
    scratch: Path | None = None,
) -> BatchReport:
    """Score every row with start ≤ timestamp < end by the champion, and write the scores to `predictions/<model>`.

    Its inputs, derived features and look-ups are those of its manifest, whatever the project's files say by now.
    The table has the columns id, as_of (the row's timestamp), scored_at, model_version, score (probability of the
    positive class, of the predicted class, or the value), prediction, date (UTC, partition), then every feature of the
    model (numeric as Float64, categorical as String), and flags: the violations of the inputs' contract in spite of
    which a row is scored. Rows that serving would refuse go to `quarantine/predictions/<model>` with the reasons: for a
    value that its input's type does not have, for one that breaks the contract, because a derived feature has no value
    for them, or for want of an id. Scoring the same span again replaces its rows, there too.

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
        `ray` distributes parts of the rows over Ray workers.
    scratch
        Folder for the parts meanwhile, which the workers reach too; the system's when None.

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
    bundle = store.read_bundle(champion.digest)
    manifest = check_bundle(bundle, champion.digest)
    definitions = FeatureDefinitions.of_version(manifest, spec, views)
    tables = tables_read(lake, spec, folder, views, definitions)
    instant, table = definitions.timestamp, f"predictions/{spec.name}"
    given = [spec.id, instant, *(field.name for field in manifest.inputs)]
    given = list(dict.fromkeys(name for name in given if name not in definitions.derived))
    known = Span(instant, start, end) if instant in given else None  # else it is a derived column
    typed_later = [field.name for field in manifest.inputs]
    rows = read_spine(
        lake, spec, folder, given, versions=tables, span=known, typed_later=typed_later, without_id=True
    ).select(given)
    rows = rows.sort([name for name in (instant, spec.id) if name in given])
    label = f"{spec.spine} of {spec.name}, {start:%Y-%m-%dT%H:%M} to {end:%Y-%m-%dT%H:%M}"
    task = ScoringTask(
        run=uuid4().hex,
        bundle=bundle,
        digest=champion.digest,
        version=champion.version,
        lookups=[LookupIndex.point_in_time(one, span=(start, end)) for one in definitions.resolve(lake, views, tables)],
        options=ScoringOptions(instant, now=start, span=(start, end), where=where(spec), id_column=spec.id),
        columns=ScoredColumns(id_column=spec.id, days=True, features=True, origin=False),
        source=label,
        scored_at=datetime.now(UTC),
        wanted=dict(rows.schema),
        output="",
        rows=rows.height,
    )
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"score-{spec.name}-", dir=scratch) as made:
        task = replace(task, output=f"{made}/scored")
        results: list[PartResult] = []
        run_parts(stage(rows, Path(made) / "rows"), task, executor=executor, on_done=results.append)
        done = total(results)
        known_columns = lake.schema(table) if lake.exists(table) else {}
        names = ["prediction", *(feature.name for feature in manifest.features)]

        def frames() -> Iterator[pl.DataFrame]:
            yield as_recorded(empty_frame(task), names, known_columns)
            for path in sorted(result.path for result in results if result.path):
                yield as_recorded(pl.read_parquet(f"{task.output}/{path}"), names, known_columns)

        keep_refused(lake, table, results, where=_refused_span(label, start, end))
        version = lake.replace_in_batches(
            table, frames, where=_span(start, end), partition_by=("date",), add_columns=True
        )
    mean = done.score_sum / (done.scored - done.unscored) if done.scored > done.unscored else None
    return BatchReport(
        table=table,
        version=version,
        rows=done.scored,
        unscored=done.unscored,
        refused_rows=done.refused,
        refused=done.refusals,
        flagged=done.flagged,
        refused_examples=done.examples,
        model_version=champion.version,
        digest=champion.digest,
        mean_score=mean if manifest.task != "multiclass" else None,
        start=start,
        end=end,
    )


def score_frame(
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


def _score_matrix(matrix: np.ndarray, bundle: Path) -> np.ndarray:
    return Scorer.load(bundle).score(matrix)


def _span(start: datetime, end: datetime) -> str:
    """Delta predicate of the span; with the dates, whole partitions are skipped."""
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    return (
        f"date >= '{first:%Y-%m-%d}' AND date <= '{last:%Y-%m-%d}' AND "
        f"as_of >= '{first:%Y-%m-%dT%H:%M:%S.%fZ}' AND as_of < '{last:%Y-%m-%dT%H:%M:%S.%fZ}'"
    )


def _refused_span(label: str, start: datetime, end: datetime) -> str:
    """Delta predicate of the span in the quarantine, which keeps days."""
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    if first.time() == last.time() == time():
        return f"day >= '{first:%Y-%m-%d}' AND day < '{last:%Y-%m-%d}'"
    return f"source = {literal(label)}"
