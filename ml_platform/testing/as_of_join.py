"""The engine's as-of join of a view, held against one that is written as plainly as the rule reads."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any

import numpy as np
import polars as pl

from ml_platform.features.online.pushed_rows import read_view
from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import feature_column, resolve_lookup
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import Lookup

AT = "__asked_at"
_PICKED_ROWS = 60
_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = (end.replace(tzinfo=UTC) for end in (datetime.min, datetime.max))

Row = Mapping[str, Any]


def compare_join(lake: Lake, view: FeatureView) -> int:
    """Compare what the engine joins to a spine with what `newest_known` finds, value by value.

    The spine asks for entities of the view at the instants where a join can go wrong: at the very instant of a row,
    just before it, in the middle and at the very end of its life, just after that; and for an entity that is null.

    Returns
    -------
    int
        Rows of the spine for which there was a row of the view.

    Raises
    ------
    AssertionError
        For the first row of the spine for which they differ.
    """
    rows = read_view(lake, view).collect()
    spine = _spine(rows, view)
    instants = rows.join(spine.select(view.entity).unique(), on=list(view.entity), how="semi").to_dicts()
    by_entity: dict[tuple[Any, ...], list[Row]] = {}
    for row in instants:
        by_entity.setdefault(tuple(row[name] for name in view.entity), []).append(row)
    matched = 0
    for knowledge_time in (False, True) if view.created else (False,):
        lookup = Lookup(view=view.name, knowledge_time=knowledge_time)
        resolved = resolve_lookup(lookup, view, read_view(lake, view))
        joined = point_in_time_join(spine.lazy(), [resolved], timestamp=AT).collect()
        for row in joined.iter_rows(named=True):
            known = by_entity.get(tuple(row[name] for name in view.entity), [])
            match = newest_known(known, row[AT], view, knowledge_time=knowledge_time)
            wanted = {name: None if match is None else match[name] for name in view.columns}
            values = {name: row[feature_column(view.name, name)] for name in view.columns}
            matched += match is not None
            if not all(_same(values[name], wanted[name]) for name in wanted):
                raise AssertionError(
                    f"view '{view.name}': the engine's as-of join differs from the brute-force one for "
                    f"{_words(row, view.entity)} at {row[AT]}: wanted {wanted}, found {values}. This is a defect of "
                    "the engine, please report it with the view's file"
                )
    return matched


def newest_known(rows: Sequence[Row], at: datetime, view: FeatureView, *, knowledge_time: bool = False) -> Row | None:
    """Find the row of one entity that may be used at an instant: the newest known by then, unless it is too old.

    Parameters
    ----------
    rows
        All rows of the entity.
    at
        Instant that features are asked for.
    view
        Names the times, and the TTL (inclusive).
    knowledge_time
        Whether a row counts only from when it was written, `view.created`.
    """
    best: Row | None = None
    for row in rows:
        if row[view.event_time] > at:
            continue
        if knowledge_time and view.created and (row[view.created] is None or row[view.created] > at):
            continue
        if best is None or _age(row, view) > _age(best, view):
            best = row
    if best is not None and view.ttl is not None and at - best[view.event_time] > view.ttl:
        return None
    return best


def _age(row: Row, view: FeatureView) -> tuple[datetime, ...]:
    return (row[view.event_time], row[view.created]) if view.created else (row[view.event_time],)


def _spine(rows: pl.DataFrame, view: FeatureView) -> pl.DataFrame:
    """Make the rows that are asked for (the same every time)."""
    picked = np.sort(np.random.default_rng(0).permutation(rows.height)[:_PICKED_ROWS])
    life = timedelta(days=1) if view.ttl is None else min(view.ttl, timedelta(days=36_500))
    instants: list[dict[str, Any]] = []
    for row in rows[picked].to_dicts():
        entity, at = {name: row[name] for name in view.entity}, row[view.event_time]
        shifts = (-_MICROSECOND, timedelta(0), life / 2, life, life + _MICROSECOND)
        instants += [{**entity, AT: at + shift} for shift in shifts if _FIRST - at < shift < _LAST - at]
        instants.append({**dict.fromkeys(entity), AT: at})
    times = {AT: pl.Datetime("us", "UTC")}
    return pl.DataFrame(instants, schema={**{name: rows.schema[name] for name in view.entity}, **times})


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and isnan(one):
        return isnan(other)
    return bool(one == other)


def _words(row: Row, entity: Sequence[str]) -> str:
    return ", ".join(f"{name} = {row[name]!r}" for name in entity)
