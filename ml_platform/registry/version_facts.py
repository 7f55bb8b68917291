"""What is recorded of a version: its manifest, its card, where it stands, and whether its bundle is there.

Of a version without a bundle the card says most of it, of one without a card the manifest does; of one without both its
number and digest are left, and what is missing is said.
"""

from typing import Any

import msgspec

from ml_platform.registry.manifest import Calibration, Imported, Manifest, Recalibrated, Struct, describe_targets
from ml_platform.registry.model_card import CardInterval, CardSlice, ModelCard, load_card
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stages import RegistryState, current_state
from ml_platform.registry.stored_documents import DocumentUnreadable
from ml_platform.registry.version_notes import Notes


class VersionFacts(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One version; None where neither bundle nor card says it."""

    model: str
    version: int
    digest: str
    stage: str
    aliases: tuple[str, ...] = ()
    serving: str = ""  # endpoints that it is behind, in words
    missing: tuple[str, ...] = ()  # what cannot be said of it, and why
    description: str = ""  # of people; else as declared
    tags: dict[str, str] = msgspec.field(default_factory=dict)  # as declared, and of people
    comments: int = 0
    passed: bool | None = None  # the gate's verdict
    family: str | None = None
    task: str | None = None
    target: str | None = None
    target_unit: str | None = None
    metric: str | None = None  # of the gate
    metrics: dict[str, float] = msgspec.field(default_factory=dict)  # on its own holdout
    standard_error: float | None = None  # of the gate's metric, over days
    reference: str = ""  # what the gate held it against
    reference_metrics: dict[str, float] = msgspec.field(default_factory=dict)  # on the same rows
    gain: CardInterval | None = None  # over the reference
    holdout: tuple[str, str, int] | None = None  # from, until, rows
    slices: tuple[CardSlice, ...] = ()
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    threshold: float | None = None
    features: dict[str, float] = msgspec.field(default_factory=dict)  # name → share of the importance, largest first
    training_set: str | None = None
    training_set_version: int | None = None
    tables: dict[str, int] = msgspec.field(default_factory=dict)
    trained_from: str | None = None
    trained_until: str | None = None
    training_rows: int | None = None
    imported: Imported | None = None
    code_version: str | None = None
    created_at: str | None = None
    calibration: Calibration | None = None
    recalibrated: Recalibrated | None = None  # of which version only the probabilities are new
    latency_ms: float | None = None  # of one row, as the gate measured it
    graph_bytes: int | None = None
    bundle_bytes: int | None = None


def facts_of(store: ReleaseStore, model: str, version: int, state: RegistryState | None = None) -> VersionFacts:
    """Gather what is recorded of a version.

    Parameters
    ----------
    store
        The release store.
    model, version
        Which.
    state
        Where the model's versions stand, if it is known already.

    Raises
    ------
    LookupError
        When there is no such version, with those that there are.
    """
    store.check_version(model, version)
    state, digest = state or current_state(store, model), store.versions(model)[version]
    manifest, sizes, missing = _manifest(store, digest)
    card = _card(store, model, version, missing)
    notes = store.notes.load(model, version)
    return VersionFacts(
        model=model,
        version=version,
        digest=digest,
        stage=state.stages[version],
        aliases=tuple(alias for alias, number in state.aliases.items() if number == version),
        serving="; ".join(
            f"{name}: {describe_targets([target])}"
            for name, document in store.documents().items()
            if document.model == model
            for target in document.targets
            if target.version == version
        ),
        missing=tuple(missing),
        comments=len(notes.comments),
        graph_bytes=sizes.get("model.onnx"),
        bundle_bytes=sum(sizes.values()) if sizes else None,
        **_of_manifest(manifest, notes),
        **_of_card(card, manifest),
    )


def all_facts(store: ReleaseStore, model: str) -> list[VersionFacts]:
    """Gather what is recorded of every version of a model, oldest first (raises LookupError without any)."""
    store.check_version(model)
    state = current_state(store, model)
    return [facts_of(store, model, version, state) for version in state.stages]


def _manifest(store: ReleaseStore, digest: str) -> tuple[Manifest | None, dict[str, int], list[str]]:
    """Manifest of a bundle without a look at its graph, the sizes of its files, and what is missing."""
    folder = store.bundle_path(digest)
    if (pruned := store.pruned(digest)) is not None:
        return None, {}, [f"its bundle was removed by {pruned.by} at {pruned.at:%Y-%m-%d %H:%M} UTC ({pruned.reason})"]
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None, {}, [f"its bundle {digest[:12]} is gone from {folder.parent.name}/: restore it from a backup"]
    except msgspec.MsgspecError as error:
        return None, {}, [f"its bundle {digest[:12]} is damaged ({error}): restore it from a backup"]
    return manifest, {path.name: path.stat().st_size for path in folder.iterdir()}, []


def _card(store: ReleaseStore, model: str, version: int, missing: list[str]) -> ModelCard | None:
    try:
        return load_card(store, model, version)
    except LookupError:
        missing.append("it has no card: parameters, slices, interval and latency were not recorded")
    except DocumentUnreadable as error:
        missing.append(store.said(error))
    return None


def _of_manifest(manifest: Manifest | None, notes: Notes) -> dict[str, Any]:
    if manifest is None:
        return {"description": notes.description, "tags": notes.tags}
    error = manifest.holdout_error
    return {
        "description": notes.description or manifest.description,
        "tags": manifest.tags | notes.tags,
        "standard_error": error.by_day if error and error.metric == manifest.metric else None,
        "created_at": manifest.created_at,
        "calibration": manifest.calibration,
        "recalibrated": manifest.recalibrated,
    }


def _of_card(card: ModelCard | None, manifest: Manifest | None) -> dict[str, Any]:
    """What both say, the manifest first; and what the card alone has."""
    said: ModelCard | Manifest | None = manifest or card
    if said is None:
        return {}
    made_of, quality = said.provenance, card.quality if card else None
    ranked = sorted(said.features, key=lambda feature: -feature.importance)
    facts: dict[str, Any] = {
        "family": said.family,
        "task": said.task,
        "target": said.target,
        "target_unit": said.target_unit,
        "threshold": said.threshold,
        "features": {feature.name: feature.importance for feature in ranked},
        "training_set": made_of.training_set,
        "training_set_version": made_of.training_set_version,
        "tables": made_of.tables,
        "trained_from": made_of.trained_from,
        "trained_until": made_of.trained_until,
        "training_rows": made_of.training_rows,
        "imported": made_of.imported,
        "code_version": made_of.code_version,
        "metric": manifest.metric if manifest else None,
        "metrics": manifest.metrics if manifest else {},
    }
    if card is not None:
        facts |= {"passed": card.passed, "params": card.params}
    if quality is not None:
        facts |= {
            "metric": facts["metric"] or quality.metric,
            "metrics": facts["metrics"] or quality.metrics,
            "reference": quality.reference,
            "reference_metrics": quality.reference_metrics,
            "gain": quality.interval,
            "holdout": (quality.first, quality.last, quality.rows),
            "slices": quality.slices,
            "latency_ms": quality.latency_ms or None,
        }
    return facts
