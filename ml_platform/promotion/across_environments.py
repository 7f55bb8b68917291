"""Promotes a model from one environment to the next: its bundle, its entry in the registry, and what serves.

Every step finds out whether it was made already, and what serves changes last, by one replaced file. So a promotion
that was killed left nothing half-made that serves, and is finished by being repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import numpy as np

from ml_platform.atomic_files import locked
from ml_platform.lake.storage.tables import Lake
from ml_platform.promotion.approve import request_approval, set_policy
from ml_platform.promotion.candidate import Candidate, NotPromotable, check_fits, find_candidate
from ml_platform.promotion.promote import sync_registry
from ml_platform.promotion.reachable import unreachable
from ml_platform.promotion.reconcile import STAGE, reconcile_registry
from ml_platform.promotion.registrations import note_registration
from ml_platform.promotion.versions import find_version
from ml_platform.registry.canary import canary_policy, set_canary_policy
from ml_platform.registry.canary import release as release_version
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.model_card import carded_versions, load_card, store_card
from ml_platform.registry.origins import Origin, note_origin, origin_of
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings

COPIES = "promoted_training_sets"  # lake tables of other environments' training sets, by model


def promote_across(
    source: Settings,
    target: Settings,
    reference: str,
    *,
    source_name: str,
    by: str,
    reason: str,
    overrule_gate: bool = False,
    contract_changes: bool = False,
    release: bool = True,
) -> tuple[int, Endpoint | None]:
    """Copy a version into another environment, and let it serve there; repeated, it changes nothing.

    Parameters
    ----------
    source, target
        Settings of both environments.
    reference
        The version: `model@champion`, `model@challenger` or `model@4`.
    source_name
        Name of the environment that it comes from.
    by, reason
        Who promotes and why, for ledger and audit log of the target.
    overrule_gate
        Take a version that the gate refused.
    contract_changes
        Take a version whose inputs or answers differ from what serves in the target.
    release
        Whether it serves at once; else it is registered and waits.

    Returns
    -------
    tuple[int, Endpoint | None]
        Its version there, and the endpoint document; None where it is not released, or waits for an approval there.

    Raises
    ------
    LookupError
        When there is no such version, or the lake lacks its training set.
    NotPromotable, BundleRefused
        When the version is not to be taken; nothing was changed.
    ReleaseConflict
        When somebody else changed meanwhile what serves in the target; the version is registered there.
    RegistryBehind
        When it serves, and ledger or aliases could not follow.
    """
    if not reason.strip():
        raise ValueError("a promotion wants a reason; it goes into the ledger")
    if source.releases_dir == target.releases_dir:
        raise NotPromotable(
            f"both environments have the release store {source.releases_dir}; give each its own `home` in "
            "environments.yaml, and look whether ML_PLATFORM_HOME is set"
        )
    if problems := unreachable(target):
        raise NotPromotable(
            f"the stores of the other environment cannot be reached from here, and nothing was changed there: "
            f"{'; '.join(problems)}. Start or mount them, or correct environments.yaml"
        )
    candidate = find_candidate(source, reference, overrule_gate=overrule_gate)
    store = ReleaseStore(target.releases_dir)
    current = store.endpoint(candidate.model)
    revision = store.revision(candidate.model)
    check_fits(candidate, target, current, contract_changes=contract_changes)
    with _alone(store, candidate.model):
        if candidate.judged is not None:
            store.put_bundle(candidate.judged)
        store.put_bundle(candidate.files)
        _keep_origin(candidate, source, target, source_name, by)
        version = _register(Tracker(target), candidate, source_name, by)
        store.register_version(candidate.model, version, candidate.digest)
        if (policy := canary_policy(ReleaseStore(source.releases_dir), candidate.model)) is not None:
            set_canary_policy(store, candidate.model, policy)
        note_registration(target, Tracker(target).client.get_model_version(candidate.model, str(version)), by=by)
        _copy_card(ReleaseStore(source.releases_dir), store, candidate, version)
        if _waits(source, target, candidate, version, by=by, reason=f"from {source_name}: {reason}"):
            reconcile_registry(Tracker(target), candidate.model)
            return version, None
        targets = (Target(version=version, digest=candidate.digest),)
        if not release:
            reconcile_registry(Tracker(target), candidate.model)
            return version, None
        walk = current.walk if current else None
        if current is None or (current.targets != targets and not (walk and walk.digest == candidate.digest)):
            recorded_reason = f"from {source_name}, version {candidate.version}: {reason}"
            release_version(
                store, candidate.model, targets[0], reason=recorded_reason, by=by, expected_revision=revision
            )
    return version, sync_registry(target, candidate.model)


@contextmanager
def _alone(store: ReleaseStore, model: str) -> Iterator[None]:
    """Keep others from promoting the model into the same store meanwhile, who would register it twice."""
    with locked(store.folder / "locks" / f"{model}.promotion.lock"):
        yield


def _waits(source: Settings, target: Settings, candidate: Candidate, version: int, *, by: str, reason: str) -> bool:
    """Ask for an approval in the target where its versions need one and this one has none; says whether it waits.

    What the source wants of its versions, the target wants too.
    """
    theirs = ReleaseStore(source.releases_dir).approvals.policy(candidate.model)
    if theirs is not None:
        set_policy(target, candidate.model, theirs, by=by)
    if ReleaseStore(target.releases_dir).approvals.policy(candidate.model) is None:
        return False
    served = any(entry.digest == candidate.digest for entry in _served(ReleaseStore(target.releases_dir), candidate))
    if served:
        return False
    request = request_approval(target, candidate.model, version, candidate.digest, by=by, comment=reason)
    return request.state(datetime.now(UTC)) != "approved"


def _served(store: ReleaseStore, candidate: Candidate) -> list[Target]:
    """Targets that the model's endpoint ever had."""
    return [entry for document in store.history(candidate.model) for entry in document.targets]


