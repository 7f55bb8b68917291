"""Why a looked-up value is not what the lake says by now: the row of the view that serving must have seen tells."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import polars as pl

from ml_platform.features.online.pushed_rows import PUSHED_AT, pushed_table
from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import ResolvedLookup, feature_column
from ml_platform.features.views.recorded_definitions import computed_hash
from ml_platform.features.views.view import FeatureView
from ml_platform.instants import bounded
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.monitoring import Skew

Cause = Literal["behind", "ahead", "missing", "revised", "different"]
ROW = "__logged"  # number of a logged row

_KEY, _OFFLINE, _WRITTEN, _AT, _EVENT = "__key__", "__offline__", "__written", "__at", "__event"
_NEWEST, _LAGGED = "__newest", "__lagged"  # event times of the newest row by the request's instant, and by `lag` before
_MICROSECOND = timedelta(microseconds=1)


def is_unlike(online: pl.Expr, offline: pl.Expr, dtype: pl.DataType, tolerance: float) -> pl.Expr:
    """Tell where a logged value of a type is not the one that the lake gives."""
    if dtype == pl.String:
        return online.ne_missing(offline.cast(pl.String))
    # The log is JSON, which writes what is no finite number as null.
    a, b = (pl.when(value.is_finite()).then(value) for value in (online.cast(pl.Float64), offline.cast(pl.Float64)))
    apart = (a - b).abs() > tolerance * pl.max_horizontal(pl.lit(1.0), b.abs())
    return (a.is_null() != b.is_null()) | (apart & (a != b)).fill_null(value=False)


def find_causes(  # noqa: PLR0917 - both sides of a comparison read best in order
    lake: Lake,
    view: FeatureView,
    lookup: ResolvedLookup,
    online: pl.DataFrame,
    offline: pl.DataFrame,
    differing: Mapping[str, pl.Series],
    limits: Skew,
) -> pl.DataFrame:
    """Give each row in which a look-up differs its cause, and say whether that is accepted (see `skew.find_skew`).

    Parameters
    ----------
    lake
        Where the view's tables are.
    view, lookup
        The view, and its present rows.
    online
        Logged rows: their number, `as_of`, `scored_at` and the features.
    offline
        The same rows as the lake says: their number, the look-up's keys and the features.
    differing
        Feature of the look-up → numbers of the rows in which it differs.
    limits
        Tolerance and lag.

    Returns
    -------
    polars.DataFrame
        Number of the row, `cause`, `accepted`.
    """
    columns, keys = list(differing), list(lookup.on.values())
    rows = pl.concat(differing.values()).unique()
    requests = (
        online.filter(pl.col(ROW).is_in(rows.implode()))
        .select(ROW, "as_of", "scored_at", *columns, past=pl.col("scored_at") - pl.col("as_of") > bounded(limits.lag))
        .join(offline.select(ROW, *(pl.col(key).alias(_KEY + key) for key in keys)), on=ROW)
    )
    own = replace(lookup, on={column: _KEY + key for column, key in lookup.on.items()})
    requests = requests.with_columns(
        _newest_event(requests, own, pl.col("as_of")).alias(_NEWEST),
        # A row of just `lag` ago may be lacked.
        _newest_event(requests, own, pl.col("as_of") - bounded(limits.lag) - _MICROSECOND).alias(_LAGGED),
    )
    causes = _by_present_rows(requests, own, columns, limits)
    different = requests.join(causes.filter(cause="different"), on=ROW, how="semi")
    revised = pl.col(ROW).is_in(_revised(lake, view, own, different, columns, limits).implode())
    return causes.with_columns(
        pl.when(revised).then(pl.lit("revised")).otherwise("cause").alias("cause"), pl.col("accepted") | revised
    )


def _newest_event(requests: pl.DataFrame, lookup: ResolvedLookup, at: pl.Expr) -> pl.Series:
    """Event time of the newest row of the view at an instant of each row asked about, however old."""
    spine = requests.lazy().select(*lookup.on.values(), at.alias(_AT))
    whole = replace(lookup, features=(lookup.event_time,), ttl=None)
    return point_in_time_join(spine, [whole], timestamp=_AT).collect().to_series(-1)


def _by_present_rows(
    requests: pl.DataFrame, lookup: ResolvedLookup, columns: Sequence[str], limits: Skew
) -> pl.DataFrame:
    """Tell the causes by the rows that the view has by now."""
    keys = list(lookup.on.values())
    known = lookup.frame.select(
        *(pl.col(column).alias(key) for column, key in lookup.on.items()),
        pl.col(lookup.event_time).alias(_EVENT),
        *(
            pl.col(name).alias(_OFFLINE + feature_column(lookup.view, name))
            for name in lookup.features
            if feature_column(lookup.view, name) in columns
        ),
    )
    seen = (
        requests.lazy()
        .join(known, on=keys)
        .filter(_same(columns, requests.schema, limits.tolerance))
        .select(ROW, _EVENT, distance=(pl.col(_EVENT) - pl.col("as_of")).abs())
        .collect(engine="streaming")
        .sort("distance")
        .unique(ROW, keep="first", maintain_order=True)
    )
    event, lagged = pl.col(_EVENT), pl.col(_LAGGED)
    nothing = pl.all_horizontal(pl.col(columns).is_null())
    nothing_yet = nothing & lagged.is_null()
    if lookup.ttl is not None and lookup.ttl > limits.lag:  # else everything of `lag` ago is expired
        nothing_yet |= nothing & (lagged < pl.col("as_of") - bounded(lookup.ttl))
    return (
        requests.join(seen, on=ROW, how="left")
        .with_columns(
            cause=pl.when((event > pl.col("as_of")) & ~nothing)
            .then(pl.lit("ahead"))
            .when((event < pl.col(_NEWEST)) | nothing_yet)
            .then(pl.lit("behind"))
            .when(nothing)
            .then(pl.lit("missing"))
            .otherwise(pl.lit("different"))
        )
        .select(
            ROW,
            "cause",
            accepted=pl.when(cause="ahead")
            .then(pl.col("past"))
            .when(cause="behind")
            .then(nothing_yet | lagged.is_null() | (lagged <= event))
            .otherwise(pl.lit(value=False)),
        )
    )


def _revised(  # noqa: PLR0917 - as above
    lake: Lake, view: FeatureView, lookup: ResolvedLookup, requests: pl.DataFrame, columns: Sequence[str], limits: Skew
) -> pl.Series:
    """Numbers of the rows that got what the view said when they were answered, or up to `lag` before.

    A row counts only if it is also the newest by now but for `lag`: else the store was behind.
    """
    explained = requests.get_column(ROW).clear()
    if requests.is_empty():
        return explained
    history = lake.history(view.table).sort("version")
    until = history.get_column("timestamp").shift(-1)
    for version, start, end in zip(history.get_column("version"), history.get_column("timestamp"), until, strict=True):
        then = pl.col("scored_at") >= start
        if end is not None:
            then &= pl.col("scored_at") - bounded(limits.lag) < end
        rows = requests.filter(then, ~pl.col(ROW).is_in(explained.implode()))
        if rows.is_empty() or computed_hash(lake, view.name, version) not in {None, view.hash}:
            continue
        try:
            frame = _rows_of(lake, view, version)
        except LookupError:
            continue  # its files are cleaned up: nobody can say what the view said then
        for past in (False, True):  # what was pushed after the answer was not known to it
            old = replace(lookup, frame=frame, created=_WRITTEN, knowledge_time=not past)
            explained = pl.concat([explained, _explained(rows.filter(past=past), old, columns, limits.tolerance)])
    return explained


def _rows_of(lake: Lake, view: FeatureView, version: int) -> pl.LazyFrame:
    """Rows of a version of the view's table and all that were ever pushed, with the instant of their writing."""
    names = [*view.entity, view.event_time, *view.columns]
    written = pl.col(view.created or view.event_time).alias(_WRITTEN)
    computed = lake.read(view.table, version=version).select(*names, written)
    if not lake.exists(pushed_table(view)):
        return computed
    pushed = lake.read(pushed_table(view)).sort(PUSHED_AT).select(*names, pl.col(PUSHED_AT).alias(_WRITTEN))
    return pl.concat([computed, pushed.cast(computed.collect_schema())])


def _explained(rows: pl.DataFrame, lookup: ResolvedLookup, columns: Sequence[str], tolerance: float) -> pl.Series:
    """Numbers of the rows that got what these rows of the view say."""
    spine = rows.lazy().select(*lookup.on.values(), "as_of")
    event = feature_column(lookup.view, lookup.event_time)
    whole = replace(lookup, features=(*lookup.features, lookup.event_time))
    joined = point_in_time_join(spine, [whole], timestamp="as_of").collect()
    values = joined.select(pl.col(event).alias(_EVENT), *(pl.col(name).alias(_OFFLINE + name) for name in columns))
    in_time = pl.col(_LAGGED).is_null() | (pl.col(_EVENT) >= pl.col(_LAGGED))
    equal = pl.concat([rows, values], how="horizontal").filter(in_time, _same(columns, rows.schema, tolerance))
    return equal.get_column(ROW)


def _same(columns: Sequence[str], schema: pl.Schema, tolerance: float) -> pl.Expr:
    return pl.all_horizontal(
        ~is_unlike(pl.col(name), pl.col(_OFFLINE + name), schema[name], tolerance) for name in columns
    )
