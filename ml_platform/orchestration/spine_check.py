"""Checks spines and request features when definitions load: what else a run would find, and no data is read.

The query is bound by DuckDB against empty tables of the columns that contracts and views declare.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb

from ml_platform.features.expressions.request_features import RequestFeature, derived_types
from ml_platform.features.training_sets.feature_definitions import request_features
from ml_platform.features.training_sets.label_copies import label_copies
from ml_platform.features.training_sets.named_columns import column_problems
from ml_platform.features.training_sets.spine import ambiguous
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.names import quoted
from ml_platform.lake.query.duckdb_types import duckdb_type
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.orchestration.dagster_rules import dagster_problems
from ml_platform.spec.input_rules import FieldType
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Task
from ml_platform.yaml_documents import Document, SpecError, SpecProblem, documents, nearest

REQUEST_FEATURES = "request_features.py"  # its usual name
_DATED = re.compile(r"\bAT\s*\(\s*(VERSION|TIMESTAMP)\b", re.IGNORECASE)
_LINE = re.compile(r"LINE (\d+):")
_INSTANT = "TIMESTAMP WITH TIME ZONE"
_TIMES = ("DATE", "TIME", "INTERVAL")
_NESTED = ("STRUCT", "MAP", "UNION")
# What no value of a declared type is made of; whether a text is a number is known of its values only.
_NEVER: dict[FieldType, tuple[str, ...]] = {
    "string": (*_TIMES, *_NESTED),
    "integer": (*_TIMES, *_NESTED),
    "number": (*_TIMES, *_NESTED),
    "boolean": (*_TIMES, *_NESTED),
    "timestamp": (
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL",
        *_NESTED,
    ),
}
_TEXT = ("VARCHAR", "ENUM")
_NEVER_AN_ID = ("BOOLEAN", "BLOB", "BIT", "TIME", "INTERVAL", *_NESTED)  # what has more than one spelling, or no value
_NEVER_A_LABEL: dict[Task, tuple[str, ...]] = {
    "binary": ("BLOB", "BIT", *_TIMES, *_NESTED),
    "multiclass": ("BLOB", "BIT", *_TIMES, *_NESTED),
    "regression": ("BLOB", "BIT", *_TEXT, *_TIMES, *_NESTED),
}
# Types of a view's keys that match one declared type only; of others nothing is said.
_KEYS: dict[str, FieldType] = {
    "VARCHAR": "string",
    "BOOLEAN": "boolean",
    _INSTANT: "timestamp",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "integer"),
}


def check_spines(
    specs: Mapping[Path, ModelSpec], views: Mapping[str, FeatureView], tables: Mapping[str, RawTable]
) -> None:
    """Check every model's request features and query.

    Parameters
    ----------
    specs
        The models, by their `defs.yaml`.
    views
        Feature views by name.
    tables
        Raw tables by name, with their contracts.

    Raises
    ------
    SpecError
        With all mistakes of all models: SQL that does not bind, with its line; columns that the query does not give, or
        gives in a type that the declared one cannot be made of; keys that name a column which is not there; the target
        as an input; a Python file of request features that does not load.
    """
    problems: list[SpecProblem] = []
    with duckdb.connect(":memory:") as connection:
        known = _empty_tables(connection, views, tables)
        for path, spec in specs.items():
            problems += _check(connection, path, spec, views, known)
    if problems:
        raise SpecError(problems)


def _empty_tables(
    connection: duckdb.DuckDBPyConnection, views: Mapping[str, FeatureView], tables: Mapping[str, RawTable]
) -> set[str]:
    """Create every table whose columns are known, without a row; a view in Python says nothing of its keys' types."""
    for schema in ("raw", "features"):
        connection.execute(f"CREATE SCHEMA {schema}")
    known = set()
    for name, raw in tables.items():
        schema, _, table = name.partition("/")
        if schema == "raw":
            types = raw.contract.columns().items()
            columns = ", ".join(f"{quoted(column)} {duckdb_type(one.dtype)}" for column, one in types)
            connection.execute(f"CREATE TABLE raw.{quoted(table)} ({columns})")
            known.add(name)
    for view in views.values():
        if not view.sql or view.rolling or not known.issuperset(view.source_tables) or _DATED.search(view.sql):
            continue
        try:
            connection.execute(f"CREATE TABLE features.{quoted(view.name)} AS {view.sql} LIMIT 0")
            known.add(view.table)
        except duckdb.Error:  # told with its place where the view is computed; here it only says nothing of its types
            continue
    return known


def _check(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    spec: ModelSpec,
    views: Mapping[str, FeatureView],
    known: set[str],
) -> list[SpecProblem]:
    (document,) = [one for one in documents(path) if one.component == "TabularModel"]
    problems = list(dagster_problems(document, spec))
    derived: dict[str, RequestFeature] | None = None
    try:
        derived = request_features(spec, path.parent)
    except Exception as error:  # noqa: BLE001 - whatever a user's file raises is told as its mistake
        problems.append(document.problem(("attributes", "request_features"), f"{type(error).__name__}: {error}"))
    if spec.request_features is None and (path.parent / REQUEST_FEATURES).is_file():
        message = (
            f"{REQUEST_FEATURES} lies beside this file and is not used; write `request_features: {REQUEST_FEATURES}`, "
            "or give the file another name"
        )
        problems.append(document.problem(("attributes", "request_features"), message))
    named = list(column_problems(document, spec, derived, views))
    problems += named
    if derived is not None and not named:
        problems += _key_types(connection, document, spec, derived, views, known)
    file = path.parent / spec.spine
    text = file.read_text(encoding="utf-8")
    try:
        read = referenced_tables(text)
    except ValueError as error:
        return [*problems, _placed(connection, file, text) or SpecProblem(file, 1, "sql", str(error))]
    problems += label_copies(document, spec, text, views)
    if not known.issuperset(read) or _DATED.search(text):
        return problems
    for name in ("span_start", "span_end"):
        connection.execute(f"SET VARIABLE {name} = TIMESTAMPTZ '-infinity'")
    if (mistake := _placed(connection, file, text)) is not None:
        return [*problems, mistake]
    given = _described(connection, text)
    problems += _repeated(file, spec, [name for name, _ in given])
    return [*problems, *_columns(document, spec, dict(given), set(derived or ()))]


