"""The asset that brings probabilities and intervals up to date with the labels that have come."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.orchestration.metadata import in_short, numbers, reasons, table
from ml_platform.orchestration.model_asset import key, model_asset
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.scoring_assets import MonitoringConfig
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import duration

if TYPE_CHECKING:
    from ml_platform.monitoring.recalibration.recalibrate import RecalibrationReport


def recalibration_asset(spec: ModelSpec, folder: Path) -> dg.AssetsDefinition:
    """Build `<model>/recalibration`."""
    window = duration(spec.recalibration.window)

    @model_asset(
        spec,
        "recalibration",
        deps=[key(spec, "predictions"), key(spec, "inference_log")],
        description=f"Probabilities learned anew on the last {window} of labelled answers, released without training "
        "if they are no worse; intervals and sets that follow the labels.",
        kinds={"onnx", "mlflow"},
        checks={"up_to_date": "What serves is as well calibrated as the newest labelled answers allow."},
    )
    def recalibration(
        context: dg.AssetExecutionContext, config: MonitoringConfig, platform: Platform
    ) -> dg.MaterializeResult:
        from ml_platform.monitoring.recalibration.recalibrate import recalibrate
        from ml_platform.training.evaluation.guardrails.table import guardrail_rows

        by = f"dagster run {context.run.run_id}"
        report = recalibrate(platform.settings, spec, folder, by=by, until=config.instant)
        figures, refused = _figures(report), [one.title for one in report.guardrails if not one.passed]
        return dg.MaterializeResult(
            metadata={
                "what was done": reasons(report.reasons),
                "model version": report.version,
                "labelled until": str(report.labelled_until),
                **({"new version": report.new_version} if report.new_version is not None else {}),
                **({"guardrails": table(guardrail_rows(report.guardrails))} if report.guardrails else {}),
                **figures,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="up_to_date",
                    passed=(report.new_version is None or report.released) and not report.paused and not refused,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=in_short(report.reasons),
                    metadata=figures,
                )
            ],
        )

    return recalibration


def _figures(report: "RecalibrationReport") -> dict[str, Any]:
    """What Dagster plots from run to run."""
    before, after = report.calibration_error or (None, None)
    lost, kept = report.log_loss or (None, None)
    return {
        "labelled rows": report.labelled_rows,
        "counted days": report.counted_days,
        "released": report.released,
        **({"share of the traffic, %": report.percent} if report.released else {}),
        **numbers(
            {
                "calibration error as served": before,
                "calibration error anew": after,
                "log-loss as served": lost,
                "log-loss anew": kept,
                "coverage of 0.9": report.coverage,
                "width of 0.9": report.width,
            }
        ),
    }
