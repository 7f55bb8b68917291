"""The ledger: registrations, changes of what serves, what people said; one Delta table that only grows.

Entries are numbered, and each has a link: the SHA-256 of the link before and of what the entry says. So none can be
changed, taken out or moved without all later links being another's. `ml_platform.governance.ledger_check` anchors the
newest link in the audit log, whose lines need a secret, and verifies the whole.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ml_platform.atomic_files import locked
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.approvals import ApprovalRequest
from ml_platform.registry.history import bundle_origin
from ml_platform.registry.manifest import Endpoint, describe_targets
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stage_names import ARCHIVED
from ml_platform.registry.version_notes import Notes

LEDGER = "governance/ledger"
REGISTRATION, POLICY_CHANGED, RESUMED = "registration", "approval policy", "recalibration resumed"
SCHEMA: dict[str, pl.DataType] = {
    "at": pl.Datetime("us", "UTC"),
    "model": pl.String(),
    "endpoint": pl.String(),  # the model's name, unless the endpoint has one of its own; null for a registration
    "action": pl.String(),
    "by": pl.String(),
    "reason": pl.String(),
    "revision": pl.Int64(),  # of the endpoint; null for a registration
    "from_version": pl.Int64(),
    "from_digest": pl.String(),
    "to_version": pl.Int64(),  # the champion's, or what is registered; null for a withdrawal
    "to_digest": pl.String(),
    "serving": pl.String(),  # every version with its share, in words
    "provenance": pl.String(),  # of `to_version`, as JSON: data and code that made it; null where its bundle is gone
    "number": pl.Int64(),  # from 1; null in entries that were written before there were links
    "link": pl.String(),
}
_LINKED = tuple(name for name in SCHEMA if name != "link")


@dataclass(frozen=True)
class Link:
    """The newest entry of the ledger, by which all before it are vouched for."""

    number: int
    link: str


def record_release(lake: Lake, store: ReleaseStore, document: Endpoint) -> Link | None:
    """Record who released what, when, why, and in place of what; each revision of an endpoint once.

    Parameters
    ----------
    lake
        Holds the ledger.
    store
        Holds the bundle, whose manifest says what the version was made of.
    document
        As published, and the oldest that the ledger lacks: those before it cannot be written afterwards.

    Returns
    -------
    Link | None
        The ledger's newest entry, this one; None when the revision was there already.
    """
    new, old = document.champion, document.champion_before
    entry = {
        "at": datetime.fromisoformat(document.updated_at).astimezone(UTC),
        "model": document.model,
        "endpoint": document.name,
        "action": document.action,
        "by": document.updated_by,
        "reason": document.reason,
        "revision": document.revision,
        "from_version": old.version if old else None,
        "from_digest": old.digest if old else None,
        "to_version": new.version if new else None,
        "to_digest": new.digest if new else None,
        "serving": describe_targets(document.targets),
        "provenance": _provenance(store, new.digest) if new else None,
    }
    return _append(lake, store, entry, (_application(document.name), document.revision))


def record_registration(
    lake: Lake, store: ReleaseStore, *, model: str, version: int, digest: str, at: datetime, by: str, reason: str
) -> Link | None:
    """Record that a version was registered, by whom and with which verdict; each version once.

    Returns
    -------
    Link | None
        As `record_release`.
    """
    entry = {
        "at": at.astimezone(UTC),
        "model": model,
        "action": REGISTRATION,
        "by": by,
        "reason": reason,
        "to_version": version,
        "to_digest": digest,
        "provenance": _provenance(store, digest),
    }
    return _append(lake, store, entry, (f"registration/{model}", version))


def record_approval(lake: Lake, store: ReleaseStore, request: ApprovalRequest, position: int) -> Link | None:
    """Record what was asked or answered about a version; each event of a request once (see `record_release`)."""
    event = request.events[position]
    entry = {
        "at": event.at.astimezone(UTC),
        "model": request.model,
        "action": event.action,
        "by": event.by,
        "reason": event.comment,
        "to_version": request.version,
        "to_digest": request.digest,
    }
    return _append(lake, store, entry, (_approval_application(request), position + 1))


def record_notes(lake: Lake, store: ReleaseStore, notes: Notes) -> Link | None:
    """Record what people said of a model or a version, all that is new in one commit (see `record_release`)."""
    digest = None if notes.version is None else store.versions(notes.model).get(notes.version)
    entries = [
        {
            "at": event.at.astimezone(UTC),
            "model": notes.model,
            "action": "archiving" if event.action == "stage" and event.name == ARCHIVED else event.action,
            "by": event.by,
            "reason": f"{event.name}: {event.text}" if event.text and event.name else event.text or event.name,
            "to_version": notes.version,
            "to_digest": digest,
        }
        for event in notes.events
    ]
    return _append_new(lake, store, entries, _notes_application(notes))


def record_policy(
    lake: Lake, store: ReleaseStore, *, model: str, by: str, reason: str, action: str = POLICY_CHANGED
) -> Link | None:
    """Record that what a model's versions need before they serve was changed (see `record_release`)."""
    application = f"policy/{model}"
    entry = {"at": datetime.now(UTC), "model": model, "action": action, "by": by, "reason": reason}
    return _append(lake, store, entry, (application, (lake.last_app_version(LEDGER, application) or 0) + 1))