def _described(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, str]]:
    """Names and types of the columns of a query."""
    return [(str(name), str(kind)) for name, kind, *_ in connection.execute(f"DESCRIBE {query}").fetchall()]


def _key_types(  # noqa: PLR0917 - private
    connection: duckdb.DuckDBPyConnection,
    document: Document,
    spec: ModelSpec,
    derived: Mapping[str, RequestFeature],
    views: Mapping[str, FeatureView],
    known: set[str],
) -> Iterator[SpecProblem]:
    """Keys of another type than the view's column, which would find nothing."""
    types = {**{field.name: field.type for field in spec.inputs}, **derived_types(spec.inputs, derived)}
    for index, lookup in enumerate(spec.lookups):
        view = views[lookup.view]
        if view.table not in known:
            continue
        given = dict(_described(connection, f"FROM features.{quoted(view.name)}"))
        for column in view.entity:
            name = lookup.keys.get(column, column)
            wanted = _KEYS.get(given.get(column, ""))
            if wanted is not None and types[name] != wanted:
                message = (
                    f"'{name}' is declared as {types[name]}, '{column}' of {view.name} is {given[column]}; cast one "
                    "of them, in the view's query or the spine's"
                )
                yield document.problem(("attributes", "lookups", index, "keys", column), message)


def _repeated(file: Path, spec: ModelSpec, given: Sequence[str]) -> Iterator[SpecProblem]:
    """Columns that are wanted and given more than once."""
    own = (spec.id, spec.target, spec.timestamp, spec.label_available_at, *([spec.weight] if spec.weight else []))
    for name in dict.fromkeys([*own, *(field.name for field in spec.inputs)]):
        if mistake := ambiguous(name, given):
            yield SpecProblem(file, 1, "sql", f"it gives {mistake}")


def _placed(connection: duckdb.DuckDBPyConnection, file: Path, text: str) -> SpecProblem | None:
    """Bind a query; its mistake with the line, None when there is none."""
    try:
        connection.execute(f"DESCRIBE {text}")
    except duckdb.Error as error:
        line = _LINE.search(str(error))
        return SpecProblem(file, int(line[1]) if line else 1, "sql", " ".join(str(error).partition("\n\n")[0].split()))
    return None


def _columns(
    document: Document, spec: ModelSpec, columns: Mapping[str, str], derived: set[str]
) -> Iterator[SpecProblem]:
    """Columns that the query must give, and types from which no value of the declared type can be made."""
    wanted = {("id",): spec.id, ("target",): spec.target, ("label_available_at",): spec.label_available_at}
    wanted |= {("weight",): spec.weight} if spec.weight else {}
    inputs = {field.name for field in spec.inputs}
    if spec.timestamp not in derived:
        wanted["timestamp",] = spec.timestamp
    for (key,), name in wanted.items():
        if name not in columns:
            yield document.problem(("attributes", key), f"{spec.spine} gives no '{name}'{_given(name, columns)}")
        elif key in {"timestamp", "label_available_at"} and columns[name] != _INSTANT:
            hint = "give it a zone: col AT TIME ZONE 'UTC'" if columns[name].startswith("TIMESTAMP") else "cast it"
            message = f"'{name}' of {spec.spine} is a {columns[name]}, a {_INSTANT} is wanted: {hint}"
            yield document.problem(("attributes", key), message)
        elif key == "target" and _is_of(columns[name], _NEVER_A_LABEL[spec.task]):
            message = f"'{name}' of {spec.spine} is a {columns[name]}, which is no label of a {spec.task} task"
            yield document.problem(("attributes", key), message)
        elif key == "weight" and _is_of(columns[name], (*_TEXT, *_NEVER["number"])):
            message = f"'{name}' of {spec.spine} is a {columns[name]}; a weight is a number: cast it"
            yield document.problem(("attributes", key), message)
        elif key == "id" and name not in inputs and _is_of(columns[name], _NEVER_AN_ID):
            message = (
                f"'{name}' of {spec.spine} is a {columns[name]}; an id is a text, a whole number or a date: cast it "
                f"(CAST({name} AS VARCHAR))"
            )
            yield document.problem(("attributes", key), message)
    for index, field in enumerate(spec.inputs):
        location = ("attributes", "inputs", index)
        if field.name not in columns:
            yield document.problem(
                (*location, "name"), f"{spec.spine} gives no '{field.name}'{_given(field.name, columns)}"
            )
        elif _is_of(columns[field.name], _NEVER[field.type]):
            message = (
                f"'{field.name}' of {spec.spine} is a {columns[field.name]}, from which no {field.type} can be made"
            )
            yield document.problem((*location, "type"), message)


def _is_of(found: str, kinds: tuple[str, ...]) -> bool:
    """Whether a type of DuckDB is one of some kinds, or a list, of which no declared type is made."""
    return found.startswith(kinds) or found.endswith("]")


def _given(name: str, columns: Mapping[str, str]) -> str:
    return f"{nearest(name, columns)} It gives: {', '.join(columns)}"
