"""What a project's definitions say for access: owners, row filters, masks and tags; and which objects there are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ml_platform.governance.access.objects import CatalogueObject, table_object
from ml_platform.governance.access.policy import Document
from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.spec.protection import Protection


@dataclass(frozen=True)
class Definitions:
    """Owners by the texts of objects; protections, columns and event times of views by the lake's names of tables."""

    owners: Mapping[str, str] = field(default_factory=dict)
    protections: Mapping[str, Protection] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    event_times: Mapping[str, str] = field(default_factory=dict)


def load_definitions() -> Definitions:
    """Read the definitions of the current project; none where there is no project.

    Raises
    ------
    ValueError, SpecError
        When a definition is wrong: what is protected cannot be known then.
    """
    from ml_platform.features.views.load import load_views
    from ml_platform.lake.sources.registry import declared_tables
    from ml_platform.spec_yaml import check_project

    try:
        defs = current_project().defs
    except ProjectNotFound:
        return Definitions()
    owners: dict[str, str] = {}
    protections: dict[str, Protection] = {}
    columns: dict[str, tuple[str, ...]] = {}
    for name, raw in declared_tables().items():
        protections[name], columns[name] = raw.protection, tuple(raw.contract.columns())
        if raw.owner:
            owners[table_object(name).text] = owner_principal(raw.owner)
    views = load_views(defs / "features") if (defs / "features").is_dir() else {}
    for view in views.values():
        protections[view.table], columns[view.table] = view.protection, (*view.keys, *view.columns)
        owners[table_object(view.table).text] = owner_principal(view.owner)
    for spec in check_project(defs, {name: view.columns.keys() for name, view in views.items()}).values():
        owners[CatalogueObject("model", (spec.name,)).text] = owner_principal(spec.owner)
    return Definitions(
        owners,
        {name: one for name, one in protections.items() if not one.is_empty},
        columns,
        {view.table: view.event_time for view in views.values()},
    )


def owner_principal(owner: str) -> str:
    """The principal that `owner:` of a definition names.

    Examples
    --------
    >>> owner_principal("team:risk"), owner_principal("ada@example.com"), owner_principal("user:ada")
    ('group:risk', 'user:ada@example.com', 'user:ada')
    """
    kind, colon, name = owner.partition(":")
    if colon:
        return f"group:{name}" if kind == "team" else owner
    return f"user:{owner}"


def existing_objects(settings: Settings, document: Document, *, columns_of: CatalogueObject | None = None) -> set[str]:
    """Texts of the catalogue's objects: tables, models, namespaces, tags; of columns those of one table."""
    return set(_existing(settings, document, columns_of))


def _existing(settings: Settings, document: Document, columns_of: CatalogueObject | None) -> Iterator[str]:
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.composition import CompositionStore
    from ml_platform.registry.feature_services import FeatureServiceStore
    from ml_platform.registry.releases import ReleaseStore

    lake, definitions = Lake(settings.lake_uri), load_definitions()
    store = ReleaseStore(settings.releases_dir)
    tables = {table_object(table) for table in (*lake.tables(), *definitions.columns)}
    services = {CatalogueObject("table", ("features", name)) for name in FeatureServiceStore(store).names()}
    texts = {one.text for one in tables | services} | set(definitions.owners)
    texts |= {container.text for one in tables for container in one.containers}
    yield from texts
    models = {text.removeprefix("model:") for text in texts if text.startswith("model:")}
    models |= {*store.names(), *store.registered(), *CompositionStore(store).readable()[0]}
    for model in models:
        yield from (f"{kind}:{model}" for kind in ("model", "endpoint", "training_set"))
    yield from (f"namespace:{name}" for name in document.namespaces)
    tags = {*document.masked_tags, *(change.tag for change in document.tags)}
    tags |= {tag for one in definitions.protections.values() for ones in one.tags.values() for tag in ones}
    yield from (f"tag:{tag}" for tag in tags)
    if columns_of is not None and (table := columns_of.lake_table) is not None:
        named = next((one for one in lake.tables() if table_object(one).parts == columns_of.parts[:2]), None)
        names = {
            name for one, ones in definitions.columns.items() if table_object(one).lake_table == table for name in ones
        }
        names |= {*lake.schema(named)} if named is not None else set()
        yield from (CatalogueObject("column", (*columns_of.parts[:2], name.lower())).text for name in names)
