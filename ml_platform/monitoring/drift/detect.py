"""Drift: what a model is asked to score now, compared with what its champion learned from.

Every feature and the prediction are compared (`comparison`), features weigh by their importance to the model: a feature
that it hardly uses may drift without anyone being called.
"""

from collections.abc import Set
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.features.training_sets.feature_definitions import unlike_features
from ml_platform.inference.log_policy import unwatched
from ml_platform.inference.recorded_columns import of_features
from ml_platform.instants import earlier
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.champion import get_champion, load_scorer, released_digests, rescore
from ml_platform.monitoring.drift.column_tests import Kind
from ml_platform.monitoring.drift.comparison import DriftColumn, compare
from ml_platform.monitoring.drift.report import DriftReport, judge, publish_drift, record
from ml_platform.monitoring.drift.report_html import write_html
from ml_platform.monitoring.drift.seasonal_baseline import baseline_distances
from ml_platform.monitoring.scored_rows import (
    CORE,
    equally_weighted,
    hashed_below,
    newest_score,
    scored_rows,
    scored_tables,
)
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.origins import Origin, origin_of
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

PREDICTION = "(prediction)"
MAX_READ_ROWS = 100_000  # of either side; of these `MAX_COMPARED_ROWS` are compared
MAX_COMPARED_ROWS = 20_000  # finds a shift of 0.05 standard deviations already; more only costs time
_SKEW_TOLERANCE = 1e-5


def detect_drift(
    lake: Lake, spec: ModelSpec, store: ReleaseStore, settings: Settings, *, until: datetime | None = None
) -> DriftReport:
    """Compare the newest scored rows with the champion's training set, record the numbers and publish the finding.

    Parameters
    ----------
    lake
        Holds the scored rows and the training set; gets the rows in `monitoring/drift`.
    spec
        The model; `spec.monitoring` says how long the window is and what counts.
    store
        Knows the champion and its manifest: features, importances, version of the training set. Its status document of
        the model gets the window.
    settings
        `reports_dir` gets the HTML report.
    until
        End of the window (UTC); the newest scored instant when None.

    Returns
    -------
    DriftReport
        With the verdict "not judged", and nothing recorded, when fewer than `monitoring.min_rows` rows were scored.

    Raises
    ------
    LookupError
        If the model has no release, or its training set's version is gone.
    """
    champion, manifest = get_champion(store, spec.name)
    until = until or newest_score(lake, spec.name) or datetime.fromisoformat(manifest.provenance.trained_until)
    since = earlier(until, spec.monitoring.window)
    lacking = _versions_lacking(store, spec.name, manifest) - {champion.version}
    counted, window = _window(lake, spec, manifest, since, until, lacking)
    rows = equally_weighted(window, "row_key")
    own = pl.col("model_version") == champion.version  # of a row that several versions scored, the champion's is kept
    current = rows.sort(own, "scored_at").unique("row_key", keep="last", maintain_order=True).sort("as_of", "row_key")
    report = partial(
        DriftReport,
        model=spec.name,
        version=champion.version,
        window_from=since,
        window_until=until,
        rows=current.height if counted == window.height else counted,
    )
    if current.height < spec.monitoring.min_rows:
        reason = (
            f"{current.height} rows were scored from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC, fewer than "
            f"monitoring.min_rows = {spec.monitoring.min_rows}: nothing can be said"
        )
        if rows.height < window.height:
            reason += f" ({window.height} are logged, thinned out until each stands for as many requests)"
        not_judged = report(
            compared_rows=0,
            reference_rows=manifest.provenance.training_rows,
            compared_reference_rows=0,
            columns=(),
            prediction=None,
            drifted_importance=0.0,
            skewed_share=None,
            verdict="not judged",
            reasons=(reason,),
            html=None,
        )
        publish_drift(store, not_judged)
        return not_judged

    total, reference = _reference(lake, spec, manifest, origin_of(store, champion.digest))
    scorer = load_scorer(store, champion.digest)
    current = _sample(current, "row_key", MAX_COMPARED_ROWS)
    hidden = unwatched(manifest)  # values that the log does not have are no drift
    scores = current["score"].to_numpy() if hidden else rescore(scorer, current)
    skewed = None if hidden else _skewed_share(current, scores, champion.version)
    reference = reference.with_columns(_prediction(scorer, rescore(scorer, reference)))
    current = current.with_columns(_prediction(scorer, scores))

    watched = _watched(manifest, current, hidden)
    baseline = baseline_distances(
        reference, watched, timestamp=spec.timestamp, window=spec.monitoring.window, min_rows=spec.monitoring.min_rows
    )
    compared = _sample(reference, spec.id, MAX_COMPARED_ROWS)
    (of_prediction, *of_features), tests = compare(compared, current, watched, spec.monitoring, baseline=baseline)
    features = {feature.name for feature in manifest.features}
    absent = sorted(features - set(current.columns))
    verdict, share, reasons = judge(spec.monitoring, of_features, of_prediction, absent=absent, skewed_share=skewed)
    if unseen := sorted(hidden & features):
        reasons = (*reasons, f"not compared, since the inference log hides them: {', '.join(unseen)}")
    if not baseline:
        reasons = (
            *reasons,
            "the training set spans fewer than 4 such windows, too few to tell how far an ordinary one is from it",
        )
    judged = report(
        compared_rows=current.height,
        reference_rows=total,
        compared_reference_rows=compared.height,
        columns=tuple(of_features),
        prediction=of_prediction,
        drifted_importance=share,
        skewed_share=skewed,
        verdict=verdict,
        reasons=reasons,
        tests=tests,
        html=settings.reports_dir / spec.name / f"{until:%Y%m%dT%H%M%SZ}.html",
    )
    record(lake, judged, datetime.now(UTC))
    write_html(judged, compared, current)
    publish_drift(store, judged)
    return judged


