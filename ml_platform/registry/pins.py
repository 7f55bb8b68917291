"""Which table versions the released models were trained on."""

from ml_platform.registry.releases import ReleaseStore


def pinned_versions(store: ReleaseStore) -> dict[str, set[int]]:
    """Collect the table versions that any model was trained on that serves now or has ever served.

    A bundle that was removed from the store can neither serve again nor be reproduced, and pins nothing.

    Returns
    -------
    dict[str, set[int]]
        Lake table → versions: the training set, and every table that it was made from.

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
        for table, version in provenance.tables.items():
            pinned.setdefault(table, set()).add(version)
        pinned.setdefault(provenance.training_set, set()).add(provenance.training_set_version)
    return pinned
