"""The asset of a composed endpoint: `<name>/release` publishes what is declared, once its members are released."""

import dagster as dg

from ml_platform.orchestration.resources import Platform
from ml_platform.spec.composition import ComposedEndpointSpec


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
