"""Entries of sources, tables, views and training sets: declarations beside what the lake holds."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ml_platform.catalogue.document import Change, Column, Entry, Kind
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.contracts.contract import describe
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.names import sql_name
from ml_platform.lake.storage.commits import KEEPS_ROWS
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.types import duration

MOST_COMMITS = 200  # of a table, in which its schema is followed
# What the platform itself keeps in the lake, by the schema of its tables.
_KEPT = {
    "predictions": ("Batch predictions of {0}: one row for each row of the spine that was scored.", "{0}"),
    "inference_log": ("What serving answered for {0}: one row for each row of a request.", "{0}"),
    "quarantine": ("Rows of {0} that broke its contract, each with the reasons.", None),
    "monitoring": ("What monitoring measured: {0}.", None),
    "governance": ("What the platform did, and who did it: {0}.", None),
    "pushed": ("Rows pushed to the feature view {0} over HTTP, before it is computed again.", None),
    "training_sets": ("Rows that {0} is trained and judged on, with features as of the moment of prediction.", "{0}"),
}
_PLAIN = re.compile(r'"[a-z_][a-z0-9_]*"')  # a name that needs no quotes in SQL
_UNKNOWN_KEY = '"…"'
_TYPES = {
    "String": "text",
    "Boolean": "true or false",
    "Date": "date",
    "Float64": "number",
    "Float32": "number",
    "Int64": "integer",
}


def name_of(table: str) -> str:
    """What the catalogue calls a table of the lake.

    Examples
    --------
    >>> name_of("raw/flights"), name_of("training_sets/churn"), name_of("quarantine/raw/flights")
    ('raw.flights', 'training_set:churn', 'quarantine.raw.flights')
    """
    schema, _, name = table.partition("/")
    return f"training_set:{name}" if schema == "training_sets" else table.replace("/", ".")


class LakeState:
    """What the lake holds, each table looked at once; where it cannot be read, that is in `problems`."""

    def __init__(self, lake: Lake, known: Mapping[str, Entry]) -> None:
        self.lake = lake
        self.problems: list[str] = []
        self._known = known
        try:
            self.tables = frozenset(lake.tables())
        except (ConnectionError, OSError) as error:
            self.tables = frozenset()
            self.problems.append(f"the lake cannot be read: {error}")

    def facts(self, table: str) -> dict[str, Any]:
        """Newest version, rows, last change, schema and its history of a table, as fields of an `Entry`."""
        if table not in self.tables:
            return {}
        try:
            return self._facts(table)
        except Exception as error:  # noqa: BLE001 - a damaged table is told of, and does not hide all others
            return {"problems": (f"the table cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}",)}

    def _facts(self, table: str) -> dict[str, Any]:
        opened = self.lake.snapshot(table)
        version = opened.version()
        before = self._known.get(name_of(table))
        if before is not None and before.version == version and before.columns and not before.problems:
            return {
                "version": version,
                "rows": before.rows,
                "updated_at": before.updated_at,
                "history": before.history,
                "columns": tuple(Column(name=one.name, type=one.type) for one in before.columns),
            }
        commits = self.lake.history(table, limit=20)
        changed = commits.filter(~pl.col("operation").is_in(list(KEEPS_ROWS)))
        newest: datetime = (changed if changed.height else commits).get_column("timestamp")[0]
        schema = self.lake.schema(table)
        return {
            "version": version,
            "rows": opened.count(),
            "updated_at": newest.astimezone(UTC).isoformat(),
            "history": tuple(schema_history(self.lake, table, version)),
            "columns": tuple(Column(name=name, type=type_in_words(dtype)) for name, dtype in schema.items()),
        }


def type_in_words(dtype: object) -> str:
    """A type of Polars as people say it.

    Examples
    --------
    >>> type_in_words(pl.Int64()), type_in_words(pl.Datetime("us", "UTC")), type_in_words(pl.List(pl.String))
    ('integer', 'timestamp (UTC)', 'List(String)')
    """
    text = str(dtype)
    if text.startswith("Datetime"):
        return "timestamp (UTC)" if "UTC" in text else "timestamp"
    return _TYPES.get(text, "integer" if text.startswith(("Int", "UInt")) else text)


def schema_history(lake: Lake, table: str, version: int) -> Iterator[Change]:
    """How the columns of a table changed: the first schema that the log still has, and each change after it."""
    store, before = lake.store(table), None
    for number in range(max(0, version - MOST_COMMITS), version + 1):
        try:
            with store.open_input_file(f"_delta_log/{number:020d}.json") as file:
                content = file.read()
        except FileNotFoundError:  # maintenance deleted the log of expired versions
            continue
        if b'"metaData"' not in content:
            continue
        for line in content.splitlines():
            action = json.loads(line).get("metaData")
            if action is None:
                continue
            columns = {one["name"]: json.dumps(one["type"]) for one in json.loads(action["schemaString"])["fields"]}
            if what := _difference(before, columns):
                made = datetime.fromtimestamp(action.get("createdTime", 0) / 1000, UTC).isoformat()
                yield Change(
                    version=number, at=made if before is None and action.get("createdTime") else None, what=what
                )
            before = columns


def _difference(before: dict[str, str] | None, after: dict[str, str]) -> str:
    if before is None:
        return f"{len(after)} columns"
    added, gone = [name for name in after if name not in before], [name for name in before if name not in after]
    other = [name for name in after if name in before and after[name] != before[name]]
    parts = (("added", added), ("removed", gone), ("other type", other))
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts if names)


def raw_entries(state: LakeState, tables: Mapping[str, RawTable], owners: Mapping[str, str]) -> Iterator[Entry]:
    """Entries of declared raw tables and of their sources."""
    for raw in tables.values():
        name, facts = name_of(raw.name), state.facts(raw.name)
        held = {one.name: one for one in facts.pop("columns", ())}
        contract = describe(raw.contract)
        columns = [
            Column(
                name=one.name,
                type=type_in_words(one.type),
                description=one.description,
                unit=None if one.unit == "UTC" else one.unit,  # the type says so
                rules=(
                    *(() if one.nullable else ("never missing",)),
                    *(("part of the key",) if one.primary_key else ()),
                    *one.constraints,
                ),
            )
            for one in contract
        ]
        more = held.keys() - {one.name for one in contract}
        yield Entry(
            name=f"source:{raw.name.partition('/')[2]}",
            kind="source",
            description=f"Where the rows of {name} come from: {raw.source}.",
            owner=owners.get(raw.name, ""),
            facts={"is read from": raw.source, "fills": name},
        )
        yield Entry(
            name=name,
            kind="table",
            description=raw.description,
            owner=owners.get(raw.name, ""),
            columns=(*columns, *(held[one] for one in held if one in more)),
            rules=tuple(_rules(raw)),
            facts={
                "source": raw.source,
                **(
                    {"days": f"{raw.calendar.first} to {raw.calendar.last}, by {raw.calendar.column}"}
                    if raw.calendar
                    else {}
                ),
                "new columns of the source": "are added" if raw.evolution == "add_columns" else "are refused",
                "rows that break the contract": f"quarantine.{name}",
            },
            upstream=(f"source:{raw.name.partition('/')[2]}",),
            how=how_to_read(raw.name),
            table=raw.name,
            **{"problems": () if facts else (f"not loaded yet: materialise {raw.name}",), **facts},
        )


def _rules(raw: RawTable) -> Iterator[str]:
    """Rules of a contract over several columns, by their docstrings."""
    for name in sorted(dir(raw.contract)):
        rule = vars(raw.contract).get(name)
        if type(rule).__name__ in ("RuleFactory", "GroupRuleFactory"):
            words = name.replace("_", " ")
            said = (getattr(getattr(rule, "validation_fn", None), "__doc__", None) or "").strip().splitlines()
            yield f"{words}: {said[0]}" if said else words


def view_entries(state: LakeState, views: Mapping[str, FeatureView], url: str) -> Iterator[Entry]:
    """Entries of feature views."""
    for view in views.values():
        facts = state.facts(view.table)
        held = {one.name: one for one in facts.pop("columns", ())}
        features = [
            Column(name=name, type=one.type, description=one.description, unit=one.unit)
            for name, one in view.columns.items()
        ]
        keys = [
            Column(name=name, type=held[name].type if name in held else "", description=_key_words(view, name))
            for name in view.keys
        ]
        yield Entry(
            name=f"features.{view.name}",
            kind="view",
            description=view.description.strip(),
            owner=view.owner,
            tags=dict(view.tags),
            columns=(*keys, *features),
            facts={
                "looked up by": ", ".join(view.entity),
                "a row counts": f"for {duration(view.ttl)}" if view.ttl else "until a newer one",
                "computed by": "a function in Python" if view.code else "windows" if view.rolling else "SQL",
                **({"follows": "a stream of events"} if view.stream else {}),
                "definition": view.hash[:12],
            },
            upstream=tuple(name_of(table) for table in view.source_tables),
            how={**how_to_read(view.table), "HTTP": _lookup(url, view, held)},
            table=view.table,
            **{"problems": () if facts else (f"not computed yet: materialise {view.table}",), **facts},
        )


def _key_words(view: FeatureView, name: str) -> str:
    if name in view.entity:
        return "What the features describe."
    return "From when on the row is known (UTC)." if name == view.event_time else "When the row was written (UTC)."


def _lookup(url: str, view: FeatureView, held: Mapping[str, Column]) -> str:
    """The command that looks a view up; its keys are to be filled in."""
    numbers = {name for name in view.entity if name in held and held[name].type == "integer"}
    keys = ", ".join(f'"{name}": {"1" if name in numbers else _UNKNOWN_KEY}' for name in view.entity)
    return f"curl -s {url}/features/{view.name}/lookup -H 'Content-Type: application/json' -d '{{{keys}}}'"


def other_entries(state: LakeState, listed: frozenset[str], owners: Mapping[str, str]) -> Iterator[Entry]:
    """Entries of tables in the lake that nothing declares: the platform's own, and those that people wrote."""
    for table in sorted(state.tables):
        if name_of(table) in listed:
            continue
        schema, _, name = table.partition("/")
        words, model = _KEPT.get(schema, ("No declaration describes it.", None))
        subject = name.replace("/", ".") if schema != "governance" else name.replace("_", " ")
        model_name = model.format(name) if model else None
        if schema == "inference_log":
            model_name = name.removesuffix("__shadow").removesuffix("_shadow")
        yield Entry(
            name=name_of(table),
            kind=kind_of(table),
            description=words.format(subject),
            owner=owners.get(model_name or "", "")
            or ("team:platform" if schema in ("monitoring", "governance") else ""),
            upstream=_made_of(schema, name, model_name),
            how=how_to_read(table),
            model=model_name,
            table=table,
            **state.facts(table),
        )


def kind_of(table: str) -> Kind:
    """Kind of a table of the lake."""
    return "training set" if table.startswith("training_sets/") else "table"


def _made_of(schema: str, name: str, model: str | None) -> tuple[str, ...]:
    if schema == "quarantine":
        return (f"source:{name.partition('/')[2]}",)
    return (f"model:{model}",) if model and schema in ("predictions", "inference_log") else ()


def how_to_read(table: str) -> dict[str, str]:
    """Commands that read a table, which run as they are written."""
    parts = [part.strip('"') if _PLAIN.fullmatch(part) else part for part in sql_name(table)]
    return {
        "SQL": f"ml-platform sql {shlex.quote('SELECT * FROM ' + '.'.join(parts) + ' LIMIT 5')}",
        "Python": f'from ml_platform.features import open_lake\n\nopen_lake().read("{table}").head(5).collect()',
    }
