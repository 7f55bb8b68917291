"""Scores a part of a source: a stretch of a Parquet file, which gives one file of scored rows.

A part depends on nothing but its file and what all parts share, so it can run in this process or on any machine, again
after a kill, and gives the same rows. Rows are read, scored and written in chunks: memory does not grow with them.
"""

import io
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import numpy as np
import polars as pl

from ml_platform.inference.checked_rows import EXAMPLES
from ml_platform.inference.frame_scorer import AT, ROW, FrameScorer, ScoredRows, answers
from ml_platform.inference.interval_columns import interval_columns
from ml_platform.inference.many_rows import Score, many_rows_score
from ml_platform.inference.parts import ROW_GROUP, Part, PartResult, ScoredColumns, ScoringTask, dictionary_columns
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.ingestion.ingest import QUARANTINE
from ml_platform.lake.ingestion.row_json import to_json
from ml_platform.registry.manifest import Manifest

CHUNK_ROWS = ROW_GROUP // 2


def score_part(part: Part, task: ScoringTask) -> PartResult:
    """Score one part and write its rows; a file is there whole or not at all."""
    scorer = _loaded(_Key(task))
    result = PartResult(number=part.number, path=None, read=0, scored=0, refused=0, outside=0)
    bad_rows: list[pl.DataFrame] = []
    hashes: list[pl.Series] = []
    with _PartFile(part, task) as file:
        for chunk in read_chunks(part, task):
            first = part.first_row + result.read
            scored = scorer.score(chunk)
            _count(result, chunk, scored)
            if scored.refused:
                bad_rows.append(_quarantined(chunk, scored, task, first))
                result.examples = (*result.examples, *_examples(chunk, scored, task, first))[:EXAMPLES]
            if scored.rows.height:
                frame = scored_frame(scored, scorer, task, first)
                _count_scores(result, frame.get_column("score"))
                file.write(frame)
                if task.columns.id_column is not None:
                    hashes.append(frame.get_column("id").drop_nulls().hash())
        if result.read != part.rows:
            raise ValueError(
                f"{task.source}: {part.path} had {part.rows:,} rows, now {result.read:,} were read: it was changed "
                "meanwhile; run the same again"
            )
        if result.read != result.scored + result.refused + result.outside:
            raise AssertionError(f"{task.source}: rows of part {part.number} were lost: {result}")  # never seen
        result.path, result.size = file.finish()
    if bad_rows:
        kept = io.BytesIO()
        pl.concat(bad_rows).write_parquet(kept)
        result.refused_rows = kept.getvalue()
    if hashes:
        result.id_hashes = np.sort(pl.concat(hashes).to_numpy()).tobytes()
    return result


class _PartFile:
    """The file of a part's scored rows, under its name once it is whole."""

    def __init__(self, part: Part, task: ScoringTask) -> None:
        # No other start writes this name, not even of the same scoring: files of a table's old versions stay.
        started = round(task.scored_at.timestamp() * 1e6)
        self._task, self._name = task, f"part-{part.number:05d}-{task.run}-{started:x}.parquet"
        self._is_local = task.write.store is None
        self._system = task.write.system()
        # In an object store a name appears with its whole content.
        staged = f".{self._name}-{uuid4().hex}" if self._is_local else self._name
        self._staged = f"{task.output}/{staged}"
        self._stream: Any = None
        self._writer: Any = None

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows."""
        import pyarrow.parquet as pq

        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            if self._is_local:
                Path(self._task.output).mkdir(parents=True, exist_ok=True)
            self._stream = self._system.open_output_stream(self._staged)
            self._writer = pq.ParquetWriter(
                self._stream, table.schema, compression="snappy", use_dictionary=dictionary_columns(frame.schema)
            )
        self._writer.write_table(table, row_group_size=ROW_GROUP)

    def finish(self) -> tuple[str | None, int]:
        """Give the file its name, and return it with the size; None when no row was written."""
        if self._writer is None:
            return None, 0
        self._close()
        target = f"{self._task.output}/{self._name}"
        if self._is_local:
            os.replace(self._staged, target)
        return self._name, self._system.get_file_info(target).size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:  # unfinished
            self._close()
            if self._is_local:
                Path(self._staged).unlink(missing_ok=True)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()
        self._stream.close()


def read_chunks(part: Part, task: ScoringTask) -> Iterator[pl.DataFrame]:
    """Yield the rows of a part in chunks, in the source's order, with the wanted columns."""
    import pyarrow.parquet as pq

    wanted = task.wanted
    with task.read.system().open_input_file(part.path) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
        there = [name for name in wanted if name in file.schema_arrow.names]
        groups = list(part.row_groups) if part.row_groups is not None else None
        for batch in file.iter_batches(CHUNK_ROWS, row_groups=groups, columns=there):
            rows = pl.DataFrame(batch) if there else pl.DataFrame(height=batch.num_rows)
            absent = [
                pl.lit(part.constants.get(name), dtype=dtype).alias(name)
                for name, dtype in wanted.items()
                if name not in there
            ]
            rows = rows.with_columns(absent).select(list(wanted)) if absent else rows.select(list(wanted))
            yield rows


