"""The second half of a model's making: evaluation against the champion, registration, release."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ml_platform.features.views import FeatureView
from ml_platform.inference.scorer import Scorer
from ml_platform.orchestration.metadata import in_short, numbers, reasons, table
from ml_platform.orchestration.model_asset import model_asset
from ml_platform.orchestration.resources import Platform
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.promotion import promote
from ml_platform.registry.versions import register
from ml_platform.spec import ModelSpec
from ml_platform.training.documents import Evaluation, RegisteredVersion, ReleaseDecision, TrainedModel
from ml_platform.training.evaluate import evaluate
from ml_platform.training.rescoring import VersionRows


def release_assets(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> list[dg.AssetsDefinition]:
    """Build what decides whether a trained model serves."""
    return [_evaluation(spec, folder, views), _registered_version(spec), _release(spec)]


def _evaluation(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "evaluation",
        document=Evaluation,
        takes=["trained_model"],
        description=f"Challenger against champion on rows new to both: `{spec.metric}`, slices, latency.",
        kinds={"onnx"},
        checks={"beats_reference": "The gate lets the challenger take the champion's (or the naive baseline's) place."},
    )
    def evaluation(trained_model: TrainedModel, platform: Platform) -> dg.MaterializeResult:
        found = evaluate(
            platform.training_rows(spec, trained_model.training_set),
            spec,
            trained_model,
            platform.releases,
            VersionRows(platform.lake, spec, folder, views),
        )
        compared = [
            {
                "metric": name,
                "challenger": value,
                "champion": (found.champion or {}).get(name),
                "naive": found.naive.get(name),
            }
            for name, value in found.challenger.items()
        ]
        gain = found.interval and numbers({"gain": found.interval.gain, "gain lower bound": found.interval.lower})
        return dg.MaterializeResult(
            value=found,
            metadata={
                "verdict": reasons(found.reasons),
                "comparison": table(compared),
                "slices": table([result.model_dump() for result in found.slices]),
                "reference": found.reference,
                "latency ms": found.latency_ms,
                **numbers(found.challenger, prefix="challenger/"),
                **numbers(found.champion or {}, prefix="champion/"),
                **(gain or {}),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="beats_reference",
                    passed=found.promote,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=in_short(found.reasons),
                    metadata=gain or {},
                )
            ],
        )

    return evaluation


def _registered_version(spec: ModelSpec) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "registered_version",
        document=RegisteredVersion,
        takes=["trained_model", "evaluation"],
        description="The model's version in the MLflow registry, with signature, tags and a written description.",
        kinds={"mlflow"},
    )
    def registered_version(
        trained_model: TrainedModel, evaluation: Evaluation, platform: Platform
    ) -> dg.MaterializeResult:
        version = register(spec, trained_model, evaluation, tracker=platform.tracker)
        return dg.MaterializeResult(
            value=version,
            data_version=dg.DataVersion(str(version.version)),
            metadata={
                "version": version.version,
                "registry": dg.MetadataValue.url(version.url),
                "bundle": version.digest,
                "model digest": version.model_digest,
            },
        )

    return registered_version


def _release(spec: ModelSpec) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "release",
        document=ReleaseDecision,
        takes=["registered_version", "evaluation"],
        description="What serves: a version that passed the gate becomes champion and its bundle is published.",
        kinds={"onnx", "fastapi"},
        checks={"bundle_replays": "The released bundle's digests hold and its golden rows give the golden answers."},
    )
    def release(
        context: dg.AssetExecutionContext,
        registered_version: RegisteredVersion,
        evaluation: Evaluation,
        platform: Platform,
    ) -> dg.MaterializeResult:
        decision = promote(
            platform.settings,
            spec,
            registered_version,
            evaluation,
            tracker=platform.tracker,
            by=f"dagster run {context.run.run_id}",
        )
        served, problem = _replay(platform, spec.name)
        return dg.MaterializeResult(
            value=decision,
            metadata={
                "decision": reasons(decision.reasons),
                "promoted": decision.promoted,
                "version": decision.version,
                "serving": served,
                "endpoint revision": decision.revision,
                "try it": dg.MetadataValue.url(f"{platform.settings.serving_url}/models/{spec.name}/console"),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="bundle_replays",
                    passed=problem is None,
                    description=problem or f"version {served} answers",
                )
            ],
        )

    return release


def _replay(platform: Platform, model: str) -> tuple[str, str | None]:
    """Load what is released as serving does; gives the versions and what is wrong with them."""
    endpoint = platform.releases.endpoint(model)
    if endpoint is None:
        return "none", "nothing is released: the first version did not pass the gate"
    try:
        for target in endpoint.targets:
            Scorer.load(platform.releases.bundle_path(target.digest))
    except BundleRefused as error:
        return "none", str(error)
    return ", ".join(str(target.version) for target in endpoint.targets), None
