"""The daily check that serving computes what the lake says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.model_asset import key
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.monitoring.skew.detect import SkewReport

CHECK = "no_skew"


def skew_check_key(spec: ModelSpec) -> dg.AssetCheckKey:
    """Key of the model's skew check."""
    return dg.AssetCheckKey(key(spec, "inference_log"), CHECK)


def skew_check(spec: ModelSpec, views: Mapping[str, FeatureView]) -> dg.AssetChecksDefinition:
    """Build the check of `<model>/inference_log` against the lake."""

    @dg.asset_check(
        asset=key(spec, "inference_log"),
        name=CHECK,
        description="A sample of logged requests, computed once more from the lake as of their instants, is the same.",
    )
    def no_skew(platform: Platform) -> dg.AssetCheckResult:
        from ml_platform.monitoring.alerts.alert import Alert
        from ml_platform.monitoring.alerts.conditions import update_condition
        from ml_platform.monitoring.skew.detect import find_skew

        report = find_skew(platform.lake, spec, views, platform.releases)
        firing = {"skew": True, "no skew": False}.get(report.verdict)
        alert = Alert(
            model=spec.name, kind="skew", severity="error", title=f"{CHECK} failed", body="; ".join(report.reasons)
        )
        update_condition(platform.settings, alert, firing=firing)
        return _result(report)

    return no_skew


def _result(report: "SkewReport") -> dg.AssetCheckResult:
    unlike = [item for item in report.features if item.mismatches or item.accepted]
    counts = [
        {
            "feature": item.feature,
            "mismatches": item.mismatches,
            "share": item.share,
            "accepted (lag, revised since, or asked about the past)": item.accepted,
        }
        for item in unlike
    ]
    examples = [{name: str(value) for name, value in example.model_dump().items()} for example in report.examples]
    return dg.AssetCheckResult(
        passed=report.verdict == "no skew",
        severity=dg.AssetCheckSeverity.ERROR if report.verdict == "skew" else dg.AssetCheckSeverity.WARN,
        description="; ".join(report.reasons),
        metadata={
            "rows compared": report.rows,
            "rows of other definitions": report.not_comparable,
            "features that differ": sum(item.mismatches > 0 for item in report.features),
            "largest share of rows": max((item.share for item in report.features), default=0.0),
            **({"differences": table(counts)} if counts else {}),
            **({"examples": table(examples)} if examples else {}),
        },
    )
