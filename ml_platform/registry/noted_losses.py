"""Reads what `ml_platform.registry.lost_data` noted, without the lake: serving shows cards with it."""

import msgspec

from ml_platform.registry.manifest import Provenance
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import DocumentUnreadable

TableVersion = tuple[str, int]
LOST = "lost_data.json"


def noted_losses(store: ReleaseStore, provenance: Provenance) -> list[TableVersion]:
    """Which table versions of a provenance were noted as lost; none before anybody looked.

    Raises
    ------
    DocumentUnreadable
        When the note is damaged.
    """
    path = store.folder / LOST
    try:
        lost = msgspec.json.decode(path.read_bytes(), type=dict[str, list[int]])
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError as error:
        raise DocumentUnreadable(f"{path}: not a note of lost tables ({error}); remove the file") from error
    tables = {**provenance.tables, provenance.training_set: provenance.training_set_version}
    return [(table, version) for table, version in sorted(tables.items()) if version in lost.get(table, ())]
