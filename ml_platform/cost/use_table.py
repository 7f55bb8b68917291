"""The table `governance/cost`: what was used, one row a line of the files; each line once."""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import polars as pl

from ml_platform.cost.records import STREAM, TABLE, Use
from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log.ingest import Ingested, ingest_segments
from ml_platform.segment_log.segments import SUFFIX
from ml_platform.settings import Settings

SCHEMA: dict[str, pl.DataType] = {
    "time": pl.Datetime("us", "UTC"),
    "meter": pl.String(),
    **dict.fromkeys(("kind", "run", "job", "step", "asset", "model", "key", "team"), pl.String()),
    "seconds": pl.Float64(),
    "cpu_seconds": pl.Float64(),
    "peak_bytes": pl.Int64(),
    "byte_seconds": pl.Float64(),
    **dict.fromkeys(("bytes_read", "bytes_written", "requests", "rows"), pl.Int64()),
    "segment": pl.String(),
    "line": pl.Int64(),  # where it begins in the segment, in bytes
    "date": pl.Date(),
}
_decode = msgspec.json.Decoder(Use).decode


def ingest_costs(lake: Lake, settings: Settings) -> Ingested:
    """Move what was written down since the last run into `governance/cost`, each line exactly once.

    Safe to run while others write, to kill at any point and to run twice at the same time.
    """
    folder = settings.cost_dir / STREAM
    folder.mkdir(parents=True, exist_ok=True)
    offsets: dict[str, int] = {}

    def read(chunk: bytes, segment: str) -> tuple[pl.DataFrame | None, int]:
        if segment not in offsets:
            offsets[segment] = lake.last_app_version(TABLE, f"{TABLE.partition('/')[0]}/{segment}") or 0
        frame, torn = _frame(chunk, segment, offsets[segment])
        offsets[segment] += len(chunk)
        return (frame if frame.height else None), torn

    return ingest_segments(lake, TABLE, folder, read, written_at="time", partition_by=("date",))


def read_costs(lake: Lake, settings: Settings, since: datetime | None = None) -> pl.DataFrame:
    """Read rows of use from an instant on, with those that are not in the table yet."""
    # The files first: a line that is ingested meanwhile is there twice and told apart, not missed.
    frames = [_frame(content, name, 0)[0].lazy() for name, content in _files(settings)]
    if lake.exists(TABLE):
        stored = lake.read(TABLE)
        if since is not None:
            stored = stored.filter(pl.col("date") >= since.astimezone(UTC).date())
        frames.append(stored.select(list(SCHEMA)))
    if not frames:
        return pl.DataFrame(schema=SCHEMA)
    uses = pl.concat(frames).unique(["segment", "line"])
    if since is not None:
        uses = uses.filter(pl.col("time") >= since)
    return uses.sort("time", "segment", "line").collect()


def _files(settings: Settings) -> Iterator[tuple[str, bytes]]:
    for path in sorted((settings.cost_dir / STREAM).glob(f"*{SUFFIX}")):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # ingested meanwhile
            continue
        yield path.name, content[: content.rfind(b"\n") + 1]


def _frame(chunk: bytes, segment: str, offset: int) -> tuple[pl.DataFrame, int]:
    rows, torn = [], 0
    for line in chunk.split(b"\n"):
        if line:
            try:
                use = _decode(line)
            except msgspec.MsgspecError:  # left unfinished by a process that died
                torn += 1
            else:
                values = msgspec.structs.asdict(use)
                rows.append({**values, "segment": segment, "line": offset, "date": use.time.date()})
        offset += len(line) + 1
    return pl.DataFrame(rows, schema=SCHEMA), torn
