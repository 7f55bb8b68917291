"""A view computed on its sources as they were at earlier instants: its rows up to then must be the same."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.testing.arrival import Arrives, default_arrival
from ml_platform.testing.home import SampleHome

INSTANTS = 4  # at which the sources are cut off
_RELATIVE, _ABSOLUTE = 1e-7, 1e-9  # sums of floats depend on their order, which later rows may change
_EXAMPLES = 3
_LATER = "__later"


def compare_earlier_states(view: FeatureView, home: SampleHome) -> int | None:
    """Compare a view with itself, computed from its sources as they were at some instants in the sample.

    Parameters
    ----------
    view
        The view, already computed in the home.
    home
        The sample; it also says when the rows of the sources become known.

    Returns
    -------
    int | None
        Rows of the view that were compared, over all instants; None if none of its sources has a time, so that all of
        them are known from the beginning.

    Raises
    ------
    AssertionError
        If rows up to an instant differ from what they were then, with examples.
    """
    arrivals = {table: arrival(view, table, home) for table in view.source_tables}
    dated = {table: arrives for table, arrives in arrivals.items() if arrives is not None}
    if not dated:
        return None
    whole = home.rows(view.table).select(*view.keys, *view.columns).collect()
    compared, instants = 0, _instants(dated, home)
    for number, instant in enumerate(instants):
        earlier = Lake(str(home.settings.home / "earlier" / view.name / str(number)))
        for table in view.source_tables:
            rows = home.rows(table)
            earlier.replace(table, (dated[table].known(rows, instant) if table in dated else rows).collect())
        compared += _compare(view, instant, whole, _computed(view, earlier, f"as they were at {instant}"), dated)
        if view.incremental is not None and number == len(instants) - 1:
            _compare_by_days(view, earlier, home, whole)
    return compared


def _computed(view: FeatureView, lake: Lake, when: str) -> pl.DataFrame:
    """Compute a view in a lake of its own (raises AssertionError)."""
    try:
        compute_view(lake, view)
    except Exception as error:
        raise AssertionError(
            f"view '{view.name}': wanted it to be computed from its sources {when}, found {type(error).__name__}: "
            f"{error}"
        ) from error
    return lake.read(view.table).select(*view.keys, *view.columns).collect()


def _compare_by_days(view: FeatureView, earlier: Lake, home: SampleHome, whole: pl.DataFrame) -> None:
    """Compare an incremental view with itself, computed anew only for the days that later rows can affect."""
    for table in view.source_tables:
        earlier.replace(table, home.rows(table).collect())
    if differences := _differences(view, whole, _computed(view, earlier, "when the later rows were added")):
        raise AssertionError(
            f"view '{view.name}': wanted the days that later rows affect, computed by its `incremental`, to make it "
            f"what it is as a whole; found that {differences}.\nIts declaration is wrong: look_back must reach as far "
            "back as a row of the view needs rows of its sources, and times must name when those are"
        )


def arrival(view: FeatureView, table: str, home: SampleHome) -> Arrives | None:
    """Say when the rows of a view's source become known; None: from the beginning (raises AssertionError)."""
    if table in home.arrives:
        return home.arrives[table]
    source = next((other for other in home.views.values() if other.table == table), None)
    if source is not None:
        return Arrives(source.created or source.event_time)
    if view.incremental is not None and table in view.incremental.times:
        return Arrives(view.incremental.times[table])
    return default_arrival(table, home.rows(table).collect_schema())


def _instants(dated: Mapping[str, Arrives], home: SampleHome) -> list[datetime]:
    """Choose instants at which something became known, so that a view that goes on to the newest event reaches them."""
    moments = pl.concat(arrives.instants(home.rows(table)) for table, arrives in dated.items()).unique().sort()
    places = [len(moments) * (number + 1) // (INSTANTS + 1) for number in range(INSTANTS)]
    return [moments[place] for place in sorted(set(places)) if place < len(moments) - 1]


def _compare(
    view: FeatureView, instant: datetime, whole: pl.DataFrame, earlier: pl.DataFrame, dated: Mapping[str, Arrives]
) -> int:
    """Compare the rows up to an instant; return how many there are (raises AssertionError)."""
    known_at = pl.max_horizontal(view.event_time, view.created) if view.created else pl.col(view.event_time)
    now, then = whole.filter(known_at <= instant), earlier.filter(known_at <= instant)
    if not (differences := _differences(view, now, then)):
        return now.height
    cut = ", ".join(f"{table} ({_when(arrives)})" for table, arrives in dated.items())
    raise AssertionError(
        f"view '{view.name}': wanted its rows up to {instant} to be the same whether or not later rows are in its "
        f"sources, cut off by: {cut}. Found that {differences}.\nIt looks ahead: let a row depend only on rows known "
        f"by its {view.event_time} (end windows at CURRENT ROW; count an event from when it was known). If the rows of "
        "a source become known at another time, say so: sample_home(…, arrives={…})"
    )


def _differences(view: FeatureView, now: pl.DataFrame, then: pl.DataFrame) -> str:
    """Say in words how the rows of a view differ from those of another state of it; nothing if they are the same."""
    keys = list(view.keys)
    both = now.join(then.rename({name: name + _LATER for name in view.columns}), on=keys, how="inner")
    changed = both.filter(pl.any_horizontal(_differs(both.schema, name) for name in view.columns))
    differences = (
        [f"{changed.height:,} of {now.height:,} have other values{_changes(view, changed)}"] if changed.height else []
    )
    for frame, what in (
        (now.join(then, on=keys, how="anti"), "exist only because of later rows"),
        (then.join(now, on=keys, how="anti"), "vanish because of later rows"),
    ):
        differences += [f"{frame.height:,} {what}{_keys(view, frame)}"] if frame.height else []
    return "; ".join(differences)


def _differs(schema: pl.Schema, name: str) -> pl.Expr:
    one, other = pl.col(name), pl.col(name + _LATER)
    if not schema[name].is_float():
        return one.ne_missing(other)
    is_close = (one - other).abs() <= _ABSOLUTE + _RELATIVE * pl.max_horizontal(one.abs(), other.abs())
    return one.ne_missing(other) & ~is_close.fill_null(value=False)


def _changes(view: FeatureView, changed: pl.DataFrame) -> str:
    """Examples of values that differ: as they are, and as they were."""
    lines = []
    for row in changed.head(_EXAMPLES).iter_rows(named=True):
        values = [
            f"{name} {row[name + _LATER]} → {row[name]}" for name in view.columns if row[name] != row[name + _LATER]
        ]
        lines.append(f"\n  {_words(view, row)}: as it was then → as it is: {', '.join(values)}")
    return "".join(lines)


def _keys(view: FeatureView, frame: pl.DataFrame) -> str:
    return "".join(f"\n  {_words(view, row)}" for row in frame.head(_EXAMPLES).iter_rows(named=True))


def _words(view: FeatureView, row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {row[name]}" for name in view.keys)


def _when(arrives: Arrives) -> str:
    return ", ".join(filter(None, [arrives.at, *arrives.filled]))
