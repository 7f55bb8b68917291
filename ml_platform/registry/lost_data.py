"""Table versions that a registered version was made of and that can no longer be read: vacuumed, or deleted by hand.

The nightly upkeep of the lake looks for them and notes them in the release store (`lost_data.json`), where whoever does
not read the lake, as the console, finds them.
"""

from collections.abc import Iterable, Mapping

import msgspec

from ml_platform.atomic_files import replace_file
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Provenance
from ml_platform.registry.model_card import ModelCard, carded_versions, load_card
from ml_platform.registry.noted_losses import LOST, TableVersion
from ml_platform.registry.origins import origin_of
from ml_platform.registry.releases import ReleaseStore


def made_of(store: ReleaseStore, digest: str, provenance: Provenance) -> list[TableVersion]:
    """Table versions of this lake that a version was made of; of one from another environment, its copy alone."""
    origin = origin_of(store, digest)
    if origin is not None and origin.training_set is not None:
        return [(origin.training_set, origin.training_set_version or 0)]
    return [*sorted(provenance.tables.items()), (provenance.training_set, provenance.training_set_version)]


def lost_of(lake: Lake, store: ReleaseStore, card: ModelCard) -> list[TableVersion]:
    """Which of the table versions that a version was made of cannot be read any more."""
    return _lost(lake, made_of(store, card.digest, card.provenance))


def note_lost_data(lake: Lake, store: ReleaseStore) -> Mapping[str, list[int]]:
    """Look for what was lost of any version that has a card, and note it; what is found again is noted no more.

    Returns
    -------
    Mapping[str, list[int]]
        Table → versions that cannot be read.
    """
    wanted: set[TableVersion] = set()
    for model in store.registered():
        for version in carded_versions(store, model):
            card = load_card(store, model, version)
            wanted |= set(made_of(store, card.digest, card.provenance))
    lost: dict[str, list[int]] = {}
    for table, version in _lost(lake, sorted(wanted)):
        lost.setdefault(table, []).append(version)
    replace_file(store.folder / LOST, msgspec.json.format(msgspec.json.encode(lost), indent=2))
    return lost


def _lost(lake: Lake, tables: Iterable[TableVersion]) -> list[TableVersion]:
    lost = []
    for table, version in tables:
        try:
            lake.snapshot(table, version)
        except LookupError:
            lost.append((table, version))
    return lost