def scored_frame(scored: ScoredRows, scorer: FrameScorer, task: ScoringTask, first: int) -> pl.DataFrame:
    """The columns of scored rows, of a chunk whose first row has the number `first` in the source."""
    columns, rows, manifest = task.columns, scored.rows, scorer.manifest
    score, prediction = answers(manifest, scored.scores)
    at = pl.col(AT)
    frame = rows.select(
        *([pl.col(columns.id_column).cast(pl.String).alias("id")] if columns.id_column is not None else []),
        *columns.keep,
        at.alias("as_of"),
        pl.lit(task.scored_at.astimezone(UTC)).cast(pl.Datetime("us", "UTC")).alias("scored_at"),
        pl.lit(task.version, dtype=pl.Int64).alias("model_version"),
        score,
        prediction,
        *([at.dt.date().alias("date")] if columns.days else []),
    )
    further: list[pl.Series] = []
    if columns.features:
        further += scored.features().get_columns()
    if columns.interval is not None and task.conformal is not None:
        further += interval_columns(manifest, task.conformal, columns.interval, scored.scores)
    if columns.explain:
        further += scorer.explain(scored.matrix, columns.explain)
    frame = frame.hstack([*further, scored.flags])
    if columns.origin:
        row = rows.get_column(ROW).cast(pl.Int64) + first
        frame = frame.with_columns(source=pl.lit(task.source), source_row=row, run=pl.lit(task.run))
    return frame


def scored_names(manifest: Manifest, columns: ScoredColumns) -> list[str]:
    """Names of the columns of scored rows, without those that are kept."""
    names = ["as_of", "scored_at", "model_version", "score", "prediction", "flags"]
    names += ["id"] * (columns.id_column is not None) + ["date"] * columns.days
    names += ["lower", "upper", "prediction_set"] * (columns.interval is not None)
    names += ["source", "source_row", "run"] * columns.origin + ["base", "explanation"] * bool(columns.explain)
    return names + [feature.name for feature in manifest.features] * columns.features


def empty_frame(task: ScoringTask) -> pl.DataFrame:
    """Scored rows as any part gives them, without a row."""
    scorer = _loaded(_Key(task))
    return scored_frame(scorer.score(pl.DataFrame(schema=dict(task.wanted))), scorer, task, 0)


@lru_cache(maxsize=1)
def _loaded(key: "_Key") -> FrameScorer:
    task = key.task
    scorer = Scorer.of_files(task.bundle, task.digest)

    @cache
    def chosen() -> Score:  # chosen when there is a row to score: who only wants the columns waits for no compiler
        return many_rows_score(scorer, task.bundle["model.onnx"], task.rows)

    def score_matrix(matrix: np.ndarray) -> np.ndarray:
        return chosen()(matrix)

    return FrameScorer(scorer, task.lookups, task.options, score=score_matrix)


class _Key:
    """A task as a key: a worker gets a copy of it with each part, and loads the bundle once."""

    def __init__(self, task: ScoringTask) -> None:
        self.task = task

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.task.run == other.task.run and self.task.source == other.task.source

    def __hash__(self) -> int:
        return hash(self.task.run)


def _quarantined(chunk: pl.DataFrame, scored: ScoredRows, task: ScoringTask, first: int) -> pl.DataFrame:
    """The refused rows of a chunk, as the quarantine keeps rows."""
    reasons: dict[int, list[str]] = {}
    for one in scored.refused:
        reasons.setdefault(one.row, []).append(f"{one.field}: {one.message}")
    numbers, options = sorted(reasons), task.options
    days: list[Any] = [None] * len(numbers)
    if options.span is not None:  # always a day of the span, so that scoring it again replaces the row
        start = options.span[0].astimezone(UTC).date()
        at = chunk[numbers].get_column(options.timestamp) if options.timestamp in chunk.columns else None
        days = [start] * len(numbers) if at is None else at.dt.date().fill_null(start).to_list()
    return pl.DataFrame(
        {
            "day": days,
            "source": [task.source] * len(numbers),
            "source_row": [number + first for number in numbers],
            "reasons": [reasons[number] for number in numbers],
            "row": to_json(chunk[numbers]),
            "quarantined_at": [task.scored_at] * len(numbers),
        },
        schema=QUARANTINE,
        strict=False,
    )


def _examples(chunk: pl.DataFrame, scored: ScoredRows, task: ScoringTask, first: int) -> list[str]:
    name = task.columns.id_column
    ids = chunk.get_column(name) if name is not None else None
    return [
        f"{f'row {one.row + first} without id' if ids is None or ids[one.row] is None else ids[one.row]}: "
        f"{one.field}: {one.message}"
        for one in scored.refused[:EXAMPLES]
    ]


def _count(result: PartResult, chunk: pl.DataFrame, scored: ScoredRows) -> None:
    result.read += chunk.height
    result.scored += scored.rows.height
    result.refused += scored.refused_rows
    result.outside += scored.outside
    for counts, found in (
        (result.refusals, [(one.field, one.kind) for one in scored.refused]),
        (result.flagged, scored.flagged),
    ):
        for (name, kind), number in Counter(found).items():
            counts[f"{name}: {kind}"] = counts.get(f"{name}: {kind}", 0) + number


def _count_scores(result: PartResult, scores: pl.Series) -> None:
    finite = scores.filter(scores.is_finite())
    result.unscored += scores.len() - finite.len()
    result.score_sum += float(finite.sum())