def _copy_card(source: ReleaseStore, target: ReleaseStore, candidate: Candidate, version: int) -> None:
    """Bring the version's card along, under its number there; a version from before there were cards has none."""
    if candidate.version in carded_versions(source, candidate.model):
        card = load_card(source, candidate.model, candidate.version)
        store_card(target, msgspec.structs.replace(card, version=version))


def _keep_origin(candidate: Candidate, source: Settings, target: Settings, source_name: str, by: str) -> None:
    """Note where the bundle is from, and copy the rows that it learned from, which drift is judged by."""
    store = ReleaseStore(target.releases_dir)
    if origin_of(store, candidate.digest) is not None or candidate.digest in store.versions(candidate.model).values():
        return  # known by now, or trained there
    table, version = None, None
    if target.lake_uri != source.lake_uri:
        learned = candidate.manifest.provenance
        origin = origin_of(ReleaseStore(source.releases_dir), candidate.digest)
        table, version = learned.training_set, learned.training_set_version
        if origin is not None and origin.training_set is not None:  # it has come from further away
            table, version = origin.training_set, origin.training_set_version
        rows = Lake(source.lake_uri).read(table, version=version)
        table = f"{COPIES}/{candidate.model}"
        version = Lake(target.lake_uri).replace(table, rows)
    note_origin(
        store,
        candidate.digest,
        Origin(
            environment=source_name,
            version=candidate.version,
            by=by,
            at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            training_set=table,
            training_set_version=version,
        ),
    )


def _register(tracker: Tracker, candidate: Candidate, source_name: str, by: str) -> int:
    """Return the candidate's version in the target's registry, registered first where it is not."""
    from mlflow.exceptions import MlflowException

    model, manifest = candidate.model, candidate.manifest
    if (known := find_version(tracker, model, candidate.digest)) is not None:
        return int(known.version)
    client = tracker.client
    tags = {name: value for name, value in candidate.tags.items() if name != STAGE}
    tags |= {
        "promoted_from_environment": source_name,
        "promoted_from_version": str(candidate.version),
        "promoted_by": by,
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with tracker.run(model, f"promoted from {source_name}", tags=tags) as run_id:
        matrix = [[np.nan if value is None else value for value in row] for row in candidate.golden.matrix]
        example = np.array(matrix, dtype=np.float64).reshape(len(matrix), len(manifest.features))
        tracker.log(run_id, metrics=manifest.metrics)
        uri = log_model(tracker, run_id, candidate.files["model.onnx"], manifest, example=example)
    try:
        client.create_registered_model(
            model, tags={"owner": manifest.owner, "task": manifest.task}, description=manifest.description
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        model,
        source=uri,
        run_id=run_id,
        model_id=uri.removeprefix("models:/"),
        tags=tags,
        description=f"{candidate.description}\n\nPromoted from {source_name}, version {candidate.version}, by {by}.",
    )
    return int(created.version)
