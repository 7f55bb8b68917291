"""Canary walks: a release takes its traffic step by step, and each step is a revision of the endpoint document.

All of a walk's state is in the newest endpoint document, so whoever drives it may be killed at any point: the document
has the step before or the step after, and the next who looks goes on from there. `ml_platform.monitoring.canary` judges
the steps and drives them. Under the release store's folder,

    canary/<model>.json                what the model's releases walk by; none when they take all traffic at once
    canary/<endpoint>.report.json      what was last found about a walk, for people

Imports nothing but the standard library and msgspec: serving depends on it.
"""

import math
from datetime import UTC, datetime
from typing import Literal

import msgspec

from ml_platform.atomic_files import replace_file
from ml_platform.registry.manifest import Action, Canary, CanaryPolicy, CanaryState, Endpoint, Struct, Target
from ml_platform.registry.releases import ReleaseConflict, ReleaseStore, is_name
from ml_platform.registry.stored_documents import document_bytes, read_document

WHOLE = 100.0  # percent


class NoWalk(LookupError):
    """No canary walk is under way, or none that could be taken up again."""


class GuardFinding(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What one guard found: the canary beside the champion over the same requests' time."""

    guard: str
    champion: float
    canary: float
    difference: float  # in the units of the bound
    bound: float
    chance: float  # probability of such a difference between two equal versions
    breached: bool
    said: str  # in words


class WalkReport(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What was found about a step of a walk, at an instant."""

    revision: int
    at: datetime
    decision: Literal["wait", "advance", "roll back"]
    said: str
    champion_requests: int
    canary_requests: int
    guards: tuple[GuardFinding, ...] = ()


def canary_policy(store: ReleaseStore, model: str) -> CanaryPolicy | None:
    """What a model's releases walk by; None when they take all traffic at once."""
    path = store.folder / "canary" / f"{model}.json"
    try:
        return read_document(path, CanaryPolicy, "a canary policy", "restore it, or register a version again")
    except FileNotFoundError:
        return None


def set_canary_policy(store: ReleaseStore, model: str, policy: CanaryPolicy | None) -> None:
    """Say what a model's releases walk by from now on; a walk that is under way keeps its own."""
    path = store.folder / "canary" / f"{model}.json"
    if policy is None:
        path.unlink(missing_ok=True)
    elif canary_policy(store, model) != check_policy(policy):
        replace_file(path, document_bytes(policy))


def check_policy(policy: CanaryPolicy) -> CanaryPolicy:
    """Check a policy's steps and bounds (raises ValueError).

    Examples
    --------
    >>> check_policy(CanaryPolicy(steps=(25, 5)))
    Traceback (most recent call last):
    ValueError: steps: wanted rising percents above 0 that end with 100, found 25, 5
    """
    steps, found = policy.steps, ", ".join(f"{step:g}" for step in policy.steps)
    rising = all(before < after for before, after in zip((0.0, *steps), steps, strict=False))
    if len(steps) < 2 or not rising or steps[-1] != WHOLE:
        raise ValueError(f"steps: wanted rising percents above 0 that end with 100, found {found or 'none'}")
    bounds = {
        "minutes": 0 <= policy.minutes < math.inf,
        "min_requests": policy.min_requests >= 1,
        "max_wait_hours": 0 < policy.max_wait_hours < math.inf,
        "max_error_increase": 0 <= policy.max_error_increase < 1,
        "max_latency_ratio": 1 <= policy.max_latency_ratio < math.inf,
        "max_flag_increase": 0 <= policy.max_flag_increase < 1,
        "max_score_distance": 0 < policy.max_score_distance < 1,
        "false_alarm": 0 < policy.false_alarm < 0.5,
    }
    for name, fits in bounds.items():
        if not fits:
            raise ValueError(f"{name}: {getattr(policy, name):g} is out of its range")
    return policy


def release(
    store: ReleaseStore, model: str, target: Target, *, reason: str, by: str, expected_revision: int
) -> Endpoint:
    """Let a version take the champion's place: at once, or by a walk where the model's releases walk.

    The first version of a model, and one that takes the place of nothing, has no champion to be held against.

    Raises
    ------
    ReleaseConflict
        When something was changed since `expected_revision`, or another version walks.
    NotApproved, BundleRefused, LookupError, ValueError
        As `ReleaseStore.publish`.
    """
    current, policy = store.endpoint(model), canary_policy(store, model)
    if (
        policy is None
        or current is None
        or target.digest in {one.digest for one in current.targets if one.mode == "live"}
    ):
        return store.publish(
            model,
            [target],
            reason=reason,
            by=by,
            expected_revision=expected_revision,
            action=_taking_over(store, target.digest),
        )
    return start_walk(
        store,
        model,
        target.version,
        target.digest,
        policy=policy,
        reason=reason,
        by=by,
        expected_revision=expected_revision,
    )


def start_walk(
    store: ReleaseStore,
    name: str,
    version: int,
    digest: str,
    *,
    policy: CanaryPolicy,
    reason: str,
    by: str,
    expected_revision: int | None = None,
    step: int = 0,
) -> Endpoint:
    """Give a version the first share of the traffic, beside what serves.

    Parameters
    ----------
    store, name
        The endpoint, which serves.
    version, digest
        The candidate.
    policy
        Steps and guards, kept for the whole walk.
    reason, by
        For the endpoint document and the ledger.
    expected_revision
        Revision that the decision was based on; None for what is read now.
    step
        The step to begin with.

    Raises
    ------
    ReleaseConflict
        When somebody else changed the endpoint, or a walk is under way.
    LookupError
        When nothing serves.
    ValueError
        When the version serves already.
    """
    check_policy(policy)
    current = store.endpoint(name)
    if current is None:
        raise LookupError(f"{name}: nothing serves that a canary could be held against; promote the version instead")
    if (walk := current.walk) is not None:
        raise ReleaseConflict(walk.under_way(name))
    if digest in {target.digest for target in current.targets if target.mode == "live"}:
        raise ValueError(f"{name}: version {version} serves already (revision {current.revision})")
    canary = Canary(
        version=version,
        digest=digest,
        step=step,
        state="walking",
        policy=policy,
        base=current.targets,
        base_key=current.key,
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        started_by=by,
        reason=reason,
    )
    expected = current.revision if expected_revision is None else expected_revision
    said = f"canary of version {version} begins at {canary.percent:g} %: {reason}"
    return _publish(store, current, canary, reason=said, by=by, expected_revision=expected)


def next_step(store: ReleaseStore, endpoint: Endpoint, *, reason: str, by: str) -> Endpoint:
    """Give the candidate the next step's share; after the last step it is the champion (raises ReleaseConflict)."""
    walk = walk_of(endpoint)
    walk = msgspec.structs.replace(walk, step=walk.step + 1)
    if walk.percent >= WHOLE:
        walk = msgspec.structs.replace(walk, state="completed")
    return _publish(store, endpoint, walk, reason=reason, by=by, expected_revision=endpoint.revision)


def roll_back_walk(
    store: ReleaseStore, endpoint: Endpoint, *, reason: str, by: str, state: CanaryState = "rolled back"
) -> Endpoint:
    """Let what served before the walk serve again, whole (raises ReleaseConflict, NoWalk)."""
    walk = msgspec.structs.replace(walk_of(endpoint), state=state)
    if state == "ended":
        reason = f"{reason} ({walk.ended_by_this})"
    return _publish(store, endpoint, walk, reason=reason, by=by, expected_revision=endpoint.revision)


def resume_walk(store: ReleaseStore, name: str, *, reason: str, by: str) -> Endpoint:
    """Take a walk that was rolled back or ended up again, at the step where it ended.

    Raises
    ------
    NoWalk
        When the last walk of the endpoint was completed, or there never was one.
    ReleaseConflict
        When one is under way.
    """
    last = next((one.canary for one in reversed(store.history(name)) if one.canary is not None), None)
    if last is None or last.state == "completed":
        raise NoWalk(f"{name}: there is no canary walk to take up again; begin one: ml-platform canary start {name} …")
    return start_walk(store, name, last.version, last.digest, policy=last.policy, reason=reason, by=by, step=last.step)


def walk_of(endpoint: Endpoint) -> Canary:
    """The walk that is under way (raises NoWalk)."""
    if endpoint.walk is None:
        raise NoWalk(f"{endpoint.name}: no canary walk is under way (revision {endpoint.revision})")
    return endpoint.walk


def describe_walk(walk: Canary) -> str:
    """Say in a few words how far a walk is.

    Examples
    --------
    >>> describe_walk(Canary(version=4, digest="", step=1, state="walking", policy=CanaryPolicy(), base=(),
    ...     base_key=None, started_at="", started_by="ann", reason="try"))
    'canary of version 4: walking, 25 % (step 2 of 3)'
    """
    return (
        f"canary of version {walk.version}: {walk.state}, {walk.percent:g} % (step {walk.step + 1} of "
        f"{len(walk.policy.steps)})"
    )


def read_report(store: ReleaseStore, endpoint: Endpoint) -> WalkReport | None:
    """What was last found about a document's step; None before anybody has looked."""
    if not is_name(endpoint.name):
        return None
    try:
        report = read_document(
            store.folder / "canary" / f"{endpoint.name}.report.json", WalkReport, "a report", "delete it"
        )
    except FileNotFoundError:
        return None
    judged = endpoint.revision if endpoint.walk is not None else endpoint.revision - 1  # the step that it ended at
    return report if endpoint.canary is not None and report.revision == judged else None


def write_report(store: ReleaseStore, name: str, report: WalkReport) -> None:
    """Keep what was found, for those who show it."""
    replace_file(store.folder / "canary" / f"{name}.report.json", msgspec.json.encode(report))


def _taking_over(store: ReleaseStore, digest: str) -> Action:
    """What it is called that a bundle takes the champion's place."""
    return "promotion" if store.load_manifest(digest).recalibrated is None else "recalibration"


def _publish(
    store: ReleaseStore, current: Endpoint, walk: Canary, *, reason: str, by: str, expected_revision: int
) -> Endpoint:
    actions: dict[CanaryState, Action] = {
        "walking": "canary",
        "completed": _taking_over(store, walk.digest) if walk.state == "completed" else "promotion",
        "rolled back": "rollback",
        "ended": "rollback",
    }
    return store.publish(
        current.model,
        _targets(walk),
        reason=reason,
        by=by,
        expected_revision=expected_revision,
        action=actions[walk.state],
        key=None if walk.state == "completed" else walk.base_key,
        own_name=current.own_name,
        canary=walk,
    )


def _targets(walk: Canary) -> tuple[Target, ...]:
    """What a walk's state lets serve; the candidate last, so that whoever it answers, it answers at the next step."""
    if walk.state == "completed":
        return (Target(version=walk.version, digest=walk.digest),)
    if walk.state != "walking":
        return walk.base
    share = walk.percent / 100
    others = [target for target in walk.base if target.digest != walk.digest]
    live = [
        msgspec.structs.replace(target, share=target.share * (1 - share)) for target in others if target.mode == "live"
    ]
    shadows = [target for target in others if target.mode == "shadow"]
    return (*live, Target(version=walk.version, digest=walk.digest, share=share), *shadows)
