"""Where an entity is: which columns of which tables identify it, by what the project declares."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.sources.registry import declared_sources, declared_tables
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.project import current_project
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.stream import Stream
from ml_platform.spec_yaml import declared_streams, load_spec
from ml_platform.yaml_documents import LOADER


@dataclass(frozen=True)
class Project:
    """What a project declares, read once."""

    tables: dict[str, RawTable]
    sources: dict[str, SourceSpec]
    views: dict[str, FeatureView]
    models: dict[str, ModelSpec]
    streams: dict[str, Stream]
    folders: dict[str, Path]  # of models

    @classmethod
    def read(cls) -> "Project":
        """Read the definitions of the current project (raises SpecError, ProjectNotFound)."""
        defs = current_project().defs
        views = load_views(defs / "features")
        specs = {path.parent: load_spec(path) for path in sorted(defs.rglob("defs.yaml")) if _has_model(path)}
        return cls(
            tables=declared_tables(),
            sources=declared_sources(),
            views=views,
            models={spec.name: spec for spec in specs.values()},
            streams=declared_streams(defs),
            folders={spec.name: folder for folder, spec in specs.items()},
        )


@dataclass(frozen=True)
class Declaration:
    """How an entity is known.

    Attributes
    ----------
    entity
        Its name.
    tables
        Table → columns that hold it, where a contract, a stream or the caller says so.
    names
        What such columns are called anywhere: in tables that the platform derives, a column of such a name holds it.
    why
        What says so, one line for each place.
    """

    entity: str
    tables: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    why: tuple[str, ...]

    @property
    def names_in_files(self) -> set[str]:
        """Columns of files beside the lake that hold it; ids of a model's rows by the id's own name alone.

        A column that is only called `id` may have ids of anything.
        """
        return {*self.names, *(name for one in self.tables.values() for name in one)} if self.names else {self.entity}


def declare(entity: str, project: Project, also: tuple[str, ...] = ()) -> Declaration:
    """Collect what declares an entity.

    Parameters
    ----------
    entity
        An entity column of a feature view, the `entity` of a contract's column, a key of a contract, or a model's id.
    project
        The definitions.
    also
        Further columns, `schema/table.column`, that the caller says hold it.

    Raises
    ------
    LookupError
        If nothing declares it, with the nearest name.
    ValueError
        If one of `also` is not `schema/table.column`.
    """
    known = sorted(set(known_entities(project)))
    if entity not in known:
        near = get_close_matches(entity, known, n=1)
        raise LookupError(
            f"No view, contract or model declares an entity '{entity}'; declared are: {', '.join(known) or 'none'}."
            f"{f' Did you mean {near[0]!r}?' if near else ''} A contract's column that holds it says so by "
            f"`entity: {entity}`."
        )
    names, why = _names(entity, project)
    tables: dict[str, list[str]] = {}
    for table, column, _ in _contract_columns(project):
        if column in names:
            tables.setdefault(table, []).append(column)
            why.append(f"{table}.{column}: in its contract")
    for stream in project.streams.values():
        for table in filter(None, (stream.sink.table, stream.dead_letters_table)):
            tables.setdefault(table, []).extend(names)
    for spec in project.models.values():
        if spec.id in names:  # the answers name the row by `id`
            for schema in ("inference_log", "predictions"):
                tables.setdefault(f"{schema}/{spec.name}", []).append("id")
    for one in also:
        table, _, column = one.rpartition(".")
        if "/" not in table or not column:
            raise ValueError(f"--also wants schema/table.column, like raw/orders.cust_id; found {one!r}")
        tables.setdefault(table, []).append(column)
        why.append(f"{table}.{column}: said by who erased")
    return Declaration(
        entity,
        {table: tuple(dict.fromkeys(columns)) for table, columns in tables.items()},
        tuple(names),
        tuple(dict.fromkeys(why)),
    )


def _names(entity: str, project: Project) -> tuple[dict[str, None], list[str]]:
    """What columns of an entity are called, and what says so."""
    names: dict[str, None] = {entity: None}
    why = []
    for table, column, declared in _contract_columns(project):
        if declared == entity:
            names[column] = None
            why.append(f"{table}.{column}: `entity: {entity}` in its contract")
    why += [f"{view.table}.{entity}: entity of the view" for view in project.views.values() if entity in view.entity]
    for spec in project.models.values():
        for lookup in spec.lookups:
            if lookup.view in project.views and entity in project.views[lookup.view].entity:
                column = lookup.keys.get(entity, entity)
                names[column] = None
                why.append(f"model {spec.name}, {column}: key of its look-up in {lookup.view}")
        if spec.id in names:
            why.append(f"model {spec.name}, id: its rows are named by {spec.id}")
    return names, why


def known_entities(project: Project) -> Iterator[str]:
    """Names by which something can be erased."""
    for view in project.views.values():
        yield from view.entity
    for _, _, declared in _contract_columns(project):
        if declared is not None:
            yield declared
    for table in project.tables.values():
        yield from table.contract.primary_key()
    for spec in project.models.values():
        if spec.id is not None:
            yield spec.id


def returning_sources(declaration: Declaration, project: Project) -> list[str]:
    """What would bring an entity back: sources and streams of which its tables are made, in words."""
    tables = [
        f"{name}: {table.source}, read again by its asset and schedules"
        for name, table in sorted(project.tables.items())
        if name in declaration.tables
    ]
    return tables + [f"stream of {name}: its messages" for name in sorted(project.streams)]


def _contract_columns(project: Project) -> Iterator[tuple[str, str, str | None]]:
    """Each column of each contract: table, name, entity."""
    for name, table in project.tables.items():
        for contract in (table.contract, table.raw_contract):
            if contract is not None:
                for column, facts in contract.columns().items():
                    yield name, column, (facts.metadata or {}).get("entity")


def _has_model(path: Path) -> bool:
    documents = yaml.load_all(path.read_text(encoding="utf-8"), Loader=LOADER)
    return any(
        isinstance(document, dict) and str(document.get("type", "")).rpartition(".")[2] == "TabularModel"
        for document in documents
    )
