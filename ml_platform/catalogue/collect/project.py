"""Collects everything that a project declares and that its lake and release store hold into one catalogue."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from ml_platform.catalogue.collect.columns import with_lineage, with_tags
from ml_platform.catalogue.collect.models import release_entries, spec_entries
from ml_platform.catalogue.collect.others import notebook_entries, service_entries, term_entries
from ml_platform.catalogue.collect.tables import LakeState, other_entries, raw_entries, view_entries
from ml_platform.catalogue.document import KINDS, Catalogue, CatalogueUnreadable, Check, Entry, read_catalogue
from ml_platform.catalogue.terms import Term, check_links, load_terms
from ml_platform.features.views.load import load_views
from ml_platform.governance.access.speaker import policy_store
from ml_platform.lake.sources.registry import declared_sources, declared_tables
from ml_platform.lake.storage.tables import Lake
from ml_platform.lineage.graph import ColumnGraph
from ml_platform.lineage.project_graph import Declared, build_lineage
from ml_platform.project import current_project
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.model import ALL_METRICS, ModelSpec
from ml_platform.spec.notebook import NotebookSpec
from ml_platform.spec_yaml import NOTEBOOK_COMPONENT, check_project, check_services
from ml_platform.yaml_documents import SpecError, SpecProblem, documents

_Made = TypeVar("_Made")


def collect(
    settings: Settings, *, defs: Path | None = None, checks: Mapping[str, Sequence[Check]] | None = None
) -> Catalogue:
    """Collect the catalogue of a project.

    What cannot be read (a YAML file with mistakes, a damaged table, a lake that is away) is told in `problems` and does
    not hide the rest. MLflow is not asked: the release store has what is needed.

    Parameters
    ----------
    settings
        Where lake and stores are.
    defs
        Folder of the definitions; the current project's when None.
    checks
        Name of an entry → its quality checks with their last verdicts, which Dagster has; those of the stored
        catalogue when None.
    """
    defs = defs or current_project().defs
    problems: list[str] = []

    def read(what: Callable[[], _Made]) -> _Made | None:
        try:
            return what()
        except (SpecError, ValueError, OSError, ImportError) as error:
            problems.extend(line for line in str(error).splitlines() if line not in problems)
            return None

    known = _known(settings, problems)
    store = ReleaseStore(settings.releases_dir)
    state = LakeState(Lake(settings.lake_uri), known)
    views = read(lambda: load_views(defs / "features")) or {}
    specs = read(lambda: check_project(defs, {name: view.columns.keys() for name, view in views.items()})) or {}
    services = read(lambda: check_services(defs, {name: view.columns.keys() for name, view in views.items()})) or []
    tables = read(declared_tables) or {}
    owners = {name: raw.owner for name, raw in tables.items() if raw.owner}
    owners |= {name: source.owner for name, source in (read(declared_sources) or {}).items()}
    owners |= {spec.name: spec.owner for spec in specs.values()}
    terms = read(lambda: load_terms(defs)) or {}
    url = settings.serving_url.rstrip("/")
    entries = [
        *raw_entries(state, tables, owners),
        *view_entries(state, views, url),
        *spec_entries(state, specs, views, store),
        *release_entries(store, frozenset(spec.name for spec in specs.values()), url, problems),
        *service_entries(services, views),
        *notebook_entries((read(lambda: list(_notebooks(defs))) or []), settings.notebooks_dir),
    ]
    entries += other_entries(state, frozenset(one.name for one in entries), owners)
    declared = Declared(
        tables=tables, views=views, models=specs, services=tuple(one for _, one in services), owners=owners
    )
    traced = read(lambda: build_lineage(declared, state.lake, store))
    graph = traced[0].graph if traced else ColumnGraph()
    entries = with_lineage(entries, graph)
    protections = {
        **{name: raw.protection for name, raw in tables.items()},
        **{view.table: view.protection for view in views.values()},
    }
    entries = (read(lambda: with_tags(entries, policy_store(settings).policy, protections, graph))) or entries
    entries = _with_terms([*entries, *term_entries(terms)], terms)
    problems += state.problems
    problems += [str(one) for one in broken_links(terms, entries, list(specs.values()))]
    found = checks if checks is not None else {name: one.checks for name, one in known.items() if one.checks}
    entries = [replace(one, checks=tuple(found[one.name])) if one.name in found else one for one in entries]
    ordered = sorted(_distinct(entries), key=lambda one: (KINDS.index(one.kind), one.name))
    return Catalogue(made_at=datetime.now(UTC), entries=tuple(ordered), problems=tuple(problems))


def broken_links(
    terms: Mapping[str, tuple[Path, Term]], entries: Sequence[Entry], specs: Sequence[ModelSpec]
) -> list[SpecProblem]:
    """Links of terms that lead nowhere."""
    names = {one.name for one in entries} | {f"{one.name}.{column.name}" for one in entries for column in one.columns}
    metrics = {f"{spec.name}.{metric}" for spec in specs for metric in ALL_METRICS}
    return check_links(terms, names, metrics)


def _known(settings: Settings, problems: list[str]) -> dict[str, Entry]:
    """Entries of the stored catalogue: what has not changed since is not read again."""
    try:
        stored = read_catalogue(settings.home)
    except CatalogueUnreadable as error:
        problems.append(str(error))
        return {}
    return {one.name: one for one in stored.entries} if stored else {}


def _notebooks(defs: Path) -> Iterator[NotebookSpec]:
    for path in sorted(defs.rglob("defs.yaml")):
        for document in documents(path):
            if document.component == NOTEBOOK_COMPONENT:
                yield document.validate(NotebookSpec)


def _with_terms(entries: Sequence[Entry], terms: Mapping[str, tuple[Path, Term]]) -> list[Entry]:
    """Let entries and columns say which terms are linked with them."""
    linked: dict[str, list[str]] = {}
    for name, (_, term) in terms.items():
        for link in term.links:
            linked.setdefault(link, []).append(name)
    if not linked:
        return list(entries)
    synonyms = {name: term.synonyms for name, (_, term) in terms.items()}
    return [_linked(entry, linked, synonyms) for entry in entries]


def _linked(entry: Entry, linked: Mapping[str, list[str]], synonyms: Mapping[str, Sequence[str]]) -> Entry:
    columns = tuple(
        replace(column, terms=tuple(linked.get(f"{entry.name}.{column.name}", ()))) for column in entry.columns
    )
    own = tuple(linked.get(entry.name, ()))
    named = dict.fromkeys((*own, *(name for column in columns for name in column.terms)))
    words = tuple(word for name in named for word in synonyms[name])
    return replace(entry, terms=own, columns=columns, words=words)


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Each name once, the first that has it."""
    return list({one.name: one for one in reversed(entries)}.values())
