"""The first half of a model's making: training set, candidates, trained model."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ml_platform.code_version import engine_code_version
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.feature_assets import table_key, view_keys
from ml_platform.orchestration.input_checks import CHECKS, check_inputs
from ml_platform.orchestration.lineage import model_lineage, training_set_lineage
from ml_platform.orchestration.metadata import column_schema, numbers, plots, reasons, sample, table, versions
from ml_platform.orchestration.model_asset import model_asset
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.retraining_history import earlier_training
from ml_platform.orchestration.search_progress import search_progress
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import SearchResult, TrainedModel

if TYPE_CHECKING:
    from ml_platform.features.training_sets.leakage import Leak, LeakageReport


class TrainingSetConfig(dg.Config):
    """Run configuration of a training set."""

    as_of: str | None = Field(
        None, description="ISO 8601 (UTC): only labels known by then are used. The newest known label when empty."
    )
    accept_inputs_because: str = Field(
        "", description="Why inputs that are behind or have more nulls are trained on all the same; kept on the asset."
    )


def training_assets(
    spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], definitions: str
) -> list[dg.AssetsDefinition]:
    """Build the chain from rows to a trained model; `definitions` is the digest of what it is made by."""
    return [_training_set(spec, folder, views, definitions), _candidates(spec), _trained_model(spec, folder, views)]


def _training_set(
    spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], definitions: str
) -> dg.AssetsDefinition:
    from ml_platform.lake.query.sql import referenced_tables

    spine_tables = sorted(referenced_tables((folder / spec.spine).read_text(encoding="utf-8")))
    view_rows = [view_key for lookup in spec.lookups for view_key in view_keys(views[lookup.view])]

    @model_asset(
        spec,
        "training_set",
        document=TrainingSetRef,
        deps=[*map(table_key, spine_tables), *view_rows],
        description=f"{spec.description}\n\nEvery labelled row of `{spec.spine}`, features as of `{spec.timestamp}`.",
        kinds={"deltalake", "polars"},
        checks={
            **CHECKS,
            "no_future_labels": "Every label became available after its prediction and before the set's own instant.",
            "no_leakage": "No feature, and no few of them together, know the label (`leakage` in defs.yaml).",
            "no_suspects": "No feature predicts so well that it may know the label. Stops nothing: a person decides.",
            "no_label_outliers": "No label is far beyond all others (regression). Stops nothing and drops no row.",
        },
        blocking=True,
        code_version=definitions,
    )
    def training_set(
        context: dg.AssetExecutionContext, config: TrainingSetConfig, platform: Platform
    ) -> dg.MaterializeResult:
        # Runs of the queue wait for each other by their pool; one that was started past it, in a terminal, does not.
        import polars as pl

        from ml_platform.features.training_sets.build import build_training_set
        from ml_platform.features.training_sets.label_outliers import label_outliers
        from ml_platform.features.training_sets.leakage import find_leakage
        from ml_platform.training.data.stored_rows import rows_to_check

        if other := earlier_training(context.instance, spec, context.run.run_id):
            raise dg.Failure(f"run {other} trains {spec.name} already: start this one again when that has ended")
        lake = platform.lake
        as_of = datetime.fromisoformat(config.as_of) if config.as_of else None
        ref = build_training_set(lake, spec, folder, views, as_of=as_of)
        rows, frame = rows_to_check(lake, spec, ref)
        reason = config.accept_inputs_because.strip()
        known = pl.col(spec.label_available_at)
        early, late = (
            rows.select((known < pl.col(spec.timestamp)).sum(), late=(known > ref.as_of).sum())
            .collect(engine="streaming")
            .row(0)
        )
        described = _columns(spec) | {info.name: (info.description, info.unit) for info in ref.features}
        leakage = find_leakage(
            frame,
            ref.features,
            target=spec.target,
            task=spec.task,
            limits=spec.leakage,
            timestamp=spec.timestamp,
        )
        suspects = tuple(finding.reason for finding in leakage.suspects)
        ref = ref.model_copy(update={"strength": leakage.strength, "suspects": suspects})
        return dg.MaterializeResult(
            value=ref,
            data_version=dg.DataVersion(str(ref.version)),
            metadata={
                "dagster/row_count": ref.rows,
                "dagster/column_schema": column_schema(frame.schema, described),
                **training_set_lineage(spec, folder, views, lake),
                "as of": str(ref.as_of),
                "first row": str(ref.first),
                "last row": str(ref.last),
                "features": len(ref.features),
                "delta version": ref.version,
                "tables read": versions(ref.tables),
                "sample": sample(frame.tail(5)),
                **numbers(ref.label_summary, prefix="label/"),
                **numbers(ref.weight_summary, prefix="weight/"),
                **({"inputs accepted because": reason} if reason else {}),
            },
            check_results=[
                *check_inputs(lake, spec, views, ref, rows, accepted_because=reason),
                dg.AssetCheckResult(
                    check_name="no_future_labels",
                    passed=early + late == 0,
                    metadata={"known before the prediction": early, "known after the set's instant": late},
                ),
                *_leakage_verdicts(leakage),
                _outlier_verdict(label_outliers(rows, spec)),
            ],
        )

    return training_set


def _leakage_verdicts(report: "LeakageReport") -> list[dg.AssetCheckResult]:
    strongest = [{"feature": name, "alone": value} for name, value in list(report.strength.items())[:10]]
    facts: dict[str, Any] = {
        "rows looked at": report.rows,
        **({"strongest features": table(strongest)} if strongest else {}),
    }

    def verdict(
        name: str, findings: "Sequence[Leak]", advice: str, severity: dg.AssetCheckSeverity
    ) -> dg.AssetCheckResult:
        reasons = "; ".join(finding.reason for finding in findings)
        return dg.AssetCheckResult(
            check_name=name,
            passed=not findings,
            severity=severity,
            description=f"{reasons}: {advice}" if reasons else report.not_judged or None,
            metadata={**facts, "findings": len(findings)},
        )

    return [
        verdict(
            "no_leakage",
            report.leaks,
            "take them out of the model, or name them under `leakage.allow` if they are known at the prediction",
            dg.AssetCheckSeverity.ERROR,
        ),
        verdict(
            "no_suspects",
            report.suspects,
            "is that known at the instant of the prediction? If so, name it under `leakage.allow`",
            dg.AssetCheckSeverity.WARN,
        ),
    ]


def _outlier_verdict(outliers: Sequence[str]) -> dg.AssetCheckResult:
    advice = "is that right? If not, correct the table, or leave these rows out in the spine's query"
    return dg.AssetCheckResult(
        check_name="no_label_outliers",
        passed=not outliers,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'; '.join(outliers)}: {advice}" if outliers else None,
    )


def _columns(spec: ModelSpec) -> dict[str, tuple[str, str | None]]:
    """Description and unit of a training set's columns that are not features."""
    return {
        spec.timestamp: ("Instant that the features are as of.", None),
        spec.label_available_at: ("When the label was known.", None),
        spec.target: ("The label.", spec.target_unit),
        **({spec.weight: ("How much the row counts in fitting.", None)} if spec.weight else {}),
        **{field.name: (field.description, field.unit) for field in spec.inputs},
    }


