"""The four assets of a model in use: batch predictions, the inference log, performance and drift."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.feature_assets import table_key, view_keys
from ml_platform.orchestration.lineage import inference_log_lineage, predictions_lineage
from ml_platform.orchestration.metadata import column_schema, in_short, ingested, numbers, plots, reasons, sample, table
from ml_platform.orchestration.model_asset import key, model_asset
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import duration

if TYPE_CHECKING:
    from ml_platform.monitoring.drift.report import DriftReport
    from ml_platform.monitoring.performance.measure import PerformanceReport

SCORED = {
    "id": "The row's id.",
    "as_of": "Instant of the prediction: features are taken as of it.",
    "scored_at": "When it was scored.",
    "model_version": "Version that scored it.",
    "digest": "Bundle that scored it.",
    "score": "Probability of the positive class or of the predicted one, or the value.",
    "prediction": "What was answered.",
    "date": "UTC day of as_of.",
    "request_id": "The request that asked.",
    "row": "The row's place in its request.",
    "caller": "Key that asked.",
    "inputs": "What was sent, as JSON.",
    "flags": "Values that broke the inputs' contract and were scored all the same.",
    "sample_weight": "Rows that this one stands for, when the log is sampled.",
}
SHOWN = {
    *("column", "importance", "drifted", "method", "distance", "distance_threshold", "p_value", "shift"),
    *("new_categories", "not_judged"),
}


class MonitoringConfig(dg.Config):
    """Run configuration of performance and drift."""

    until: str | None = Field(
        None, description="ISO 8601 (UTC): end of the window that is watched. The newest scored row when empty."
    )

    @property
    def instant(self) -> datetime | None:
        """`until` as an instant."""
        return datetime.fromisoformat(self.until) if self.until else None


def scoring_days(spec: ModelSpec) -> dg.DailyPartitionsDefinition:
    """UTC days that can be scored."""
    last = spec.scoring.end
    end = last + timedelta(days=1) if last and last < date.max else None  # Dagster leaves the end itself out
    return dg.DailyPartitionsDefinition(
        start_date=spec.scoring.start.isoformat(), end_date=end.isoformat() if end else None
    )


def scoring_assets(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> list[dg.AssetsDefinition]:
    """Build what scores rows with a model and watches the scores."""
    return [
        _predictions(spec, folder, views),
        _inference_log(spec, folder, views),
        _performance(spec, folder),
        _drift_report(spec),
    ]


def _columns(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dict[str, tuple[str, str | None]]:
    """Description and unit of every column of scored rows."""
    from ml_platform.features.training_sets.build import feature_infos
    from ml_platform.features.training_sets.feature_definitions import request_features

    fixed = {name: (text, spec.target_unit if name == "prediction" else None) for name, text in SCORED.items()}
    infos = feature_infos(spec, request_features(spec, folder), views)
    return {**{info.name: (info.description, info.unit) for info in infos}, **fixed}


def _predictions(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    from ml_platform.lake.query.sql import referenced_tables

    spine_tables = sorted(referenced_tables((folder / spec.spine).read_text(encoding="utf-8")))
    rows_of_all_days = dg.AllPartitionMapping()
    upstream = [
        *(dg.AssetDep(table_key(name), partition_mapping=rows_of_all_days) for name in spine_tables),
        *(dg.AssetDep(view_key) for lookup in spec.lookups for view_key in view_keys(views[lookup.view])),
        dg.AssetDep(key(spec, "release")),
    ]

    @model_asset(
        spec,
        "predictions",
        deps=upstream,
        days=scoring_days(spec),
        description=f"Batch scores of the champion for every row of a UTC day of `{spec.timestamp}`.",
        kinds={"onnx", "deltalake"},
        checks={
            "all_rows_scored": "Every row of the days that keeps the contract has a finite score.",
            "inputs_keep_contract": "No row of the days was left out for values that serving would refuse.",
        },
    )
    def predictions(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.compute import choose_executor
        from ml_platform.inference.batch import score_window

        start, end = context.partition_time_window
        lake = platform.lake
        report = score_window(
            lake,
            spec,
            folder,
            views,
            platform.releases,
            start,
            end,
            executor=choose_executor(spec.scoring.executor, cells=0),
            scratch=platform.settings.scoring_dir,
        )
        day = lake.read(f"predictions/{spec.name}", version=report.version)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.rows,
                "dagster/column_schema": column_schema(day.collect_schema(), _columns(spec, folder, views)),
                **predictions_lineage(spec, folder, views, lake, report.model_version),
                "model version": report.model_version,
                "delta version": report.version,
                "sample": sample(day.tail(5).collect()),
                **numbers({"mean score": report.mean_score}),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="all_rows_scored",
                    passed=report.unscored == 0,
                    metadata={"rows": report.rows, "without a finite score": report.unscored},
                ),
                dg.AssetCheckResult(
                    check_name="inputs_keep_contract",
                    passed=report.refused_rows == 0,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={
                        "rows left out": report.refused_rows,
                        "values refused": report.refused,
                        "values flagged": report.flagged,
                        "examples": list(report.refused_examples),
                    },
                ),
            ],
        )

    return predictions


def _inference_log(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "inference_log",
        deps=[key(spec, "release")],
        description="What serving has answered, row by row, each once: from the workers' log files into the lake.",
        kinds={"fastapi", "deltalake"},
    )
    def inference_log(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.inference.ingest_log import ingest_model_log

        segments = platform.settings.inference_log_dir / spec.name
        segments.mkdir(parents=True, exist_ok=True)
        report = ingest_model_log(platform.lake, platform.releases, segments)
        return dg.MaterializeResult(
            metadata={
                **ingested(platform.lake, report, "scored_at", _columns(spec, folder, views)),
                **inference_log_lineage(spec, folder, views),
            }
        )

    return inference_log


def _performance(spec: ModelSpec, folder: Path) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "performance",
        deps=[key(spec, "predictions"), key(spec, "inference_log")],
        description=f"Scores joined with the labels known by now: `{spec.metric}` and others per day and version.",
        kinds={"polars", "scikitlearn"},
        checks={
            "above_minimum": f"`{spec.metric}` of the window's labelled rows is, but for chance, no worse than "
            "`monitoring.min_metric`, or than on the holdout where no minimum is set."
        },
    )
    def performance(config: MonitoringConfig, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.monitoring.performance.measure import measure_performance

        report = measure_performance(platform.lake, spec, folder, platform.releases, until=config.instant)
        return dg.MaterializeResult(
            metadata={
                "verdict": reasons(report.reasons),
                **_performance_numbers(report),
                "model version": report.version,
                "window": f"{report.window_from} to {report.window_until}",
                **numbers(report.metrics),
                **plots(report.plots(platform.lake)),
            },
            check_results=[
                _verdict(
                    "above_minimum",
                    report,
                    _performance_numbers(report),
                    failing="below",
                    platform=platform,
                    spec=spec,
                )
            ],
        )

    return performance


def _drift_report(spec: ModelSpec) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "drift_report",
        deps=[key(spec, "predictions"), key(spec, "inference_log")],
        description=f"The last {duration(spec.monitoring.window)} of scored rows against the champion's training rows.",
        kinds={"evidently"},
        checks={"no_drift": "Neither the prediction nor features of weight have drifted from the training data."},
    )
    def drift_report(config: MonitoringConfig, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.monitoring.drift.detect import detect_drift

        report = detect_drift(platform.lake, spec, platform.releases, platform.settings, until=config.instant)
        return dg.MaterializeResult(
            metadata={
                "verdict": reasons(report.reasons),
                "columns": table([column.model_dump(include=SHOWN) for column in report.columns]),
                "model version": report.version,
                "window": f"{report.window_from} to {report.window_until}",
                "training rows": report.reference_rows,
                "HTML report": dg.MetadataValue.path(report.html) if report.html else dg.MetadataValue.text("none"),
                **_drift_numbers(report),
                **plots(report.plots(platform.lake)),
            },
            check_results=[
                _verdict("no_drift", report, _drift_numbers(report), failing="drift", platform=platform, spec=spec)
            ],
        )

    return drift_report


def _performance_numbers(report: "PerformanceReport") -> dict[str, Any]:
    """What Dagster plots of a window's performance; what is undefined is left out."""
    low, high = report.interval or (None, None)
    metrics = {
        report.metric: report.metrics.get(report.metric),
        "interval lower": low,
        "interval upper": high,
        "holdout": report.holdout,
        "minimum": report.minimum,
    }
    return {
        "scored rows": report.scored_rows,
        "labelled rows": report.rows,
        "labelled days": report.label_days,
        "rescored rows": report.rescored_rows,
        "rows without a finite score": report.unscored_rows,
        "rows of unknown classes": report.unknown_class_rows,
        **numbers(metrics),
    }


