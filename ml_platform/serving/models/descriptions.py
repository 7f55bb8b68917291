"""What the descriptive routes answer: which models serve, from which release, and what each takes and gives."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from ml_platform.serving.models.composed import ComposedModel
from ml_platform.serving.models.slots import EndpointState, Refusal, ServedModel, ServingState


class ServedVersion(BaseModel):
    """One version that takes traffic."""

    version: int = Field(description="Number in the registry.")
    digest: str = Field(description="Of the release bundle: the same bytes wherever this digest is named.")
    share: float = Field(description="Of the traffic, 0 to 1.")
    family: str = Field(description="Kind of estimator, such as lightgbm.")


class RefusedRelease(BaseModel):
    """A release that failed its checks and does not serve."""

    revision: int = Field(description="Of the endpoint; 0 where its document cannot be read.")
    version: int | None = Field(None, description="The version that failed its checks; null if it was not just one.")
    reason: str = Field(description="Which check failed, and what to do.")
    since: str = Field(description="When it was first refused (UTC).")


class ModelSummary(BaseModel):
    """One line of `/models`."""

    name: str = Field(description="Name of the endpoint, by which it is asked.")
    status: Literal["serving", "unavailable"] = Field(description="`unavailable` while no version can be loaded.")
    description: str | None = Field(description="What the model predicts; null while no version is loaded.")
    task: str | None = Field(description="binary, multiclass or regression; null while no version is loaded.")
    versions: list[ServedVersion] = Field(description="Versions that take traffic, with their shares.")
    endpoint_revision: int | None = Field(
        description="Revision of the endpoint document in force; null before the first."
    )
    refused: RefusedRelease | None = Field(description="The newest release, while it is refused.")
    shadows: list[int] = Field([], description="Versions that are scored and logged but never answer.")
    shadow_refused: RefusedRelease | None = Field(None, description="A shadow version, while it is refused.")
    members: dict[str, list[int]] = Field(
        {}, description="Of a composed endpoint: endpoint that answers a part → its versions that take traffic."
    )
    predict: str = Field(description="Path to post rows to.")


class ModelList(BaseModel):
    """Every model that has ever been released."""

    models: list[ModelSummary] = Field(description="One line for each, by name.")
    trouble: str | None = Field(
        None, description="Why the release store cannot be read; what served before still does."
    )


class ModelDetail(ModelSummary):
    """One model: inputs, features, metrics and provenance of the version with the largest share."""

    owner: str | None = Field(None, description="Who answers for the model.")
    target: dict[str, Any] | None = Field(None, description="What is predicted: name, unit and classes.")
    inputs: list[dict[str, Any]] = Field([], description="Fields of a request, with their types and contract.")
    derived: list[dict[str, Any]] = Field([], description="Features computed from the request alone.")
    lookups: list[dict[str, Any]] = Field(
        [], description="Features read from the online store, with their view's hash."
    )
    features: list[dict[str, Any]] = Field([], description="Columns of the model's matrix, most important first.")
    metric: str | None = Field(None, description="The one of `metrics` by which versions are compared and promoted.")
    metrics: dict[str, float] = Field({}, description="On the holdout, when the version was evaluated.")
    provenance: dict[str, Any] | None = Field(
        None, description="What it was made from: training set, table versions, commit and run."
    )
    endpoint: dict[str, Any] | None = Field(None, description="The endpoint document in force.")
    tags: dict[str, str] = Field({}, description="Tags, as declared.")
    created_at: str | None = Field(None, description="When the version was trained (UTC).")


class Health(BaseModel):
    """State of this worker."""

    status: Literal["live", "ready", "not ready"] = Field(
        description="`live` of a worker that answers at all; `ready` or `not ready` to predict."
    )
    models: dict[str, str] = Field({}, description="Model → version that serves; else refused, or loading.")
    trouble: str | None = Field(None, description="Why it is not ready; null when it is.")


def summary(slot: EndpointState) -> ModelSummary:
    """Describe a slot in one line."""
    return ModelSummary(**_summary(slot))


def describe_endpoint(slot: EndpointState) -> ModelDetail:
    """Describe a slot in full."""
    main = described_version(slot)
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
            "quantile": manifest.quantile,
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


def described_version(slot: EndpointState) -> ServedModel | None:
    """The main version as clients are told of it: with the inputs of all versions, which a request may have."""
    main = main_version(slot)
    if main is None or not slot.is_mixed:
        return main
    return replace(main, manifest=msgspec.structs.replace(main.manifest, inputs=slot.inputs))


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


def _members(model: ServedModel | None) -> dict[str, list[int]]:
    if not isinstance(model, ComposedModel):
        return {}
    return {name: [one.version for one in slot.served] for name, slot in model.members.items()}


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
        "members": _members(main),
        "predict": f"/predict/{slot.name}",
    }