def unrecorded(lake: Lake, store: ReleaseStore, name: str) -> list[Endpoint]:
    """Documents of an endpoint that the ledger lacks, oldest first."""
    known = recorded_revision(lake, name)
    return [document for document in store.history(name) if document.revision > known]


def recorded_revision(lake: Lake, name: str) -> int:
    """Newest revision of an endpoint that the ledger has; 0 for none."""
    return lake.last_app_version(LEDGER, _application(name)) or 0


def recorded_events(lake: Lake, request: ApprovalRequest) -> int:
    """How much of what was asked and answered about a version the ledger has."""
    return lake.last_app_version(LEDGER, _approval_application(request)) or 0


def read_ledger(lake: Lake, model: str | None = None) -> pl.DataFrame:
    """Read entries, oldest first; of one model or of all. Empty before the first registration."""
    if not lake.exists(LEDGER):
        return pl.DataFrame(schema=SCHEMA)
    stored = lake.read(LEDGER)
    absent = [pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in stored.collect_schema()]
    entries = stored.with_columns(absent).select(*SCHEMA)
    if model is not None:
        entries = entries.filter(pl.col("model") == model)
    return entries.sort("at", "number", "model", "revision", nulls_last=False).collect()


def read_releases(lake: Lake, model: str | None = None) -> pl.DataFrame:
    """Read what the ledger says of changes of what serves, oldest first (see `read_ledger`)."""
    return read_ledger(lake, model).filter(pl.col("revision").is_not_null())


def next_link(before: str, entry: Mapping[str, Any]) -> str:
    """Link of an entry: the SHA-256 of the one before and of what the entry says, in hexadecimal.

    Examples
    --------
    >>> one = next_link("", {"number": 1, "model": "rent"})
    >>> one == next_link("", {"number": 1, "model": "rent"}), one == next_link("", {"number": 1, "model": "tips"})
    (True, False)
    """
    said = {name: entry.get(name) for name in _LINKED}
    text = json.dumps(said, sort_keys=True, default=lambda value: value.astimezone(UTC).isoformat())
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def first_link(unlinked: pl.DataFrame) -> str:
    """What the first numbered entry builds on: nothing, or a digest of the entries from before there were links."""
    before = ""
    for entry in unlinked.sort("model", "endpoint", "revision").iter_rows(named=True):
        before = next_link(before, entry)
    return before


def _append(lake: Lake, store: ReleaseStore, entry: Mapping[str, Any], application: tuple[str, int]) -> Link | None:
    with locked(store.folder / "locks" / ".ledger.lock"):  # no endpoint is called so
        if (lake.last_app_version(LEDGER, application[0]) or 0) >= application[1]:
            return None
        return _append_linked(lake, [entry], application)


def _append_new(lake: Lake, store: ReleaseStore, entries: Sequence[Mapping[str, Any]], application: str) -> Link | None:
    """Append those of an application's entries that the ledger lacks: the last one's number is the application's."""
    with locked(store.folder / "locks" / ".ledger.lock"):
        known = lake.last_app_version(LEDGER, application) or 0
        if known >= len(entries):
            return None
        return _append_linked(lake, entries[known:], (application, len(entries)))


def _append_linked(lake: Lake, entries: Sequence[Mapping[str, Any]], application: tuple[str, int]) -> Link:
    """Number entries, link each to the one before, and append them in one commit. Under the ledger's lock."""
    ledger = read_ledger(lake)
    linked = ledger.filter(pl.col("number").is_not_null())
    newest = linked.row(linked["number"].arg_max() or 0, named=True) if linked.height else None
    number, before = (newest["number"], newest["link"]) if newest else (0, first_link(ledger))
    rows = []
    for entry in entries:
        number += 1
        before = next_link(before, {**entry, "number": number})
        rows.append({**entry, "number": number, "link": before})
    lake.append(LEDGER, pl.DataFrame(rows, schema=SCHEMA), app_transaction=application, add_columns=True)
    return Link(number, before)


def _application(name: str) -> str:
    return f"release/{name}"


def _approval_application(request: ApprovalRequest) -> str:
    return f"approval/{request.model}/{request.version}"


def _notes_application(notes: Notes) -> str:
    return f"notes/{notes.model}/{'model' if notes.version is None else notes.version}"


def _provenance(store: ReleaseStore, digest: str) -> str | None:
    made_of = bundle_origin(store, digest)
    return json.dumps(made_of) if made_of else None
