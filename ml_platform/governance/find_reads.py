"""Answers questions to the record of reads; `python -m ml_platform.governance.find_reads` does so for serving.

It reads a `ReadQuery` as JSON from its input and writes a `ReadAnswer`: the server itself loads no reader of tables.
"""

import sys
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl

from ml_platform.governance.access.read_audit import keeps_account
from ml_platform.governance.access.speaker import policy_store
from ml_platform.governance.read_history import reads, what_read, who_read
from ml_platform.governance.recorded_reads import (
    DAYS,
    ReadAnswer,
    Reader,
    ReadQuery,
    RecordedRead,
    UnusualRead,
    may_audit,
)
from ml_platform.governance.unusual_access import PAST, tagged_objects, unusual_access
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.yaml_documents import SpecError

_EARLIEST, _LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def find_reads(settings: Settings, query: ReadQuery, *, now: datetime | None = None) -> ReadAnswer:
    """Find reads on record, and what is unusual about today's.

    Parameters
    ----------
    settings
        Where log and policy are.
    query
        Which; of what who asks does not manage, nothing is found or judged.
    now
        The present; the clock's by default.
    """
    now = now or datetime.now(UTC)
    until = _within(query.until or now + timedelta(seconds=1))  # what was written this second is in it
    since = _within(query.since or until - timedelta(days=DAYS))
    known = _for(settings, query, reads(Lake(settings.lake_uri), settings, since=min(since, now - PAST)))
    if query.object is not None:
        known = who_read(known, [query.object])
    if query.who is not None:
        known = what_read(known, query.who)
    unusual, problems = ([], []) if query.by_reader else _unusual(settings, known, now)
    wanted = known.filter(pl.col("time") >= since, pl.col("time") < until)
    if query.column is not None:
        wanted = wanted.filter(pl.col("columns").list.contains(query.column).fill_null(value=False))
    answer = ReadAnswer(
        since=since,
        until=until,
        total=wanted.height,
        unusual=tuple(unusual),
        is_recorded=keeps_account(settings),
        problems=tuple(problems),
    )
    if query.by_reader:
        readers = _readers(wanted)
        return msgspec.structs.replace(answer, readers=readers[: query.limit], total=len(readers))
    newest = wanted.reverse().slice((query.page - 1) * query.limit, query.limit)
    rows = (RecordedRead(**{**row, "columns": tuple(row["columns"] or ())}) for row in newest.iter_rows(named=True))
    return msgspec.structs.replace(answer, reads=tuple(rows))


def _within(instant: datetime) -> datetime:
    """An instant among those with which can be reckoned: a caller may send any."""
    return min(max(instant, _EARLIEST), _LATEST).astimezone(UTC)


def _for(settings: Settings, query: ReadQuery, known: pl.DataFrame) -> pl.DataFrame:
    """What who asks may see of the reads."""
    if (asks := query.asks) is None:
        return known
    policy = policy_store(settings).policy
    return known.filter(
        pl.col("object").is_in([one for one in known["object"].unique() if may_audit(policy, asks, one)])
    )


def _readers(wanted: pl.DataFrame) -> tuple[Reader, ...]:
    given = ~pl.col("refused")
    by_reader = (
        wanted.group_by("who")
        .agg(
            reads=given.sum(),
            rows=pl.col("rows").filter(given).sum(),
            refused=pl.col("refused").sum(),
            paths=pl.col("path").unique().sort(),
            last=pl.col("time").max(),
        )
        .sort("last", "who", descending=[True, False])
    )
    return tuple(Reader(**{**row, "paths": tuple(row["paths"])}) for row in by_reader.iter_rows(named=True))


def _unusual(settings: Settings, known: pl.DataFrame, now: datetime) -> tuple[list[UnusualRead], list[str]]:
    problems = []
    try:
        tagged = tagged_objects(settings)
    except (SpecError, ValueError) as error:
        tagged = set()
        problems.append(f"Which objects have tagged columns cannot be read: {error}")
    found = unusual_access(known, now.date(), sensitive=tagged)
    return [UnusualRead(who=one.who, rule=one.rule, what=one.what) for one in found], problems


def main() -> None:
    """Answer the question in the input."""
    query = msgspec.json.decode(sys.stdin.buffer.read(), type=ReadQuery)
    sys.stdout.buffer.write(msgspec.json.encode(find_reads(Settings(), query)))


if __name__ == "__main__":
    main()
