"""Promotion and rollback: the release store changes first, then the registry's aliases and the ledger follow it."""

from ml_platform.governance.audit import record_event
from ml_platform.lake.tables import Lake
from ml_platform.registry.ledger import is_recorded, record_release
from ml_platform.registry.manifest import Endpoint, Target
from ml_platform.registry.releases import ReleaseStore, champion_target
from ml_platform.registry.tracking import Tracker
from ml_platform.registry.versions import bundle_of_version, show_champion
from ml_platform.settings import Settings
from ml_platform.spec import ModelSpec
from ml_platform.training.documents import Evaluation, RegisteredVersion, ReleaseDecision


def promote(
    settings: Settings,
    spec: ModelSpec,
    registered: RegisteredVersion,
    evaluation: Evaluation,
    *,
    tracker: Tracker,
    by: str,
) -> ReleaseDecision:
    """Let a version serve if the gate passed it and the spec leaves that to the gate.

    Parameters
    ----------
    settings
        Where release store and lake are.
    spec
        The model; with `promotion.automatic: false` a passing version waits for `promote_version`.
    registered
        The version.
    evaluation
        The gate's findings about this version, based on the endpoint's revision at that time.
    tracker
        The registry.
    by
        Who promotes, for the endpoint document and the ledger.

    Raises
    ------
    ReleaseConflict
        When something else was promoted since the evaluation: evaluate against that first.
    ValueError
        When the evaluation is of another bundle.
    """
    if evaluation.challenger_digest != registered.digest:
        raise ValueError(
            f"{spec.name}: the evaluation is of bundle {evaluation.challenger_digest[:12]}, version "
            f"{registered.version} is bundle {registered.digest[:12]}; materialise the evaluation again"
        )
    store = ReleaseStore(settings.releases_dir)
    current = store.endpoint(spec.name)
    serving = champion_target(current) if current else None

    def decision(promoted: bool, endpoint: Endpoint | None, *reasons: str) -> ReleaseDecision:
        return ReleaseDecision(
            model=spec.name,
            promoted=promoted,
            version=registered.version,
            previous_version=serving.version if serving else None,
            revision=endpoint.revision if endpoint else 0,
            reasons=reasons,
        )

    if current and serving and serving.digest == registered.digest:
        # Also the way out of a promotion that was cut short after its document was published.
        _follow(settings, tracker, "promotion", current)
        return decision(False, current, f"Version {serving.version} already serves (revision {current.revision}).")
    if not evaluation.promote:
        return decision(False, current, *evaluation.reasons)
    if not spec.promotion.automatic:
        waiting = (
            f"Version {registered.version} passed the gate and waits as challenger, because promotion.automatic is "
            "false; a person promotes it with ml_platform.registry.promotion.promote_version."
        )
        return decision(False, current, waiting, *evaluation.reasons)
    endpoint = store.publish(
        spec.name,
        [Target(version=registered.version, digest=registered.digest)],
        reason=" ".join(evaluation.reasons),
        by=by,
        expected_revision=evaluation.revision,
    )
    _follow(settings, tracker, "promotion", endpoint)
    served = f"Version {registered.version} serves from revision {endpoint.revision} on, " + (
        f"in place of version {serving.version}." if serving else "the first of its model."
    )
    return decision(True, endpoint, served, *evaluation.reasons)


def promote_version(settings: Settings, model: str, version: int, *, by: str, reason: str) -> Endpoint:
    """Let a registered version serve because a person says so, whatever the gate found.

    Raises
    ------
    LookupError
        When the version or its bundle does not exist.
    """
    tracker, store = Tracker(settings), ReleaseStore(settings.releases_dir)
    digest = bundle_of_version(tracker, model, version)
    endpoint = store.publish(model, [Target(version=version, digest=digest)], reason=reason, by=by)
    _follow(settings, tracker, "promotion", endpoint)
    return endpoint


def rollback(settings: Settings, model: str, *, by: str, reason: str) -> Endpoint:
    """Let what served before serve again; a second rollback undoes the first.

    Parameters
    ----------
    settings
        Where release store, registry and lake are.
    model
        Name of the model.
    by
        Who rolls back.
    reason
        Why.

    Raises
    ------
    LookupError
        When nothing serves, or nothing served before.
    BundleRefused
        When the previous bundle is damaged; what serves now stays.
    """
    store = ReleaseStore(settings.releases_dir)
    current = store.endpoint(model)
    if current is None:
        known = ", ".join(store.endpoints()) or "none"
        raise LookupError(f"{model}: nothing serves, so there is nothing to roll back; models that serve: {known}")
    if not current.previous:
        raise LookupError(
            f"{model}: version {champion_target(current).version} (revision {current.revision}) is the first that "
            "served; there is nothing before it to go back to"
        )
    endpoint = store.publish(model, current.previous, reason=reason, by=by, expected_revision=current.revision)
    _follow(settings, Tracker(settings), "rollback", endpoint)
    return endpoint


def sync_registry(settings: Settings, model: str) -> None:
    """Let aliases and ledger follow what serves, after a registry outage during a promotion or rollback."""
    endpoint = ReleaseStore(settings.releases_dir).endpoint(model)
    if endpoint is None:
        raise LookupError(f"{model}: nothing serves, so the registry has nothing to follow")
    _follow(settings, Tracker(settings), "promotion", endpoint)


class RegistryBehind(RuntimeError):
    """The release changed and serves, but the ledger or the registry could not be brought along."""


def _follow(settings: Settings, tracker: Tracker, action: str, endpoint: Endpoint) -> None:
    champion = champion_target(endpoint)
    try:
        lake = Lake(settings.lake_uri)
        if not is_recorded(lake, endpoint):
            detail = f"{endpoint.model}: version {champion.version}, revision {endpoint.revision}: {endpoint.reason}"
            record_event(settings.audit_dir, settings.keys_dir, action, detail, by=endpoint.updated_by)
        record_release(lake, action, endpoint)
        show_champion(tracker, endpoint.model, champion.version)
    except Exception as error:
        raise RegistryBehind(
            f"{endpoint.model}: version {champion.version} serves (revision {endpoint.revision}), but ledger or "
            f"aliases could not follow: {error}. Do not repeat the change; when the registry is back, call "
            f"ml_platform.registry.promotion.sync_registry(settings, '{endpoint.model}')"
        ) from error
