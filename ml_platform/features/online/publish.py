"""Publishes a view: its newest rows from the lake to the online store."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from ml_platform.features.views.view import FeatureView
    from ml_platform.lake.storage.tables import Lake
from ml_platform.features.online.store import OnlineStore, Overtaken

_TRIES = 5  # to publish a view, while others publish it


@dataclass(frozen=True)
class PublishReport:
    """The result of publishing a view."""

    rows: int  # entities whose newest row is in the store
    changed: int  # entities whose stored values changed or were deleted
    newest: datetime | None
    version: int  # of the view's table


def latest_rows(
    lake: "Lake",
    view: "FeatureView",
    *,
    versions: Mapping[str, int] | None = None,
    waiting: "pl.DataFrame | None" = None,
) -> "pl.DataFrame":
    """Read the newest row of each entity of a view; between equal event times the one created last.

    `versions` are those of its tables (`pushed.view_tables`), the newest when None; `waiting` as for
    `pushed.read_view`.
    """
    from ml_platform.features.online.pushed_rows import read_view

    order = [view.event_time, *([view.created] if view.created else [])]
    return (
        read_view(lake, view, versions, waiting=waiting)
        .sort(order)
        .unique(list(view.entity), keep="last", maintain_order=True)
        .select(*view.entity, view.event_time, *view.columns)
        .collect()
    )


def publish_view(
    lake: "Lake", view: "FeatureView", store: OnlineStore, *, push_log: "Path | None" = None
) -> PublishReport:
    """Make the online store hold the newest row of every entity of a view, pushed rows included, and no other row.

    What the view's tables do not have any more leaves the store: an entity, or a row newer than those that are left.

    Parameters
    ----------
    lake
        Where the view's tables are.
    view
        The view.
    store
        What serving reads.
    push_log
        The platform's `push_log_dir`, with the pushed rows that are not in the lake yet. Without it all pushed rows
        stay that were never seen in the lake.

    Raises
    ------
    ml_platform.lake.errors.TableNotFound
        If the view has not been computed yet.
    ml_platform.features.views.recorded_definitions.ViewChanged
        If another definition computed its table.
    Overtaken
        If other publishers of the view were faster again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return _publish_once(lake, view, store, push_log)
        except Overtaken:
            continue
    return _publish_once(lake, view, store, push_log)


def _publish_once(lake: "Lake", view: "FeatureView", store: OnlineStore, push_log: "Path | None") -> PublishReport:
    from ml_platform.features.online.pushed_rows import view_schema, view_tables, waiting_rows
    from ml_platform.features.views.recorded_definitions import require_definition

    # In this order: a push is logged, then stored and counted, then ingested. So what was pushed by the mark is waiting
    # in the log or in these versions of the tables, and if it is in neither, then it was withdrawn.
    mark = store.mark(view.name)
    waiting = waiting_rows(push_log, view) if push_log is not None else None
    versions = lake.versions(view_tables(lake, view))
    require_definition(lake, view, versions[view.table])
    frame = latest_rows(lake, view, versions=versions, waiting=waiting)
    changed = store.write(
        view.name,
        view.entity,
        frame,
        view.event_time,
        view_hash=view.hash,
        schema=view_schema(view, frame.schema),
        whole_since=mark if push_log is not None else mark._replace(pushes=0),
    )
    newest: datetime | None = frame.get_column(view.event_time).max()  # type: ignore[assignment]  # by its dtype
    return PublishReport(rows=frame.height, changed=changed, newest=newest, version=versions[view.table])
