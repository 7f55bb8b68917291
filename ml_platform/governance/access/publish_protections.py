"""Publishes what the project's definitions protect, for serving, which has none of them."""

from typing import TYPE_CHECKING

from ml_platform.governance.access.definitions import load_definitions
from ml_platform.governance.access.published import (
    Protections,
    PublishedTable,
    flows_into_views,
    lower_keys,
    write_protections,
)
from ml_platform.governance.access.speaker import policy_store, project_graph
from ml_platform.settings import Settings
from ml_platform.spec.protection import Protection

if TYPE_CHECKING:
    from ml_platform.governance.access.definitions import Definitions
    from ml_platform.lineage.graph import ColumnGraph


def publish_protections(settings: Settings) -> None:
    """Publish what the current project protects in its views; outside a project what was published stays.

    Raises
    ------
    ValueError, SpecError
        When a definition is wrong.
    """
    definitions = load_definitions()
    if definitions.columns:
        write_protections(settings.access_dir, protections_of(definitions, project_graph()))


def publish_if_governed(settings: Settings) -> None:
    """Do so while an access policy is in force; the first grant does it by itself (raises what that does)."""
    if policy_store(settings).in_use():
        publish_protections(settings)


def protections_of(definitions: "Definitions", graph: "ColumnGraph") -> Protections:
    """What serving has to know of definitions: of all views, and the tags of other tables.

    Examples
    --------
    >>> from ml_platform.governance.access.definitions import Definitions
    >>> from ml_platform.lineage.graph import ColumnGraph
    >>> protection = Protection.model_validate({"masks": {"Mail": {"sql": "NULL", "exempt": ["group:support"]}}})
    >>> definitions = Definitions(
    ...     protections={"features/people": protection}, columns={"features/people": ("id", "Mail")},
    ...     event_times={"features/people": "known_at"},
    ... )
    >>> [view] = protections_of(definitions, ColumnGraph()).tables.values()
    >>> view.columns, view.masks
    (('id', 'known_at', 'mail'), {'mail': ('group:support',)})
    """
    tables: dict[str, PublishedTable] = {}
    for name in sorted({*definitions.event_times, *definitions.protections}):
        protection, event_time = definitions.protections.get(name, Protection()), definitions.event_times.get(name)
        tags = lower_keys(protection.tags)
        if event_time is None:
            if tags:
                tables[name.lower()] = PublishedTable(tags=tags)
            continue
        columns = {column.lower() for column in (*definitions.columns[name], event_time)}
        tables[name.lower()] = PublishedTable(
            columns=tuple(sorted(columns)),
            event_time=event_time.lower(),
            row_filter=None if protection.row_filter is None else protection.row_filter.exempt,
            masks=lower_keys({column: rule.exempt for column, rule in protection.masks.items()}),
            tags=tags,
        )
    return Protections(tables, flows_into_views(graph))
