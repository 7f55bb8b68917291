"""What can be said of a model without labels: its export, its speed, its size, its features' definitions, its leaks."""

from collections.abc import Mapping

from ml_platform.features.views.view import FeatureView
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult, ParityReport, TrainedModel
from ml_platform.training.evaluation.guardrails.result import measured, not_computed

_MEGABYTE = 1_000_000


def model_guardrails(
    spec: ModelSpec,
    trained: TrainedModel,
    manifest: Manifest,
    views: Mapping[str, FeatureView],
    store: ReleaseStore,
    *,
    latency_ms: float,
) -> list[GuardrailResult]:
    """Hold a model to what its bundle and its training set say of it.

    Parameters
    ----------
    spec
        The model: its bounds.
    trained, manifest
        What was trained, and its bundle's manifest.
    views
        Feature views by name, as they are defined now.
    store
        Where the bundle is.
    latency_ms
        Median time of a one-row prediction.
    """
    return [
        parity_guardrail(spec, trained.parity),
        latency_guardrail(spec, latency_ms),
        size_guardrail(spec, bundle_bytes(store, trained.digest)),
        views_guardrail(spec, manifest, views),
        leakage_guardrail(spec, trained),
    ]


def parity_guardrail(spec: ModelSpec, parity: ParityReport) -> GuardrailResult:
    """Hold the exported graph to the model that was trained."""
    said = (
        f"the exported graph differs from the trained model by at most {parity.max_difference:.1e} on {parity.rows:,} "
        f"rows, {parity.tolerance:.0e} are allowed"
    )
    return measured(spec.promotion, "parity", parity.max_difference, parity.tolerance, said)


def latency_guardrail(spec: ModelSpec, latency_ms: float) -> GuardrailResult:
    """Hold the time of a one-row prediction to its bound."""
    bound = spec.promotion.max_latency_ms
    said = f"a one-row prediction takes {latency_ms:.3f} ms, {bound:g} ms are allowed"
    return measured(spec.promotion, "latency", latency_ms, bound, said)


def size_guardrail(spec: ModelSpec, size: int) -> GuardrailResult:
    """Hold the bytes of a bundle to their bound, in megabytes."""
    bound = spec.promotion.guardrails.max_bundle_mb
    said = f"the bundle has {size / _MEGABYTE:,.2f} MB, {bound:g} MB are allowed"
    return measured(spec.promotion, "bundle_size", size / _MEGABYTE, bound, said)


def bundle_bytes(store: ReleaseStore, digest: str) -> int:
    """Bytes of a bundle's files."""
    return sum(len(content) for content in store.read_bundle(digest).values())


def views_guardrail(spec: ModelSpec, manifest: Manifest, views: Mapping[str, FeatureView]) -> GuardrailResult:
    """Hold the views that a model looks up to what they were when it was trained, by the hash of their definition.

    The online store has values of the present definition: a model that was trained on another gets other numbers.
    """
    now = {name: view.hash for name, view in views.items()}
    changed = [
        f"'{item.view}' ({item.view_hash[:12]} then, {now.get(item.view, 'gone')[:12]} now)"
        for item in manifest.lookups
        if now.get(item.view) != item.view_hash
    ]
    count = len(manifest.lookups)
    said = f"the definitions of {count} look-ups are those that it was trained with" if count else "it looks nothing up"
    if changed:
        said = f"the definition of {', '.join(changed)} changed since it was trained; train again"
    return measured(spec.promotion, "views", len(changed), 0, said)


def leakage_guardrail(spec: ModelSpec, trained: TrainedModel) -> GuardrailResult:
    """Hold the strongest feature alone to what no honest feature reaches; what is known to be sound is left out."""
    declared = spec.promotion.guardrails.max_feature_strength
    kind, default = ("R²", spec.leakage.max_r2) if spec.task == "regression" else ("AUC", spec.leakage.max_auc)
    strength = {name: value for name, value in trained.training_set.strength.items() if name not in spec.leakage.allow}
    if not trained.training_set.strength:
        return not_computed(spec.promotion, "leakage", declared, "the training set was not searched for leaks")
    name, value = max(strength.items(), key=lambda item: item[1], default=("none", 0.0))
    bound = default if declared is None else declared
    said = f"the strongest feature alone, '{name}', has {kind} {value:.4f} with the label, {bound:g} is allowed"
    return measured(spec.promotion, "leakage", value, bound, said)
