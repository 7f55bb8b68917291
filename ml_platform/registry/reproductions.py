"""Reports of versions that were made again: kept beside the release store's bundles, and shown on the model card."""

from pathlib import Path
from typing import Literal

from ml_platform.atomic_files import replace_file
from ml_platform.registry.manifest import Struct
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.registry.stored_documents import document_bytes, read_document

ReproductionVerdict = Literal["equal", "differs", "partly", "not reproduced"]


class Check(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One thing that was compared."""

    what: str
    recorded: str
    found: str
    equal: bool
    detail: str = ""  # what exactly differs


class Reproduction(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What came of making a version again. Nothing is registered, and nothing serves by it."""

    model: str
    version: int
    digest: str
    at: str  # ISO 8601, UTC
    by: str
    verdict: ReproductionVerdict
    reasons: tuple[str, ...]  # one sentence each
    rows: str = ""  # where the training rows are from, in words
    parameters: str = ""  # where they are from, in words
    definitions: tuple[Check, ...] = ()  # of the project, where they are others than those that it was made by
    environment: tuple[Check, ...] = ()  # where it is another
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """One line for cards and lists."""
        return f"{self.verdict}: made again on {self.at[:10]} by {self.by}"


def store_reproduction(store: ReleaseStore, report: Reproduction) -> Path:
    """Keep a report; earlier ones stay. Returns its file."""
    name = report.at.replace(":", "").replace("-", "")
    path = _folder(store, report.model, report.version) / f"{name}.json"
    replace_file(path, document_bytes(report))
    return path


def reproductions_of(store: ReleaseStore, model: str, version: int) -> list[Reproduction]:
    """All reports of a version, oldest first (raises DocumentUnreadable for one that is damaged)."""
    paths = sorted(_folder(store, model, version).glob("*.json"))
    return [read_document(path, Reproduction, "a report of a reproduction", "remove the file") for path in paths]


def _folder(store: ReleaseStore, model: str, version: int) -> Path:
    if not is_name(model):
        raise ValueError(f"model name: wanted lower-case letters, digits, _ or -, found {model[:80]!r}")
    return store.folder / "reproductions" / model / str(version)
