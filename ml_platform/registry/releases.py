"""The release store: what serving reads. Bundles named by their content, and one small endpoint document per model.

    <folder>/bundles/<digest>/{manifest.json, model.onnx, golden.json}
    <folder>/endpoints/<name>.json                 what serves now; replaced atomically
    <folder>/history/<name>/<revision>.json        every document that ever was current
    <folder>/versions/<model>/<version>.json       bundle of a registered version
    <folder>/conformal/<digest>.json               intervals that follow the labels, see `registry.adapted_conformal`
    <folder>/origins/<digest>.json                 of a bundle from another environment, see `registry.origins`
    <folder>/canary/…                             canary walks, see `registry.canary`
    <folder>/tries/<model>.json                    challengers that the gate judged, see `training.evaluation.tries`
    <folder>/status/<model>.json                   what monitoring found lately, see `ml_platform.monitoring.status`
    <folder>/pruned/<digest>.json                  who removed a bundle on purpose, and why
    <folder>/compositions/<name>.json              endpoints of several models, see `registry.composition`
    <folder>/notes/<model>/<version>.json          what people said of a version, see `registry.version_notes`

An endpoint is called as its model, unless somebody made another one of a name of its own.

Imports nothing but the standard library and msgspec: serving depends on it.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

import msgspec

from ml_platform.atomic_files import locked, replace_file
from ml_platform.printable import check_text
from ml_platform.registry.approvals import Approvals
from ml_platform.registry.bundles import BundleStore
from ml_platform.registry.manifest import Action, Canary, Endpoint, Struct, Target
from ml_platform.registry.stored_documents import DocumentUnreadable, document_bytes, read_document
from ml_platform.registry.version_notes import NoteStore

_ABOVE = re.compile(r"(?<![\w/:.])/(?:[^\s/:'\"]+/)+")  # the folders of an absolute path
_NAME = re.compile(r"[a-z][a-z0-9_-]{1,62}")


class _Version(Struct, frozen=True):
    digest: str


class VersionTaken(ValueError):
    """A version's number is another bundle's in the release store."""


class ReleaseConflict(RuntimeError):
    """The endpoint changed between reading it and publishing: nothing was written."""


class ReleaseStore(BundleStore):
    """Folder of bundles and endpoint documents, shared by promoters (writers) and serving (readers).

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = ReleaseStore(Path(folder.name))
    >>> store.endpoint("flight_delay") is None
    True
    >>> folder.cleanup()
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self.approvals = Approvals(self.folder)
        self.notes = NoteStore(self.folder)

    def register_version(self, model: str, version: int, digest: str) -> None:
        """Note which bundle a registered version is, so that it can be served without asking the registry.

        Raises
        ------
        VersionTaken
            When the number is another bundle's here.
        """
        path = self.folder / "versions" / _checked_name(model) / f"{version}.json"
        if (known := self.versions(model).get(version, digest)) != digest:
            raise VersionTaken(
                f"{model}: version {version} is the bundle {known[:12]} here, and {digest[:12]} in the registry: the "
                "registry was lost, or is another one. Restore it from a backup; a version that is registered now gets "
                "a number that nothing has"
            )
        replace_file(path, msgspec.json.encode(_Version(digest)))

    def versions(self, model: str) -> dict[int, str]:
        """Bundles by version: of all that were registered here or ever served, whether or not they still exist."""
        own = [entry for entry in self.history(model) if entry.model == model]  # not an endpoint of another's versions
        served = {target.version: target.digest for entry in own for target in entry.targets}
        registered = {
            int(path.stem): read_document(path, _Version, "a registered version", "register it again").digest
            for path in (self.folder / "versions" / _checked_name(model)).glob("*.json")
        }
        return dict(sorted((served | registered).items()))

    def check_version(self, model: str, version: int | None = None) -> None:
        """Check that a model has registered versions, and this one (raises LookupError)."""
        versions = self.versions(model) if is_name(model) else {}
        if not versions:
            if is_name(model) and (self.folder / "compositions" / f"{model}.json").exists():
                raise LookupError(f"'{model}' is a composed endpoint and has no versions: name one of its members")
            known = list(self.registered())
            near = "".join(f". Did you mean '{name}'?" for name in get_close_matches(model[:80], known, n=1))
            raise LookupError(
                f"no model '{model[:80]}' has a registered version; there are {', '.join(known) or 'none'}{near}"
            )
        if version is not None and version not in versions:
            raise LookupError(f"{model}: no version {version} is registered; there are {', '.join(map(str, versions))}")

    def registered(self) -> dict[str, int]:
        """Newest registered version of every model, released or not."""
        numbers: dict[str, int] = {}
        for path in (self.folder / "versions").glob("*/*.json"):
            numbers[path.parent.name] = max(numbers.get(path.parent.name, 0), int(path.stem))
        return dict(sorted(numbers.items()))

    def endpoint(self, name: str) -> Endpoint | None:
        """Return the endpoint document of a model, or None before its first release and while it is withdrawn."""
        document = self.document(name)
        return document if document and document.targets else None

    def document(self, name: str) -> Endpoint | None:
        """Return the newest endpoint document, which names no targets while it is withdrawn; None before the first."""
        path = self.endpoint_path(name)
        try:
            document = read_document(path, Endpoint, "an endpoint document", "restore it from the history folder")
        except FileNotFoundError:
            return None
        if document.name != name:  # a copy under another name must not take the place of what it was copied from
            raise DocumentUnreadable(f"{path}: this is the document of the endpoint '{document.name}'; remove the file")
        return document

    def documents(self) -> dict[str, Endpoint]:
        """Every newest endpoint document by its name, those that are withdrawn too."""
        return {name: document for name in self.names() if (document := self.document(name)) is not None}

    def readable_documents(self) -> tuple[dict[str, Endpoint], dict[str, DocumentUnreadable]]:
        """Every newest endpoint document that can be read, and why others cannot, by name."""
        documents: dict[str, Endpoint] = {}
        unreadable: dict[str, DocumentUnreadable] = {}
        for name in self.names():
            try:
                document = self.document(name)
            except DocumentUnreadable as error:
                unreadable[name] = error
            else:
                documents |= {} if document is None else {name: document}
        return documents, unreadable

    def names(self) -> list[str]:
        """Names of all endpoint documents, sorted, whether or not each can be read."""
        return sorted(path.stem for path in (self.folder / "endpoints").glob("*.json") if is_name(path.stem))

    def endpoints(self) -> dict[str, Endpoint]:
        """Endpoint documents of all that serves, by name."""
        return {name: document for name, document in self.documents().items() if document.targets}

    def revision(self, name: str) -> int:
        """Revision of the newest endpoint document; 0 before the first."""
        document = self.document(name)
        return document.revision if document else 0

    def endpoint_path(self, name: str) -> Path:
        """File that serving watches for an endpoint (raises ValueError for an invalid name)."""
        return self.folder / "endpoints" / f"{_checked_name(name)}.json"

    def status_path(self, model: str) -> Path:
        """File in which monitoring reports on a model (raises ValueError for an invalid name)."""
        return self.folder / "status" / f"{_checked_name(model)}.json"

    def tries_path(self, model: str) -> Path:
        """File in which the gate counts the challengers it judged (raises ValueError for an invalid name)."""
        return self.folder / "tries" / f"{_checked_name(model)}.json"

    def publish(
        self,
        model: str,
        targets: Sequence[Target],
        *,
        reason: str,
        by: str,
        expected_revision: int | None = None,
        action: Action = "promotion",
        key: str | None = None,
        own_name: str | None = None,
        canary: Canary | None = None,
    ) -> Endpoint:
        """Let `targets` serve `model` from now on; the present document becomes history and `previous`.

        A change of traffic to what serves already makes no revision: the present document is returned.

        Parameters
        ----------
        targets
            Versions with their shares; the live shares add up to 1. Every bundle is verified before anything changes.
            None for a withdrawal or a retirement.
        expected_revision
            Revision that the decision was based on (0 for none yet). None publishes over whatever is there.
        action
            What the ledger calls it.
        key
            Input whose value decides between versions, the model's id when None.
        own_name
            Of an endpoint that is not called as its model.
        canary
            The walk that this is a step of, or the end. Any other change ends a walk that is under way, and says so in
            its reason; only the promotion of another version is refused.

        Raises
        ------
        ReleaseConflict
            When another revision is current than `expected_revision`, or a canary walk is in the way.
        BundleRefused, LookupError
            When a bundle is damaged or missing.
        NotApproved
            When a version would serve for the first time that a person has to approve first.
        Archived
            When a person archived a version.
        ValueError
            When a bundle or the endpoint is another model's, the shares do not add up, or the reason has control
            characters.
        """
        name = own_name or model
        _checked_name(model)
        check_text(reason, "reason")
        if action not in {"withdrawal", "retirement"}:
            self._check_targets(model, targets, key)
        with locked(self.folder / "locks" / f"{_checked_name(name)}.lock"), self.notes.stages_alone(model):
            if (self.folder / "compositions" / f"{name}.json").exists():
                raise ValueError(f"'{name}' is the name of a composed endpoint; give the model or the endpoint another")
            current = self.document(name)
            revision = current.revision if current else 0
            if expected_revision is not None and expected_revision != revision:
                raise ReleaseConflict(
                    f"{name}: the decision was based on revision {expected_revision}, but revision {revision} is "
                    f"current (by {current.updated_by if current else 'nobody'}); evaluate against it and publish again"
                )
            if current and current.model != model:
                raise ValueError(
                    f"the endpoint '{name}' is of the model '{current.model}', not '{model}'; use another name"
                )
            if canary is None and current is not None and current.walk is not None:
                canary = _ended(current.walk, name, targets, action)
                reason = f"{reason} ({canary.ended_by_this})"
            self._check_approved(model, name, targets)
            self.notes.check_not_archived(model, [target.version for target in targets])
            for target in targets:
                if not self.bundle_path(target.digest).is_dir():  # removed since it was verified
                    self.read_bundle(target.digest)
            if current and action == "traffic" and (current.targets, current.key) == (tuple(targets), key):
                return current
            document = Endpoint(
                model=model,
                revision=revision + 1,
                targets=tuple(targets),
                updated_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                updated_by=by,
                reason=reason,
                previous=current.targets if current else (),
                action=action,
                key=key,
                own_name=None if name == model else name,
                canary=canary,
            )
            content = document_bytes(document)
            # History first: a crash between the two writes leaves a document that the next publication overwrites.
            replace_file(self._history_folder(name) / f"{document.revision:08d}.json", content)
            replace_file(self.endpoint_path(name), content)
        return document

    def history(self, name: str) -> list[Endpoint]:
        """Every endpoint document of a name, oldest first."""
        newest = self.revision(name)
        paths = sorted(self._history_folder(name).glob("*.json"))
        documents = [_past_document(path) for path in paths]
        return [entry for entry in documents if entry.revision <= newest]

    def first(self, name: str) -> Endpoint | None:
        """The first endpoint document of a name, by which it was made; None before it."""
        path = min(self._history_folder(name).glob("*.json"), default=None)
        return None if path is None else _past_document(path)

    def said(self, error: Exception) -> str:
        """Text of an error, with paths relative to this folder, and of others the name only: clients need no more."""
        return _ABOVE.sub("", str(error).replace(f"{self.folder}/", ""))

    def superseded(self, name: str, before: int | None) -> Iterator[Endpoint]:
        """Endpoint documents older than a revision (None: all there ever were), newest first, read one by one."""
        for path in sorted(self._history_folder(name).glob("*.json"), reverse=True):
            document = _past_document(path)
            if before is None or document.revision < before:
                yield document

    def _history_folder(self, name: str) -> Path:
        return self.folder / "history" / _checked_name(name)

    def _check_approved(self, model: str, name: str, targets: Sequence[Target]) -> None:
        """Check that every version has served before or was approved (raises NotApproved).

        Shadows too: whoever asks for a version by its number is answered by a shadow.
        """
        if self.approvals.policy(model) is None:
            return
        past = [target for one in {model, name} for document in self.history(one) for target in document.targets]
        served = {target.digest for target in past if target.mode == "live"}
        for target in targets:
            if target.digest not in served:
                self.approvals.check(model, target.version, target.digest)

    def _check_targets(self, model: str, targets: Sequence[Target], key: str | None) -> None:
        live = sum(target.share for target in targets if target.mode == "live")
        if abs(live - 1.0) > 1e-9 or any(not 0 <= target.share <= 1 for target in targets):
            shares = (
                ", ".join(f"version {target.version} {target.mode} {target.share:g}" for target in targets) or "none"
            )
            raise ValueError(
                f"{model}: the live targets' shares must be within 0 and 1 and add up to 1, found: {shares}"
            )
        for target in targets:
            manifest = self.load_manifest(target.digest)
            if manifest.model != model:
                raise ValueError(
                    f"{model}: version {target.version} names bundle {target.digest[:12]}, which is a model "
                    f"'{manifest.model}'; publish it there"
                )
            inputs = [field.name for field in manifest.inputs]
            if key is not None and key not in inputs:
                raise ValueError(
                    f"{model}: the key must be an input of every version; version {target.version} has no '{key}', "
                    f"it has {', '.join(inputs)}"
                )


def _ended(walk: Canary, name: str, targets: Sequence[Target], action: Action) -> Canary:
    """A walk as somebody's change of what serves leaves it (raises ReleaseConflict when that is to wait)."""
    live = [target.digest for target in targets if target.mode == "live"]
    if action not in {"promotion", "recalibration"}:
        return msgspec.structs.replace(walk, state="ended")
    if live != [walk.digest]:
        raise ReleaseConflict(walk.under_way(name))
    return msgspec.structs.replace(walk, state="completed")


def is_name(name: str) -> bool:
    """Whether this is a valid name of a model or an endpoint."""
    return _NAME.fullmatch(name) is not None


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(
            f"model name: wanted a lower-case letter, then letters, digits, _ or - (2 to 63 in all), "
            f"found {name[:80]!r}"
        )
    return name


def _past_document(path: Path) -> Endpoint:
    return read_document(path, Endpoint, "an endpoint document", "restore it from a backup")