def _watched(manifest: Manifest, rows: pl.DataFrame, hidden: Set[str]) -> list[DriftColumn]:
    """The prediction, then the features that were recorded and are not hidden, by falling importance."""
    kind: Kind = "categorical" if manifest.task == "multiclass" else "numeric"
    known = [one for one in manifest.features if one.name in rows.columns and one.name not in hidden]
    return [
        DriftColumn(PREDICTION, kind, 0.0, tuple(map(str, manifest.classes)) or None),
        *(
            DriftColumn(one.name, one.kind, one.importance, one.categories)
            for one in sorted(known, key=lambda one: -one.importance)
        ),
    ]


def _window(  # noqa: PLR0917 - since and until read well as positional arguments
    lake: Lake, spec: ModelSpec, manifest: Manifest, since: datetime, until: datetime, lacking: Set[int]
) -> tuple[int, pl.DataFrame]:
    """Number of the scored rows of the window, and at most about `MAX_READ_ROWS` of them with the champion's features.

    A feature is null where it was not recorded; rows of the versions `lacking` features are left out.
    """
    if not scored_tables(lake, spec.name):
        return 0, pl.DataFrame(schema=CORE)
    wanted = ~pl.col("model_version").is_in(sorted(lacking))
    span = partial(scored_rows, lake, spec.name, id_column=spec.id, start=since, until=until)
    rows = span().filter(wanted)
    total = rows.select(pl.len()).collect(engine="streaming").item()
    if total > MAX_READ_ROWS:
        rows = span(share=MAX_READ_ROWS / total).filter(wanted)
    rows = of_features(rows, manifest.features)
    names = rows.collect_schema().names()
    features = [feature.name for feature in manifest.features if feature.name in names]
    return total, rows.select(
        "row_key", "as_of", "scored_at", "model_version", "score", "sample_weight", *features
    ).collect(engine="streaming")


def _versions_lacking(store: ReleaseStore, model: str, manifest: Manifest) -> set[int]:
    """Released versions that lack a feature of the champion or made it otherwise: that is no drift of their rows."""
    return {
        version
        for version, digest in released_digests(store, model).items()
        if unlike_features(manifest, store.load_manifest(digest))
    }


def _reference(lake: Lake, spec: ModelSpec, manifest: Manifest, origin: Origin | None) -> tuple[int, pl.DataFrame]:
    """Number of rows of the champion's training set, and at most `MAX_READ_ROWS` of them in order of time."""
    table, version = manifest.provenance.training_set, manifest.provenance.training_set_version
    if origin is not None and origin.training_set is not None:
        table, version = origin.training_set, origin.training_set_version or 0
    rows = lake.read(table, version=version)
    total = rows.select(pl.len()).collect().item()
    wanted = list(dict.fromkeys([spec.id, spec.timestamp, *(feature.name for feature in manifest.features)]))
    sampled = rows.select(wanted)
    if total > MAX_READ_ROWS:
        sampled = sampled.filter(hashed_below(pl.col(spec.id), MAX_READ_ROWS / total, seed=0))
    return total, sampled.sort(spec.timestamp, spec.id).collect(engine="streaming")


def _sample(rows: pl.DataFrame, key: str, size: int) -> pl.DataFrame:
    """About `size` of the rows, whatever sample they are already."""
    return rows if rows.height <= size else rows.filter(hashed_below(pl.col(key), size / rows.height, seed=2))


def _prediction(scorer: "Scorer", scores: Any) -> pl.Series:
    if scorer.manifest.task == "multiclass":
        return pl.Series(PREDICTION, [str(scorer.manifest.classes[number]) for number in scores.argmax(axis=1)])
    return pl.Series(PREDICTION, scores, dtype=pl.Float64)


def _skewed_share(rows: pl.DataFrame, scores: Any, version: int) -> float | None:
    """Share of the version's rows whose recorded score is not what it gives now; None where that cannot be compared."""
    if rows.schema["score"] != pl.Float64 or scores.ndim != 1:
        return None
    both = rows.select("score", "model_version", again=pl.Series(scores)).filter(pl.col("model_version") == version)
    off = (pl.col("score") - pl.col("again")).abs() > _SKEW_TOLERANCE * pl.max_horizontal(1.0, pl.col("again").abs())
    share: float | None = both.select(off.mean()).item()
    return share
