"""Files in a folder or an object store: which there are, when they were changed, and their bytes."""

import gzip
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pyarrow.fs

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class FoundFile:
    """A file of a folder: its path in the folder, and when it was last changed, in microseconds since 1970."""

    name: str
    changed_at: int

    @property
    def age(self) -> float:
        """Seconds since the file was changed."""
        return time.time() - self.changed_at / 1e6


def list_folder(folder: Path | str, pattern: str) -> list[FoundFile]:
    """List the files in a local folder, or below an object store's URI, whose path matches, by name.

    Names that start with a dot or an underscore are left out, as by Spark: they are internal or not finished.

    Parameters
    ----------
    pattern
        `*.csv` in the folder itself; `**/*.csv` at any depth.

    Raises
    ------
    FileNotFoundError
        If there is no such local folder; an object store has no folders that could be missing.
    """
    if isinstance(folder, Path):
        if not folder.is_dir():
            raise FileNotFoundError(f"No folder {folder}.")
        paths = [path for path in folder.glob(pattern) if path.is_file()]
        files = [FoundFile(path.relative_to(folder).as_posix(), path.stat().st_mtime_ns // 1000) for path in paths]
    else:
        import pyarrow.fs

        infos = store(folder).get_file_info(pyarrow.fs.FileSelector("", recursive=True, allow_not_found=True))
        files = [
            FoundFile(info.path.lstrip("/"), info.mtime_ns // 1000)
            for info in infos
            if info.type == pyarrow.fs.FileType.File
        ]
    shown = [file for file in files if _matches(file.name.split("/"), pattern.split("/")) and not _is_hidden(file.name)]
    return sorted(shown, key=lambda file: file.name)


def changed_at(folder: Path | str, name: str) -> int:
    """When a file of a folder was last changed, in microseconds since 1970; 0 if it is gone."""
    if isinstance(folder, Path):
        path = folder / name
        return path.stat().st_mtime_ns // 1000 if path.exists() else 0
    return (store(folder).get_file_info(name).mtime_ns or 0) // 1000


@contextmanager
def opened(path: Path | str) -> Iterator[IO[bytes]]:
    """Open a local file, or the object at a URI, to be read from its start, unpacked if it is gzipped.

    Raises
    ------
    OSError
        If there is none.
    """
    with ExitStack() as stack:
        if isinstance(path, Path):
            file = cast(IO[bytes], stack.enter_context(path.open("rb")))
        else:
            folder, _, name = path.rpartition("/")
            file = cast(IO[bytes], stack.enter_context(store(folder).open_input_file(name)))
        is_gzip = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        yield cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file))) if is_gzip else file


def store(folder: str) -> "pyarrow.fs.FileSystem":
    """Open the object store of a URI, rooted there."""
    import pyarrow.fs
    from deltalake.fs import DeltaStorageHandler

    return pyarrow.fs.PyFileSystem(DeltaStorageHandler(folder))


def _matches(folders: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match the parts of a path as `Path.glob` does; `**` stands for any number of folders."""
    if not pattern:
        return not folders
    if pattern[0] == "**":
        return any(_matches(folders[start:], pattern[1:]) for start in range(len(folders) + 1))
    return bool(folders) and fnmatchcase(folders[0], pattern[0]) and _matches(folders[1:], pattern[1:])


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
