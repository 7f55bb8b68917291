"""The inference log's other half: segments that serving wrote become rows of `inference_log/<model>`, once each.

Every commit to the table carries, as a Delta application transaction, the name of one segment and the byte up to which
it has been taken. The rows and that offset become visible together or not at all, so a kill at any instant leaves the
next run knowing exactly where to go on. A segment is deleted when all of it is in the table and its writer is gone.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.checked_rows import FLAGS, flags_value
from ml_platform.inference.contract import Violation
from ml_platform.inference.log import SHADOW, SUFFIX, Batch, Record
from ml_platform.lake.tables import Lake
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.files import locked
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

CHUNK_BYTES = 32 * 2**20  # of a segment in one commit: about 30,000 records
_TIMESTAMP = pl.Datetime("us", "UTC")
FIXED_COLUMNS: dict[str, Any] = {
    "request_id": pl.String,
    "row": pl.Int64,
    "id": pl.String,
    "as_of": _TIMESTAMP,
    "scored_at": _TIMESTAMP,
    "model_version": pl.Int64,
    "digest": pl.String,
    "score": pl.Float64,
    "prediction": pl.String,  # replaced by the task's own type
    "caller": pl.String,
    "inputs": pl.String,
    "flags": FLAGS,
    "date": pl.Date,
}


class _Logged(Record, kw_only=True):
    """A record as read back: the inputs stay the JSON text that they are."""

    inputs: msgspec.Raw = msgspec.Raw(b"{}")


class _Body(msgspec.Struct):
    """The rows of a request, each as the JSON text that it was."""

    rows: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Logged).decode
_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_BATCH = b'{"batch":'
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class IngestLogReport:
    """What one run moved for one model."""

    model: str
    table: str
    version: int | None  # of the table, None while it does not exist
    rows: int
    segments: int  # read
    deleted: int  # wholly ingested, writer gone
    torn: int  # lines that a dying worker left unfinished: their requests were never answered
    newest: datetime | None  # scored_at of the newest row moved


def ingest_log(lake: Lake, settings: Settings) -> dict[str, IngestLogReport]:
    """Move what serving logged since the last run into `inference_log/<model>`, each record exactly once.

    Safe to run while serving writes, to kill at any point and to run twice at the same time.

    Returns
    -------
    dict
        A report for each model that has ever logged, by name.
    """
    store = ReleaseStore(settings.releases_dir)
    folders = sorted(path for path in settings.inference_log_dir.glob("*") if path.is_dir())
    return {folder.name: ingest_model_log(lake, store, folder) for folder in folders if SHADOW not in folder.name}


def ingest_model_log(lake: Lake, store: ReleaseStore, folder: Path) -> IngestLogReport:
    """Move the segments of one model's folder into its table, and those of its shadow versions into theirs."""
    shadows = folder.with_name(folder.name + SHADOW)
    if shadows.is_dir():
        _ingest_folder(lake, store, shadows)
    return _ingest_folder(lake, store, folder)


def _ingest_folder(lake: Lake, store: ReleaseStore, folder: Path) -> IngestLogReport:
    model = folder.name
    table = f"inference_log/{model}"
    report = IngestLogReport(model, table, None, rows=0, segments=0, deleted=0, torn=0, newest=None)
    manifests = _Manifests(store)
    with locked(folder / ".ingest.lock"):  # two runs would read the same bytes and race to commit them
        for segment in sorted(folder.glob(f"*{SUFFIX}")):
            report = _ingest_segment(lake, table, segment, manifests, report)
    return replace(report, version=lake.version(table) if lake.exists(table) else None)


def _ingest_segment(
    lake: Lake, table: str, segment: Path, manifests: "_Manifests", report: IngestLogReport
) -> IngestLogReport:
    app = f"inference_log/{segment.name}"
    with segment.open("rb") as file:
        finished = _writer_is_gone(file.fileno())  # asked before reading: what comes after is for the next run
        offset = lake.last_app_version(table, app) or 0
        file.seek(offset)
        size = os.fstat(file.fileno()).st_size  # of now: a busy writer would else be followed, commit by small commit
        for chunk in _whole_lines(file, size - offset, finished):
            records, torn = _parse(chunk)
            offset += len(chunk)
            if records:
                frame = _frame(records, manifests)
                lake.append(table, frame, partition_by=("date",), app_transaction=(app, offset), add_columns=True)
                newest = max(record.time for record in records)
                report = replace(report, rows=report.rows + len(records), newest=max(newest, report.newest or newest))
            report = replace(report, torn=report.torn + torn)
    if finished:
        segment.unlink()
    return replace(report, segments=report.segments + 1, deleted=report.deleted + finished)


