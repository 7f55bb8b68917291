"""Which rows of which tables made a version: by its manifest, the lake's log and the spine's query."""

from typing import TYPE_CHECKING

import msgspec

from ml_platform.lake.errors import NotYetCreated, TableNotFound
from ml_platform.lake.names import literal, quoted, sql_name
from ml_platform.lineage.graph import Node
from ml_platform.lineage.objects import Lineage
from ml_platform.lineage.table_types import sql_table
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.origins import origin_of
from ml_platform.registry.releases import ReleaseStore

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake

_FILE_COLUMN = "ingest_file"  # which tables of folders have, beside the columns of the contract


class TableRows(msgspec.Struct, frozen=True, kw_only=True):
    """The version of a table that a model was made from."""

    table: str
    version: int
    role: str  # training set, spine, view or source
    written_at: str | None = None  # ISO 8601, UTC
    rows: int | None = None  # None where that version can no longer be read
    files: int | None = None
    bytes: int | None = None
    where: str = ""  # SQL condition on its rows; empty for all
    select: str = ""  # SQL that gives them
    command: str = ""
    from_files: tuple[str, ...] = ()  # of the source, where the table says so
    problem: str = ""  # why it can no longer be read


class VersionSources(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was made from."""

    model: str
    version: int
    digest: str
    trained_from: str
    trained_until: str
    training_rows: int
    code_version: str
    features: tuple[tuple[str, str, float], ...]  # name, where it comes from, importance; the most important first
    tables: tuple[TableRows, ...]
    notes: tuple[str, ...] = ()


def version_sources(lake: "Lake", store: ReleaseStore, lineage: Lineage, model: str, version: int) -> VersionSources:
    """Describe the rows that made a registered version.

    Raises
    ------
    LookupError
        If there is no such version; with those that there are.
    BundleRefused
        If its bundle is damaged or was removed.
    """
    store.check_version(model, version)
    digest = store.versions(model)[version]
    manifest = store.load_manifest(digest)
    made = manifest.provenance
    notes = []
    if made.imported is not None:
        notes.append(f"imported by {made.imported.by} from {made.imported.source}: its training rows are not known")
    if made.judged is not None:
        notes.append("fitted again on all labelled rows after the gate had judged it")
    if manifest.recalibrated is not None:
        notes.append(f"version {manifest.recalibrated.base_version} with its probabilities mapped anew")
    training_set, training_version, tables = made.training_set, made.training_set_version, dict(made.tables)
    if (origin := origin_of(store, digest)) is not None:
        notes.append(f"promoted from {origin.environment}, whose lake has the tables that its training set was made of")
        tables = {} if origin.training_set is not None else tables
        training_set = origin.training_set or training_set
        training_version = origin.training_set_version or training_version
    own = _rows(lake, training_set, training_version, "training set", _trained(lineage, manifest))
    others = [
        _rows(
            lake,
            table,
            number,
            _role(lineage, table),
            _of_spine(lineage, manifest, table, training_set, training_version),
        )
        for table, number in sorted(tables.items())
    ]
    if own.where and not own.problem and (count := _count(lake, own.select)) > made.training_rows:
        notes.append(
            f"the condition on the training set selects {count:,} rows, {count - made.training_rows:,} more than were "
            "learnt from: their labels were not known yet when the next part of the split began"
        )
    ranked = sorted(manifest.features, key=lambda feature: -feature.importance)
    return VersionSources(
        model=model,
        version=version,
        digest=digest,
        trained_from=made.trained_from,
        trained_until=made.trained_until,
        training_rows=made.training_rows,
        code_version=made.code_version,
        features=tuple((feature.name, feature.source, feature.importance) for feature in ranked),
        tables=(own, *others),
        notes=tuple(notes),
    )


def _count(lake: "Lake", select: str) -> int:
    from ml_platform.lake.query.sql import query

    return int(query(lake, f"SELECT count(*) AS n FROM ({select}) AS rows").item())


def _rows(lake: "Lake", table: str, version: int, role: str, where: str) -> TableRows:
    schema, name = sql_name(table)
    select = f"SELECT * FROM {schema}.{name} AT (VERSION => {version})" + (f" WHERE {where}" if where else "")
    shown = select.replace('"', '\\"')
    command = f'ml-platform sql "{shown}"'
    known = TableRows(table=table, version=version, role=role, where=where, select=select, command=command)
    try:
        snapshot = lake.snapshot(table, version)
    except (TableNotFound, NotYetCreated, LookupError) as error:
        return msgspec.structs.replace(known, problem=str(error))
    actions = snapshot.get_add_actions(flatten=True)
    counts = {name: actions.column(name).to_pylist() for name in ("num_records", "size_bytes")}
    columns = lake.schema(table)
    files: list[str] = []
    if _FILE_COLUMN in columns:
        read = lake.read(table, version=version).select(_FILE_COLUMN).unique().collect().to_series()
        files = sorted(map(str, read.drop_nulls().to_list()))
    return msgspec.structs.replace(
        known,
        written_at=_written(lake, table, version),
        rows=sum(count or 0 for count in counts["num_records"]),
        files=len(counts["size_bytes"]),
        bytes=sum(counts["size_bytes"]),
        from_files=tuple(files),
    )


def _written(lake: "Lake", table: str, version: int) -> str | None:
    commits = lake.history(table)
    stamps = commits.filter(commits["version"] == version).get_column("timestamp").to_list()
    return stamps[0].isoformat() if stamps and stamps[0] is not None else None


def _role(lineage: Lineage, table: str) -> str:
    kind = lineage.info(sql_table(table)).kind
    return {"view": "view", "pushed": "pushed rows"}.get(kind, "spine")


def _trained(lineage: Lineage, manifest: Manifest) -> str:
    """Condition on the training set by which rows were learnt from: the others are for validation and holdout."""
    made = manifest.provenance
    name = manifest.as_of
    columns = lineage.graph.columns(f"training_set:{manifest.model}")
    if name is None or name not in columns or not made.training_rows:
        return ""
    first, last = literal(made.trained_from), literal(made.trained_until)
    return f"{quoted(name)} BETWEEN TIMESTAMPTZ {first} AND TIMESTAMPTZ {last}"


def _of_spine(lineage: Lineage, manifest: Manifest, table: str, training_set: str, version: int) -> str:
    """Condition on a table of the spine by which its rows are in the training set, where its key is in both."""
    if manifest.id is None:
        return ""
    own = Node(f"training_set:{manifest.model}", manifest.id)
    keys = [edge.source.column for edge in lineage.graph.edges_into(own)
            if edge.source.object == sql_table(table) and edge.kind == "copy"]  # fmt: skip
    if len(keys) != 1:
        return ""
    schema, name = sql_name(training_set)
    rows = f"SELECT {quoted(manifest.id)} FROM {schema}.{name} AT (VERSION => {version})"
    condition = _trained(lineage, manifest)
    return f"{quoted(keys[0])} IN ({rows}" + (f" WHERE {condition})" if condition else ")")
