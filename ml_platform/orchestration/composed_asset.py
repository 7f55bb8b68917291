"""The assets of a composed endpoint: `<name>/release` publishes it, `<name>/inference_log` keeps what it answered."""

import dagster as dg

from ml_platform.orchestration.metadata import ingested
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.composition import ComposedEndpointSpec


def composed_assets(spec: ComposedEndpointSpec) -> list[dg.AssetsDefinition]:
    """Build both assets."""
    return [composed_release(spec), composed_log(spec)]


def composed_release(spec: ComposedEndpointSpec) -> dg.AssetsDefinition:
    """Build `<name>/release`. A member's new version needs no new materialisation: serving follows by itself."""

    @dg.asset(
        key=[spec.name, "release"],
        deps=[dg.AssetKey([member, "release"]) for member in spec.members()],
        description=f"{spec.description} Answered by {', '.join(spec.members())} together.",
        group_name=spec.name,
        owners=[spec.owner],
        kinds={"onnx"},
    )
    def release(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.inference.composition.publish import publish_composition

        document = publish_composition(
            platform.releases, spec, by="dagster", reason=f"materialised by run {context.run.run_id}"
        )
        return dg.MaterializeResult(
            metadata={
                "kind": document.kind,
                "members": ", ".join(document.members),
                "revision": document.revision,
                "digest": document.digest,
                "endpoint": f"/predict/{spec.name}",
            }
        )

    return release


def composed_log(spec: ComposedEndpointSpec) -> dg.AssetsDefinition:
    """Build `<name>/inference_log`: what the endpoint answered, with the scores and versions of its members."""

    @dg.asset(
        key=[spec.name, "inference_log"],
        deps=[dg.AssetKey([spec.name, "release"])],
        description="What serving has answered, row by row, each once, with the score and version of each member.",
        group_name=spec.name,
        owners=[spec.owner],
        kinds={"fastapi", "deltalake"},
    )
    def inference_log(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.inference.ingest_log import ingest_model_log

        segments = platform.settings.inference_log_dir / spec.name
        segments.mkdir(parents=True, exist_ok=True)
        report = ingest_model_log(platform.lake, platform.releases, segments)
        return dg.MaterializeResult(metadata=ingested(platform.lake, report, "scored_at", member_columns(spec)))

    return inference_log


def member_columns(spec: ComposedEndpointSpec) -> dict[str, tuple[str, str | None]]:
    """Description and unit of the columns of the members."""
    columns: dict[str, tuple[str, str | None]] = {}
    for name in spec.members():
        columns[f"{name}__score"] = (f"What {name} answered; null where it was not asked.", None)
        columns[f"{name}__version"] = (f"Version of {name} that answered.", None)
    return columns
