"""The second half of a model's making: evaluation against the champion, registration, release."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.metadata import in_short, numbers, plots, reasons, table
from ml_platform.orchestration.model_asset import model_asset
from ml_platform.orchestration.resources import Platform
from ml_platform.registry.digests import BundleRefused
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, RegisteredVersion, ReleaseDecision, TrainedModel


def release_assets(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> list[dg.AssetsDefinition]:
    """Build what decides whether a trained model serves."""
    return [
        _evaluation(spec, folder, views),
        _refitted_model(spec, folder, views),
        _registered_version(spec, folder),
        _release(spec),
    ]


def _evaluation(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "evaluation",
        document=Evaluation,
        takes=["trained_model"],
        description=f"Challenger against champion on rows new to both: `{spec.metric}`, guardrails, power.",
        kinds={"onnx"},
        checks={
            "beats_reference": "The gate lets the challenger take the champion's (or the naive baseline's) place.",
            "plausible": "The challenger is not too good to be true. Stops nothing: a person decides.",
        },
    )
    def evaluation(trained_model: TrainedModel, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.monitoring.replay.guardrail import replay_guardrail
        from ml_platform.promotion.declared import DeclaredModel
        from ml_platform.training.evaluation.evaluate import evaluate
        from ml_platform.training.evaluation.guardrails.table import guardrail_rows
        from ml_platform.training.evaluation.plausibility import implausible, strongest_features
        from ml_platform.training.evaluation.rescoring import VersionRows

        evaluation = evaluate(
            platform.training_rows(spec, trained_model.training_set),
            spec,
            trained_model,
            platform.releases,
            VersionRows(platform.lake, spec, folder, views),
            further=lambda: replay_guardrail(
                platform.lake,
                platform.releases,
                DeclaredModel(spec, folder, views),
                trained_model.digest,
                tracker=platform.tracker,
            ),
        )
        compared = [
            {
                "metric": name,
                "challenger": value,
                "champion": (evaluation.champion or {}).get(name),
                "naive": evaluation.naive.get(name),
                **_gain(evaluation, name),
            }
            for name, value in evaluation.challenger.items()
        ]
        striking = implausible(spec, trained_model, evaluation)
        gain = evaluation.interval and numbers(
            {"gain": evaluation.interval.gain, "gain lower bound": evaluation.interval.lower}
        )
        return dg.MaterializeResult(
            value=evaluation,
            metadata={
                "verdict": reasons(evaluation.reasons),
                "comparison": table(compared),
                "guardrails": table(guardrail_rows(evaluation.guardrails)),
                "slices": table([result.model_dump() for result in evaluation.slices]),
                "strongest features": table(strongest_features(trained_model)),
                "reference": evaluation.reference,
                "try number": evaluation.tries,
                **_support(evaluation),
                "latency ms": evaluation.latency_ms,
                **numbers({one.title: one.value for one in evaluation.guardrails}, prefix="guardrail/"),
                **numbers(evaluation.challenger, prefix="challenger/"),
                **numbers(evaluation.champion or {}, prefix="champion/"),
                **_intervals(spec, evaluation),
                **(gain or {}),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="beats_reference",
                    passed=evaluation.promote,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=in_short(evaluation.reasons),
                    metadata=gain or {},
                ),
                dg.AssetCheckResult(
                    check_name="plausible",
                    passed=not striking,
                    severity=dg.AssetCheckSeverity.WARN,
                    description="; ".join(striking) or None,
                    metadata={"findings": len(striking)},
                ),
            ],
        )

    return evaluation


def _gain(evaluation: Evaluation, metric: str) -> dict[str, float | None]:
    """Interval of the gain over what a challenger is held against, in one metric."""
    gain = evaluation.interval if metric == evaluation.metric else evaluation.further_gains.get(metric)
    return {
        "gain": gain.gain if gain else None,
        "gain lower": gain.lower if gain else None,
        "gain upper": gain.upper if gain else None,
    }


def _intervals(spec: ModelSpec, evaluation: Evaluation) -> dict[str, dg.MetadataValue]:
    """Both intervals of the gain, drawn and in numbers, and what so many blocks can show."""
    from ml_platform.training.artifacts.plots import intervals_plot
    from ml_platform.training.evaluation.gate import interval_rows
    from ml_platform.training.evaluation.power import in_words as power_in_words

    if evaluation.interval is None:
        return {}
    power = evaluation.power
    drawn = intervals_plot(
        spec.metric, evaluation.interval, evaluation.within_blocks, bound=power.bound if power else 0.0
    )
    return {
        **plots({"intervals.png": drawn}),
        "intervals": table(interval_rows(evaluation)),
        **({"power": dg.MetadataValue.text(power_in_words(power))} if power else {}),
    }


def _support(evaluation: Evaluation) -> dict[str, int]:
    """What the verdict rests on: rows, and the blocks that are taken for independent."""
    if evaluation.support is None:
        return {}
    unit = f"blocks ({evaluation.interval.block})" if evaluation.interval else "blocks"
    return {"rows compared": evaluation.support.rows, unit: evaluation.support.blocks}


def _refitted_model(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "refitted_model",
        document=TrainedModel,
        takes=["trained_model", "evaluation"],
        description="The model that passed the gate, fitted again with the same parameters on all labelled rows.",
        kinds={"scikitlearn", "onnx", "mlflow"},
        checks={"agrees": "The refit's export is exact, and it agrees with the judged model on the holdout."},
    )
    def refitted_model(
        context: dg.AssetExecutionContext, trained_model: TrainedModel, evaluation: Evaluation, platform: Platform
    ) -> dg.MaterializeResult:
        from ml_platform.training.data.split import read_rows
        from ml_platform.training.data.stored_rows import StoredRows
        from ml_platform.training.refit import refit_model

        ref = trained_model.training_set
        is_stored = StoredRows.of(platform.lake, spec, ref) is not None
        model = refit_model(
            platform.training_rows(spec, ref) if is_stored else read_rows(platform.lake, spec, ref),
            spec,
            trained_model,
            evaluation,
            folder=folder,
            views=views,
            store=platform.releases,
            tracker=platform.tracker,
            dagster_run_id=context.run.run_id,
        )
        refit = model.refit
        assert refit is not None  # refit_model says it always
        agreement = {} if refit.agreement is None else numbers({"agreement": refit.agreement})
        return dg.MaterializeResult(
            value=model,
            data_version=dg.DataVersion(model.model_digest),
            metadata={
                "refitted": refit.refitted,
                "what was done": reasons(refit.reasons),
                "training rows": model.trained.rows,
                **({"trained by": model.distributed.told} if model.distributed and refit.refitted else {}),
                "trained until": str(model.trained.last),
                "judged model trained until": str(refit.judged.last),
                "MLflow run": dg.MetadataValue.url(model.run_url),
                "bundle": model.digest,
                "judged bundle": refit.judged_digest,
                **agreement,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="agrees",
                    passed=refit.refitted or not (evaluation.promote and spec.promotion.refit),
                    severity=dg.AssetCheckSeverity.WARN,
                    description=in_short(refit.reasons),
                    metadata=agreement,
                )
            ],
        )

    return refitted_model


def _registered_version(spec: ModelSpec, folder: Path) -> dg.AssetsDefinition:
    @model_asset(
        spec,
        "registered_version",
        document=RegisteredVersion,
        takes=["refitted_model", "evaluation"],
        description="The model's version in the MLflow registry, with signature, tags and a written description.",
        kinds={"mlflow"},
    )
    def registered_version(
        refitted_model: TrainedModel, evaluation: Evaluation, platform: Platform
    ) -> dg.MaterializeResult:
        from ml_platform.promotion.card import write_card
        from ml_platform.promotion.versions import register
        from ml_platform.registry.card_pages import card_markdown

        version = register(spec, refitted_model, evaluation, tracker=platform.tracker)
        card = write_card(spec, folder, refitted_model, evaluation, version, tracker=platform.tracker)
        return dg.MaterializeResult(
            value=version,
            data_version=dg.DataVersion(str(version.version)),
            metadata={
                "version": version.version,
                "registry": dg.MetadataValue.url(version.url),
                "model card": dg.MetadataValue.md(card_markdown(platform.releases, card)),
                "bundle": version.digest,
                "judged bundle": version.judged_digest or version.digest,
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
        checks={
            "bundle_replays": "The released bundle's digests hold and its golden rows give the golden answers.",
            "promoted": "The newest version serves: a version that was refused, or waits for a person, is no success.",
        },
    )
    def release(
        context: dg.AssetExecutionContext,
        registered_version: RegisteredVersion,
        evaluation: Evaluation,
        platform: Platform,
    ) -> dg.MaterializeResult:
        from ml_platform.promotion.promote import promote

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
                **_made_of(platform, spec.name),
                "endpoint revision": decision.revision,
                "try it": dg.MetadataValue.url(f"{platform.settings.serving_url}/models/{spec.name}/console"),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="bundle_replays",
                    passed=problem is None,
                    description=problem or f"version {served} answers",
                ),
                _promoted(platform, decision),
            ],
        )

    return release


def _promoted(platform: Platform, decision: ReleaseDecision) -> dg.AssetCheckResult:
    """Warn where the version of this run does not answer: the asset of a refused release must not look like another."""
    endpoint = platform.releases.endpoint(decision.model)
    live = [target.version for target in endpoint.targets if target.mode == "live"] if endpoint else []
    return dg.AssetCheckResult(
        check_name="promoted",
        passed=decision.version in live,
        severity=dg.AssetCheckSeverity.WARN,
        description=in_short(decision.reasons),
        metadata={"version": decision.version, "serving": max(live, default=0)},
    )


def _made_of(platform: Platform, model: str) -> dict[str, str]:
    """What each version that serves was made of, in words."""
    from ml_platform.registry.history import describe_origin, origins_of

    endpoint = platform.releases.endpoint(model)
    origins = origins_of(platform.releases, endpoint) if endpoint else {}
    return {f"version {version} is": describe_origin(origin) for version, origin in origins.items()}


def _replay(platform: Platform, model: str) -> tuple[str, str | None]:
    """Load what is released as serving does; gives the versions and what is wrong with them."""
    from ml_platform.inference.scorer import Scorer

    endpoint = platform.releases.endpoint(model)
    if endpoint is None:
        return "none", "nothing is released: the first version did not pass the gate"
    try:
        for target in endpoint.targets:
            Scorer.load(platform.releases.bundle_path(target.digest))
    except BundleRefused as error:
        return "none", str(error)
    return ", ".join(str(target.version) for target in endpoint.targets), None
