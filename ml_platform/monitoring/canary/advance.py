"""Drives canary walks: looks at a step and waits, goes on, completes it, or rolls back; and tells how a walk ended.

Nothing is remembered between two calls: the step is in the endpoint document, what was answered since in the outcomes.
So this may be called by several processes at once, and be killed anywhere. Each change is one document, published
against the revision that was judged; ledger, aliases and alerts are brought up to it by whoever comes next.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.inference.outcomes import OutcomeReader, Outcomes, remove_outcomes
from ml_platform.monitoring.alerts.alert import Alert, Severity, record_alert
from ml_platform.monitoring.canary.guards import MIN_UNITS, enough_ids, judge_step
from ml_platform.promotion.promote import sync_registry
from ml_platform.registry.canary import WHOLE, WalkReport, next_step, roll_back_walk, walk_of, write_report
from ml_platform.registry.followed import followed_revision
from ml_platform.registry.manifest import Canary, Endpoint, describe_targets
from ml_platform.registry.releases import ReleaseConflict, ReleaseStore
from ml_platform.settings import Settings

BY = "canary"
_readers: dict[tuple[Path, str], OutcomeReader] = {}  # by outcomes' folder and endpoint; a restart reads anew
_SEVERITIES: dict[str, Severity] = {"completed": "info", "ended": "warning", "rolled back": "error"}


@dataclass(frozen=True)
class Progress:
    """What became of a walk.

    Attributes
    ----------
    endpoint
        The newest document.
    report
        What was found; None where no walk is under way.
    changed
        Whether this call published the document.
    """

    endpoint: Endpoint
    report: WalkReport | None
    changed: bool = False


def walking(store: ReleaseStore) -> list[str]:
    """Endpoints on which a walk is under way."""
    return [name for name, document in store.readable_documents()[0].items() if document.walk is not None]


def advance(settings: Settings, name: str) -> Progress:
    """Look at a walk, and take the step that is due; then let ledger, registry and alerts follow what serves.

    Parameters
    ----------
    settings
        Where release store, outcomes, registry and lake are.
    name
        The endpoint.

    Raises
    ------
    LookupError
        When nothing of this name was ever released.
    BundleRefused
        When a bundle that is to serve is damaged.
    RegistryBehind
        When the step was taken, and ledger or registry could not follow.
    """
    store = ReleaseStore(settings.releases_dir)
    document = store.document(name)
    if document is None:
        raise LookupError(f"'{name}' was never released. Known: {', '.join(store.documents()) or 'none'}")
    progress = Progress(document, None)
    if document.walk is not None:
        report = judge(settings, document)
        try:
            progress = _step(store, document, report)
        except ReleaseConflict:  # somebody else was faster: what they did counts
            progress = Progress(store.document(name) or document, report)
    tell_ends(settings, name)
    if followed_revision(store, name) < progress.endpoint.revision:
        sync_registry(settings, name)
    return progress


def judge_all(settings: Settings) -> dict[str, WalkReport]:
    """Judge every walk that is under way, by endpoint, and tell of those that have ended."""
    reports = {}
    for name, document in ReleaseStore(settings.releases_dir).readable_documents()[0].items():
        tell_ends(settings, name)
        if document.walk is not None:
            reports[name] = judge(settings, document)
    return reports


def judge(settings: Settings, endpoint: Endpoint) -> WalkReport:
    """Judge the step of a walk that is under way, and keep what was found for those who show it (raises NoWalk)."""
    walk, now = walk_of(endpoint), datetime.now(UTC)
    store = ReleaseStore(settings.releases_dir)
    outcomes = _reader(settings.outcomes_dir, endpoint, walk).read()
    report = decide(
        outcomes, endpoint, walk, now, moves_scores=store.load_manifest(walk.digest).recalibrated is not None
    )
    write_report(store, endpoint.name, report)
    return report


def _reader(folder: Path, endpoint: Endpoint, walk: Canary) -> OutcomeReader:
    """What has read the step's requests so far, if this process looks at it again."""
    key = folder, endpoint.name
    reader = _readers.get(key)
    if reader is None or (reader.revision, reader.candidate) != (endpoint.revision, walk.version):
        reader = _readers[key] = OutcomeReader(folder, endpoint.name, endpoint.revision, walk.version)
    return reader


