"""Skew: what serving computed for a request against what the lake says of that instant, feature by feature."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import polars as pl
from pydantic import Field

from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import ResolvedLookup, feature_column
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions, require_views
from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.ingest_log import FIXED_COLUMNS
from ml_platform.inference.log_policy import not_reproducible
from ml_platform.inference.recorded_columns import of_features
from ml_platform.instants import earlier
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.drift.two_sample import share_lower_bound
from ml_platform.monitoring.logged_inputs import logged_inputs
from ml_platform.monitoring.scored_rows import equally_weighted
from ml_platform.monitoring.skew.causes import ROW, Cause, find_causes, is_unlike
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict

CONFIDENCE = 0.99  # of the lower bound of a feature's share of mismatches, over all features
_EXAMPLES = 20
_SEED = 11
_AS_OF = "__as_of"


Verdict = Literal["no skew", "skew", "not judged"]


class FeatureSkew(Strict):
    """How often one feature differed from the lake."""

    feature: str = Field(description="Name of the feature, a column of the matrix.")
    rows: int = Field(description="Rows that were compared.")
    mismatches: int = Field(description="Rows that differ for no accepted reason.")
    accepted: int = Field(description="Rows that differ for an accepted reason (see `find_skew`).")

    @property
    def share(self) -> float:
        """Share of the compared rows that mismatch."""
        return self.mismatches / self.rows if self.rows else 0.0


class SkewExample(Strict):
    """One value that differed."""

    request_id: str = Field(description="Id of the request.")
    row: int = Field(description="Position of the row in the request, from 0.")
    as_of: datetime = Field(description="Instant of the prediction (UTC).")
    feature: str = Field(description="Name of the feature.")
    online: float | str | None = Field(description="Value that serving used; null for none.")
    offline: float | str | None = Field(description="Value in the lake as of that instant; null for none.")
    cause: Cause = Field(description="Why they differ.")


class SkewReport(Strict):
    """The result of comparing a sample of logged requests."""

    model: str = Field(description="Name of the model, as in its defs.yaml.")
    verdict: Verdict = Field(description="Whether a feature is skewed, none is, or too few rows could be compared.")
    reasons: tuple[str, ...] = Field(description="Why, one sentence each.")
    rows: int = Field(description="Logged rows compared.")
    not_comparable: int = Field(description="Sampled rows whose model stood on other definitions of its views.")
    features: tuple[FeatureSkew, ...] = Field((), description="Every compared feature, the most skewed first.")
    examples: tuple[SkewExample, ...] = Field((), description="Some values that differed.")


def find_skew(lake: Lake, spec: ModelSpec, views: Mapping[str, FeatureView], store: ReleaseStore) -> SkewReport:
    """Compute the features of a sample of logged requests once more, offline as of each one's instant, and compare.

    Each row is compared by the definitions of the version that answered it, which its manifest keeps.

    A value that differs is given a cause by the row of the view that serving must have seen: `behind`, the store lacked
    rows that were known by then; `ahead`, it held one from after that instant; `missing`, it had none; `revised`, the
    row had these values when the request was answered, and late or corrected sources changed them since; `different`,
    no row of the view has or had these values. Accepted are rows behind by no more than `skew.lag`, rows ahead in a
    request about the past (its instant more than `skew.lag` before its answer), for which the store rightly knew more,
    and rows revised.

    Parameters
    ----------
    lake
        Where the log, the views' tables and the raw tables are.
    spec, views
        The model, and the feature views by name.
    store
        Holds the bundles that answered.

    Returns
    -------
    SkewReport
        `skew` when a feature mismatches in more than `skew.max_share` of the rows, by more than the chance of drawing
        these: the lower bound of its share is above it. `not judged` below `skew.min_rows` rows.
    """
    table = f"inference_log/{spec.name}"
    if not lake.exists(table):
        return _not_judged(spec, "no request has been logged yet", 0)
    log = lake.read(table)
    newest = log.select(pl.col("scored_at").max()).collect().item()
    if newest is None:
        return _not_judged(spec, "no request has been logged yet", 0)
    recent = log.filter(pl.col("scored_at").is_between(earlier(newest, spec.skew.window), newest)).collect()
    if "sample_weight" in recent.columns:
        recent = equally_weighted(recent.with_columns(pl.col("sample_weight").fill_null(1.0)), "request_id")
    sampled = recent.sample(min(spec.skew.sample_rows, recent.height), seed=_SEED)
    manifests = _comparable_manifests(sampled.get_column("digest").unique().sort().to_list(), store, views)
    logged = sampled.filter(pl.col("digest").is_in(list(manifests))).with_row_index(ROW)
    not_comparable = sampled.height - logged.height
    if logged.is_empty():
        return _not_judged(spec, "no logged row is of a model on the present views", not_comparable)
    features: list[FeatureSkew] = []
    examples: list[SkewExample] = []
    for digest, manifest in manifests.items():
        own = logged.filter(pl.col("digest") == digest)
        try:
            of_version, shown = _skew_of(lake, spec, views, manifest, own)
        except ViewChanged as error:
            return _not_judged(spec, str(error), not_comparable)
        features, examples = [*features, *of_version], [*examples, *shown]
    return _judged(spec, logged.height, not_comparable, _summed(features), examples)


def _skew_of(
    lake: Lake, spec: ModelSpec, views: Mapping[str, FeatureView], manifest: Manifest, logged: pl.DataFrame
) -> tuple[list[FeatureSkew], list[SkewExample]]:
    """Compare the rows that one version answered, by the definitions that it has itself."""
    hidden = not_reproducible(manifest)
    definitions = FeatureDefinitions.of_version(manifest, spec, views)
    lookups = definitions.resolve(lake, views)
    offline = _offline(definitions, lookups, logged, hidden=hidden)
    names = [feature.name for feature in manifest.features if feature.name not in hidden]
    online = of_features(logged, manifest.features, column=_logged_column).select(
        ROW,
        "request_id",
        "row",
        "as_of",
        "scored_at",
        *(pl.col(_logged_column(name)).alias(name) for name in names),
    )
    of_views = {lookup.view: views[item.view] for lookup, item in zip(lookups, definitions.lookups, strict=True)}
    differing = {name: _differs(online, offline, name, spec.skew.tolerance) for name in names}
    causes: dict[str, pl.DataFrame] = {}
    for lookup in lookups:
        unlike = {name: differing[name] for name in _columns(lookup) if name in differing}
        if any(map(len, unlike.values())):
            why = find_causes(lake, of_views[lookup.view], lookup, online, offline, unlike, spec.skew)
            causes |= dict.fromkeys(unlike, why)
    return _compare(online, offline, differing, causes)


def _summed(features: list[FeatureSkew]) -> list[FeatureSkew]:
    """Add up what several versions have of a feature."""
    by_name: dict[str, FeatureSkew] = {}
    for item in features:
        so_far = by_name.get(item.feature, FeatureSkew(feature=item.feature, rows=0, mismatches=0, accepted=0))
        by_name[item.feature] = FeatureSkew(
            feature=item.feature,
            rows=so_far.rows + item.rows,
            mismatches=so_far.mismatches + item.mismatches,
            accepted=so_far.accepted + item.accepted,
        )
    return list(by_name.values())


def _compare(
    online: pl.DataFrame, offline: pl.DataFrame, differing: Mapping[str, pl.Series], causes: Mapping[str, pl.DataFrame]
) -> tuple[list[FeatureSkew], list[SkewExample]]:
    """Count and show the rows in which features differ; `causes` are those of looked-up features."""
    features, examples = [], []
    for name, rows in differing.items():
        apart = online.filter(pl.col(ROW).is_in(rows.implode())).select(ROW, "request_id", "row", "as_of", online=name)
        if name in causes:
            apart = apart.join(causes[name], on=ROW, how="left")
        else:
            apart = apart.with_columns(cause=pl.lit("different"), accepted=pl.lit(value=False))
        bad = apart.filter(~pl.col("accepted"))
        features.append(
            FeatureSkew(feature=name, rows=online.height, mismatches=bad.height, accepted=apart.height - bad.height)
        )
        shown = bad.head(3).join(offline.select(ROW, offline=name), on=ROW)
        examples += [
            SkewExample.model_validate({"feature": name, **row})
            for row in shown.select("request_id", "row", "as_of", "online", "offline", "cause").to_dicts()
        ]
    return features, examples


def _judged(
    spec: ModelSpec, rows: int, not_comparable: int, features: list[FeatureSkew], examples: list[SkewExample]
) -> SkewReport:
    features.sort(key=lambda item: (-item.mismatches, -item.accepted, item.feature))
    confidence = 1 - (1 - CONFIDENCE) / max(len(features), 1)
    skewed = [
        item
        for item in features
        if share_lower_bound(item.mismatches, item.rows, confidence=confidence) > spec.skew.max_share
    ]
    verdict: Verdict = "skew" if skewed else "no skew"
    reasons = [f"'{item.feature}' differs in {item.mismatches} of {rows} rows" for item in skewed]
    if few := [item for item in features if item.mismatches and item not in skewed]:
        listed = ", ".join(f"'{item.feature}' in {item.mismatches}" for item in few)
        reasons.append(f"differ in too few of {rows} rows to be more than {spec.skew.max_share:.1%}: {listed}")
    if rows < spec.skew.min_rows:
        verdict = "not judged"
        reasons.insert(0, f"{rows} comparable rows are fewer than skew.min_rows = {spec.skew.min_rows}")
    reasons = reasons or [f"{len(features)} features of {rows} rows are what the lake says of their instants"]
    names = {item.feature: place for place, item in enumerate(features)}
    examples.sort(key=lambda example: names[example.feature])
    return SkewReport(
        model=spec.name,
        verdict=verdict,
        reasons=tuple(reasons),
        rows=rows,
        not_comparable=not_comparable,
        features=tuple(features),
        examples=tuple(examples[:_EXAMPLES]),
    )


def _not_judged(spec: ModelSpec, reason: str, not_comparable: int) -> SkewReport:
    return SkewReport(model=spec.name, verdict="not judged", reasons=(reason,), rows=0, not_comparable=not_comparable)


def _comparable_manifests(
    digests: list[str], store: ReleaseStore, views: Mapping[str, FeatureView]
) -> dict[str, Manifest]:
    """Manifests of the bundles whose view definitions are those of now."""
    manifests = {}
    for digest in digests:
        try:
            manifest = store.load_manifest(digest)
            require_views(manifest, views)
        except (LookupError, ValueError, BundleRefused):
            continue  # no longer kept, or on views that are gone: nobody can say what its features meant
        manifests[digest] = manifest
    return manifests


def _logged_column(feature: str) -> str:
    return f"feature__{feature}" if feature in FIXED_COLUMNS else feature


def _columns(lookup: ResolvedLookup) -> list[str]:
    return [feature_column(lookup.view, name) for name in lookup.features]


def _offline(
    definitions: FeatureDefinitions, lookups: list[ResolvedLookup], logged: pl.DataFrame, *, hidden: frozenset[str]
) -> pl.DataFrame:
    """The features of the logged requests as a training set would have them; of hidden inputs nothing is known."""
    requests = logged_inputs(logged.get_column("inputs"), definitions.inputs, hidden=hidden)
    spine = definitions.derive(requests).with_columns(logged.get_column(ROW), logged.get_column("as_of").alias(_AS_OF))
    return point_in_time_join(spine, lookups, timestamp=_AS_OF).collect()


def _differs(online: pl.DataFrame, offline: pl.DataFrame, name: str, tolerance: float) -> pl.Series:
    """Numbers of the rows in which a feature differs."""
    pair = online.select(ROW, online=name).join(offline.select(ROW, offline=name), on=ROW)
    return pair.filter(is_unlike(pl.col("online"), pl.col("offline"), pair.schema["online"], tolerance)).get_column(ROW)
