"""What the descriptive routes answer: which models serve, from which release, and what each takes and gives."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from ml_platform.serving.models.slots import EndpointState, Refusal, ServedModel, ServingState


class ServedVersion(BaseModel):
    """One version that takes traffic."""

    version: int
    digest: str = Field(description="Of the release bundle: the same bytes wherever this digest is named.")
    share: float = Field(description="Of the traffic, 0 to 1.")
    family: str


class RefusedRelease(BaseModel):
    """A release that failed its checks and does not serve."""

    revision: int = Field(description="Of the endpoint; 0 where its document cannot be read.")
    version: int | None = Field(None, description="The version that failed its checks; null if it was not just one.")
    reason: str
    since: str


class ModelSummary(BaseModel):
    """One line of `/models`."""

    name: str
    status: Literal["serving", "unavailable"]
    description: str | None
    task: str | None
    versions: list[ServedVersion]
    endpoint_revision: int | None
    refused: RefusedRelease | None
    shadows: list[int] = Field([], description="Versions that are scored and logged but never answer.")
    shadow_refused: RefusedRelease | None = None
    predict: str = Field(description="Path to post rows to.")


class ModelList(BaseModel):
    """Every model that has ever been released."""

    models: list[ModelSummary]
    trouble: str | None = Field(
        None, description="Why the release store cannot be read; what served before still does."
    )


class ModelDetail(ModelSummary):
    """One model: inputs, features, metrics and provenance of the version with the largest share."""

    owner: str | None = None
    target: dict[str, Any] | None = None
    inputs: list[dict[str, Any]] = []
    derived: list[dict[str, Any]] = []
    lookups: list[dict[str, Any]] = Field(
        [], description="Features read from the online store, with their view's hash."
    )
    features: list[dict[str, Any]] = Field([], description="Columns of the model's matrix, most important first.")
    metric: str | None = Field(None, description="The one of `metrics` by which versions are compared and promoted.")
    metrics: dict[str, float] = Field({}, description="On the holdout, when the version was evaluated.")
    provenance: dict[str, Any] | None = None
    endpoint: dict[str, Any] | None = Field(None, description="The endpoint document in force.")
    tags: dict[str, str] = {}
    created_at: str | None = None


class Health(BaseModel):
    """State of this worker."""

    status: Literal["live", "ready", "not ready"]
    models: dict[str, str] = Field({}, description="Model → version that serves; else refused, or loading.")
    trouble: str | None = None


def summary(slot: EndpointState) -> ModelSummary:
    """Describe a slot in one line."""
    return ModelSummary(**_summary(slot))


def describe_endpoint(slot: EndpointState) -> ModelDetail:
    """Describe a slot in full."""
    main = main_version(slot)
    if main is None:
        return ModelDetail(**_summary(slot))
    manifest = main.manifest
    features = sorted(manifest.features, key=lambda feature: -feature.importance)
    return ModelDetail(
        **_summary(slot),
        owner=manifest.owner,
        target={
            "name": manifest.target,
            "unit": manifest.target_unit,
            "threshold": manifest.threshold,
            "threshold_choice": manifest.threshold_choice,
            "classes": list(manifest.classes),
        },
        inputs=msgspec.to_builtins(manifest.inputs),
        derived=[
            {"name": field.name, "type": field.type, "description": field.description, "unit": field.unit}
            for field in manifest.derived
        ],
        lookups=msgspec.to_builtins(manifest.lookups),
        features=[
            {key: value for key, value in msgspec.to_builtins(feature).items() if key != "categories"}
            | ({} if feature.categories is None else {"categories": len(feature.categories)})
            for feature in features
        ],
        metric=manifest.metric,
        metrics=manifest.metrics,
        provenance=msgspec.to_builtins(manifest.provenance),
        endpoint=msgspec.to_builtins(slot.endpoint),
        tags=manifest.tags,
        created_at=manifest.created_at,
    )


def readiness(state: ServingState, unlogged: Mapping[str, str]) -> Health:
    """Ready as soon as one model serves, unless requests are refused because some log (`unlogged`) cannot be written.

    Why a release is refused is told in `/models`.
    """
    models = {}
    for name, slot in sorted(state.slots.items()):
        main = main_version(slot)
        models[name] = f"version {main.version}" if main else ("refused" if slot.refused else "loading")
    trouble = state.trouble or (None if state.slots else "no model has been released yet")
    if unlogged:
        reasons = ", ".join(sorted(set(unlogged.values())))
        trouble = f"the inference log of {', '.join(sorted(unlogged))} cannot be written: {reasons}"
    ready = not unlogged and any(slot.served for slot in state.slots.values())
    return Health(status="ready" if ready else "not ready", models=models, trouble=trouble)


def main_version(slot: EndpointState) -> ServedModel | None:
    """Version with the largest share of the traffic."""
    shares = traffic_shares(slot)
    return max(slot.served, key=lambda model: shares[model.version], default=None)


def traffic_shares(slot: EndpointState) -> dict[int, float]:
    """Share of the traffic of each live version."""
    lower = (0.0, *slot.bounds[:-1]) if slot.bounds else ()
    return {
        model.version: round(high - low, 6) for model, low, high in zip(slot.served, lower, slot.bounds, strict=True)
    }


def _refused(refusal: Refusal | None) -> RefusedRelease | None:
    if refusal is None:
        return None
    return RefusedRelease(
        revision=refusal.revision, version=refusal.version, reason=refusal.reason, since=refusal.since.isoformat()
    )


def _summary(slot: EndpointState) -> dict[str, Any]:
    main = main_version(slot)
    shares = traffic_shares(slot)
    return {
        "name": slot.name,
        "status": "serving" if main else "unavailable",
        "description": main.manifest.description if main else None,
        "task": main.manifest.task if main else None,
        "versions": [
            ServedVersion(
                version=model.version,
                digest=model.digest,
                share=shares[model.version],
                family=model.manifest.family,
            )
            for model in slot.served
        ],
        "endpoint_revision": slot.endpoint.revision if slot.endpoint else None,
        "refused": _refused(slot.refused),
        "shadows": [model.version for model in slot.shadows],
        "shadow_refused": _refused(slot.shadow_refused),
        "predict": f"/predict/{slot.name}",
    }
