"""Who read what: reads of the audit log by object, reader and time, with requests to the server among them."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl

from ml_platform.governance.access.read_audit import READ, REFUSED, ReadDetail
from ml_platform.governance.audit import REQUEST
from ml_platform.governance.audit_table import read_audit
from ml_platform.lake.access import object_name
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

SCHEMA: dict[str, pl.DataType] = {
    "time": pl.Datetime("us", "UTC"),
    "who": pl.String(),
    "object": pl.String(),
    "version": pl.Int64(),
    "columns": pl.List(pl.String()),
    "rows": pl.Int64(),
    "path": pl.String(),
    "refused": pl.Boolean(),
}
# Requests that give an object's contents; what comes after the name says how.
_REQUESTS = (
    (re.compile(r"^/features/([^/]+)(?:/(?:lookup|schema))?$"), "features.{}", "lookup"),
    (re.compile(r"^/(?:predict|explain)/([^/]+)"), "model:{}", "prediction"),
)
_REFUSALS = {401, 403}


def reads(lake: Lake, settings: Settings, *, since: datetime | None = None) -> pl.DataFrame:
    """All reads that the audit log has, oldest first (see `SCHEMA`)."""
    entries = read_audit(lake, settings, since=since).filter(pl.col("action").is_in([READ, REFUSED, REQUEST]))
    rows = []
    for entry in entries.select(
        "time", "action", "name", "client", "method", "path", "status", "rows", "detail"
    ).iter_rows(named=True):
        if entry["action"] == REQUEST:
            if (said := _of_request(entry["path"] or "")) is None or entry["method"] == "DELETE":
                continue
            name, how = said
            rows.append(
                {
                    "time": entry["time"],
                    "who": entry["name"] or entry["client"],
                    "object": name,
                    "rows": entry["rows"],
                    "path": how,
                    "refused": entry["status"] in _REFUSALS,
                }
            )
            continue
        detail = msgspec.json.decode(entry["detail"], type=ReadDetail)
        rows.append(
            {
                "time": entry["time"],
                "who": entry["name"],
                "object": object_name(detail.table),
                "version": detail.version,
                "columns": list(detail.columns),
                "rows": entry["rows"],
                "path": detail.path,
                "refused": entry["action"] == REFUSED,
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)


def who_read(found: pl.DataFrame, objects: Collection[str], columns: Collection[str] = ()) -> pl.DataFrame:
    """Reads of some objects (`raw.customers`, `model:churn`), or of some of their columns."""
    wanted = found.filter(pl.col("object").is_in(list(objects)))
    if columns:
        wanted = wanted.filter(pl.col("columns").list.eval(pl.element().is_in(list(columns))).list.any())
    return wanted


def what_read(found: pl.DataFrame, who: str) -> pl.DataFrame:
    """Reads by somebody, by a name with or without its kind: `user:ada`, `nightly job`."""
    return found.filter((pl.col("who") == who) | pl.col("who").str.ends_with(f":{who}"))


def summary(found: pl.DataFrame) -> pl.DataFrame:
    """Reads by reader, object and way: how many, of how many rows, refused, first and last."""
    return (
        found.group_by("who", "object", "path")
        .agg(
            reads=pl.len(),
            rows=pl.col("rows").sum(),
            refused=pl.col("refused").sum(),
            versions=pl.col("version").drop_nulls().unique().sort(),
            first=pl.col("time").min(),
            last=pl.col("time").max(),
        )
        .sort("last", "who", descending=[True, False])
    )


def span(text: str) -> tuple[datetime, datetime]:
    """A year, month or day in UTC as the instants between which it is.

    Raises
    ------
    ValueError
        If it is none of these.

    Examples
    --------
    >>> [instant.isoformat() for instant in span("2024-12")]
    ['2024-12-01T00:00:00+00:00', '2025-01-01T00:00:00+00:00']
    """
    if not (match := re.fullmatch(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", text)):
        raise ValueError(f"A year, month or day was wanted, like 2024, 2024-05 or 2024-05-17; found {text!r}.")
    year, month, day = (int(part) if part else None for part in match.groups())
    start = datetime(year or 1, month or 1, day or 1, tzinfo=UTC)
    if day:
        return start, start + timedelta(days=1)
    if month:
        return start, (start + timedelta(days=32)).replace(day=1)
    return start, start.replace(year=start.year + 1)


def _of_request(path: str) -> tuple[str, str] | None:
    for pattern, name, how in _REQUESTS:
        if match := pattern.match(path):
            return name.format(match[1]), how
    return None
