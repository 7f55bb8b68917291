"""Which table versions the released models were trained on."""

from ml_platform.registry.origins import origin_of
from ml_platform.registry.releases import ReleaseStore


def pinned_versions(store: ReleaseStore) -> dict[str, set[int]]:
    """Collect the table versions that any model was trained on that serves now or has ever served.

    A bundle that was removed from the store can neither serve again nor be reproduced, and pins nothing.

    Returns
    -------
    dict[str, set[int]]
        Lake table → versions: the training set, and every table that it was made from; of a model that came from
        another environment the copy of its training set alone.

    Raises
    ------
    BundleRefused
        If a bundle is damaged: what it stands on is unknown, so nothing may be deleted.
    """
    digests = {
        target.digest for name in store.documents() for document in store.history(name) for target in document.targets
    }
    pinned: dict[str, set[int]] = {}
    for digest in sorted(digests):
        if not store.bundle_path(digest).is_dir():
            continue
        provenance = store.load_manifest(digest).provenance
        origin = origin_of(store, digest)
        if origin is not None and origin.training_set is not None:  # its tables are those of another lake
            pinned.setdefault(origin.training_set, set()).add(origin.training_set_version or 0)
            continue
        for table, version in provenance.tables.items():
            pinned.setdefault(table, set()).add(version)
        pinned.setdefault(provenance.training_set, set()).add(provenance.training_set_version)
    return pinned
