"""Promotion and rollback: the release store changes first, then the registry's aliases and the ledger follow it."""

from ml_platform.governance.audit import record_event
from ml_platform.governance.ledger_check import anchor_ledger
from ml_platform.lake.storage.tables import Lake
from ml_platform.promotion.approve import record_approvals, request_approval
from ml_platform.promotion.reconcile import reconcile_registry
from ml_platform.promotion.versions import bundle_of_version
from ml_platform.registry.canary import release, roll_back_walk, walk_of
from ml_platform.registry.followed import following
from ml_platform.registry.ledger import record_release, unrecorded
from ml_platform.registry.manifest import Endpoint, Target, champion_target, describe_targets
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.registry.stages import rollback_state
from ml_platform.registry.tracking import Tracker
from ml_platform.registry.traffic import TrafficChange, set_traffic
from ml_platform.registry.version_inputs import unlike_live_inputs
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
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
    """Release a version if the gate passed it and the spec lets the gate decide.

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
    judged = registered.judged_digest or registered.digest
    if evaluation.challenger_digest != judged:
        raise ValueError(
            f"{spec.name}: the evaluation is of bundle {evaluation.challenger_digest[:12]}, version "
            f"{registered.version} is that of bundle {judged[:12]}; materialise the evaluation again"
        )
    store = ReleaseStore(settings.releases_dir)
    current, newest = store.endpoint(spec.name), store.document(spec.name)
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

    if newest and not current:
        withdrawn = (
            f"{spec.name} was taken out of service by {newest.updated_by} ({newest.reason}); version "
            f"{registered.version} waits. `rollback` puts back what served, `promote` serves this version."
        )
        return decision(False, newest, withdrawn, *evaluation.reasons)
    if current and (walk := current.walk) is not None:
        walks = walk.digest == registered.digest  # this run, repeated
        if walks:
            _follow(settings, tracker, current)
        waits = f"Version {registered.version} waits. {walk.under_way(spec.name)}."
        said = _walking(store, current) if walks else waits
        return decision(walks, current, said, *evaluation.reasons)
    if current and serving and serving.digest == registered.digest:
        _follow(settings, tracker, current)
        already = f"Version {serving.version} already serves (revision {current.revision})."
        if not evaluation.promote or current.revision != evaluation.revision + 1:
            return decision(False, current, already)
        # This evaluation has put it there: a promotion that was cut short after its document was published, and is
        # repeated. To whoever counts what retraining has brought, it is one.
        before = [document for document in store.history(spec.name) if document.revision == evaluation.revision]
        serving = champion_target(before[0]) if before and before[0].targets else None
        return decision(True, current, already, *evaluation.reasons)
    if not evaluation.promote or not spec.promotion.automatic:
        waiting = (_waiting(settings, spec, registered, evaluation, by=by),) if evaluation.promote else ()
        return decision(False, current, *waiting, *evaluation.reasons)
    endpoint = release(
        store,
        spec.name,
        Target(version=registered.version, digest=registered.digest),
        reason=" ".join(evaluation.reasons),
        by=by,
        expected_revision=evaluation.revision,
    )
    _follow(settings, tracker, endpoint)
    served = f"Version {registered.version} serves from revision {endpoint.revision} on, " + (
        f"in place of version {serving.version}." if serving else "the first of its model."
    )
    said = served if endpoint.walk is None else _walking(store, endpoint)
    return decision(True, endpoint, said, *evaluation.reasons)


def _walking(store: ReleaseStore, endpoint: Endpoint) -> str:
    walk = walk_of(endpoint)
    return (
        f"Version {walk.version} serves {walk.percent:g} % from revision {endpoint.revision} on, as a canary beside "
        f"{describe_targets(walk.base)}; the next step is {walk.policy.steps[walk.step + 1]:g} %."
        + "".join(f" {line[0].upper()}{line[1:]}." for line in unlike_live_inputs(store, endpoint))
    )


def _waiting(
    settings: Settings, spec: ModelSpec, registered: RegisteredVersion, evaluation: Evaluation, *, by: str
) -> str:
    """Let a version that passed wait for a person; says for what."""
    version = registered.version
    if spec.promotion.approval is None:
        return (
            f"Version {version} passed the gate and waits as challenger, because promotion.automatic is false; to "
            f'serve it: ml-platform promote {spec.name} {version} --reason "…".'
        )
    request = request_approval(
        settings, spec.name, version, registered.digest, by=by, comment=" ".join(evaluation.reasons)
    )
    return (
        f"Version {version} passed the gate and waits for an approval until {request.expires_at:%Y-%m-%d %H:%M} UTC: "
        f'ml-platform approvals approve {spec.name} {version} --comment "…".'
    )


def promote_version(settings: Settings, model: str, version: int, *, by: str, reason: str) -> Endpoint:
    """Release a registered version because a person says so, whatever the gate found, to all traffic at once.

    The version that walks as a canary ends its walk so.

    Raises
    ------
    ReleaseConflict
        When somebody else changed meanwhile what serves, or another version walks as a canary.
    LookupError
        When the version or its bundle does not exist.
    NotApproved
        When a person has to approve it first.
    """
    store = ReleaseStore(settings.releases_dir)
    revision = store.revision(model)  # first: of two who promote at once, the other is told
    tracker = Tracker(settings)
    digest = store.versions(model).get(version) if is_name(model) else None
    if digest is None:  # registered by somebody else; what the store knows is released while the registry is away
        digest = bundle_of_version(tracker, model, version)
        store.register_version(model, version, digest)
    target = Target(version=version, digest=digest)
    endpoint = store.publish(model, [target], reason=reason, by=by, expected_revision=revision)
    _follow(settings, tracker, endpoint)
    return endpoint


def rollback(settings: Settings, name: str, *, by: str, reason: str) -> Endpoint:
    """Serve the last state that differs from the present one; also restores what was withdrawn.

    A state is the targets with their shares, and the key that decides between them. Revisions that changed neither are
    passed over, and so are withdrawals and the steps of a canary: a rollback during its walk ends it. A second rollback
    undoes the first, since that is then the last other state.

    Parameters
    ----------
    settings
        Where release store, registry and lake are.
    name
        Of the model, or of an endpoint that has a name of its own.
    by
        Who rolls back.
    reason
        Why.

    Raises
    ------
    LookupError
        When nothing ever served, or nothing else than now.
    BundleRefused
        When the previous bundle is damaged; what serves now stays.
    """
    store = ReleaseStore(settings.releases_dir)
    documents = store.history(name)
    if not documents:
        known = ", ".join(store.endpoints()) or "none"
        raise LookupError(f"{name}: nothing serves, so there is nothing to roll back; models that serve: {known}")
    current = documents[-1]
    if current.walk is not None:
        endpoint = roll_back_walk(store, current, reason=reason, by=by, state="ended")
        _follow(settings, Tracker(settings), endpoint)
        return endpoint
    earlier = rollback_state(documents)
    if earlier is None:
        raise LookupError(
            f"{name}: {describe_targets(current.targets)} (revision {current.revision}) is all that ever served; "
            "there is nothing else to go back to"
        )
    endpoint = store.publish(
        current.model,
        earlier.targets,
        reason=reason,
        by=by,
        expected_revision=current.revision,
        action="rollback",
        key=earlier.key,
        own_name=current.own_name,
    )
    _follow(settings, Tracker(settings), endpoint)
    return endpoint


def change_traffic(settings: Settings, name: str, change: TrafficChange, *, by: str, reason: str) -> Endpoint:
    """Set the targets of an endpoint, as `set_traffic` does, then update ledger and registry.

    What serves already makes no new revision.

    Raises
    ------
    RegistryBehind
        When they could not follow; the change holds.
    """
    endpoint = set_traffic(ReleaseStore(settings.releases_dir), name, change, by=by, reason=reason)
    _follow(settings, Tracker(settings), endpoint)
    return endpoint


def sync_registry(settings: Settings, name: str) -> Endpoint:
    """Bring aliases, stages and ledger up to date with what serves: after a change over HTTP, an outage, or a kill.

    Every revision that the ledger lacks is written down, in order.
    """
    document = ReleaseStore(settings.releases_dir).document(name)
    if document is None:
        raise LookupError(f"{name}: nothing ever served, so the registry has nothing to follow")
    _follow(settings, Tracker(settings), document)
    return document


class RegistryBehind(RuntimeError):
    """The release changed and serves, but the ledger or the registry could not be updated."""


def _follow(settings: Settings, tracker: Tracker, endpoint: Endpoint) -> None:
    """Let ledger and registry follow the newest document, which may be newer than `endpoint`."""
    store = ReleaseStore(settings.releases_dir)
    try:
        lake = Lake(settings.lake_uri)
        with following(store, endpoint.name):
            record_approvals(settings, endpoint.model)  # first: what was answered comes before what it led to
            for document in unrecorded(lake, store, endpoint.name):
                detail = f"{document.name}: {describe_targets(document.targets)}, revision {document.revision}: "
                detail += document.reason
                record_event(settings.audit_dir, settings.keys_dir, document.action, detail, by=document.updated_by)
                anchor_ledger(settings, record_release(lake, store, document))
            reconcile_registry(tracker, endpoint.model)
    except Exception as error:
        champion = endpoint.champion
        raise RegistryBehind(
            f"{endpoint.name}: {f'version {champion.version}' if champion else 'nothing'} serves (revision "
            f"{endpoint.revision}), but ledger or aliases could not follow: {error}. Do not repeat the change; when "
            "the registry is back, the sensor `registry_behind` makes up for it, or call "
            f"ml_platform.promotion.promote.sync_registry(settings, '{endpoint.name}')"
        ) from error
