"""Skew: what serving computed for a request against what the lake says of that instant, feature by feature."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from ml_platform.features.join import ResolvedLookup, feature_column, point_in_time_join, resolve_lookup
from ml_platform.features.pushed import read_view
from ml_platform.features.request import add_request_features, load_request_features
from ml_platform.features.view_rows import DTYPES
from ml_platform.features.views import FeatureView
from ml_platform.inference.contract import defaults_of
from ml_platform.inference.ingest_log import FIXED_COLUMNS
from ml_platform.inference.log_policy import not_reproducible
from ml_platform.lake.tables import Lake
from ml_platform.monitoring.scored_rows import equally_weighted
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec import InputField, ModelSpec, Skew, Strict

Cause = Literal["behind", "ahead", "missing", "different"]
_EXAMPLES = 20
_SEED = 11
_ROW, _AS_OF, _KEY, _OFFLINE = "__logged", "__as_of", "__key__", "__offline__"


class FeatureSkew(Strict):
    """How often one feature was not what the lake says."""

    feature: str
    rows: int
    mismatches: int = Field(description="Rows that differ for no accepted reason.")
    accepted: int = Field(description="Rows that differ because the store was behind, or asked about the past.")

    @property
    def share(self) -> float:
        """Share of the compared rows that mismatch."""
        return self.mismatches / self.rows if self.rows else 0.0


class SkewExample(Strict):
    """One value that differed."""

    request_id: str
    row: int
    as_of: datetime
    feature: str
    online: float | str | None
    offline: float | str | None
    cause: Cause


class SkewReport(Strict):
    """What comparing a sample of logged requests came to."""

    model: str
    verdict: Literal["no skew", "skew", "not judged"]
    reasons: tuple[str, ...]
    rows: int = Field(description="Logged rows compared.")
    not_comparable: int = Field(description="Sampled rows whose model stood on other definitions of its views.")
    features: tuple[FeatureSkew, ...] = ()
    examples: tuple[SkewExample, ...] = ()


def find_skew(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    store: ReleaseStore,
    *,
    until: datetime | None = None,
) -> SkewReport:
    """Compute the features of a sample of logged requests once more, offline as of each one's instant, and compare.

    A value that differs is given a cause by the row of the view that serving must have seen: `behind`, the store lacked
    rows that were known by then; `ahead`, it held one from after that instant; `missing`, it had none; `different`, no
    row of the view has these values. Accepted are rows behind by no more than `skew.lag`, and rows ahead in a request
    about the past (its instant more than `skew.lag` before its answer), for which the store rightly knew more.

    Parameters
    ----------
    lake
        Where the log, the views' tables and the raw tables are.
    spec, folder, views
        The model, its files, and the feature views by name.
    store
        Holds the bundles that answered.
    until
        Newest answer to compare (UTC); the newest of the log when absent.

    Returns
    -------
    SkewReport
        `skew` when a feature mismatches in more than `skew.max_share` of the rows.
    """
    table = f"inference_log/{spec.name}"
    if not lake.exists(table):
        return _not_judged(spec, "no request has been logged yet", 0)
    log = lake.read(table)
    newest = until or log.select(pl.col("scored_at").max()).collect().item()
    if newest is None:
        return _not_judged(spec, "no request has been logged yet", 0)
    recent = log.filter(pl.col("scored_at").is_between(newest - spec.skew.window, newest)).collect()
    if "sample_weight" in recent.columns:
        recent = equally_weighted(recent.with_columns(pl.col("sample_weight").fill_null(1.0)), "request_id")
    sampled = recent.sample(min(spec.skew.sample_rows, recent.height), seed=_SEED)
    manifests = _comparable_manifests(
        sampled.get_column("digest").unique().to_list(), store, views, defaults_of(spec.inputs)
    )
    logged = sampled.filter(pl.col("digest").is_in(list(manifests))).with_row_index(_ROW)
    not_comparable = sampled.height - logged.height
    if logged.is_empty():
        return _not_judged(spec, "no logged row is of a model on the present views and defaults", not_comparable)
    hidden = frozenset[str]().union(*map(not_reproducible, manifests.values()))
    offline, lookups = _offline(lake, spec, folder, views, logged, hidden=hidden)
    kinds = {feature.name: feature.kind for manifest in manifests.values() for feature in manifest.features}
    kinds = {name: kind for name, kind in kinds.items() if name not in hidden}
    online = logged.select(
        _ROW,
        "request_id",
        "row",
        "as_of",
        (pl.col("scored_at") - pl.col("as_of") > spec.skew.lag).alias("past"),
        *(pl.col(_logged_column(name)).alias(name) for name in kinds),
    )
    found, examples = _compare(online, offline, list(kinds), lookups, spec.skew)
    return _judged(spec, online.height, not_comparable, found, examples)


def _compare(
    online: pl.DataFrame, offline: pl.DataFrame, features: list[str], lookups: list[ResolvedLookup], limits: Skew
) -> tuple[list[FeatureSkew], list[SkewExample]]:
    differing = {name: _differs(online, offline, name, limits.tolerance) for name in features}
    origin = {name: lookup for lookup in lookups for name in _columns(lookup) if name in differing}
    causes = {
        lookup.view: _causes(online, offline, lookup, differing, limits)
        for lookup in lookups
        if lookup in origin.values()
    }
    found, examples = [], []
    for name in features:
        unlike = online.filter(pl.col(_ROW).is_in(differing[name].implode())).select(
            _ROW, "request_id", "row", "as_of", online=name
        )
        if name in origin:
            unlike = unlike.join(causes[origin[name].view], on=_ROW, how="left")
        else:
            unlike = unlike.with_columns(cause=pl.lit("different"), accepted=pl.lit(value=False))
        bad = unlike.filter(~pl.col("accepted"))
        found.append(
            FeatureSkew(feature=name, rows=online.height, mismatches=bad.height, accepted=unlike.height - bad.height)
        )
        shown = bad.head(3).join(offline.select(_ROW, offline=name), on=_ROW)
        examples += [
            SkewExample.model_validate({"feature": name, **row})
            for row in shown.select("request_id", "row", "as_of", "online", "offline", "cause").to_dicts()
        ]
    return found, examples


def _judged(
    spec: ModelSpec, rows: int, not_comparable: int, found: list[FeatureSkew], examples: list[SkewExample]
) -> SkewReport:
    found.sort(key=lambda item: (-item.mismatches, -item.accepted, item.feature))
    skewed = [item for item in found if item.share > spec.skew.max_share]
    reasons = [f"'{item.feature}' differs in {item.mismatches} of {rows} rows" for item in skewed] or [
        f"{len(found)} features of {rows} rows are what the lake says of their instants"
    ]
    names = {item.feature: place for place, item in enumerate(found)}
    examples.sort(key=lambda example: names[example.feature])
    return SkewReport(
        model=spec.name,
        verdict="skew" if skewed else "no skew",
        reasons=tuple(reasons),
        rows=rows,
        not_comparable=not_comparable,
        features=tuple(found),
        examples=tuple(examples[:_EXAMPLES]),
    )


def _not_judged(spec: ModelSpec, reason: str, not_comparable: int) -> SkewReport:
    return SkewReport(model=spec.name, verdict="not judged", reasons=(reason,), rows=0, not_comparable=not_comparable)


def _comparable_manifests(
    digests: list[str], store: ReleaseStore, views: Mapping[str, FeatureView], defaults: Mapping[str, Any]
) -> dict[str, Manifest]:
    """Manifests of the bundles whose look-ups are the present definitions of their views, and defaults the present."""
    found = {}
    for digest in digests:
        try:
            manifest = store.load_manifest(digest)
        except (LookupError, ValueError, BundleRefused):
            continue  # the bundle is no longer kept: nobody can say what its features meant
        same_views = all(item.view in views and views[item.view].hash == item.view_hash for item in manifest.lookups)
        if same_views and defaults_of(manifest.inputs) == defaults:
            found[digest] = manifest
    return found


def _logged_column(feature: str) -> str:
    return f"feature__{feature}" if feature in FIXED_COLUMNS else feature


def _columns(lookup: ResolvedLookup) -> list[str]:
    return [feature_column(lookup.view, name) for name in lookup.features]


def _offline(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    logged: pl.DataFrame,
    *,
    hidden: frozenset[str],
) -> tuple[pl.DataFrame, list[ResolvedLookup]]:
    """The features of the logged requests as a training set would have them; of hidden inputs nothing is known."""
    parsed = [json.loads(text) for text in logged.get_column("inputs")]
    columns = {
        field.name: [None if field.name in hidden else _value(_sent(row, field), field.type) for row in parsed]
        for field in spec.inputs
    }
    requests = pl.DataFrame(columns, schema={field.name: DTYPES[field.type] for field in spec.inputs})
    derived = load_request_features(folder / spec.request_features) if spec.request_features else {}
    asked = add_request_features(requests.lazy(), derived).with_columns(
        logged.get_column(_ROW), logged.get_column("as_of").alias(_AS_OF)
    )
    lookups = [resolve_lookup(item, views[item.view], read_view(lake, views[item.view])) for item in spec.lookups]
    return point_in_time_join(asked, lookups, timestamp=_AS_OF).collect(), lookups


def _sent(row: Mapping[str, Any], field: InputField) -> Any:
    value = row.get(field.name)
    return field.default if value is None else value


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "timestamp":
        return datetime.fromisoformat(value).astimezone(UTC)
    return float(value) if kind == "number" else value


def _differs(online: pl.DataFrame, offline: pl.DataFrame, name: str, tolerance: float) -> pl.Series:
    """Numbers of the rows in which a feature is not the same."""
    pair = online.select(_ROW, online=name).join(offline.select(_ROW, offline=name), on=_ROW)
    return pair.filter(_unlike(pl.col("online"), pl.col("offline"), pair.schema["online"], tolerance)).get_column(_ROW)


def _unlike(online: pl.Expr, offline: pl.Expr, dtype: pl.DataType, tolerance: float) -> pl.Expr:
    if dtype == pl.String:
        return online.ne_missing(offline.cast(pl.String))
    # The log is JSON, which writes what is no finite number as null.
    a, b = (pl.when(value.is_finite()).then(value) for value in (online.cast(pl.Float64), offline.cast(pl.Float64)))
    apart = (a - b).abs() > tolerance * pl.max_horizontal(pl.lit(1.0), b.abs())
    return (a.is_null() != b.is_null()) | (apart & (a != b)).fill_null(value=False)


def _causes(
    online: pl.DataFrame,
    offline: pl.DataFrame,
    lookup: ResolvedLookup,
    differing: Mapping[str, pl.Series],
    limits: Skew,
) -> pl.DataFrame:
    """Of each row in which the look-up differs: its number, `cause`, `accepted`."""
    columns = [name for name in _columns(lookup) if name in differing]
    rows = pl.concat([differing[name] for name in columns]).unique()
    keys = list(lookup.on.values())
    named = [_KEY + key for key in keys]
    asked = (
        online.filter(pl.col(_ROW).is_in(rows.implode()))
        .select(_ROW, "as_of", "past", *columns)
        .join(offline.select(_ROW, *(pl.col(key).alias(_KEY + key) for key in keys)), on=_ROW)
    )
    known = (
        lookup.frame.select(
            *(pl.col(column).alias(_KEY + key) for column, key in lookup.on.items()),
            pl.col(lookup.event_time).alias("event_time"),
            *(
                pl.col(name).alias(_OFFLINE + feature_column(lookup.view, name))
                for name in lookup.features
                if feature_column(lookup.view, name) in columns
            ),
        )
        .join(asked.lazy().select(named).unique(), on=named, how="semi")
        .sort("event_time")
        .with_columns(next_event=pl.col("event_time").shift(-1).over(named))
        .collect()
    )
    same = [~_unlike(pl.col(name), pl.col(_OFFLINE + name), asked.schema[name], limits.tolerance) for name in columns]
    seen = (
        asked.join(known, on=named)
        .filter(pl.all_horizontal(same))
        .with_columns(distance=(pl.col("event_time") - pl.col("as_of")).abs())
        .sort("distance")
        .unique(_ROW, keep="first", maintain_order=True)
        .select(_ROW, "event_time", "next_event")
    )
    behind_for = pl.col("as_of") - pl.col("next_event")
    return (
        asked.join(seen, on=_ROW, how="left")
        .with_columns(
            cause=pl.when(pl.all_horizontal(pl.col(columns).is_null()))
            .then(pl.lit("missing"))
            .when(pl.col("event_time") > pl.col("as_of"))
            .then(pl.lit("ahead"))
            .when(pl.col("next_event") <= pl.col("as_of"))
            .then(pl.lit("behind"))
            .otherwise(pl.lit("different"))
        )
        .with_columns(
            accepted=((pl.col("cause") == "ahead") & pl.col("past"))
            | ((pl.col("cause") == "behind") & (behind_for <= limits.lag))
        )
        .select(_ROW, "cause", pl.col("accepted").fill_null(value=False))
    )