def _drift_numbers(report: "DriftReport") -> dict[str, Any]:
    """What Dagster plots of a window's drift; what is undefined is left out."""
    severity = {"prediction distance over threshold": report.prediction.severity if report.prediction else None}
    severity |= {"largest distance over threshold": report.largest_severity}
    return {
        "scored rows": report.rows,
        "compared rows": report.compared_rows,
        "drifted features": len(report.drifted),
        "judged features": sum(column.judged for column in report.columns),
        "features not judged": sum(not column.judged for column in report.columns),
        **numbers({"drifted importance": report.drifted_importance, **severity}),
    }


def _verdict(
    check: str,
    report: "DriftReport | PerformanceReport",
    figures: Mapping[str, Any],
    *,
    failing: str,
    platform: Platform,
    spec: ModelSpec,
) -> dg.AssetCheckResult:
    """Turn a report's verdict into a check, ERROR when it failed, WARN when it was not judged, and into an alert."""
    from ml_platform.monitoring.alerts.alert import Alert
    from ml_platform.monitoring.alerts.conditions import update_condition

    failed, is_judged = report.verdict == failing, report.verdict != "not judged"
    why = in_short(report.reasons)
    alert = Alert(model=spec.name, kind=check, severity="error", title=f"{check} failed", body=why)
    update_condition(platform.settings, alert, firing=failed if is_judged else None)
    return dg.AssetCheckResult(
        check_name=check,
        passed=is_judged and not failed,
        severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
        description=why,
        metadata={**figures, "verdict": report.verdict, "judged at": str(datetime.now(UTC))},
    )
