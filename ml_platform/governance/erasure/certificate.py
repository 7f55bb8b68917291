"""Certificates of erasures: what was searched, removed and lost, signed, and linked to one another.

A certificate has keyed hashes of whom it is about, and no value. Its signature is over itself and the signature of the
one before, so that none can be altered, taken out or moved without the secret; its digest stands in the audit log too.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.atomic_files import replace_file
from ml_platform.governance.audit import record_event
from ml_platform.governance.audit_table import read_audit
from ml_platform.lake.storage.tables import Lake
from ml_platform.secret_file import load_secret
from ml_platform.settings import Settings

SECRET = "erasure.secret"
ERASED = "entity erased"


class Certificate(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One erasure, finished."""

    number: int
    entity: str
    subjects: list[str]  # keyed hashes of the values
    reason: str | None = None
    ticket: str | None = None
    by: str
    started_at: str  # ISO 8601, UTC
    ended_at: str
    declared_by: list[str]  # what says which columns hold the entity
    tables: list[dict[str, Any]]  # what was searched and removed in each
    elsewhere: list[dict[str, Any]]  # online store, logs, files
    versions_lost: dict[str, list[int]] = {}
    irreproducible: list[str] = []  # registered versions whose tables are gone
    trained_on: list[str] = []  # registered versions that learned from their rows
    not_declared: list[str] = []  # columns that look like the entity, which were left
    remains: list[str] = []  # what is still there, and until when
    out_of_reach: list[str] = []
    comes_back_from: list[str] = []  # sources that still have them
    suppressed: bool = True  # whether later writes leave their rows out
    previous: str = ""  # signature of the certificate before
    signature: str = ""


def erasures_dir(settings: Settings) -> Path:
    """Folder of the certificates, and of erasures under way."""
    return settings.home / "erasures"


def hashed(settings: Settings, entity: str, text: str) -> str:
    """Keyed hash of a value, as certificates have it."""
    secret = load_secret(settings.keys_dir / SECRET, create=True)
    return hmac.digest(secret, f"{entity}={text}".encode(), "sha256")[:16].hex()


def certificates(settings: Settings) -> list[Certificate]:
    """All certificates by number (raises ValueError where one cannot be read)."""
    return [_read(path) for path in _paths(settings)]


def _paths(settings: Settings) -> list[Path]:
    return sorted(erasures_dir(settings).glob("[0-9]*.json"))


def _read(path: Path) -> Certificate:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Certificate)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a certificate ({error}); restore it from a backup") from error


def store_certificate(settings: Settings, certificate: Certificate) -> Path:
    """Number, sign and keep a certificate, and note its digest in the audit log; under the lock of erasures."""
    there = certificates(settings)
    certificate.number = there[-1].number + 1 if there else 1
    certificate.previous = there[-1].signature if there else ""
    certificate.signature = _signature(settings, certificate)
    path = erasures_dir(settings) / f"{certificate.number:06d}.json"
    content = msgspec.json.format(msgspec.json.encode(certificate), indent=2) + b"\n"
    replace_file(path, content)
    record_event(
        settings.audit_dir,
        settings.keys_dir,
        ERASED,
        f"certificate {certificate.number} sha256 {hashlib.sha256(content).hexdigest()}",
        by=certificate.by,
    )
    return path


def verify_certificates(lake: Lake, settings: Settings) -> list[str]:
    """Say what is wrong with the certificates: altered, missing, moved, or not as the audit log has them."""
    findings: list[str] = []
    previous: str | None = ""  # None after one that cannot be read
    for place, path in enumerate(_paths(settings), 1):
        try:
            one = _read(path)
        except ValueError as error:
            findings.append(str(error))
            previous = None
            continue
        follows = previous is None or one.previous == previous
        if one.number != place:
            findings.append(f"certificate {place} is missing before {one.number}")
            return findings
        if not follows or not hmac.compare_digest(one.signature, _signature(settings, one)):
            findings.append(f"certificate {one.number} was altered, or one before it was")
        previous = one.signature
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in _anchors(lake, settings).get(one.number, {digest}):
            findings.append(f"certificate {one.number} is not the one that the audit log names")
    anchored = _anchors(lake, settings)
    findings += [
        f"certificate {number} is missing, which the audit log names"
        for number in sorted(anchored)
        if not (erasures_dir(settings) / f"{number:06d}.json").exists()
    ]
    return findings


def _anchors(lake: Lake, settings: Settings) -> dict[int, set[str]]:
    """Digests of each certificate in the audit log."""
    said: dict[int, set[str]] = {}
    for action, detail in read_audit(lake, settings).select("action", "detail").iter_rows():
        if action == ERASED:
            _, number, _, digest = detail.split()
            said.setdefault(int(number), set()).add(digest)
    return said


def _signature(settings: Settings, certificate: Certificate) -> str:
    secret = load_secret(settings.keys_dir / SECRET, create=True)
    body = msgspec.json.encode(msgspec.structs.replace(certificate, signature=""))
    return hmac.digest(secret, body, "sha256").hex()
