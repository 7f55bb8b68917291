"""Which models learned from rows of somebody: by the table versions that their manifests name."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ml_platform.governance.erasure.subjects import Subjects
from ml_platform.governance.erasure.tables import rows_of_version
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.lost_data import made_of
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


class TrainedModel(msgspec.Struct, kw_only=True, frozen=True):
    """A version of a model, and what it learned from.

    `rows` has, by table and version, how many rows were of the erased ones; a version that cannot be read any more is
    in `unreadable`, and whether they were in it is not known.
    """

    model: str
    version: int
    digest: str
    rows: dict[str, int]
    unreadable: tuple[str, ...]
    serves: tuple[str, ...]  # endpoints

    def __str__(self) -> str:
        said = [f"{rows:,} rows of {place}" for place, rows in self.rows.items()]
        said += [f"perhaps of {place}, which cannot be read any more" for place in self.unreadable]
        serves = f"; serves {', '.join(self.serves)} now" if self.serves else ""
        which = f"version {self.version}" if self.version else f"(not registered, {self.digest[:12]})"
        return f"{self.model} {which} was trained on {', '.join(said)}{serves}"


def trained_on(lake: Lake, settings: Settings, everyone: Sequence[Subjects]) -> list[TrainedModel]:
    """List every registered version that was made of table versions with rows of the entities."""
    store = ReleaseStore(settings.releases_dir)
    serving: dict[str, list[str]] = {}
    for name, endpoint in store.readable_documents()[0].items():
        for target in endpoint.targets:
            serving.setdefault(target.digest, []).append(name)
    counts: dict[tuple[str, int], int | None] = {}
    found = []
    for model, version, digest, tables in _versions(store):
        for table, number in tables:
            if (table, number) not in counts:
                try:
                    counts[table, number] = max(rows_of_version(lake, table, number, one) for one in everyone)
                except LookupError:
                    counts[table, number] = None
        rows = {f"{table} version {number}": count for table, number in tables if (count := counts[table, number])}
        unreadable = tuple(f"{table} version {number}" for table, number in tables if counts[table, number] is None)
        if rows or unreadable:
            found.append(
                TrainedModel(
                    model=model,
                    version=version,
                    digest=digest,
                    rows=rows,
                    unreadable=unreadable,
                    serves=tuple(sorted(serving.get(digest, ()))),
                )
            )
    return found


def irreproducible(settings: Settings, lost: Mapping[str, Sequence[int]]) -> list[str]:
    """Registered versions that stand on a table version that is gone, with what is gone."""
    found = []
    for model, version, _, tables in _versions(ReleaseStore(settings.releases_dir)):
        gone = [f"{table} version {number}" for table, number in tables if number in lost.get(table, ())]
        if gone:
            found.append(f"{model} version {version}: {', '.join(gone)}")
    return found


def _versions(store: ReleaseStore) -> Iterator[tuple[str, int, str, list[tuple[str, int]]]]:
    """Each version whose bundle is there, and what it was made of; one that is not registered is version 0."""
    registered = {
        digest: (model, version) for model in store.registered() for version, digest in store.versions(model).items()
    }
    for path in sorted((store.folder / "bundles").glob("[0-9a-f]*")):
        try:
            manifest = store.load_manifest(path.name)
        except (LookupError, ValueError, BundleRefused):  # removed or damaged: it can neither serve nor be made again
            continue
        model, version = registered.get(path.name, (manifest.model, 0))
        yield model, version, path.name, made_of(store, path.name, manifest.provenance)
