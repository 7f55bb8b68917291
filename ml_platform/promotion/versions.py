"""Versions in the MLflow registry: numbered, aliased, tagged and described in sentences."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ml_platform.promotion.approve import set_policy
from ml_platform.promotion.reconcile import reconcile_registry, versions_of
from ml_platform.promotion.registrations import note_registration
from ml_platform.promotion.shown_notes import recorded_part
from ml_platform.registry.approvals import ApprovalPolicy
from ml_platform.registry.canary import set_canary_policy
from ml_platform.registry.manifest import CanaryPolicy
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, ImportLineage, RegisteredVersion, TrainedModel

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def set_release_policies(settings: Settings, spec: ModelSpec, *, by: str | None) -> None:
    """Let the model's releases be approved, and walk, as its declaration says now: whoever registers a version does it.

    Parameters
    ----------
    settings
        Where the release store is.
    spec
        The model.
    by
        Who registers; the user of this process when None.
    """
    wanted, canary = spec.promotion.approval, spec.promotion.canary
    set_policy(settings, spec.name, ApprovalPolicy(**wanted.model_dump()) if wanted is not None else None, by=by)
    set_canary_policy(
        ReleaseStore(settings.releases_dir),
        spec.name,
        CanaryPolicy(**canary.model_dump()) if canary is not None else None,
    )


def register(spec: ModelSpec, trained: TrainedModel, evaluation: Evaluation, *, tracker: Tracker) -> RegisteredVersion:
    """Register a trained model as the challenger; the same bundle is one version, described as the gate saw it last.

    Parameters
    ----------
    spec
        The model.
    trained
        What to register: its logged ONNX model becomes the version.
    evaluation
        What the gate found; becomes part of the description and of the tags.
    tracker
        The registry.
    """
    from mlflow.exceptions import MlflowException

    client = tracker.client
    set_release_policies(
        tracker.settings, spec, by=f"dagster run {trained.dagster_run_id}" if trained.dagster_run_id else None
    )
    tags, description = _tags(spec, trained, evaluation), describe(spec, trained, evaluation)
    if (earlier := _same_refit(tracker, trained)) is not None:
        # Fitted again by a run that was repeated: what is registered, and may serve, stays as it is.
        return _registered(tracker, earlier, trained)
    if (known := find_version(tracker, spec.name, trained.digest)) is not None:
        version = int(known.version)
        for name, value in tags.items():
            if known.tags.get(name) != value:
                client.set_model_version_tag(spec.name, str(version), name, value)
        if recorded_part(known.description) != description:
            client.update_model_version(spec.name, str(version), description)
        return _registered(tracker, client.get_model_version(spec.name, str(version)), trained)
    try:
        client.create_registered_model(
            spec.name, tags={"owner": spec.owner, "task": spec.task}, description=spec.description
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    taken = ReleaseStore(tracker.settings.releases_dir).versions(spec.name)
    while True:
        created = client.create_model_version(
            spec.name,
            source=trained.model_uri,
            run_id=trained.run_id,
            model_id=trained.model_uri.removeprefix("models:/"),
            tags=tags,
            description=description,
        )
        if taken.get(int(created.version), trained.digest) == trained.digest:
            return _registered(tracker, created, trained)
        # A registry that was lost counts from 1 again: no two bundles of a model ever have the same number.
        client.delete_model_version(spec.name, str(created.version))


def _registered(tracker: Tracker, entry: "ModelVersion", trained: TrainedModel) -> RegisteredVersion:
    by = f"dagster run {trained.dagster_run_id}" if trained.dagster_run_id else None
    return settle_registration(tracker, entry, by=by)


def settle_registration(tracker: Tracker, entry: "ModelVersion", *, by: str | None) -> RegisteredVersion:
    """Let release store, aliases and ledger know a version; repeated, after a kill in between, it changes nothing.

    Parameters
    ----------
    tracker
        The registry.
    entry
        The version there, with the tags `bundle_digest`, `model_digest` and `gate`.
    by
        Who registered it; the user of this process when None.
    """
    digest, settings = entry.tags["bundle_digest"], tracker.settings
    ReleaseStore(settings.releases_dir).register_version(entry.name, int(entry.version), digest)
    reconcile_registry(tracker, entry.name)
    note_registration(settings, entry, by=by)
    return _document(tracker, entry)


def find_version(tracker: Tracker, model: str, digest: str) -> "ModelVersion | None":
    """Version of a model that has this bundle, the newest if several; None when there is none."""
    versions = [entry for entry in versions_of(tracker, model) if entry.tags.get("bundle_digest") == digest]
    return max(versions, key=lambda entry: int(entry.version), default=None)


def _same_refit(tracker: Tracker, trained: TrainedModel) -> "ModelVersion | None":
    """Version that is another refit of the same judged model; None where this bundle itself is registered, or none."""
    if find_version(tracker, trained.model, trained.digest) is not None:
        return None
    versions = [
        entry
        for entry in versions_of(tracker, trained.model)
        if entry.tags.get("judged_digest") == trained.judged_digest
        and entry.tags.get("bundle_digest") != trained.judged_digest
    ]
    return max(versions, key=lambda entry: int(entry.version), default=None)


def bundle_of_version(tracker: Tracker, model: str, version: int) -> str:
    """Digest of a registered version's bundle.

    Raises
    ------
    LookupError
        When the registry has no such version, with those that it has, or one that was registered without a bundle.
    """
    known = {int(entry.version): entry for entry in versions_of(tracker, model)}
    if version not in known:
        raise LookupError(f"{model}: no version {version} is registered; there are {sorted(known) or 'none'}")
    digest = known[version].tags.get("bundle_digest")
    if digest is None:
        raise LookupError(
            f"{model}: version {version} has no bundle (no tag bundle_digest in MLflow): it was not registered by this "
            "platform, and cannot serve; to make it one that can: ml-platform models import "
            f"{model} models:/{model}/{version}"
        )
    return str(digest)


def describe(spec: ModelSpec, trained: TrainedModel, evaluation: Evaluation) -> str:
    """Describe a version in sentences: what it is, what it learned from, how good it is compared with what."""
    tables = ", ".join(f"{name} (version {version})" for name, version in sorted(trained.training_set.tables.items()))
    top = ", ".join(f"{name} ({share:.0%})" for name, share in list(trained.importance.items())[:5])
    article = "An" if trained.imported else "A"
    sentences = [
        spec.description.strip(),
        f"{article} {trained.family} model for {spec.task} of '{spec.target}', owned by {spec.owner}.",
        _imported(trained)
        or f"It learned from {trained.trained.rows:,} rows of {trained.training_set.table} (version "
        f"{trained.training_set.version}) from {trained.trained.first:%Y-%m-%d} to {trained.trained.last:%Y-%m-%d}, "
        f"made of {tables}; code {trained.code_version}.",
        *(trained.refit.reasons if trained.refit else ()),
        f"What weighs most: {top}.",
        _compared(evaluation),
        *evaluation.reasons,
    ]
    if trained.passed_over:
        reasons = "; ".join(item.told for item in trained.passed_over)
        sentences.insert(4, f"Better on the validation rows, but not to be released: {reasons}.")
    if trained.threshold is not None:
        sentences.insert(
            -1 - len(evaluation.reasons),
            f"It predicts true from a probability of {trained.threshold:.3f}, {spec.threshold.in_words}.",
        )
    return "\n\n".join(sentences)


def _imported(trained: TrainedModel) -> str:
    """Say where a model comes from that was not trained here; an empty text for one that was."""
    if (lineage := trained.imported) is None:
        return ""
    until = (
        f"who imported it says that they end at {trained.trained.last:%Y-%m-%d %H:%M} UTC"
        if lineage.trained_until_stated
        else "it may have seen every row that was labelled then"
    )
    origin = f"; {lineage.origin}" if lineage.origin else ""
    return (
        f"It was not trained here: {lineage.by} imported it from {lineage.source} (SHA-256 {lineage.digest[:12]}, "
        f"{lineage.summary}, read by {lineage.library}{origin}). Its training rows are not known; {until}. It was "
        "judged on "
        f"{trained.training_set.table} (version {trained.training_set.version})."
    )


def _compared(evaluation: Evaluation) -> str:
    if evaluation.holdout is None:
        return "There were no rows to compare it with the champion on."
    metric, sides = evaluation.metric, {"it": evaluation.challenger, "the naive baseline": evaluation.naive}
    if evaluation.champion is not None:
        sides[f"the {evaluation.reference}"] = evaluation.champion
    values = "; ".join(f"{name} {values[metric]:.4f}" for name, values in sides.items() if metric in values)
    return (
        f"{metric} on {evaluation.holdout.rows:,} rows that the judged model never saw "
        f"({evaluation.holdout.first:%Y-%m-%d} to {evaluation.holdout.last:%Y-%m-%d}): {values}."
    )


def _tags(spec: ModelSpec, trained: TrainedModel, evaluation: Evaluation) -> dict[str, str]:
    judged = trained.refit.judged if trained.refit else trained.trained
    tags: Mapping[str, object] = {
        **spec.tags,
        "gate": "passed" if evaluation.promote else "refused",
        "bundle_digest": trained.digest,
        "judged_digest": trained.judged_digest,
        "model_digest": trained.model_digest,
        "trained_until": f"{trained.trained.last:%Y-%m-%dT%H:%M:%SZ}",
        "judged_trained_until": f"{judged.last:%Y-%m-%dT%H:%M:%SZ}",
        "family": trained.family,
        "owner": spec.owner,
        "training_set": trained.training_set.table,
        "training_set_version": trained.training_set.version,
        "code_version": trained.code_version,
        **{f"holdout_{name}": f"{value:.6g}" for name, value in trained.metrics.items()},
        **(_import_tags(trained.imported) if trained.imported else {}),
    }
    return {name: str(value) for name, value in tags.items()}


def _import_tags(lineage: ImportLineage) -> dict[str, str]:
    return {
        "imported_by": lineage.by,
        "import_flavor": lineage.flavor,
        "import_source": lineage.source,
        "import_source_digest": lineage.digest,
        "import_library": lineage.library,
        "trained_until_stated": str(lineage.trained_until_stated).lower(),
    }


def _document(tracker: Tracker, entry: "ModelVersion") -> RegisteredVersion:
    digest, judged = entry.tags["bundle_digest"], entry.tags.get("judged_digest")
    return RegisteredVersion(
        model=entry.name,
        version=int(entry.version),
        digest=digest,
        judged_digest=judged,
        model_digest=entry.tags["model_digest"],
        run_id=entry.run_id,
        model_uri=entry.source,
        url=tracker.version_url(entry.name, int(entry.version)),
    )
