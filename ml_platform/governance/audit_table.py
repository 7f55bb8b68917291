"""The audit log in the lake: ingested from its files, read by caller and time, and verified."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import polars as pl

from ml_platform.governance.audit import SECRET, TABLE, Entry, split_line
from ml_platform.governance.audit_chain import Chains, Finding
from ml_platform.lake.storage.tables import Lake
from ml_platform.secret_file import load_secret
from ml_platform.segment_log.ingest import Ingested, ingest_segments
from ml_platform.segment_log.segments import SUFFIX
from ml_platform.settings import Settings

SCHEMA: dict[str, pl.DataType] = {
    "time": pl.Datetime("us", "UTC"),
    "action": pl.String(),
    "request_id": pl.String(),
    "key": pl.String(),
    "name": pl.String(),
    "client": pl.String(),
    "method": pl.String(),
    "path": pl.String(),
    "status": pl.Int64(),
    "rows": pl.Int64(),
    "detail": pl.String(),
    "segment": pl.String(),
    "number": pl.Int64(),
    "line": pl.String(),
    "date": pl.Date(),
}
_UNREADABLE = "unreadable"


def ingest_audit(lake: Lake, settings: Settings) -> Ingested:
    """Move what was written to the audit log since the last run into `governance/audit`, each line exactly once.

    Safe to run while others write, to kill at any point and to run twice at the same time. A file stays until another
    one's first line vouches for its end.
    """

    def read(chunk: bytes, segment: str) -> tuple[pl.DataFrame, int]:
        frame = _frame(segment, [line for line in chunk.split(b"\n") if line])
        return frame, frame.filter(pl.col("action") == _UNREADABLE).height

    folder = settings.audit_dir
    folder.mkdir(parents=True, exist_ok=True)
    return ingest_segments(
        lake, TABLE, folder, read, written_at="time", partition_by=("date",), may_delete=_is_vouched_for
    )


def read_audit(
    lake: Lake, settings: Settings, *, caller: str | None = None, since: datetime | None = None
) -> pl.DataFrame:
    """Read entries by time, including those that are not in the lake yet.

    Parameters
    ----------
    caller
        A key's name or id, or a token's; all when None.
    since
        The earliest time; all when None.
    """
    files = [_frame(path.name, lines) for path, lines in _files(settings.audit_dir)]
    frames = [frame.lazy() for frame in files]
    if lake.exists(TABLE):
        frames.append(_stored(lake))
    if not frames:
        return pl.DataFrame(schema=SCHEMA)
    entries = pl.concat(frames).unique(["segment", "line"])
    if caller is not None:
        entries = entries.filter((pl.col("name") == caller) | (pl.col("key") == caller))
    if since is not None:
        entries = entries.filter(pl.col("time") >= since, pl.col("date") >= since.astimezone(UTC).date())
    return entries.sort("time", "segment", "number").collect()


def verify_audit(lake: Lake, settings: Settings) -> tuple[int, list[Finding]]:
    """Verify every line in the lake and in the files that are not ingested yet.

    Returns
    -------
    tuple
        How many lines were checked, and what is wrong.

    Raises
    ------
    FileNotFoundError
        When the secret of the audit log is not there.
    """
    waiting = _files(settings.audit_dir)
    path = settings.keys_dir / SECRET
    if not (lake.exists(TABLE) or waiting):
        missing = Finding(
            settings.audit_dir.name, None, f"no line is left, though {path.name} was made with the first one"
        )
        return 0, [missing] if path.exists() else []
    if not path.exists():
        raise FileNotFoundError(f"{path}: the audit log's secret is not there, and nothing can be proven without it")
    secret = load_secret(path, create=False)
    table, files = Chains(secret), Chains(secret)
    findings: list[Finding] = []
    for _, rows in _days(lake):
        findings += _altered_columns(rows)
        for (segment,), lines in rows.group_by("segment", maintain_order=True):
            table.check(str(segment), [line.encode() for line in lines["line"].to_list()])
    for file, written in waiting:
        files.check(file.name, written)
    return table.lines + files.lines, sorted(
        {*findings, *table.findings(besides=files), *files.findings(besides=table)}, key=lambda one: one.place
    )


def _frame(segment: str, lines: list[bytes]) -> pl.DataFrame:
    """Rows of lines; one that cannot be read is kept as it is."""
    rows = []
    day = _day_of(segment)
    for line in lines:
        text = line.decode("utf-8", "replace")
        try:
            entry = msgspec.json.decode(split_line(line)[0], type=Entry)
        except ValueError:
            entry = Entry(time=datetime(day.year, day.month, day.day, tzinfo=UTC), action=_UNREADABLE)
        said = {name: getattr(entry, name) for name in SCHEMA if name in entry.__struct_fields__}
        rows.append(said | {"segment": segment, "line": text, "date": day})
    return pl.DataFrame(rows, schema=SCHEMA)


def _files(folder: Path) -> list[tuple[Path, list[bytes]]]:
    files = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            files.append((path, path.read_bytes().split(b"\n")[:-1]))
        except FileNotFoundError:  # taken up meanwhile
            continue
    return files


def _stored(lake: Lake) -> pl.LazyFrame:
    """What was ingested; columns that a table from before them lacks are null."""
    table = lake.read(TABLE)
    names = table.collect_schema().names()
    return table.select(*(name if name in names else pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items()))


def _day_of(segment: str) -> date:
    try:
        return datetime.strptime(segment[:8], "%Y%m%d").date()
    except ValueError:
        return date(1970, 1, 1)


def _days(lake: Lake) -> Iterator[tuple[date, pl.DataFrame]]:
    """The table's rows day by day: a file is of one day."""
    if not lake.exists(TABLE):
        return
    rows = _stored(lake)
    for (day,) in rows.select("date").unique().sort("date").collect().iter_rows():
        yield day, rows.filter(pl.col("date") == day).sort("segment", "number", nulls_last=True).collect()


def _altered_columns(rows: pl.DataFrame) -> list[Finding]:
    """Rows whose columns contradict their line."""
    findings = []
    for (segment,), stored in rows.group_by("segment", maintain_order=True):
        said = _frame(str(segment), [line.encode() for line in stored["line"].to_list()])
        for number, (one, other) in enumerate(zip(stored.iter_rows(), said.iter_rows(), strict=True)):
            if one != other:
                names = [name for name, left, right in zip(SCHEMA, one, other, strict=True) if left != right]
                findings.append(Finding(str(segment), number, f"columns of the table were altered: {', '.join(names)}"))
    return findings


def _is_vouched_for(segment: Path) -> bool:
    """Whether another file's first line names the last line of this one."""
    *_, last, _ = (b"", *segment.read_bytes().split(b"\n")) if segment.stat().st_size else (b"", b"", b"")
    try:
        count = msgspec.json.decode(split_line(last)[0], type=Entry).number + 1
    except ValueError:
        return False
    for path in segment.parent.glob(f"*{SUFFIX}"):
        with path.open("rb") as file:
            try:
                opening = msgspec.json.decode(split_line(file.readline().rstrip(b"\n"))[0], type=Entry)
            except ValueError:
                continue
        if opening.heads.get(segment.name, (0, ""))[0] >= count:
            return True
    return False