def _writer_is_gone(file: int) -> bool:
    """Whether no process holds the shared lock that a writer keeps on its segment."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _whole_lines(file: BinaryIO, size: int, finished: bool) -> Iterator[bytes]:
    """Chunks of whole lines of the next `size` bytes; when the writer is gone also the unfinished last one."""
    rest = b""
    while block := file.read(min(CHUNK_BYTES, size)):
        size -= len(block)
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
    if rest and finished:
        yield rest


def _parse(chunk: bytes) -> tuple[list[_Logged], int]:
    """Records of a chunk, and how many lines of it are torn."""
    records: list[_Logged] = []
    torn = 0
    for line in chunk.split(b"\n"):
        if not line:
            continue
        try:
            if line.startswith(_BATCH):
                records += _records(_decode_batch(line))
            else:
                records.append(_decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            torn += 1
    return records, torn


def _records(batch: Batch) -> Iterator[_Logged]:
    """One record for each row of a batch."""
    names = batch.columns
    numbers = np.frombuffer(batch.matrix, dtype="<f8").reshape(batch.batch, len(names)).T
    values_by_column = [
        batch.categories[name] if name in batch.categories else [None if x != x else x for x in numbers[place].tolist()]  # noqa: PLR0124 - NaN stands for null
        for place, name in enumerate(names)
    ]
    features = zip(*values_by_column, strict=True)
    ids = batch.ids or [None] * batch.batch
    inputs = _decode_body(batch.inputs).rows
    flags: dict[int, list[Violation]] = {}
    for flag in batch.flags:
        flags.setdefault(flag.row, []).append(flag)
    columns = (ids, batch.as_of, inputs, features, batch.score, batch.prediction)
    for row, (name, as_of, sent, values, score, prediction) in enumerate(zip(*columns, strict=True)):
        yield _Logged(
            request_id=batch.request_id,
            row=row,
            id=name,
            model=batch.model,
            version=batch.version,
            digest=batch.digest,
            time=batch.time,
            as_of=_EPOCH + timedelta(microseconds=as_of),
            caller=batch.caller,
            inputs=sent,
            features=dict(zip(names, values, strict=True)),
            score=score,
            prediction=prediction,
            flags=flags.get(row, ()),
        )


class _Manifests:
    """Manifests by bundle digest, each read once."""

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store
        self._known: dict[str, Manifest | None] = {}

    def get(self, digest: str) -> Manifest | None:
        """The manifest, or None when its bundle is no longer in the store: types are then taken from the values."""
        if digest not in self._known:
            try:
                self._known[digest] = self._store.load_manifest(digest)
            except (LookupError, ValueError, BundleRefused):
                self._known[digest] = None
        return self._known[digest]


def _frame(records: Sequence[_Logged], manifests: _Manifests) -> pl.DataFrame:
    """Rows of the table: fixed columns, then every feature under its own name."""
    types = _feature_types(records, manifests)
    first = records[0].prediction
    prediction = pl.Boolean if isinstance(first, bool) else pl.String if isinstance(first, str) else pl.Float64
    columns: dict[str, list[Any]] = {
        "request_id": [record.request_id for record in records],
        "row": [record.row for record in records],
        "id": [record.id for record in records],
        "as_of": [record.as_of for record in records],
        "scored_at": [record.time for record in records],
        "model_version": [record.version for record in records],
        "digest": [record.digest for record in records],
        "score": [max(record.score) if isinstance(record.score, list) else record.score for record in records],
        "prediction": [record.prediction for record in records],
        "caller": [record.caller for record in records],
        "inputs": [bytes(record.inputs).decode() for record in records],
        "flags": [flags_value(record.flags) for record in records],
        "date": [record.as_of.astimezone(UTC).date() for record in records],
    }
    for name, kind in types.items():
        values = [record.features.get(name) for record in records]
        columns[_column(name)] = [None if value is None else _as(kind, value) for value in values]
    return pl.DataFrame(
        columns,
        schema={**FIXED_COLUMNS, "prediction": prediction, **{_column(name): kind for name, kind in types.items()}},
    )


def _feature_types(records: Sequence[_Logged], manifests: _Manifests) -> dict[str, Any]:
    types: dict[str, Any] = {}
    for digest in {record.digest for record in records}:
        manifest = manifests.get(digest)
        for feature in manifest.features if manifest else ():
            types[feature.name] = pl.Float64 if feature.kind == "numeric" else pl.String
    for record in records:
        for name, value in record.features.items():
            if name not in types and value is not None:
                types[name] = pl.String if isinstance(value, str) else pl.Float64
    return types


def _column(feature: str) -> str:
    """A feature's own name, unless the table has that column for itself."""
    return f"feature__{feature}" if feature in FIXED_COLUMNS else feature


def _as(kind: Any, value: Any) -> Any:
    return str(value) if kind == pl.String else float(value)
