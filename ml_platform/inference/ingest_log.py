"""Ingests the inference log: records that serving wrote become rows of `inference_log/<model>`, each exactly once."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.checked_rows import FLAGS, flags_value
from ml_platform.inference.log import SHADOW, Batch, Record
from ml_platform.inference.recorded_columns import recorded_column
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.input_contract import Violation
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.segment_log.ingest import Ingested, ingest_segments
from ml_platform.settings import Settings

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
    "sample_weight": pl.Float64,
    "date": pl.Date,
}


class _Logged(Record, kw_only=True):
    """A record as it is read: the inputs stay JSON text."""

    inputs: msgspec.Raw = msgspec.Raw(b"{}")


class _Body(msgspec.Struct):
    """The rows of a request, each as JSON text."""

    rows: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Logged).decode
_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_BATCH = b'{"batch":'
_COLUMNS: dict[type, pl.DataType] = {float: pl.Float64(), str: pl.String(), bool: pl.Boolean()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ingest_log(lake: Lake, settings: Settings) -> dict[str, Ingested]:
    """Ingest what serving logged since the last run into `inference_log/<model>`, each record exactly once.

    Safe to run while serving writes, to kill at any point and to run twice at the same time.

    Returns
    -------
    dict
        A report for each model that has ever logged, by name.
    """
    store = ReleaseStore(settings.releases_dir)
    folders = sorted(path for path in settings.inference_log_dir.glob("*") if path.is_dir())
    return {folder.name: ingest_model_log(lake, store, folder) for folder in folders if SHADOW not in folder.name}


def ingest_model_log(lake: Lake, store: ReleaseStore, folder: Path) -> Ingested:
    """Ingest the segments of one model's folder into its table, and those of its shadow versions into another."""
    shadows = folder.with_name(folder.name + SHADOW)
    if shadows.is_dir():
        _ingest_folder(lake, store, shadows)
    return _ingest_folder(lake, store, folder)


def _ingest_folder(lake: Lake, store: ReleaseStore, folder: Path) -> Ingested:
    manifests, table = _Manifests(store), f"inference_log/{folder.name}"
    known: dict[str, pl.DataType] = dict(lake.schema(table)) if lake.exists(table) else {}

    def read(chunk: bytes, _: str) -> tuple[pl.DataFrame | None, int]:
        records, torn = _parse(chunk)
        if not records:
            return None, torn
        rows = _frame(records, manifests, known)
        known.update(rows.schema)
        return rows, torn

    return ingest_segments(lake, table, folder, read, written_at="scored_at", partition_by=("date",))


def _parse(chunk: bytes) -> tuple[list[_Logged], int]:
    """Decode the records of a chunk; also count its torn lines."""
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
    """Make one record for each row of a batch."""
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
            sample_weight=batch.sample_weight,
        )


class _Manifests:
    """Manifests by bundle digest, each read once."""

    def __init__(self, store: ReleaseStore) -> None:
        self._store = store
        self._known: dict[str, Manifest | None] = {}

    def get(self, digest: str) -> Manifest | None:
        """The manifest; None when its bundle is no longer in the store, and types must be inferred from values."""
        if digest not in self._known:
            try:
                self._known[digest] = self._store.load_manifest(digest)
            except (LookupError, ValueError, BundleRefused):
                self._known[digest] = None
        return self._known[digest]


def _frame(records: Sequence[_Logged], manifests: _Manifests, known: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Make rows of the table: fixed columns, then every feature under its own name.

    `known` are the columns that the table has; see `ml_platform.inference.recorded_columns`.
    """
    columns: dict[str, list[Any]] = {
        "request_id": [record.request_id for record in records],
        "row": [record.row for record in records],
        "id": [record.id for record in records],
        "as_of": [record.as_of for record in records],
        "scored_at": [record.time for record in records],
        "model_version": [record.version for record in records],
        "digest": [record.digest for record in records],
        "score": [max(record.score) if isinstance(record.score, list) else record.score for record in records],
        "caller": [record.caller for record in records],
        "inputs": [bytes(record.inputs).decode() for record in records],
        "flags": [flags_value(record.flags) for record in records],
        "sample_weight": [record.sample_weight for record in records],
        "date": [record.as_of.astimezone(UTC).date() for record in records],
    }
    schema = {name: kind for name, kind in FIXED_COLUMNS.items() if name != "prediction"}
    values = {"prediction": [_answered(record.prediction) for record in records]}
    types = {"prediction": _types(values["prediction"])}
    for name, declared in _features(records, manifests).items():
        values[_column(name)] = [_number_or_text(record.features.get(name)) for record in records]
        types[_column(name)] = _types(values[_column(name)]) or declared
    for name, kinds in types.items():
        for kind in kinds:
            column = recorded_column(name, kind, {**known, **schema})
            schema[column] = kind
            python = kind.to_python()
            columns[column] = [value if isinstance(value, python) else None for value in values[name]]
    return pl.DataFrame(columns, schema=schema)


def _features(records: Sequence[_Logged], manifests: _Manifests) -> dict[str, list[pl.DataType]]:
    """Types of the features by name, as the manifests have them; none where no manifest is known."""
    types: dict[str, list[pl.DataType]] = {}
    for digest in dict.fromkeys(record.digest for record in records):
        manifest = manifests.get(digest)
        for feature in manifest.features if manifest else ():
            types[feature.name] = [pl.Float64() if feature.kind == "numeric" else pl.String()]
    for record in records:
        for name in record.features:
            types.setdefault(name, [])
    return types


def _types(values: Sequence[Any]) -> list[pl.DataType]:
    """Types of the columns that hold these values, in the order of their appearance."""
    kinds = dict.fromkeys(type(value) for value in values if value is not None)
    return [_COLUMNS[kind] for kind in kinds]


def _answered(prediction: Any) -> Any:
    """A prediction as the table keeps it: classes as text, also where they are integers."""
    is_class = isinstance(prediction, int) and not isinstance(prediction, bool)
    return str(prediction) if is_class else prediction


def _number_or_text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else float(value)


def _column(feature: str) -> str:
    """Name of a feature's column: its own, unless that is a fixed column."""
    return f"feature__{feature}" if feature in FIXED_COLUMNS else feature
