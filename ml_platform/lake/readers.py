"""Reads files as rows: CSV as text, which the contract converts, Parquet and JSON lines with their own types."""

import gzip
import io
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import polars as pl

from ml_platform.lake.source_spec import FileFormat, Files, SourceSpec
from ml_platform.lake.unreadable import cut_off_line, single_column, why_not_csv, why_not_json_lines

if TYPE_CHECKING:
    import pyarrow.fs

_BY_SUFFIX: dict[str, FileFormat] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_AGAIN = r"_duplicated_\d+$"  # suffix that Polars adds to a repeated name of a header
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
        found = [FoundFile(path.relative_to(folder).as_posix(), path.stat().st_mtime_ns // 1000) for path in paths]
    else:
        import pyarrow.fs

        infos = _store(folder).get_file_info(pyarrow.fs.FileSelector("", recursive=True, allow_not_found=True))
        files = [info for info in infos if info.type == pyarrow.fs.FileType.File]
        found = [FoundFile(info.path.lstrip("/"), info.mtime_ns // 1000) for info in files]
    shown = [file for file in found if _matches(file.name.split("/"), pattern.split("/")) and not _is_hidden(file.name)]
    return sorted(shown, key=lambda file: file.name)


def changed_at(folder: Path | str, name: str) -> int:
    """When a file of a folder was last changed, in microseconds since 1970; 0 if it is gone."""
    if isinstance(folder, Path):
        path = folder / name
        return path.stat().st_mtime_ns // 1000 if path.exists() else 0
    return (_store(folder).get_file_info(name).mtime_ns or 0) // 1000


def read_rows(spec: SourceSpec, path: Path | str) -> pl.DataFrame:
    """Read a file of a declared table; nullable columns that no JSON object has are null.

    Raises
    ------
    FileNotFoundError, ValueError
        See `read_file`.
    """
    files = spec.file or spec.folder or Files()
    rows = spec.take(read_file(path, files))
    if file_format(path, files) != "jsonl" or not rows.columns:
        return rows
    columns = spec.schema_class().columns().items()
    # With one fraction in it, Polars reads a whole column as floats, which rounds large integers.
    rounded = [name for name, column in columns if column.dtype.is_integer() and rows.schema.get(name) == pl.Float64]
    if rounded:
        rows = spec.take(read_file(path, files, as_text=rounded))
    absent = {name: column.dtype for name, column in columns if column.nullable and name not in rows.columns}
    return rows.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in absent.items())


def read_file(path: Path | str, files: Files | None = None, *, as_text: Sequence[str] = ()) -> pl.DataFrame:
    """Read a local file, or the object at a URI; an empty file has no columns, unless it is Parquet.

    Parameters
    ----------
    as_text
        Columns of JSON lines whose values, of whatever type, are read as texts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the format is neither given nor known by the suffix, or the file is not of that format; with the line.
    """
    files = files or Files()
    absent = f"No file {path}. Put it there, or correct the path in the table's defs.yaml."
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(absent)
    kind = file_format(path, files)
    try:
        if kind == "csv":
            return _read_csv(path, files)
        if kind == "parquet":
            return pl.scan_parquet(path, hive_partitioning=False, glob=False).collect()
        texts = dict.fromkeys(as_text, pl.String)
        return pl.scan_ndjson(path, infer_schema_length=None, schema_overrides=texts).collect()
    except FileNotFoundError:
        raise FileNotFoundError(absent) from None
    except pl.exceptions.NoDataError:
        return pl.DataFrame()
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        if kind == "jsonl" and not file_bytes(path).strip():
            return pl.DataFrame()
        raise ValueError(f"{path} cannot be read as {kind}: {_why(path, kind, files) or error}.") from error


def file_format(path: Path | str, files: Files) -> FileFormat:
    """Format of a file, as declared or by its suffix (raises ValueError if neither says it)."""
    # `.csv.gz` is a CSV file too: Polars unpacks it.
    suffixes = PurePosixPath(str(path).lower()).suffixes
    found = files.format or next((_BY_SUFFIX[suffix] for suffix in reversed(suffixes) if suffix in _BY_SUFFIX), None)
    if found is None:
        raise ValueError(f"{path}: the suffix does not tell the format; say format: csv, parquet or jsonl.")
    return found


def _read_csv(path: Path | str, files: Files) -> pl.DataFrame:
    # Polars reads only UTF-8.
    source = path if files.encoding == "utf-8" else io.BytesIO(file_bytes(path).decode(files.encoding).encode())
    rows = pl.scan_csv(
        source,
        infer_schema=False,
        null_values=list(files.null_values),
        separator=files.separator,
        glob=False,
    ).collect()
    if len(rows.columns) == 1 and (hint := single_column(rows.columns[0])):
        raise ValueError(f"{path} cannot be read as csv: {hint}.")
    repeated = [name for name in rows.columns if re.sub(_AGAIN, "", name) in set(rows.columns) - {name}]
    if repeated:
        names = ", ".join(sorted({re.sub(_AGAIN, "", name) for name in repeated}))
        raise ValueError(f"{path} cannot be read as csv: its header has the same name more than once: {names}.")
    if rows.width > 1 and rows[rows.columns[-1]].has_nulls():
        cut = cut_off_line(file_bytes(path), files.encoding, files.separator, rows.width)
        if cut is not None:
            raise ValueError(f"{path} cannot be read as csv: {cut}.")
    return rows


def file_bytes(path: Path | str) -> bytes:
    """Read a file's bytes, decompressed if it is gzipped."""
    if isinstance(path, Path):
        content = path.read_bytes()
    else:
        folder, _, name = path.rpartition("/")
        with _store(folder).open_input_file(name) as opened:
            content = opened.read()
    return gzip.decompress(content) if content.startswith(_GZIP) else content


def _why(path: Path | str, kind: FileFormat, files: Files) -> str | None:
    if kind == "parquet":
        return None
    try:
        content = file_bytes(path)
    except (OSError, EOFError) as error:
        return str(error)
    return why_not_csv(content, files.encoding, files.separator) if kind == "csv" else why_not_json_lines(content)


def _store(folder: str) -> "pyarrow.fs.FileSystem":
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