def _candidates(spec: ModelSpec) -> dg.AssetsDefinition:
    trials = spec.tuning.most_trials(len(spec.families))

    @model_asset(
        spec,
        "candidates",
        document=SearchResult,
        takes=["training_set"],
        description=f"One search over {', '.join(spec.families)}: {trials} trials at most, by `{spec.metric}`.",
        kinds={"optuna", "mlflow"},
    )
    def candidates(
        context: dg.AssetExecutionContext, training_set: TrainingSetRef, platform: Platform
    ) -> dg.MaterializeResult:
        from ml_platform.training.search import search

        rows = platform.training_rows(spec, training_set)
        with search_progress(context.log.info, trials) as on_progress:
            result = search(rows, spec, tracker=platform.tracker, on_progress=on_progress)
        ranking = [
            {"family": c.family, result.metric: c.score, "seconds": c.seconds, "parameters": _parameters(c.params)}
            for c in result.ranked
        ]
        stopped = [
            {"trial": one.number, "family": one.family, "state": one.state, "reason": one.reason}
            for one in result.stopped
        ]
        return dg.MaterializeResult(
            value=result,
            metadata={
                "ranking": table(ranking),
                "trials": len(result.candidates) + len(result.stopped),
                "pruned": sum(one.state == "pruned" for one in result.stopped),
                "failed": sum(one.state == "failed" for one in result.stopped),
                **({"pruned and failed": table(stopped)} if stopped else {}),
                "best family": result.best.family,
                "MLflow run": dg.MetadataValue.url(result.run_url),
                **numbers({f"best {result.metric}": result.best.score}),
                **numbers({f: c.score for f, c in result.best_by_family.items()}, prefix=f"{result.metric}/"),
                **plots(platform.tracker.read_plots(result.run_id)),
            },
        )

    return candidates


def _parameters(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def _trained_model(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "trained_model",
        document=TrainedModel,
        takes=["candidates"],
        description="The best candidate that can be exported to ONNX, trained on all rows before the holdout.",
        kinds={"scikitlearn", "onnx", "mlflow"},
        checks={"onnx_parity": "The exported graph gives the same scores as the trained model."},
        blocking=True,
    )
    def trained_model(
        context: dg.AssetExecutionContext, candidates: SearchResult, platform: Platform
    ) -> dg.MaterializeResult:
        from ml_platform.training.fit import fit_model, fitting_settings

        model = fit_model(
            platform.training_rows(spec, candidates.training_set),
            spec,
            candidates,
            tracker=platform.tracker,
            store=platform.releases,
            folder=folder,
            views=views,
            dagster_run_id=context.run.run_id,
        )
        leading = [{"feature": name, "importance": share} for name, share in list(model.importance.items())[:15]]
        return dg.MaterializeResult(
            value=model,
            data_version=dg.DataVersion(model.model_digest),
            metadata={
                "family": model.family,
                **fitting_settings(spec),
                **({"passed over": reasons([item.told for item in model.passed_over])} if model.passed_over else {}),
                **({} if model.threshold is None else {"threshold chosen by": spec.threshold.in_words}),
                **numbers({"threshold": model.threshold}),
                **numbers(model.metrics, prefix="holdout/"),
                **numbers(model.validation_metrics, prefix="validation/"),
                "importance": table(leading),
                "parameters": dg.MetadataValue.json(dict(model.params)),
                "training rows": model.trained.rows,
                **({"trained by": model.distributed.told} if model.distributed else {}),
                "trained until": str(model.trained.last),
                "tables read": versions(model.training_set.tables),
                **model_lineage(spec, folder, views),
                "MLflow run": dg.MetadataValue.url(model.run_url),
                "code version": model.code_version,
                "engine version": engine_code_version(),
                "bundle": model.digest,
                "model digest": model.model_digest,
                **plots(platform.tracker.read_plots(model.run_id)),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="onnx_parity",
                    passed=model.parity.max_difference <= model.parity.tolerance,
                    metadata={
                        "rows compared": model.parity.rows,
                        "largest difference": model.parity.max_difference,
                        "tolerance": model.parity.tolerance,
                    },
                )
            ],
        )

    return trained_model
