"""The sensor that sends OpenLineage events: it reads Dagster's event log after the fact, so that no run waits for it.

The log is the queue. A cursor says up to which entry events were delivered; one that cannot be delivered is tried again
at the next tick, in order. One that the receiver refuses is left out after some tries, and so are the oldest when more
wait than `max_waiting`: both are counted, and said.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import dagster as dg
import msgspec
from dagster import DagsterEventType

from ml_platform.atomic_files import FileStamp, file_stamp
from ml_platform.lineage.objects import Lineage, lineage_of
from ml_platform.lineage.openlineage import Column, EventType, Materialisation, run_event
from ml_platform.lineage.openlineage_transport import NotDelivered, OpenLineageSettings, deliver
from ml_platform.lineage.store import lineage_path, read_document, refresh_lineage
from ml_platform.lineage.table_types import sql_table
from ml_platform.orchestration.resources import Platform
from ml_platform.settings import Settings

SENSOR = "openlineage"
TYPES: dict[DagsterEventType, EventType] = {
    DagsterEventType.STEP_START: "START",
    DagsterEventType.ASSET_MATERIALIZATION: "COMPLETE",
    DagsterEventType.STEP_FAILURE: "FAIL",
}
_AT_ONCE = 200  # entries of the log in one tick
_SECONDS = 20.0  # after which a tick ends, whatever waits
_TRIES = 3  # of an event that the receiver refuses
# Assets of a model → the object of the graph that they make.
_OF_MODEL = {
    "training_set": "training_set:{}",
    "trained_model": "model:{}",
    "refitted_model": "model:{}",
    "release": "endpoint:{}",
    "predictions": "predictions.{}",
    "inference_log": "inference_log.{}",
    "drift_report": "monitoring.drift",
    "performance": "monitoring.performance",
}


class Cursor(msgspec.Struct):
    """Up to where the log was delivered, and what became of the events."""

    after: int = -1
    sent: int = 0
    dropped: int = 0
    tries: int = 0  # of the next event


@dg.sensor(
    name=SENSOR,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends what was materialised, with inputs and columns, to ML_PLATFORM_OPENLINEAGE_URL.",
)
def openlineage(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    """Deliver the events since the last tick; starts no run."""
    settings = OpenLineageSettings()
    if not settings.url:
        return dg.SkipReason("ML_PLATFORM_OPENLINEAGE_URL is not set")
    cursor = msgspec.json.decode(context.cursor, type=Cursor) if context.cursor else None
    cursor, said = deliver_new(context.instance, settings, platform.settings, cursor)
    context.update_cursor(msgspec.json.encode(cursor).decode())
    if said:
        context.log.error(said)
    return dg.SkipReason(f"{cursor.sent:,} events sent, {cursor.dropped:,} dropped{f'; {said}' if said else ''}")


def deliver_new(
    instance: dg.DagsterInstance, settings: OpenLineageSettings, places: Settings, cursor: Cursor | None
) -> tuple[Cursor, str]:
    """Deliver what the log has behind a cursor; give the next cursor, and what is wrong.

    Without a cursor nothing is sent: what was made before the URL was set is not told.
    """
    newest = instance.event_log_storage.get_maximum_record_id()
    if cursor is None:
        return Cursor(after=newest if newest is not None else -1), ""
    said = ""
    if newest is not None and newest - cursor.after > settings.max_waiting:
        skipped = newest - cursor.after - settings.max_waiting
        cursor.after, cursor.tries = cursor.after + skipped, 0
        cursor.dropped += skipped
        said = f"{skipped:,} entries of the log were left out: more than {settings.max_waiting:,} waited"
    lineage: Lineage | None = None
    end = time.monotonic() + _SECONDS
    for number, entry in _entries(instance, cursor.after):
        lineage = lineage or _lineage(places)
        for event in _events(instance, entry, lineage, settings.namespace):
            try:
                deliver(settings, event)
            except NotDelivered as error:
                cursor.tries += 1
                if not error.is_refused or cursor.tries < _TRIES:
                    return cursor, str(error)  # this entry is next again
                cursor.dropped += 1
                said = f"left out after {_TRIES} tries: {error}"
            else:
                cursor.sent += 1
        cursor.after, cursor.tries = number, 0
        if time.monotonic() > end:
            break
    return cursor, said


def _entries(instance: dg.DagsterInstance, after: int) -> list[tuple[int, dg.EventLogEntry]]:
    """The next entries of the log, in its order."""
    merged: dict[int, dg.EventLogEntry] = {}
    bounds = []
    for kind in TYPES:  # Dagster takes one at a time
        part = instance.event_log_storage.get_logs_for_all_runs_by_log_id(
            after_cursor=after, dagster_event_type=kind, limit=_AT_ONCE
        )
        merged |= part
        if len(part) == _AT_ONCE:
            bounds.append(max(part))  # of this kind there are more behind it
    return [(number, merged[number]) for number in sorted(merged) if not bounds or number <= min(bounds)]


def _lineage(places: Settings) -> Lineage:
    path = lineage_path(places)
    if not path.exists():
        return refresh_lineage(places)[0]
    return _read(file_stamp(path), places)


@lru_cache(maxsize=1)
def _read(_stamp: FileStamp, places: Settings) -> Lineage:
    document = read_document(lineage_path(places))
    return lineage_of(document) if document is not None else refresh_lineage(places)[0]


def _events(
    instance: dg.DagsterInstance, entry: dg.EventLogEntry, lineage: Lineage, namespace: str
) -> Iterator[dict[str, Any]]:
    """The events of one entry of the log: one for each asset of its step."""
    event = entry.dagster_event
    assert event is not None
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    kind = TYPES[event.event_type]
    step = event.step_key or ""
    materialization = entry.asset_materialization
    keys = [materialization.asset_key] if materialization is not None else _planned(instance, entry.run_id, step)
    metadata = dict(materialization.metadata) if materialization is not None else {}
    failure = getattr(event.event_specific_data, "error", None) if kind == "FAIL" else None
    for key in keys:
        name = object_of(key)
        made = Materialisation(
            object=name,
            run_id=entry.run_id,
            step=step,
            job=entry.job_name or "",
            error="" if failure is None else str(failure.message).strip(),
            sql=lineage.info(name).sql,
            code=lineage.info(name).code,
            **_facts(metadata),
        )
        yield run_event(kind, at, lineage, made, namespace=namespace)


def object_of(key: dg.AssetKey) -> str:
    """Name in the graph of what an asset makes.

    Examples
    --------
    >>> object_of(dg.AssetKey(["raw", "flights"])), object_of(dg.AssetKey(["toy", "training_set"]))
    ('raw.flights', 'training_set:toy')
    """
    first, *rest = key.path
    if len(rest) == 1 and rest[0] in _OF_MODEL and first not in {"raw", "features", "online", "pushed"}:
        return _OF_MODEL[rest[0]].format(first)
    return sql_table("/".join(key.path))


def _planned(instance: dg.DagsterInstance, run_id: str, step: str) -> list[dg.AssetKey]:
    """Assets that a step is to make."""
    records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION_PLANNED).records
    events = [record.event_log_entry.dagster_event for record in records]
    return [event.asset_key for event in events if event is not None and event.step_key == step and event.asset_key]


def _facts(metadata: dict[str, Any]) -> dict[str, Any]:
    """Version, rows, columns and versions read, of a materialisation's metadata."""
    facts: dict[str, Any] = {}
    value = {name: getattr(item, "value", item) for name, item in metadata.items()}
    if isinstance(value.get("delta version"), int):
        facts["version"] = value["delta version"]
    if isinstance(value.get("dagster/row_count"), int):
        facts["rows"] = value["dagster/row_count"]
    if isinstance(schema := value.get("dagster/column_schema"), dg.TableSchema):
        facts["columns"] = tuple(Column(one.name, one.type or "", one.description or "") for one in schema.columns)
    read = metadata.get("tables read")
    records = read.records if isinstance(read, dg.TableMetadataValue) else []
    facts["input_versions"] = {sql_table(str(one.data["table"])): int(str(one.data["version"])) for one in records}
    return facts
