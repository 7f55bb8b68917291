"""Guesses a whole source table from a file or a folder, for a person to review: how it is read, and its columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import polars as pl
import yaml

from ml_platform.lake.sources.contract_inference import columns_of
from ml_platform.lake.sources.csv_reader import read_start
from ml_platform.lake.sources.dialect_inference import guess_dialect
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.inference_notes import notes_of
from ml_platform.lake.sources.source_spec import SourceSpec, resolve
from ml_platform.lake.sources.stored_files import list_folder
from ml_platform.printable import plain

_MOST_FILES = 50  # of a folder that are looked at


@dataclass(frozen=True)
class GuessedSource:
    """A source as it was guessed.

    Attributes
    ----------
    kind
        Key of the source in a `SourceTable`: file, folder or sql.
    source
        What stands under that key.
    columns
        The contract, as a `SourceTable` lists it.
    notes
        What its owner should know of the guess, in sentences.
    has_unlisted
        Whether the source has further columns, which are left out.
    """

    kind: Literal["file", "folder", "sql"]
    source: dict[str, Any]
    columns: dict[str, Any]
    notes: Sequence[str] = ()
    has_unlisted: bool = False

    def attributes(self, table: str, owner: str) -> dict[str, Any]:
        """Give the attributes of the `SourceTable` of the table raw/<table>, which are valid (raises ValueError)."""
        attributes: dict[str, Any] = {
            "name": f"raw/{table}",
            "description": f"What a row of {table} is.",
            "owner": owner,
            self.kind: self.source,
            "columns": self.columns,
            **({"unlisted": "drop"} if self.has_unlisted else {}),
        }
        SourceSpec.model_validate(attributes)
        return attributes

    def document(self, type_name: str, table: str, owner: str) -> str:
        """Write the `defs.yaml` of the table, with the notes as comments above it (raises ValueError)."""
        document = {"type": type_name, "attributes": self.attributes(table, owner)}
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        return "".join(f"# {plain(note)}\n" for note in self.notes) + text


def guess_source(path: str, kind: Literal["file", "folder"] = "file") -> GuessedSource:
    """Guess how a file or a folder of files is read, and its columns.

    Parameters
    ----------
    path
        As `resolve` takes it: relative to the project's root, absolute, or a URI.
    kind
        `folder` declares the folder that a file is in; a folder is always declared as one.

    Raises
    ------
    FileNotFoundError
        When there is nothing of that name.
    ValueError
        When no table can be made of it: it is empty, has a header alone, or its files differ.
    """
    place = resolve(path)
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"no file or folder {place}; a path starts at the project's root, or with /")
    is_folder = place.is_dir() if isinstance(place, Path) else not PurePosixPath(place).suffix
    if is_folder:
        pattern, found = _files_in(place)
        paths = [place / name if isinstance(place, Path) else f"{place}/{name}" for name in found]
        kind, source = "folder", {"path": path, "pattern": pattern}
    else:
        paths, source = [place], {"path": path}
        if kind == "folder":
            source = {"path": str(Path(path).parent), "pattern": f"*{Path(path).suffix}"}
    paths = [file for file in paths if read_start(file, 1)]
    if not paths:
        raise ValueError(f"{place} is empty: there is nothing to guess from")
    dialect = guess_dialect(paths[0])
    files, notes = dialect.files, list(dialect.notes)
    notes += _notes_of_last_lines(paths, files)
    frames = [read_file(file, files) for file in paths]
    differing = [file for file, frame in zip(paths, frames, strict=True) if frame.schema != frames[0].schema]
    if differing:
        raise ValueError(f"{differing[0]} has other columns than {paths[0]}: scaffold from one of them by --path")
    rows = pl.concat(frames)
    if not rows.columns:
        raise ValueError(f"{place} is empty: there is nothing to guess from")
    if rows.is_empty():
        names = ", ".join(rows.columns)[:200]
        raise ValueError(
            f"{place} has a header ({names}) and no rows, of which types could be guessed: give one with rows"
        )
    columns = columns_of(rows)
    if files.header == "none":
        first = " ".join(", ".join(map(str, rows.row(0))).split())
        notes.append(f"The first line looks like a row ({first[:80]}): give the columns names.")
    if omitted := [name or "(no name)" for name in rows.columns if name not in columns]:
        notes.append(f"Columns are left out that have no name, or no type here: {', '.join(omitted)}.")
    notes += notes_of(rows, columns)
    if not columns:
        raise ValueError(
            f"{place} has no column with a name and a type that a table can have: {', '.join(rows.columns)}"
        )
    return GuessedSource(
        kind=kind,
        source=source | files.model_dump(mode="json", exclude_defaults=True),
        columns=columns,
        notes=notes,
        has_unlisted=bool(omitted),
    )


def _notes_of_last_lines(paths: Sequence[Path | str], files: Files) -> list[str]:
    """Notes of the further files' last lines; refuses files of which only some end in lines that are no rows."""
    notes = []
    for path in paths[1:]:
        other = guess_dialect(path)
        if other.files.skip_last_lines != files.skip_last_lines:
            raise ValueError(
                f"{path} ends in {other.files.skip_last_lines} lines that look like no rows (totals, footers), "
                f"{paths[0]} in {files.skip_last_lines}: scaffold from one of them by --path and --kind folder, and "
                "have the files end alike, as skip_last_lines is one for all"
            )
        notes += [f"{path}: {note}" for note in other.notes if note.startswith("The last line ")]
    return notes


def _files_in(folder: Path | str) -> tuple[str, list[str]]:
    """Give the pattern of a folder's files, and the names of some of them, evenly spread."""
    for depth in ("", "**/"):
        names = [file.name for file in list_folder(folder, f"{depth}*")]
        suffixes = {"".join(PurePosixPath(name).suffixes[-2:]) for name in names if "." in name}
        suffixes = {suffix if suffix.endswith(".gz") else PurePosixPath(suffix).suffix or suffix for suffix in suffixes}
        if len(suffixes) > 1:
            raise ValueError(f"{folder} has files of several kinds ({', '.join(sorted(suffixes))}): give one by --path")
        if names:
            step = -(-len(names) // _MOST_FILES)
            return f"{depth}*{suffixes.pop() if suffixes else ''}", names[::step]
    raise ValueError(f"{folder} has no files")
