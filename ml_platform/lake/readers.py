"""Files as rows: CSV as text for the contract to read, Parquet and JSON lines as they are typed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import polars as pl

from ml_platform.lake.source_spec import FileFormat

_BY_SUFFIX: dict[str, FileFormat] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True)
class FoundFile:
    """A file of a folder: its path below the folder, its size in bytes, and how old it is in seconds."""

    name: str
    size: int
    age: float


def list_folder(folder: Path | str, pattern: str) -> list[FoundFile]:
    """List the files below a folder, or below the URI of an object store's, whose path matches, by name.

    Parameters
    ----------
    pattern
        `*.csv` in the folder itself; `**/*.csv` at any depth.

    Raises
    ------
    FileNotFoundError
        If there is no such local folder; an object store has no folders that could be missing.
    """
    now = time.time()
    if isinstance(folder, Path):
        if not folder.is_dir():
            raise FileNotFoundError(f"No folder {folder}.")
        facts = [(path.relative_to(folder).as_posix(), path.stat()) for path in folder.glob(pattern) if path.is_file()]
        return sorted((FoundFile(name, fact.st_size, now - fact.st_mtime) for name, fact in facts), key=_name)
    import pyarrow.fs
    from deltalake.fs import DeltaStorageHandler

    store = pyarrow.fs.PyFileSystem(DeltaStorageHandler(folder))
    infos = store.get_file_info(pyarrow.fs.FileSelector("", recursive=True, allow_not_found=True))
    files = [info for info in infos if info.type == pyarrow.fs.FileType.File]
    found = [FoundFile(info.path.lstrip("/"), info.size, now - info.mtime.timestamp()) for info in files]
    return sorted((file for file in found if _matches(file.name, pattern)), key=_name)


def read_file(
    path: Path | str, format: FileFormat | None = None, null_values: Sequence[str] = ("", "NA")
) -> pl.DataFrame:
    """Read a local file or the URI of an object whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the format is not given and not told by the suffix, or the file is not of that format.
    """
    absent = f"No file {path}. Put it there, or correct the path in the table's defs.yaml."
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(absent)
    # `.csv.gz` is a CSV file too: Polars unpacks it.
    suffixes = PurePosixPath(str(path)).suffixes
    found = format or next((_BY_SUFFIX[suffix] for suffix in reversed(suffixes) if suffix in _BY_SUFFIX), None)
    if found is None:
        raise ValueError(f"{path}: the suffix does not tell the format; say format: csv, parquet or jsonl.")
    try:
        if found == "csv":
            rows = pl.scan_csv(path, infer_schema=False, null_values=list(null_values))
        elif found == "parquet":
            rows = pl.scan_parquet(path, hive_partitioning=False)
        else:
            rows = pl.scan_ndjson(path, infer_schema_length=None)
        return rows.collect()
    except FileNotFoundError:
        raise FileNotFoundError(absent) from None
    except pl.exceptions.NoDataError:
        return pl.DataFrame()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read as {found}: {error}") from error


def _matches(name: str, pattern: str) -> bool:
    """Match a path as `Path.glob` does, of which `fnmatch` knows neither the folders nor `**/`."""
    if "**/" in pattern:
        return fnmatch(PurePosixPath(name).name, pattern.rpartition("**/")[2])
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)


def _name(file: FoundFile) -> str:
    return file.name