def decide(
    outcomes: Outcomes, endpoint: Endpoint, walk: Canary, now: datetime, *, moves_scores: bool = False
) -> WalkReport:
    """Say what a step's requests lead to at an instant.

    Parameters
    ----------
    outcomes
        What became of the step's requests.
    endpoint, walk
        The document, and its walk.
    now
        The instant.
    moves_scores
        Whether the candidate is there to move scores, as a recalibration is: their distance is shown, and breaches
        nothing.

    Returns
    -------
    WalkReport
        `wait` before the step's minutes are over, and for requests until the policy's limit; `roll back` at a breach,
        and after that limit; else `advance`.
    """
    policy = msgspec.structs.replace(walk.policy, max_score_distance=1.0) if moves_scores else walk.policy
    ours = int(outcomes.is_canary.sum())
    theirs = len(outcomes.is_canary) - ours
    # Requests that nobody could answer tell nothing of a version, however many they are.
    answers = ~outcomes.failed
    ours_answered, theirs_answered = (
        int((answers & outcomes.is_canary).sum()),
        int((answers & ~outcomes.is_canary).sum()),
    )
    over = datetime.fromisoformat(endpoint.updated_at).astimezone(UTC) + timedelta(minutes=policy.minutes)
    limit = over + timedelta(hours=policy.max_wait_hours)
    is_enough = min(ours_answered, theirs_answered) >= policy.min_requests and enough_ids(outcomes)
    is_end = now >= over and is_enough
    judged = judge_step(outcomes, policy, is_end=is_end)
    answered = f"{ours:,} requests of the canary and {theirs:,} of the champion"
    decision: Literal["wait", "advance", "roll back"] = "wait"
    if judged.breaches:
        decision = "roll back"
        said = "; ".join(finding.said for finding in judged.breaches)
    elif is_end:
        decision = "advance"
        said = f"no guard is breached after {answered}"
    elif now < over:
        said = f"no guard is breached after {answered} so far; the step lasts until {over:%Y-%m-%d %H:%M} UTC"
    else:
        wanted = f"of {policy.min_requests:,} answered ones each, from {MIN_UNITS} groups of ids"
        if (ours_answered, theirs_answered) != (ours, theirs):
            answered += f", of which {ours_answered:,} and {theirs_answered:,} were answered"
        if now < limit:
            said = f"waits until {limit:%Y-%m-%d %H:%M} UTC for requests: {answered}, {wanted}"
        else:
            decision = "roll back"
            said = f"too few requests until {limit:%Y-%m-%d %H:%M} UTC to be judged: {answered}, {wanted}"
    return WalkReport(
        revision=endpoint.revision,
        at=now,
        decision=decision,
        said=said,
        champion_requests=theirs,
        canary_requests=ours,
        guards=judged.findings,
    )


def _step(store: ReleaseStore, document: Endpoint, report: WalkReport) -> Progress:
    walk = walk_of(document)
    if report.decision == "wait":
        return Progress(document, report)
    if report.decision == "roll back":
        reason = f"canary of version {walk.version} rolled back at {walk.percent:g} %: {report.said}"
        return Progress(roll_back_walk(store, document, reason=reason, by=BY), report, changed=True)
    percent = walk.policy.steps[walk.step + 1]
    to = "all traffic" if percent >= WHOLE else f"{percent:g} %"
    reason = f"canary of version {walk.version} goes on from {walk.percent:g} % to {to}: {report.said}"
    return Progress(next_step(store, document, reason=reason, by=BY), report, changed=True)


def tell_ends(settings: Settings, name: str) -> int:
    """Raise an alert for each walk of an endpoint that has ended since the last call; gives how many."""
    store = ReleaseStore(settings.releases_dir)
    note = settings.alerts_dir / "told" / f"canary-{name}"  # the revision up to which all was told
    newest = store.document(name)
    if newest is None or (newest.canary is None and not note.exists()) or _told(note) >= newest.revision:
        return 0
    with locked(note.with_name(".canary.lock")):
        known, ended = _told(note), list[Endpoint]()
        if known < newest.revision:
            ended = [one for one in store.history(name) if one.revision > known and one.canary and one.walk is None]
        for document in ended:
            # Recorded before its note: a crash between the two repeats an alert, and loses none.
            record_alert(settings, _alert(document))
            replace_file(note, msgspec.json.encode(document.revision))
        replace_file(note, msgspec.json.encode(max(known, newest.revision)))
    if ended and newest.walk is None:
        remove_outcomes(settings.outcomes_dir, name)
        _readers.pop((settings.outcomes_dir, name), None)
    return len(ended)


def _told(note: Path) -> int:
    try:
        return msgspec.json.decode(note.read_bytes(), type=int)
    except FileNotFoundError:
        return 0


def _alert(document: Endpoint) -> Alert:
    canary = document.canary
    assert canary is not None  # `tell_ends` asks for none other
    how = {
        "completed": f"the canary of version {canary.version} is completed: it answers all requests",
        "rolled back": f"the canary of version {canary.version} was rolled back at {canary.percent:g} %",
        "ended": f"the canary of version {canary.version} was ended at {canary.percent:g} % by {document.updated_by}",
    }
    facts = {
        "endpoint": document.name,
        "revision": document.revision,
        "serves": describe_targets(document.targets),
    }
    if canary.state == "rolled back":
        facts["to do"] = (
            f"look at the reason; to try again from this step: ml-platform canary resume {document.name} --reason …"
        )
    return Alert(
        model=document.model,
        kind="canary",
        severity=_SEVERITIES[canary.state],
        title=how[canary.state],
        body=document.reason,
        facts=facts,
    )
