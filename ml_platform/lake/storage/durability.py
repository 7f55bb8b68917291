"""Forces a table of a local lake to disk: a commit is visible at once, but a power cut may still undo it.

Whoever deletes what a commit has taken over (a segment, a row of the quarantine, files that were compacted) calls this
first. An object store answers a write only when it holds it, so there is nothing to do.
"""

import re
from contextlib import suppress
from pathlib import Path

from deltalake import DeltaTable

from ml_platform.atomic_files import sync_path

_NUMBERED = re.compile(r"(\d{20})\..*")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*")


def sync_table(snapshot: DeltaTable, folder: Path, root: Path) -> None:
    """Sync the files of a snapshot, then the part of the log that names them, then the folders of both.

    Syncing what is on disk already costs some microseconds a file.

    Parameters
    ----------
    snapshot
        The table's newest version.
    folder
        Of the table.
    root
        Of the lake: the folders up to it are synced too.
    """
    files = [Path(uri.removeprefix("file://")) for uri in snapshot.file_uris()]
    log = _log_files(folder / "_delta_log")
    folders = {parent for file in (*files, *log) for parent in file.parents if parent.is_relative_to(root)}
    for path in (*files, *log, *sorted(folders, reverse=True)):  # a file before the folder that names it
        with suppress(FileNotFoundError):  # compacted and vacuumed meanwhile: what replaced it was synced before
            sync_path(path)


def _log_files(folder: Path) -> list[Path]:
    """The newest checkpoint, and every commit since."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    checkpoint = max((match[1] for name in names if (match := _CHECKPOINT.fullmatch(name))), default="")
    needed = [name for name in names if (match := _NUMBERED.fullmatch(name)) and match[1] >= checkpoint]
    return [folder / name for name in [*needed, *(["_last_checkpoint"] if "_last_checkpoint" in names else [])]]
