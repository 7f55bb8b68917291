"""Judges how a model's stream does by the status of its workers, and tells people when it does not do well."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ml_platform.monitoring.alerts.alert import Alert, AlertSettings
from ml_platform.monitoring.alerts.conditions import update_condition
from ml_platform.settings import Settings
from ml_platform.spec.stream import Stream, StreamAlerts
from ml_platform.spec.types import duration
from ml_platform.streams.status import StreamStatus, read_statuses

_STARTING = timedelta(minutes=2)  # in which a worker need not have committed anything


class StreamFinding(NamedTuple):
    """One thing that is judged of a stream.

    Attributes
    ----------
    kind
        What goes on, as an alert is called: `stream_down`, `stream_lag`, `stream_age`, `stream_dead_letters`.
    firing
        Whether it goes on.
    text
        What was found, in a sentence.
    """

    kind: str
    firing: bool
    text: str


def judge_stream(stream: Stream, statuses: Sequence[StreamStatus], now: datetime | None = None) -> list[StreamFinding]:
    """Judge a stream by the newest statuses of its workers.

    Parameters
    ----------
    stream
        What is declared; its `alerts` are the bounds.
    statuses
        Of all its workers, those of earlier shares too.
    now
        The present when None (UTC).

    Returns
    -------
    list[StreamFinding]
        One for each kind whose bound is not null.
    """
    now, alerts = now or datetime.now(UTC), stream.alerts
    current = newest_workers(statuses)
    findings = [_down(current, now)]
    if alerts.max_waiting is not None:
        waiting = sum(one.waiting for one in current if one.part == "scorer")
        text = f"{waiting:,} messages wait, at most {alerts.max_waiting:,} may"
        findings.append(StreamFinding("stream_lag", waiting > alerts.max_waiting, text))
    if alerts.max_age is not None:
        findings.append(_age(current, alerts.max_age, now))
    if alerts.max_dead_letters is not None:
        findings.append(_dead_letters(current, alerts))
    return findings


def newest_workers(statuses: Sequence[StreamStatus]) -> list[StreamStatus]:
    """The statuses that count: those of as many workers as the newest status of each part says there are.

    What remains of a stream that once had another number of workers is left out.
    """
    newest: dict[str, StreamStatus] = {}
    for one in statuses:
        if one.part not in newest or one.updated_at > newest[one.part].updated_at:
            newest[one.part] = one
    return [one for one in statuses if one.workers == newest[one.part].workers]


def watch_stream(
    settings: Settings, model: str, stream: Stream, *, sinks: AlertSettings | None = None, now: datetime | None = None
) -> list[StreamFinding]:
    """Judge a model's stream, and record alerts of what is news.

    Raises
    ------
    OSError
        If an alert cannot be written.
    """
    findings = judge_stream(stream, read_statuses(settings.streams_dir, model), now)
    for finding in findings:
        alert = Alert(
            model=model,
            kind=finding.kind,
            severity=stream.alerts.severity,
            title=finding.text,
            body=f"`ml-platform stream status {model}` shows its workers.",
        )
        update_condition(settings, alert, firing=finding.firing, sinks=sinks, now=now)
    return findings


def _down(statuses: Sequence[StreamStatus], now: datetime) -> StreamFinding:
    if not any(one.part == "scorer" for one in statuses):
        return StreamFinding("stream_down", True, "no worker has run here yet")
    problems = []
    for part in ("scorer", "sink"):
        of_part = [one for one in statuses if one.part == part]
        there = {one.worker for one in of_part}
        missing = sorted(set(range(1, of_part[0].workers + 1)) - there) if of_part else []
        problems += [f"{part} {number} of {of_part[0].workers} has not run here" for number in missing]
        problems += [problem for one in of_part if (problem := _problem(one, now))]
    text = "; ".join(problems) or f"{len(statuses)} parts of workers run"
    return StreamFinding("stream_down", bool(problems), text)


def _problem(status: StreamStatus, now: datetime) -> str | None:
    """What is wrong with a worker; None when nothing is."""
    name = f"{status.part} {status.worker} of {status.workers}" if status.workers > 1 else status.part
    if status.state in ("stopped", "failed"):
        return f"{name} {status.state}{f': {status.reason}' if status.reason else ''}"
    if status.state == "fenced":
        return None if now - status.updated_at < _STARTING else f"{name} was replaced by another that is not here"
    if not status.is_alive(now):
        return f"{name} is gone: process {status.pid} on {status.host}, last seen {status.updated_at:%H:%M:%S} UTC"
    if status.state == "waiting" and now - status.started_at > _STARTING:
        return f"{name} waits: {status.reason}"
    return None


def _age(statuses: Sequence[StreamStatus], most: timedelta, now: datetime) -> StreamFinding:
    oldest = timedelta(0)
    for one in statuses:
        if one.waiting_since is not None and one.state != "stopped":
            oldest = max(oldest, now - one.waiting_since)
    seconds = timedelta(seconds=int(oldest.total_seconds()))
    text = f"messages wait, and none was committed for {duration(seconds)}, at most {duration(most)} may pass"
    return StreamFinding("stream_age", oldest > most, text if oldest else "nothing waits that is not committed")


def _dead_letters(statuses: Sequence[StreamStatus], alerts: StreamAlerts) -> StreamFinding:
    scorers = [one for one in statuses if one.part == "scorer"]
    dead, answered = sum(one.dead_letters for one in scorers), sum(one.answered for one in scorers)
    share = dead / (dead + answered) if dead else 0.0
    kinds: dict[str, int] = {}
    for one in scorers:
        for kind, number in one.refused.items():
            kinds[kind] = kinds.get(kind, 0) + number
    reasons = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    text = f"{dead:,} of {dead + answered:,} messages are dead letters{f' ({reasons})' if reasons else ''}"
    return StreamFinding("stream_dead_letters", share > (alerts.max_dead_letters or 0.0), text)
