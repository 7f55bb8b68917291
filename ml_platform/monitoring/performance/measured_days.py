"""Which days' performance can have changed since it was measured: of the others neither scores nor labels are new.

In two steps. By the versions of the tables, days are told of which nothing needs to be read (`measure_since`). Of what
is read, a digest of the rows tells whether they are those that were measured (`rows_digest`).
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.features.views.incremental import changed_days
from ml_platform.instants import earlier
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.lake.storage.commits import origin
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.champion import released_digests
from ml_platform.monitoring.scored_rows import scored_tables
from ml_platform.monitoring.trends import PERFORMANCE_TABLE
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec

TABLE = "monitoring/performance_inputs"
_SCHEMA: dict[str, Any] = {"model": pl.String, "context": pl.String, "source": pl.String, "version": pl.Int64}


@dataclass(frozen=True)
class Inputs:
    """What performance is measured from: to be read before the rows are, so that it is never newer than they."""

    context: str  # hash of the model's declaration, its spine and the released versions
    labels: Mapping[str, int]  # table of the spine → version
    scores: Mapping[str, int]


def read_inputs(lake: Lake, spec: ModelSpec, folder: Path, store: ReleaseStore) -> Inputs:
    """Read the versions of all tables that performance is measured from."""
    text = (folder / spec.spine).read_text(encoding="utf-8")
    released = sorted(released_digests(store, spec.name).items())
    return Inputs(
        context=hashlib.sha256(f"{spec.model_dump_json()} {text} {released}".encode()).hexdigest(),
        labels=lake.versions(sorted(referenced_tables(text))),
        scores=lake.versions(sorted(scored_tables(lake, spec.name).values())),
    )


def measure_since(lake: Lake, spec: ModelSpec, inputs: Inputs, end: datetime) -> datetime | None:
    """Instant of which the UTC day, and all later ones, must be measured (again); None: every day.

    Days are left as they are if their scores are the same, and their labels too: because no table of the spine has
    changed, or because they are older than `monitoring.labels_final_after` before `end`.
    """
    known = _recorded(lake, spec.name)
    if known is None or known.context != inputs.context:
        return None
    if known.labels.keys() != inputs.labels.keys() or known.scores.keys() != inputs.scores.keys():
        return None
    starts = [end]
    for table, version in inputs.scores.items():
        if version != known.scores[table]:
            days = changed_days(lake, table, "as_of", known.scores[table], version)
            if days is None:
                return None
            starts += [datetime.combine(day, time(), UTC) for day in days]
    if any(_changed(lake, table, known.labels[table], version) for table, version in inputs.labels.items()):
        if spec.monitoring.labels_final_after is None:
            return None
        starts.append(earlier(end, spec.monitoring.labels_final_after))
    return min(starts)


def rows_digest(rows: pl.DataFrame, spec: ModelSpec, bundle: str | None) -> str:
    """Digest of all that the figures of a day and version are made of.

    Parameters
    ----------
    rows
        The scored rows with their labels, in any order.
    spec
        The model.
    bundle
        Digest of the version's bundle; None where it is gone.
    """
    digest = hashlib.sha256(f"{spec.model_dump_json()} {bundle} ".encode())
    data = io.BytesIO()
    ordered = rows.select(sorted(rows.columns)).sort("as_of", "row_key", "model_version")
    ordered.rechunk().write_ipc_stream(data, compression="uncompressed")
    digest.update(data.getbuffer())
    return digest.hexdigest()


def measured_figures(lake: Lake, model: str, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """What is recorded of a model's days, by date and version; columns that an earlier layout lacked are null."""
    if not lake.exists(PERFORMANCE_TABLE):
        return pl.DataFrame(schema=schema)
    rows = lake.read(PERFORMANCE_TABLE).filter(pl.col("model") == model).collect()
    lacking = {name: pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows.columns}
    return rows.with_columns(*lacking.values()).select(*schema).sort("date", "version")


def record_inputs(lake: Lake, model: str, inputs: Inputs | None) -> None:
    """Record what the days of a model were measured from; None: not from all labels, so all are measured next time."""
    if inputs is None and not lake.exists(TABLE):
        return
    sources = {**inputs.labels, **inputs.scores} if inputs is not None else {}
    rows = [
        {"model": model, "context": inputs.context if inputs else "", "source": source, "version": version}
        for source, version in sources.items()
    ]
    where = f"model = '{model}'" if lake.exists(TABLE) else None
    lake.replace(TABLE, pl.DataFrame(rows, schema=_SCHEMA), where=where, partition_by=("model",))


def _recorded(lake: Lake, model: str) -> Inputs | None:
    if not lake.exists(TABLE) or not lake.exists(PERFORMANCE_TABLE):
        return None
    rows = lake.read(TABLE).filter(pl.col("model") == model).collect().to_dicts()
    if not rows or lake.read(PERFORMANCE_TABLE).filter(pl.col("model") == model).head(1).collect().is_empty():
        return None
    versions = {row["source"]: row["version"] for row in rows}
    scored = set(scored_tables(lake, model).values())
    return Inputs(
        rows[0]["context"],
        {table: version for table, version in versions.items() if table not in scored},
        {table: version for table, version in versions.items() if table in scored},
    )


def _changed(lake: Lake, table: str, old: int, new: int) -> bool:
    if old == new:
        return False
    newest = lake.snapshot(table)
    return old > newest.version() or origin(newest, old) != origin(newest, new)
